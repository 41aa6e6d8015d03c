/** Addresses of connections that were accepted. */
const mapped = "::ffff:";

/** The address of a peer as the kernel gives it, in one spelling: a listener on all addresses has those of IPv4 mapped. */
export function peerAddress(text: string): string {
  return text.startsWith(mapped) && text.includes(".") ? text.slice(mapped.length) : text;
}
