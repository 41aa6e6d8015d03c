/** How a connection begins that is of another protocol than HTTP/1.1. */
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";

/** The part of HTTP/2's connection preface that looks like a head, as the reader gives it: without its empty line. */
export const prefaceHead = "PRI * HTTP/2.0\r\n";
export const preface = `${prefaceHead}\r\n`;

/** Inside TLS it is what ALPN says (RFC 9113 section 3.2). */
export function mayBeHttp2(socket: Socket): boolean {
  return !(socket instanceof TLSSocket) || socket.alpnProtocol === "h2";
}

/** The versions of SOCKS, none of which a request begins with. */
export function isSocks([version]: Buffer): boolean {
  return version === 4 || version === 5;
}
