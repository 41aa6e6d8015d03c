/** Mutual TLS in front of a listener, which may serve plain connections beside it. */
import { constants } from "node:crypto";
import type { Server, Socket } from "node:net";
import tls, { type TLSSocket } from "node:tls";
import type { PeerGate } from "../mtls/peer-gate.ts";
import {
  handshakeRefusal,
  type PeerContext,
  type PeerRefusal,
  refusal,
} from "../mtls/peer-trust.ts";
import { looksLikeTls } from "../net/client-hello.ts";
import { peek } from "../net/sniff.ts";
import { serverProfile } from "../net/tls-profile.ts";
import type { Http2Sessions } from "../proxy/exchange/http2-sessions.ts";
import { acceptWithin } from "./bind.ts";
import { mayEndFirst, shakeHands, type TlsFrontLimits } from "./tls-front.ts";

/** How peers are taken in. */
export interface PeerFrontOptions {
  readonly kind: "peers";
  readonly gate: PeerGate;
  /** permissive: what is no TLS is served as it is. strict: it is closed. */
  readonly mode: "permissive" | "strict";
  /** Serves connections on which h2 is negotiated. */
  readonly http2: Http2Sessions;
}

/** Callbacks for connections. */
export interface PeerFrontEvents {
  /** A connection that may be served as HTTP/1.1: one of mutual TLS, or a plain one. */
  onServed(socket: Socket): void;
  onVerified(): void;
  /** One that ended before it could be served, other than by a handshake. */
  onRefused(why: "connections" | "malformed" | "timeout"): void;
  onFailed(): void;
}

/** What a stranger has to say something in. */
const longestSilenceMs = 5_000;

/** Handshakes that are made with one context. */
interface Handshakes {
  readonly kind: "handshakes";
  readonly context: PeerContext;
  /** Does not listen: it is given connections whose first byte was looked at. */
  readonly server: tls.Server;
}

/** Accepts connections, looks at their first byte, and hands on those that may be served. */
export class PeerFront {
  readonly server: Server;
  readonly #options: PeerFrontOptions;
  readonly #limits: TlsFrontLimits;
  readonly #events: PeerFrontEvents;
  /** Connections that are not served yet, by their peer's address: TLS hides the socket that it stands on. */
  readonly #unserved = new Map<string, Socket>();
  #handshakes: Handshakes | undefined;

  constructor(options: PeerFrontOptions, limits: TlsFrontLimits, events: PeerFrontEvents) {
    this.#options = options;
    this.#limits = limits;
    this.#events = events;
    this.server = acceptWithin(
      limits,
      (socket) => void this.#arrived(socket),
      () => events.onRefused("connections"),
    );
  }

  /** Connections of HTTP/2 that are open now. */
  get connections(): number {
    return this.#options.http2.connections;
  }

  /** Ends what is not served yet, and sessions after their streams. */
  drain(): void {
    for (const socket of this.#unserved.values()) socket.destroy();
    this.#options.http2.drain();
  }

  /** Cuts sessions that are still open. */
  cut(): void {
    this.#options.http2.close();
  }

  /** Each connection waits for its own first byte: a silent one keeps nobody else from being served. */
  async #arrived(socket: Socket): Promise<void> {
    socket.on("error", ignore);
    const address = addressOf(socket);
    this.#unserved.set(address, socket);
    socket.once("close", () => {
      if (this.#unserved.get(address) === socket) this.#unserved.delete(address);
    });
    const limitMs = Math.min(this.#limits.handshakeTimeoutMs, longestSilenceMs);
    const first = await peek(socket, firstByte, limitMs);
    if (first.kind === "first") {
      this.#begin(socket, first.isTls);
    } else if (first.kind === "timeout") {
      this.#events.onRefused("timeout");
      const message = "the peer said nothing after it had connected";
      this.#options.gate.refuse(refusal("silent", message), socket);
    } else socket.destroy();
  }

  #begin(socket: Socket, isTls: boolean): void {
    const { gate, mode } = this.#options;
    if (isTls) {
      const handshakes = this.#current();
      if (handshakes.kind === "refused") this.#refuse(handshakes, socket);
      else shakeHands(handshakes.server, socket);
    } else if (mode === "permissive") {
      this.#serve(socket);
    } else {
      this.#events.onRefused("malformed");
      const message = "the peer does not speak TLS (mtls.mode: strict)";
      gate.refuse(refusal("plain", message), socket);
    }
  }

  #current(): Handshakes | PeerRefusal {
    const context = this.#options.gate.context();
    if (context.kind === "refused") return context;
    if (this.#handshakes?.context === context) return this.#handshakes;
    const server = tls.createServer({
      ...serverProfile,
      ...context.tls,
      requestCert: true,
      rejectUnauthorized: true,
      handshakeTimeout: this.#limits.handshakeTimeoutMs,
      ALPNProtocols: ["h2", "http/1.1"],
      // A session that is resumed would not be verified again.
      secureOptions: serverProfile.secureOptions | constants.SSL_OP_NO_TICKET,
    });
    server.on("secureConnection", (socket) => this.#secured(mayEndFirst(socket), context));
    server.on("tlsClientError", (error, socket) => {
      this.#refuse(handshakeRefusal(error, socket), socket);
    });
    this.#handshakes = { kind: "handshakes", context, server };
    return this.#handshakes;
  }

  #secured(socket: TLSSocket, context: PeerContext): void {
    socket.on("error", ignore);
    const admitted = this.#options.gate.admit(socket, context);
    if (admitted.kind === "refused") {
      this.#refuse(admitted, socket);
      return;
    }
    this.#events.onVerified();
    if (socket.alpnProtocol === "h2") {
      this.#unserved.delete(addressOf(socket));
      this.#options.http2.serve(socket);
    } else this.#serve(socket);
  }

  #refuse(why: PeerRefusal, socket: Socket): void {
    this.#events.onFailed();
    this.#options.gate.refuse(why, socket);
  }

  #serve(socket: Socket): void {
    this.#unserved.delete(addressOf(socket));
    this.#events.onServed(socket);
  }
}

function firstByte(bytes: Buffer): { readonly kind: "first"; readonly isTls: boolean } {
  return { kind: "first", isTls: looksLikeTls(bytes.subarray(0, 1)) };
}

function addressOf({ remoteAddress = "", remotePort = 0 }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

function ignore(): void {
  // `close` follows.
}
