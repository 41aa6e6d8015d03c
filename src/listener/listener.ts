/** A bound address with an HTTP server behind it, with or without TLS in front, and its graceful close. */
import type { Server, Socket } from "node:net";
import {
  type HttpHandlers,
  type HttpLimits,
  HttpServer,
  type HttpServices,
} from "../proxy/exchange/http-server.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { type BindAddress, listen } from "./bind.ts";
import { PeerFront, type PeerFrontOptions } from "./peer-front.ts";
import { TlsFront, type TlsFrontLimits, type TlsMaterial } from "./tls-front.ts";

/** One listener of the data plane. */
export class Listener {
  readonly #http: HttpServer;
  readonly #limits: HttpLimits;
  readonly #metrics: Metrics;
  /** What accepts connections: the HTTP server, or TLS in front of it. */
  readonly #acceptor: Server;
  readonly #front: TlsFront | undefined;
  readonly #peers: PeerFront | undefined;

  /** With `tls` the listener speaks TLS; throws when the material is no certificate with its key. */
  constructor(
    handlers: HttpHandlers,
    limits: HttpLimits,
    services: HttpServices,
    tls?: TlsMaterial | PeerFrontOptions,
  ) {
    this.#limits = limits;
    this.#metrics = services.recorder.metrics;
    // Behind TLS, a connection has its place before its handshake.
    const own = tls === undefined ? limits : { ...limits, shared: undefined };
    this.#http = new HttpServer(handlers, own, services);
    if (tls?.kind === "peers") this.#peers = this.#makePeerFront(tls);
    else if (tls !== undefined) this.#front = this.#makeFront(tls);
    this.#acceptor = (this.#front ?? this.#peers ?? this.#http).server;
  }

  /** Other key material for new connections; throws, and keeps the present one, when it is invalid. */
  renewTls(material: TlsMaterial): void {
    this.#front?.renew(material);
  }

  #makeFront(material: TlsMaterial): TlsFront {
    return new TlsFront(material, this.#handshakeLimits(), {
      onSecure: (socket) => {
        this.#handshake(socket.authorized ? "verified" : "unverified");
        this.adopt(socket);
      },
      onRefused: (why) => {
        if (why === "malformed") this.#handshake("failed");
        this.#metrics.refused(why);
      },
    });
  }

  #makePeerFront(options: PeerFrontOptions): PeerFront {
    return new PeerFront(options, this.#handshakeLimits(), {
      onServed: (socket) => this.adopt(socket),
      onVerified: () => this.#handshake("verified"),
      onRefused: (why) => this.#metrics.refused(why),
      onFailed: () => {
        this.#handshake("failed");
        this.#metrics.refused("malformed");
      },
    });
  }

  #handshakeLimits(): TlsFrontLimits {
    const { maxConnections, shared, headerTimeoutMs: handshakeTimeoutMs } = this.#limits;
    return { maxConnections, shared, handshakeTimeoutMs };
  }

  #handshake(outcome: "verified" | "unverified" | "failed"): void {
    this.#metrics.counters.client_handshakes_total.of(outcome).value += 1;
  }

  /** Serves a connection that something else accepted, and whose first bytes may have been put back into it. */
  adopt(socket: Socket): void {
    this.#http.adopt(socket);
  }

  /** Serves a connection that something else accepted as if this listener had. */
  take(socket: Socket): void {
    this.#acceptor.emit("connection", socket);
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#http.connections + (this.#peers?.connections ?? 0);
  }

  /** Binds and resolves with the address that was bound; rejects with `listener.unavailable` when it is taken. */
  async bind(address: BindAddress): Promise<BindAddress> {
    const bound = await listen(this.#acceptor, address);
    // EMFILE while accepting is an `error` event: it must not take the process down.
    this.#acceptor.on("error", () => this.#metrics.refused("connections"));
    return bound;
  }

  /** Stops accepting, lets running exchanges finish until the deadline, then cuts what is left. */
  async close(deadlineMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#acceptor.close(() => resolve());
    });
    this.#http.drain();
    this.#peers?.drain();
    const cut = setTimeout(() => {
      this.#http.cut();
      this.#peers?.cut();
    }, deadlineMs);
    await closed;
    clearTimeout(cut);
  }
}
