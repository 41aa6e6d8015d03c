/** The reply of a resolver that knows no name (RFC 1035, section 4.1). */

const headerBytes = 12;
const maxNameBytes = 255;

/** Undefined for what is no query. */
export function noSuchName(query: Buffer): Buffer | undefined {
  const end = endOfQuestion(query);
  if (end === undefined) return undefined;
  const reply = Buffer.from(query.subarray(0, end));
  // A response with the query's opcode and RD; RA, and name error (3).
  reply[2] = (reply[2] ?? 0) | 0x80;
  reply[3] = 0x83;
  // One question, nothing else: what a query carries besides (EDNS) is not echoed.
  reply.writeUInt16BE(1, 4);
  reply.fill(0, 6, headerBytes);
  return reply;
}

function endOfQuestion(query: Buffer): number | undefined {
  if (query.length < headerBytes || ((query[2] ?? 0) & 0x80) !== 0) return undefined;
  if (query.readUInt16BE(4) !== 1) return undefined;
  let at = headerBytes;
  for (;;) {
    const length = query[at];
    if (length === undefined || length > 63 || at - headerBytes > maxNameBytes) return undefined;
    at += length + 1;
    if (length === 0) break;
  }
  return at + 4 <= query.length ? at + 4 : undefined;
}
