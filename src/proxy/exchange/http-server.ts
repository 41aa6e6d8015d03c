/** The HTTP/1 server of every surface: limits, malformed input, pipelined requests, end of connections. */
import type * as Http from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { HeadWatch, WatchedHead } from "../../net/head-watch.ts";
import { http } from "../../net/node-http.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import { renderDenial } from "../flow/reply.ts";
import type { ArrivedRequest } from "./arrival.ts";
import { respondToClientError, sendFinalResponse } from "./final-response.ts";
import { hasBody, upgradeProtocol } from "./request-head.ts";
import { PipelinedRequests } from "./pipelined-requests.ts";

/** Limits of one server. Bytes and milliseconds. */
export interface HttpLimits {
  readonly maxConnections: number;
  readonly maxHeaderBytes: number;
  readonly maxHeaders: number;
  readonly headerTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
  /** 0 means no limit. */
  readonly maxRequestsPerConnection: number;
  /** Of HTTP/2, at once. */
  readonly maxStreamsPerConnection: number;
}

interface Connection {
  /** The newest response: an error response must not be written into one that is not finished. */
  latest: Http.ServerResponse | undefined;
  requests: number;
  readonly head: WatchedHead;
}

/** What every server of the process shares. */
export interface HttpServices {
  readonly recorder: { readonly metrics: Metrics };
  readonly heads: HeadWatch;
}

/** What a surface does with what arrives. Handlers never throw and never reject. */
export interface HttpHandlers {
  /** A request, or an upgrade whose protocol can be carried; every other one is ignored (RFC 9110 section 7.8). */
  onRequest(arrived: ArrivedRequest): void;
  /** A CONNECT: served with the bytes that came behind it, or refused with what is returned. */
  onConnect(request: Http.IncomingMessage, client: Socket, head: Buffer): Denial | undefined;
}

/** An HTTP/1 server whose connections come from a port of its own, or are given to it. */
export class HttpServer {
  /** Listens where the surface has a port of its own. */
  readonly server: Http.Server;
  readonly #limits: HttpLimits;
  readonly #metrics: Metrics;
  readonly #heads: HeadWatch;
  readonly #connections = new Map<Duplex, Connection>();
  /** Connections that carry a tunnel or an upgrade, whose owner ends them. */
  readonly #handedOver = new WeakSet<Duplex>();
  readonly #pipelined = new PipelinedRequests();
  #adopts = false;
  #draining = false;

