/** A DNS server on loopback that knows some names and is silent about the others (RFC 1035 section 4). */
import { createSocket } from "node:dgram";

/** The running server. */
export interface DnsServer {
  /** As `egress.dns_servers` takes it. */
  readonly address: string;
  /** Every name that was asked for. */
  readonly asked: ReadonlySet<string>;
  /** Names that were asked for and not answered. */
  readonly unanswered: ReadonlySet<string>;
  close(): void;
}

/** Answers questions for an IPv4 address of these names, and says of their other records that there are none. */
export async function dnsServer(
  known: Pick<ReadonlyMap<string, string>, "get">,
): Promise<DnsServer> {
  const socket = createSocket("udp4");
  const asked = new Set<string>();
  const unanswered = new Set<string>();
  socket.on("message", (query, from) => {
    const { name, end } = questionOf(query);
    asked.add(name);
    const address = known.get(name);
    if (address === undefined) {
      unanswered.add(name);
      return;
    }
    const isV4 = query.readUInt16BE(end) === 1;
    const head = Buffer.alloc(12);
    query.copy(head, 0, 0, 2);
    head.writeUInt16BE(0x8180, 2);
    head.writeUInt16BE(1, 4);
    head.writeUInt16BE(isV4 ? 1 : 0, 6);
    const question = query.subarray(12, end + 4);
    // A pointer to the name of the question, type A, class IN, a minute, four bytes.
    const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    const answer = isV4 ? [record, Buffer.from(address.split(".").map(Number))] : [];
    socket.send(Buffer.concat([head, question, ...answer]), from.port, from.address);
  });
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${socket.address().port}`,
    asked,
    unanswered,
    close: () => void socket.close(),
  };
}

function questionOf(query: Buffer): { readonly name: string; readonly end: number } {
  const labels: string[] = [];
  let at = 12;
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.toString("latin1", at + 1, at + 1 + length));
    at += 1 + length;
  }
  return { name: labels.join(".").toLowerCase(), end: at + 1 };
}
