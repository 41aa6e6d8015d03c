/** The inner HTTP servers of all opened tunnels: requests in the clear, each one a flow of its own. */
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { ProxyError } from "../../errors.ts";
import {
  type Destination,
  originForm,
  parseAbsoluteTarget,
  parseHostHeader,
} from "../../net/destination.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { ServerExchange } from "../../wire/server-exchange.ts";
import {
  type ArrivedRequest,
  type Route,
  serveRequest,
  type SurfaceServices,
} from "../exchange/arrival.ts";
import {
  endWith,
  type HttpHandlers,
  type HttpLimits,
  HttpServer,
} from "../exchange/http-server.ts";
import { type Http2Surface, Http2Sessions } from "../exchange/http2-sessions.ts";
import { type BridgedConnection, bridgedRoute } from "./bridged-connection.ts";

/** Serves bridged connections of every generation; each request leases the current one. */
export class BridgeServer implements HttpHandlers {
  readonly surface = "bridge";
  readonly #services: SurfaceServices;
  readonly #http1: HttpServer;
  readonly http2: Http2Sessions;
  /** Which tunnel a clear connection belongs to; never a header, never the SNI. */
  readonly #connections = new WeakMap<Duplex, BridgedConnection>();

  constructor(services: SurfaceServices, limits: HttpLimits) {
    this.#services = services;
    this.http2 = new Http2Sessions(services, limits, (clear) =>
      surfaceOf(carried(this.#connections.get(clear))),
    );
    // The tunnels that carry these connections are bounded by their listeners.
    const inner = { ...limits, maxConnections: Number.POSITIVE_INFINITY, shared: undefined };
    this.#http1 = new HttpServer(this, inner, services);
  }

  onRequest(exchange: ServerExchange): void {
    const connection = this.#connections.get(exchange.socket);
    if (connection?.refusal !== undefined) {
      const { method, target } = exchange.head;
      connection.refusal.asked(method, target);
      endWith(exchange, connection.refusal.reply);
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
    const message = "a CONNECT inside a tunnel is refused";
    return { code: "request.method-not-allowed", message };
  }

  /** Serves the connection until it is closed. */
  serve(clear: Socket, alpnProtocol: string, connection: BridgedConnection): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      clear.once("close", () => resolve());
    });
    this.#connections.set(clear, connection);
    if (alpnProtocol === "h2") this.http2.serve(clear);
    else this.#http1.adopt(clear);
    return closed;
  }

  /** Lets running requests finish and closes what is idle. */
  drain(): void {
    this.#http1.drain();
  }

  close(): void {
    this.#http1.cut();
  }
}

function carried(connection: BridgedConnection | undefined): BridgedConnection {
  if (connection === undefined)
    throw new ProxyError("internal.fault", "a clear connection without its tunnel");
  return connection;
}

function routeOf({ head }: ArrivedRequest, known: BridgedConnection | undefined): Route {
  const connection = carried(known);
  const path = innerPath(head.target, connection.destination);
  return { ...bridgedRoute(connection), path };
}

/** How the streams of one connection are served. */
function surfaceOf(connection: BridgedConnection): Http2Surface {
  const { tunnel, destination, refusal } = connection;
  return {
    surface: "bridge",
    client: tunnel.client.address,
    parent: tunnel.id,
    refuse:
      refusal &&
      ((method, target) => {
        refusal.asked(method, target);
        return refusal.reply;
      }),
    route: ({ path, host }) => {
      const named = parseHostHeader(host, destination.scheme);
      if (named.equals(destination)) {
        // What the client takes for the origin it knows to speak HTTP/2.
        return { ...bridgedRoute(connection), path, priorKnowledge: "always" };
      }
      throw new ProxyError(
        "request.misdirected",
        `the request names ${named.authority} inside a connection to ${destination.authority}`,
      );
    },
  };
}

/** Origin-form, or an absolute-form that names the tunnel's own destination (RFC 9112 section 3.2.2). */
function innerPath(target: string, destination: Destination): string {
  if (target.startsWith("/")) return originForm(target);
  if (target === "*") throw new ProxyError("request.malformed", "OPTIONS * is not forwarded");
  const parsed = parseAbsoluteTarget(target);
  if (parsed.destination.scheme === destination.scheme && parsed.destination.equals(destination))
    return parsed.path;
  throw new ProxyError(
    "request.misdirected",
    `the request is for ${parsed.destination.origin} inside a connection to ${destination.authority}`,
  );
}
