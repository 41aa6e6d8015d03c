/** The inner HTTP servers of all bridged connections: requests in the clear, each one a flow of its own. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { ProxyError } from "../../errors.ts";
import { type Destination, originForm, parseAbsoluteTarget } from "../../net/destination.ts";
import type { Denial, Reply } from "../../pipeline/decision.ts";
import {
  type ArrivedRequest,
  type Route,
  serveRequest,
  type SurfaceServices,
} from "../exchange/arrival.ts";
import { type HttpHandlers, type HttpLimits, HttpServer } from "../exchange/http-server.ts";
import { type BridgedConnection, bridgedRoute } from "./bridged-connection.ts";
import { Http2Sessions } from "./http2-sessions.ts";

/** Serves bridged connections of every generation; each request leases the current one. */
export class BridgeServer implements HttpHandlers {
  readonly #services: SurfaceServices;
  readonly #http1: HttpServer;
  readonly #http2: Http2Sessions;
  /** Which tunnel a clear connection belongs to; never a header, never the SNI. */
  readonly #connections = new WeakMap<Duplex, BridgedConnection>();

  constructor(services: SurfaceServices, limits: HttpLimits) {
    this.#services = services;
    this.#http2 = new Http2Sessions(services, limits);
    // The tunnels that carry these connections are bounded by their listeners.
    const inner = { ...limits, maxConnections: Number.POSITIVE_INFINITY };
    this.#http1 = new HttpServer(this, inner, services);
  }

  onRequest(arrived: ArrivedRequest): void {
    const connection = this.#connections.get(arrived.request.socket);
    if (connection?.refusal !== undefined) {
      const { method = "", url = "" } = arrived.request;
      connection.refusal.asked(method, url);
      refuseAll(arrived.response, connection.refusal.reply);
    } else {
      serveRequest(
        this.#services,
        {
          surface: "bridge",
          parent: connection?.tunnel.id,
          route: (request) => routeOf(request, connection),
        },
        arrived,
      );
    }
  }

  onConnect(): Denial {
    const message = "a CONNECT inside a bridged connection is refused";
    return { code: "request.method-not-allowed", message };
  }

  /** Serves the connection until it is closed. */
  serve(clear: TLSSocket, alpnProtocol: string, connection: BridgedConnection): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      clear.once("close", () => resolve());
    });
    if (alpnProtocol === "h2") {
      this.#http2.serve(clear, connection);
    } else {
      this.#connections.set(clear, connection);
      this.#http1.adopt(clear);
    }
    return closed;
  }

  /** Lets running requests finish and closes what is idle. */
  drain(): void {
    this.#http1.drain();
    this.#http2.drain();
  }

  close(): void {
    this.#http1.cut();
    this.#http2.close();
  }
}

function routeOf(request: IncomingMessage, connection: BridgedConnection | undefined): Route {
  if (connection === undefined)
    throw new ProxyError("internal.fault", "a clear connection without its tunnel");
  const path = innerPath(request.url ?? "", connection.destination);
  return { ...bridgedRoute(connection), path };
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

/** The response on a connection that was refused before its first request. */
function refuseAll(response: ServerResponse, { status, headers, body }: Reply): void {
  response.writeHead(status, { ...headers, "Content-Length": body.length, Connection: "close" });
  response.end(body);
}
