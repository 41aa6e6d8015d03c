/** How a connection begins that is of another protocol than HTTP/1.1. */
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";

/** The part of HTTP/2's connection preface that looks like a head, as the reader gives it: without its empty line. */
export const prefaceHead = "PRI * HTTP/2.0\r\n";
export const preface = `${prefaceHead}\r\n`;

/** Whether ALPN gave HTTP/2: nothing else is spoken then (RFC 9113 section 3.2). */
export function isNegotiated(socket: Socket): boolean {
  return socket instanceof TLSSocket && socket.alpnProtocol === "h2";
}

/** Whether a preface is one: inside TLS it is not, where ALPN did not say so. */
export function mayBeHttp2(socket: Socket): boolean {
  return !(socket instanceof TLSSocket);
}

/** Who serves a connection, by what was negotiated or by its first byte: a version of SOCKS, as no request begins. */
export function otherProtocol(
  socket: Socket,
  [version]: Buffer,
): "onPreface" | "onSocks" | undefined {
  if (isNegotiated(socket)) return "onPreface";
  return version === 4 || version === 5 ? "onSocks" : undefined;
}
