/** The inner HTTP servers of all bridged connections: requests in the clear, each one a flow of its own. */
import type * as Http from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { ProxyError } from "../../errors.ts";
import { type Destination, originForm, parseAbsoluteTarget } from "../../net/destination.ts";
import { http } from "../../net/node-http.ts";
import type { Reply } from "../../pipeline/decision.ts";
import { type BridgedConnection, bridgedRoute, type InnerLimits } from "./bridged-connection.ts";
import { Http2Sessions } from "./http2-sessions.ts";
import {
  type RequestSurface,
  responseFor,
  type Route,
  serveRequest,
  type SurfaceServices,
} from "../exchange/arrival.ts";
import { answerClientError, answerLast } from "../exchange/last-answer.ts";
import { rawReply } from "../flow/reply.ts";
import { hasBody, upgradeProtocol } from "../exchange/request-head.ts";
import { Turns } from "../exchange/turns.ts";

interface OpenConnection extends BridgedConnection {
  /** The newest response, finished or not. */
  latest: Http.ServerResponse | undefined;
}

/** Serves bridged connections of every generation; each request leases the current one. */
export class BridgeServer {
  readonly #services: SurfaceServices;
  readonly #http1: Http.Server;
  readonly #http2: Http2Sessions;
  /** Which tunnel a clear connection belongs to; never a header, never the SNI. */
  readonly #connections = new WeakMap<Duplex, OpenConnection>();
  readonly #turns = new Turns();

  constructor(services: SurfaceServices, limits: InnerLimits) {
    this.#services = services;
    this.#http2 = new Http2Sessions(services, limits);
    this.#http1 = http.createServer({
      maxHeaderSize: limits.maxHeaderBytes,
      headersTimeout: limits.headerTimeoutMs,
      requestTimeout: 0,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      connectionsCheckingInterval: Math.max(50, Math.min(5_000, limits.headerTimeoutMs / 4)),
      requireHostHeader: false,
      insecureHTTPParser: false,
      // An answer of 64 KiB would otherwise stop its upstream for one turn of the loop, at a third of the throughput.
      highWaterMark: 262_144,
      // A body would be taken for the first bytes of the new protocol.
      shouldUpgradeCallback: (request) =>
        !hasBody(request) && upgradeProtocol(request) !== undefined,
    });
    this.#http1.maxHeadersCount = limits.maxHeaders + 1;
    const onRequest = (request: Http.IncomingMessage, response: Http.ServerResponse): void => {
      const connection = this.#connections.get(request.socket);
      if (connection !== undefined) connection.latest = response;
      this.#turns.take(request, response, () => {
        if (connection?.refusal !== undefined) {
          refuseAll(response, connection.refusal);
          return;
        }
        serveRequest(this.#services, this.#surfaceOf(request), { request, response });
      });
    };
    this.#http1.on("request", onRequest);
    this.#http1.on("checkContinue", onRequest);
    this.#http1.on("upgrade", (request, socket, head) => {
      socket.on("error", ignore);
      const refusal = this.#connections.get(socket)?.refusal;
      if (refusal !== undefined) {
        socket.end(rawReply(refusal));
        return;
      }
      if (this.#connections.get(socket)?.latest?.writableFinished === false) {
        // An answer is still owed: its bytes must not end up in the new protocol.
        socket.destroy();
        return;
      }
      const response = responseFor(request, socket as Socket);
      serveRequest(this.#services, this.#surfaceOf(request), {
        request,
        response,
        upgradeHead: head,
      });
    });
    this.#http1.on("connect", (_request, socket) => {
      const message = "a CONNECT inside a bridged connection is refused";
      answerLast(socket, { code: "request.method-not-allowed", message });
    });
    this.#http1.on("clientError", (error, socket) => {
      const denial = answerClientError(error, socket, this.#connections.get(socket)?.latest);
      const reason = denial.code === "request.timeout" ? "timeout" : "malformed";
      services.recorder.metrics.refused(reason);
    });
    // Node starts its check of header and keep-alive time-outs with `listening`, and this server never listens.
    this.#http1.emit("listening");
  }

  /** Serves the connection until it is closed. */
  serve(clear: TLSSocket, alpnProtocol: string, connection: BridgedConnection): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      clear.once("close", () => resolve());
    });
    if (alpnProtocol === "h2") {
      this.#http2.serve(clear, connection);
    } else {
      this.#connections.set(clear, { ...connection, latest: undefined });
      this.#http1.emit("connection", clear);
    }
    return closed;
  }

  /** Lets running requests finish and closes what is idle. */
  drain(): void {
    this.#http1.closeIdleConnections();
    this.#http2.drain();
  }

  close(): void {
    this.#http1.closeAllConnections();
    this.#http1.close();
    this.#http2.close();
  }

  #surfaceOf(request: Http.IncomingMessage): RequestSurface {
    const parent = this.#connections.get(request.socket)?.tunnel.id;
    return {
      surface: "bridge",
      ...(parent === undefined ? {} : { parent }),
      route: (head) => this.#routeOf(head),
    };
  }

  #routeOf(request: Http.IncomingMessage): Route {
    const connection = this.#connections.get(request.socket);
    if (connection === undefined)
      throw new ProxyError("internal.fault", "a clear connection without its tunnel");
    return {
      ...bridgedRoute(connection),
      path: innerPath(request.url ?? "", connection.destination),
    };
  }
}

/** Origin-form, or an absolute-form that names the tunnel's own destination (RFC 9112 section 3.2.2). */
function innerPath(target: string, destination: Destination): string {
  if (target.startsWith("/")) return originForm(target);
  if (target === "*") throw new ProxyError("request.malformed", "OPTIONS * is not forwarded");
  const parsed = parseAbsoluteTarget(target);
  if (parsed.destination.scheme === "https" && parsed.destination.equals(destination))
    return parsed.path;
  throw new ProxyError(
    "request.misdirected",
    `the request is for ${parsed.destination.origin} inside a connection to ${destination.authority}`,
  );
}

/** The answer on a connection that was refused before its first request. */
function refuseAll(response: Http.ServerResponse, { status, headers, body }: Reply): void {
  response.writeHead(status, { ...headers, "Content-Length": body.length, Connection: "close" });
  response.end(body);
}

function ignore(): void {
  // `close` follows and is what ends the connection.
}
