/** Hosts that no agent may reach unless the file opens them, in every spelling; `*.test` names are for `egress.hosts`. */

/** The fixed addresses of the names among them. */
export const forbiddenNames = {
  "inside.test": ["127.0.0.1"],
  "meta.test": ["169.254.169.254"],
  "mapped.test": ["::ffff:127.0.0.1"],
} as const;

/** This machine. */
export const loopbackHosts: readonly string[] = [
  "127.0.0.1",
  "127.1.2.3",
  "[::1]",
  "0.0.0.0",
  "[::]",
  "[::ffff:127.0.0.1]",
  "[::127.0.0.1]",
  "2130706433",
  "0x7f000001",
  "0177.0.0.1",
  "127.1",
  "0x7f.1",
  "localhost",
  "inside.test",
  "mapped.test",
];

/** Metadata services, multicast and the like, plain and embedded. */
export const specialHosts: readonly string[] = [
  "169.254.169.254",
  "[fe80::1]",
  "[fd00:ec2::254]",
  "168.63.129.16",
  "100.100.100.200",
  "192.0.0.192",
  "224.0.0.1",
  "255.255.255.255",
  "meta.test",
  "[64:ff9b::a9fe:a9fe]",
  "[64:ff9b:1::a9fe:a9fe]",
  "[2002:a9fe:a9fe::1]",
  "[2001:0:a9fe:a9fe::1]",
  "[::ffff:169.254.169.254]",
];

/** Closed by `egress.private_networks: deny`. */
export const privateHosts: readonly string[] = [
  "10.0.0.1",
  "192.168.1.1",
  "172.16.0.1",
  "[fc00::1]",
];
