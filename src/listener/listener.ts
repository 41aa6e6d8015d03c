/** A bound address with an HTTP server behind it: limits, malformed input, connection tracking, graceful close. */
import http from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { ProxyError } from "../errors.ts";
import { rawReply, renderDenial } from "../proxy/reply.ts";
import type { Metrics } from "../telemetry/metrics.ts";

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
  onRequest(request: http.IncomingMessage, response: http.ServerResponse): void;
  onConnect(request: http.IncomingMessage, client: Socket, head: Buffer): void;
  onUpgrade(request: http.IncomingMessage, client: Socket, head: Buffer): void;
}

/** What is going on on one client connection. */
interface Connection {
  latest: http.ServerResponse | undefined;
  /** Responses that are not finished; more than one where the client pipelines. */
  open: number;
  /** True once it carries a tunnel or an upgrade, whose owner ends it. */
  isHandedOver: boolean;
}

/** One listener of the data plane. */
export class Listener {
  readonly #server: http.Server;
  readonly #limits: ListenerLimits;
  readonly #metrics: Metrics;
  /**
   * Open connections, each with its latest response: an error answer must not be written into one that has begun.
   * Not a WeakMap: one that changes with every request costs the collector a tenth of the throughput.
   */
  readonly #connections = new Map<Duplex, Connection>();
  #draining = false;

  constructor(handlers: ListenerHandlers, limits: ListenerLimits, metrics: Metrics) {
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
    });
    this.#server.maxHeadersCount = limits.maxHeaders + 1;
    this.#server.maxRequestsPerSocket = limits.maxRequestsPerConnection;
    this.#server.on("connection", (socket: Socket) => this.#onConnection(socket));
    const onRequest = (request: http.IncomingMessage, response: http.ServerResponse): void => {
      this.#track(request.socket, response);
      handlers.onRequest(request, response);
    };
    this.#server.on("request", onRequest);
    this.#server.on("checkContinue", onRequest);
    this.#server.on("checkExpectation", (_request, response: http.ServerResponse) => {
      const denial = {
        code: "request.expectation-failed",
        message: "only Expect: 100-continue is understood",
      };
      const reply = renderDenial(denial);
      response.writeHead(reply.status, { ...reply.headers, Connection: "close" });
      response.end(reply.body);
    });
    this.#server.on("connect", (request, socket, head) => {
      this.#handOver(socket);
      handlers.onConnect(request, socket as Socket, head);
    });
    this.#server.on("upgrade", (request, socket, head) => {
      this.#handOver(socket);
      handlers.onUpgrade(request, socket as Socket, head);
    });
    this.#server.on("clientError", (error, socket) => this.#onClientError(error, socket));
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
      this.#server.once("error", onError);
      this.#server.listen({ host: address.host, port: address.port, backlog: 1_024 }, () => {
        this.#server.removeListener("error", onError);
        // EMFILE while accepting is an `error` event: it must not take the process down.
        this.#server.on("error", () => this.#metrics.refused("connections"));
        const bound = this.#server.address() as AddressInfo;
        resolve({ host: bound.address, port: bound.port });
      });
    });
  }

  /** Stops accepting, lets running exchanges finish until the deadline, then cuts what is left. */
  async close(deadlineMs: number): Promise<void> {
    this.#draining = true;
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    for (const [socket, { latest, open, isHandedOver }] of this.#connections) {
      if (isHandedOver) continue;
      if (open === 0) socket.destroy();
      else if (latest?.headersSent === false) latest.shouldKeepAlive = false;
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
      socket.on("error", ignore);
      socket.end(rawReply(renderDenial(denial)));
      socket.destroySoon();
      return;
    }
    this.#connections.set(socket, { latest: undefined, open: 0, isHandedOver: false });
    socket.once("close", () => this.#connections.delete(socket));
  }

  #track(socket: Socket, response: http.ServerResponse): void {
    if (this.#draining) response.shouldKeepAlive = false;
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    connection.latest = response;
    connection.open += 1;
    response.on("close", () => {
      connection.open -= 1;
    });
  }

  #handOver(socket: Duplex): void {
    const connection = this.#connections.get(socket);
    if (connection !== undefined) connection.isHandedOver = true;
  }

  /** What llhttp or a time-out refused before there was a request. */
  #onClientError(error: NodeJS.ErrnoException, socket: Duplex): void {
    const denial = clientErrorDenial(error);
    this.#metrics.refused(denial.code === "request.timeout" ? "timeout" : "malformed");
    socket.on("error", ignore);
    const connection = this.#connections.get(socket);
    const { latest, open = 0 } = connection ?? {};
    if (!socket.writable || error.code === "ECONNRESET") {
      socket.destroy();
      return;
    }
    if (open > 0 && latest?.req.complete === true) {
      // What is malformed is the next request: the answers that are pending go out first, and nothing after them.
      latest.shouldKeepAlive = false;
      latest.once("finish", () => (socket as Socket).destroySoon());
      return;
    }
    // Bytes of an answer that is still on its way must not be followed by ours: the client would misread them.
    if (open > 1 || (open === 1 && latest?.headersSent !== false)) {
      socket.destroy();
      return;
    }
    if (open === 1 && latest !== undefined) {
      // The body of a request that is being served broke: the exchange is told that its client is gone, and the client
      // gets its answer from here.
      latest.detachSocket(socket as Socket);
      latest.emit("close");
    }
    socket.end(rawReply(renderDenial(denial)));
    // Unread bytes at close make the kernel reset the connection before the client has read the answer.
    socket.resume();
    setTimeout(() => socket.destroy(), 1_000).unref();
  }
}

function clientErrorDenial(error: NodeJS.ErrnoException): {
  readonly code: string;
  readonly message: string;
} {
  if (error.code === "HPE_HEADER_OVERFLOW") {
    return {
      code: "request.headers-too-large",
      message: "the header section is larger than limits.max_header_bytes",
    };
  }
  if (error.code === "ERR_HTTP_REQUEST_TIMEOUT") {
    return {
      code: "request.timeout",
      message: "the request did not arrive in time (limits.header_timeout)",
    };
  }
  const reason = (error as { reason?: string }).reason;
  return {
    code: "request.malformed",
    message: reason === undefined ? "malformed request" : `malformed request: ${reason}`,
  };
}

function ignore(): void {
  // The connection is being closed anyway.
}
