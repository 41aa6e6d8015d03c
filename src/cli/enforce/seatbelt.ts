/** The profile of sandbox-exec (macOS) under which a command reaches the proxy and no other address. Best effort: the tool is deprecated. */

/** The command inside the profile. */
export function seatbelted(command: readonly string[], proxyPort: number): readonly string[] {
  return ["sandbox-exec", "-p", profileFor(proxyPort), ...command];
}

/** Last rule first: everything is allowed but the network, of which loopback's port of the proxy is left. */
export function profileFor(proxyPort: number): string {
  return [
    "(version 1)",
    "(allow default)",
    "(deny network*)",
    `(allow network-outbound (remote ip "localhost:${proxyPort}"))`,
    // Servers of the command's own, for itself.
    '(allow network-bind (local ip "localhost:*"))',
    '(allow network-inbound (local ip "localhost:*"))',
  ].join("\n");
}
