/** Refusals of captured connections: the client knows of no proxy, so they are in its own protocol. */
import { cutOff } from "../../net/cut.ts";
import type { TunnelReplies } from "./request.ts";

/** RFC 8446 section 6: a fatal (2) access_denied (49) alert in a plaintext record, which every TLS client reads. */
const accessDenied: Readonly<Uint8Array> = Uint8Array.of(21, 3, 3, 0, 2, 2, 49);

/** For a client that has sent a ClientHello. */
export const tlsReplies: TunnelReplies = {
  established: () => undefined,
  refused: (client) => {
    if (client.writable) client.write(accessDenied);
  },
};

/** For a client of a protocol that we do not know: the connection is reset. */
export const rawReplies: TunnelReplies = {
  established: () => undefined,
  refused: (client) => {
    cutOff(client);
  },
};
