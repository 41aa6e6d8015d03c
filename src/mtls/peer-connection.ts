/** One open connection to a peer, from the end of its handshake on. */
import { hash } from "node:crypto";
import type { TLSSocket } from "node:tls";
import type { ClientTls } from "../pipeline/flow.ts";
import type { PeerRefusal, VerifiedPeer } from "./peer-trust.ts";

/** What carries a tunnel: the connection, or a stream of it. */
export interface Carrier {
  destroy(): unknown;
}

/** It ends by itself, or when its peer is no longer trusted. */
export class PeerConnection {
  readonly kind = "connection";
  readonly tls: ClientTls;
  readonly peer: VerifiedPeer;
  readonly #socket: TLSSocket;
  #exchanges = 0;
  /** Exchanges that became tunnels, by what carries them. */
  readonly #tunnels = new Set<Carrier>();
  /** Set where streams of HTTP/2 run on it; `close` ends it after them. */
  #session: { close(): void } | undefined;
  #revoked: PeerRefusal | undefined;

  constructor(socket: TLSSocket, peer: VerifiedPeer) {
    this.#socket = socket;
    this.peer = peer;
    // False where the client named none.
    const { servername: named } = socket as { readonly servername?: string | false };
    this.tls = Object.freeze({
      certificateThumbprint: hash("sha256", peer.leaf.raw, "base64url"),
      certificate: peer.leaf.toString(),
      ...(typeof named === "string" ? { serverName: named } : {}),
      peer: {
        spiffeId: peer.id.text,
        version: (socket.getProtocol() ?? "").replace("TLSv", "TLS "),
        cipherSuite: socket.getCipher().standardName,
      },
    });
  }

  get id(): string {
    return this.peer.id.text;
  }

  /** Why nothing more is served on it, or undefined. */
  get revoked(): PeerRefusal | undefined {
    return this.#revoked;
  }

  /** HTTP/2 is spoken on it. */
  carries(session: { close(): void }): void {
    this.#session = session;
  }

  /** An exchange begins on it, or a tunnel on what is given; the function that is returned says that this is over. */
  begin(tunnel?: Carrier): () => void {
    this.#exchanges += 1;
    if (tunnel !== undefined) this.#tunnels.add(tunnel);
    return () => {
      this.#exchanges -= 1;
      if (tunnel !== undefined) this.#tunnels.delete(tunnel);
      // The response may still be on its way out; a session that is closing waits for it by itself.
      if (this.#exchanges === 0 && this.#revoked !== undefined && this.#session === undefined)
        this.#socket.destroySoon();
    };
  }

  /** Ends it: tunnels at once, and itself where nothing else runs on it, or after its exchanges or after `graceMs`. */
  revoke(why: PeerRefusal, graceMs: number): void {
    if (this.#revoked !== undefined) return;
    this.#revoked = why;
    if (this.#exchanges === this.#tunnels.size) {
      this.#socket.destroy();
      return;
    }
    for (const tunnel of this.#tunnels) tunnel.destroy();
    this.#session?.close();
    const timer = setTimeout(() => this.#socket.destroy(), graceMs).unref();
    this.#socket.once("close", () => clearTimeout(timer));
  }
}
