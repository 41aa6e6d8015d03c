/** The inner HTTP servers of all bridged connections: requests in the clear, each one a flow of its own. */
import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { ProxyError } from "../../errors.ts";
import { type Destination, originForm, parseAbsoluteTarget } from "../../net/destination.ts";
import type { Denial, Reply } from "../../pipeline/decision.ts";
import type { ServerExchange } from "../../wire/server-exchange.ts";
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
  readonly surface = "bridge";
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

  onRequest(exchange: ServerExchange): void {
    const connection = this.#connections.get(exchange.socket);
    if (connection?.refusal !== undefined) {
      const { method, target } = exchange.head;
      connection.refusal.asked(method, target);
      refuseAll(exchange, connection.refusal.reply);
    } else {
      serveRequest(
        this.#services,
        {
          surface: this.surface,
          parent: connection?.tunnel.id,
          route: (request) => routeOf(request, connection),
        },
        exchange,
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

function routeOf({ head }: ArrivedRequest, connection: BridgedConnection | undefined): Route {
  if (connection === undefined)
    throw new ProxyError("internal.fault", "a clear connection without its tunnel");
  const path = innerPath(head.target, connection.destination);
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
function refuseAll(exchange: ServerExchange, { status, headers, body }: Reply): void {
  const { response } = exchange;
  const fields = Object.entries(headers).flat();
  response.closes = true;
  response.writeHead(status, [...fields, "Content-Length", String(body.length)]);
  exchange.end(body);
}
