/** A bound address with an HTTP server behind it: limits, malformed input, connection tracking, graceful close. */
import type * as Http from "node:http";
import type { AddressInfo, Server, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { ProxyError } from "../errors.ts";
import { http } from "../net/node-http.ts";
import { answerClientError, answerLast } from "../proxy/exchange/last-answer.ts";
import { renderDenial } from "../proxy/flow/reply.ts";
import { hasBody } from "../proxy/exchange/request-head.ts";
import { Turns } from "../proxy/exchange/turns.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { TlsFront, type TlsMaterial } from "./tls-front.ts";

/** An address as the file spells it: `:8081`, `127.0.0.1:0`, `[::1]:8081`. */
export interface BindAddress {
  /** `0.0.0.0` for every IPv4 address. */
  readonly host: string;
  readonly port: number;
}

/** Limits of one listener. Bytes and milliseconds. */
export interface ListenerLimits {
  readonly maxConnections: number;
  readonly maxHeaderBytes: number;
  readonly maxHeaders: number;
  readonly headerTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly maxRequestsPerConnection: number;
}

/** What a surface does with what arrives. Handlers never throw and never reject. */
export interface ListenerHandlers {
  onRequest(request: Http.IncomingMessage, response: Http.ServerResponse): void;
  onConnect(request: Http.IncomingMessage, client: Socket, head: Buffer): void;
  /** Whether an Upgrade is one that `onUpgrade` can carry; every other one is ignored (RFC 9110 section 7.8). */
  carriesUpgrade(request: Http.IncomingMessage): boolean;
  onUpgrade(request: Http.IncomingMessage, client: Socket, head: Buffer): void;
}

/** One listener of the data plane. */
export class Listener {
  readonly #server: Http.Server;
  readonly #limits: ListenerLimits;
  readonly #metrics: Metrics;
  /**
   * Open connections, each with its latest response: an error answer must not be written into one that is not finished.
   * Not a WeakMap: one that changes with every request costs the collector a tenth of the throughput.
   */
  readonly #connections = new Map<Duplex, Http.ServerResponse | undefined>();
  /** Connections that carry a tunnel or an upgrade, whose owner ends them. */
  readonly #handedOver = new WeakSet<Duplex>();
  readonly #turns = new Turns();
  /** What accepts connections: the HTTP server, or TLS in front of it. */
  readonly #acceptor: Server;
  readonly #front: TlsFront | undefined;
  #adopts = false;
  #draining = false;

  /** With `tls` the listener speaks TLS; throws when the material is no certificate with its key. */
  constructor(
    handlers: ListenerHandlers,
    limits: ListenerLimits,
    metrics: Metrics,
    tls?: TlsMaterial,
  ) {
    this.#limits = limits;
    this.#metrics = metrics;
    this.#server = http.createServer({
      noDelay: true,
      keepAlive: true,
      maxHeaderSize: limits.maxHeaderBytes,
      headersTimeout: limits.headerTimeoutMs,
      // Uploads may take long; a body that stops moving is let go by the stall watch instead.
      requestTimeout: 0,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      connectionsCheckingInterval: Math.max(50, Math.min(5_000, limits.headerTimeoutMs / 4)),
      // Checked with the rest of the framing, so that the refusal is our JSON.
      requireHostHeader: false,
      insecureHTTPParser: false,
      // An answer of 64 KiB would otherwise stop its upstream for one turn of the loop, at a third of the throughput.
      highWaterMark: 262_144,
      // A body would be taken for the first bytes of the new protocol.
      shouldUpgradeCallback: (request) => !hasBody(request) && handlers.carriesUpgrade(request),
    });
    this.#server.maxHeadersCount = limits.maxHeaders + 1;
    this.#server.maxRequestsPerSocket = limits.maxRequestsPerConnection;
    this.#server.on("connection", (socket: Socket) => this.#onConnection(socket));
    const onRequest = (request: Http.IncomingMessage, response: Http.ServerResponse): void => {
      if (!this.#track(request.socket, response)) return;
      this.#turns.take(request, response, () => handlers.onRequest(request, response));
    };
    this.#server.on("request", onRequest);
    this.#server.on("checkContinue", onRequest);
    this.#server.on("checkExpectation", (_request, response: Http.ServerResponse) => {
      const denial = {
        code: "request.expectation-failed",
        message: "only Expect: 100-continue is understood",
      };
      const reply = renderDenial(denial);
      response.writeHead(reply.status, { ...reply.headers, Connection: "close" });
      response.end(reply.body);
    });
    this.#server.on("connect", (request, socket, head) => {
      if (this.#handOver(socket)) handlers.onConnect(request, socket as Socket, head);
    });
    this.#server.on("upgrade", (request, socket, head) => {
      if (this.#handOver(socket)) handlers.onUpgrade(request, socket as Socket, head);
    });
    this.#server.on("clientError", (error, socket) => this.#onClientError(error, socket));
    this.#front = tls === undefined ? undefined : this.#makeFront(tls);
    this.#acceptor = this.#front?.server ?? this.#server;
  }

  /** Other key material for new connections; throws, and keeps what it has, when it is no good. */
  renewTls(material: TlsMaterial): void {
    this.#front?.renew(material);
  }

  #makeFront(material: TlsMaterial): TlsFront {
    const { maxConnections, headerTimeoutMs: handshakeTimeoutMs } = this.#limits;
    return new TlsFront(
      material,
      { maxConnections, handshakeTimeoutMs },
      {
        onSecure: (socket) => {
          this.#metrics.tls.clientHandshake(socket.authorized ? "verified" : "unverified");
          this.adopt(socket);
        },
        onRefused: (why) => {
          if (why === "malformed") this.#metrics.tls.clientHandshake("failed");
          this.#metrics.refused(why);
        },
      },
    );
  }

  /** Serves a connection that something else accepted, and whose first bytes may have been put back into it. */
  adopt(socket: Socket): void {
    // Node starts its check of header and keep-alive time-outs with `listening`, and this server may never listen.
    if (!this.#server.listening && !this.#adopts) this.#server.emit("listening");
    this.#adopts = true;
    this.#server.emit("connection", socket);
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Binds and resolves with the address that was bound; rejects with `listener.unavailable` when it is taken. */
  bind(address: BindAddress): Promise<BindAddress> {
    return new Promise((resolve, reject) => {
      const onError = (error: Error): void => {
        const message = `${address.host}:${address.port} cannot be listened on: ${error.message}`;
        reject(new ProxyError("listener.unavailable", message, { cause: error }));
      };
      this.#acceptor.once("error", onError);
      this.#acceptor.listen({ host: address.host, port: address.port, backlog: 1_024 }, () => {
        this.#acceptor.removeListener("error", onError);
        // EMFILE while accepting is an `error` event: it must not take the process down.
        this.#acceptor.on("error", () => this.#metrics.refused("connections"));
        const bound = this.#acceptor.address() as AddressInfo;
        resolve({ host: bound.address, port: bound.port });
      });
    });
  }

  /** Stops accepting, lets running exchanges finish until the deadline, then cuts what is left. */
  async close(deadlineMs: number): Promise<void> {
    this.#draining = true;
    const closed = new Promise<void>((resolve) => {
      this.#acceptor.close(() => resolve());
    });
    for (const [socket, latest] of this.#connections) {
      if (this.#handedOver.has(socket)) continue;
      if (latest === undefined || latest.writableFinished) socket.destroy();
      else if (!latest.headersSent) latest.shouldKeepAlive = false;
    }
    const cut = setTimeout(() => {
      for (const socket of this.#connections.keys()) socket.destroy();
    }, deadlineMs);
    await closed;
    clearTimeout(cut);
  }

  #onConnection(socket: Socket): void {
    if (this.#connections.size >= this.#limits.maxConnections) {
      this.#metrics.refused("connections");
      const denial = {
        code: "proxy.overloaded",
        message: "too many connections (limits.max_connections)",
      };
      answerLast(socket, denial);
      return;
    }
    this.#connections.set(socket, undefined);
    socket.once("close", () => this.#connections.delete(socket));
  }

  /** False for a connection that was refused: what it sends is not served. */
  #track(socket: Socket, response: Http.ServerResponse): boolean {
    if (this.#draining) response.shouldKeepAlive = false;
    if (!this.#connections.has(socket)) return false;
    this.#connections.set(socket, response);
    return true;
  }

  /** False, and cut, when the connection cannot change its protocol: it was refused, or owes an answer. */
  #handOver(socket: Duplex): boolean {
    const isFree =
      this.#connections.has(socket) && this.#connections.get(socket)?.writableFinished !== false;
    if (isFree) {
      this.#handedOver.add(socket);
    } else {
      socket.on("error", ignore);
      socket.destroy();
    }
    return isFree;
  }

  /** What llhttp or a time-out refused before there was a request. */
  #onClientError(error: NodeJS.ErrnoException, socket: Duplex): void {
    const denial = answerClientError(error, socket, this.#connections.get(socket));
    this.#metrics.refused(denial.code === "request.timeout" ? "timeout" : "malformed");
  }
}

function ignore(): void {
  // The connection is being closed anyway.
}
