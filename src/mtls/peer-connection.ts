/** One open connection to a peer, from the end of its handshake on. */
import { hash } from "node:crypto";
import type { TLSSocket } from "node:tls";
import type { ClientTls } from "../pipeline/flow.ts";
import type { PeerRefusal, VerifiedPeer } from "./peer-trust.ts";

/** It ends by itself, or when its peer is no longer trusted. */
export class PeerConnection {
  readonly kind = "connection";
  readonly tls: ClientTls;
  readonly peer: VerifiedPeer;
  readonly #socket: TLSSocket;
  #exchanges = 0;
  #carriesTunnel = false;
  #revoked: PeerRefusal | undefined;

  constructor(socket: TLSSocket, peer: VerifiedPeer) {
    this.#socket = socket;
    this.peer = peer;
    this.tls = Object.freeze({
      certificateThumbprint: hash("sha256", peer.leaf.raw, "base64url"),
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

  /** An exchange begins on it, or it becomes a tunnel; the function that is returned says that this is over. */
  begin(isTunnel: boolean): () => void {
    this.#exchanges += 1;
    if (isTunnel) this.#carriesTunnel = true;
    return () => {
      this.#exchanges -= 1;
      // The response may still be on its way out.
      if (this.#exchanges === 0 && this.#revoked !== undefined) this.#socket.destroySoon();
    };
  }

  /** Ends it: at once where it is idle or a tunnel, else after its exchanges or after `graceMs`. */
  revoke(why: PeerRefusal, graceMs: number): void {
    if (this.#revoked !== undefined) return;
    this.#revoked = why;
    if (this.#exchanges === 0 || this.#carriesTunnel) {
      this.#socket.destroy();
      return;
    }
    const timer = setTimeout(() => this.#socket.destroy(), graceMs).unref();
    this.#socket.once("close", () => clearTimeout(timer));
  }
}