  constructor(handlers: HttpHandlers, limits: HttpLimits, services: HttpServices) {
    const { metrics } = services.recorder;
    this.#limits = limits;
    this.#metrics = metrics;
    this.#heads = services.heads;
    this.server = http.createServer({
      noDelay: true,
      keepAlive: true,
      maxHeaderSize: limits.maxHeaderBytes,
      headersTimeout: limits.headerTimeoutMs,
      // Uploads may take long; a body without progress is ended by the stall watch instead.
      requestTimeout: 0,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      connectionsCheckingInterval: Math.max(50, Math.min(5_000, limits.headerTimeoutMs / 4)),
      // Checked with the rest of the framing, so that the refusal is our JSON.
      requireHostHeader: false,
      insecureHTTPParser: false,
      // A response of 64 KiB would otherwise stop its upstream for one turn of the loop, at a third of the throughput.
      highWaterMark: 262_144,
      // A body would be taken for the first bytes of the new protocol.
      shouldUpgradeCallback: (request) =>
        !hasBody(request) && upgradeProtocol(request) !== undefined,
    });
    this.server.maxHeadersCount = limits.maxHeaders + 1;
    this.server.on("connection", (socket: Socket) => this.#onConnection(socket));
    this.#serve(handlers);
    this.server.on("clientError", (error, socket) => {
      const denial = respondToClientError(error, socket, this.#connections.get(socket)?.latest);
      if (denial === undefined) return;
      metrics.refused(denial.code === "request.timeout" ? "timeout" : "malformed");
    });
  }

  /** Serves a connection that something else accepted, and whose first bytes may have been put back into it. */
  adopt(socket: Socket): void {
    // Node starts its check of header and keep-alive time-outs with `listening`, and this server may never listen.
    if (!this.server.listening && !this.#adopts) this.server.emit("listening");
    this.#adopts = true;
    this.server.emit("connection", socket);
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Closes idle connections, and every other one after the response that it waits for. */
  drain(): void {
    this.#draining = true;
    for (const [socket, { latest }] of this.#connections) {
      if (this.#handedOver.has(socket)) continue;
      if (latest === undefined || latest.writableFinished) socket.destroy();
      else if (!latest.headersSent) latest.shouldKeepAlive = false;
    }
  }

  /** Cuts what is still open. */
  cut(): void {
    for (const socket of this.#connections.keys()) socket.destroy();
  }

  #serve(handlers: HttpHandlers): void {
    const onRequest = (request: Http.IncomingMessage, response: Http.ServerResponse): void => {
      if (!this.#track(request, response)) return;
      this.#pipelined.take(request, response, () => handlers.onRequest({ request, response }));
    };
    this.server.on("request", onRequest);
    this.server.on("checkContinue", onRequest);
    this.server.on("checkExpectation", (_request, response: Http.ServerResponse) => {
      const reply = renderDenial({
        code: "request.expectation-failed",
        message: "only Expect: 100-continue is understood",
      });
      response.writeHead(reply.status, { ...reply.headers, Connection: "close" });
      response.end(reply.body);
    });
    this.server.on("connect", (request, socket, head) => {
      if (!this.#handOver(socket)) return;
      const refused = handlers.onConnect(request, socket as Socket, head);
      if (refused !== undefined) sendFinalResponse(socket, refused);
    });
    this.server.on("upgrade", (request, socket, upgradeHead) => {
      if (!this.#handOver(socket)) return;
      const response = responseFor(request, socket as Socket);
      handlers.onRequest({ request, response, upgradeHead });
    });
  }

  #onConnection(socket: Socket): void {
    if (this.#connections.size >= this.#limits.maxConnections) {
      this.#metrics.refused("connections");
      const denial = {
        code: "proxy.overloaded",
        message: "too many connections (limits.max_connections)",
      };
      sendFinalResponse(socket, denial);
      return;
    }
    this.#connections.set(socket, {
      latest: undefined,
      requests: 0,
      head: this.#heads.add(socket),
    });
    socket.once("close", () => this.#connections.delete(socket));
  }

  /** False for what is not served: a connection that was refused, or a request behind the last one of its connection. */
  #track(request: Http.IncomingMessage, response: Http.ServerResponse): boolean {
    const connection = this.#connections.get(request.socket);
    if (connection === undefined) return false;
    const { maxRequestsPerConnection: most } = this.#limits;
    connection.requests += 1;
    if (most > 0 && connection.requests > most) return false;
    // Node's own limit says so in the response and leaves the connection open.
    if (this.#draining || connection.requests === most) response.shouldKeepAlive = false;
    connection.latest = response;
    connection.head.ended(request);
    return true;
  }

  /** False, and cut, when the connection cannot change its protocol: it was refused, or owes a response. */
  #handOver(socket: Duplex): boolean {
    // `close` follows an error, and is what ends the flow.
    socket.on("error", ignore);
    const connection = this.#connections.get(socket);
    const isFree = connection !== undefined && connection.latest?.writableFinished !== false;
    if (isFree) {
      connection.head.close();
      this.#handedOver.add(socket);
    } else socket.destroy();
    return isFree;
  }
}

/** A response object for a connection detached from Node's parser: for one response, or a new protocol. */
function responseFor(request: Http.IncomingMessage, client: Socket): Http.ServerResponse {
  const response = new http.ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(client);
  response.once("finish", () => client.destroySoon());
  // Nothing reads the connection before the new protocol begins: without this a disconnect goes unnoticed.
  client.once("end", () => {
    if (response.socket === client) client.destroy();
  });
  client.read(0);
  return response;
}

function ignore(): void {
  // The connection is being closed anyway.
}
