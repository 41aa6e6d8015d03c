/** What the TLS of a client's connection proved, read once for each connection. */
import { hash } from "node:crypto";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import type { ClientTls } from "../../pipeline/flow.ts";

const known = new WeakMap<Socket, ClientTls>();

/** Undefined for a connection without TLS. */
export function clientTlsOf(socket: Socket): ClientTls | undefined {
  if (!(socket instanceof TLSSocket)) return undefined;
  const read = known.get(socket);
  if (read !== undefined) return read;
  const certificate = socket.getPeerX509Certificate();
  // False where the client named none.
  const { servername: named } = socket as { readonly servername?: string | false };
  const made: ClientTls = Object.freeze({
    ...(typeof named === "string" ? { serverName: named } : {}),
    ...(certificate === undefined
      ? {}
      : {
          certificateThumbprint: hash("sha256", certificate.raw, "base64url"),
          certificate: certificate.toString(),
        }),
  });
  known.set(socket, made);
  return made;
}
