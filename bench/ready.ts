/** The one line by which a child process tells the harness that it listens, and on which ports. */
export function announce(ports: Readonly<Record<string, number>>): void {
  process.stdout.write(`${JSON.stringify({ ready: true, ports })}\n`);
}

/** The port of a listening server; throws where there is none. */
export function portOf(server: { address(): unknown }): number {
  const address = server.address();
  if (typeof address === "object" && address !== null && "port" in address) {
    return Number(address.port);
  }
  throw new Error("server has no port");
}
