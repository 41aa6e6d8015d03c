/** Plain HTTP on captured connections: every request is judged by itself, and all of one connection go to one host. */
import type { Socket } from "node:net";
import { ProxyError } from "../errors.ts";
import {
  type Destination,
  originForm,
  parseAbsoluteTarget,
  parseAuthority,
  parseHostHeader,
} from "../net/destination.ts";
import type { Denial } from "../pipeline/decision.ts";
import {
  type ArrivedRequest,
  type Route,
  serveRequest,
  type SurfaceServices,
} from "../proxy/exchange/arrival.ts";
import type { HttpHandlers, HttpLimits } from "../proxy/exchange/http-server.ts";
import { Http2Sessions } from "../proxy/exchange/http2-sessions.ts";
import type { RequestHead } from "../wire/head.ts";
import type { ServerExchange } from "../wire/server-exchange.ts";
import type { Captured } from "./captured.ts";

interface Connection {
  readonly captured: Captured | undefined;
  /** What its first request named. */
  destination: Destination | undefined;
}

/** Parses what arrives on captured connections and hands it to the exchange. */
export class CapturedHttp implements HttpHandlers {
  readonly surface = "transparent";
  readonly http2: Http2Sessions;
  readonly #services: SurfaceServices;
  readonly #connections = new WeakMap<Socket, Connection>();
  readonly #surface = {
    surface: "transparent",
    route: (request: ArrivedRequest) => this.#routeOf(request),
  } as const;

  constructor(services: SurfaceServices, limits: HttpLimits) {
    this.#services = services;
    this.http2 = new Http2Sessions(services, limits, (socket) => ({
      surface: "transparent",
      client: socket.remoteAddress ?? "",
      route: ({ path, host }, runtime) => {
        const route = this.#routeTo({ target: path, host }, socket);
        const { reached } = route;
        const client = services.callers.clientOf(socket, runtime, { reached });
        return { ...route, client, priorKnowledge: "always" };
      },
    }));
  }

  /** Call before the connection is served. Without `captured` its requests are refused: it was not redirected. */
  add(socket: Socket, captured: Captured | undefined): void {
    this.#connections.set(socket, { captured, destination: undefined });
  }

  onRequest(exchange: ServerExchange): void {
    serveRequest(this.#services, this.#surface, exchange);
  }

  onConnect(): Denial {
    return {
      code: "request.method-not-allowed",
      message:
        "CONNECT belongs on the forward port: this connection was redirected on its way elsewhere",
    };
  }

  #routeOf({ head, socket }: ArrivedRequest): Route {
    return this.#routeTo(head, socket);
  }

  #routeTo(head: Pick<RequestHead, "target" | "host">, socket: Socket): Omit<Route, "client"> {
    const connection = this.#connections.get(socket);
    const captured = connection?.captured;
    if (connection === undefined || captured === undefined) throw notRedirected();
    const { destination, path } = targetOf(head, captured);
    connection.destination ??= destination;
    if (!connection.destination.equals(destination)) {
      throw new ProxyError(
        "request.misdirected",
        `the request is for ${destination.authority} on a connection to ${connection.destination.authority}`,
      );
    }
    const { original, authority, confirm } = captured;
    return {
      destination,
      path,
      transport: "transparent",
      captured: authority,
      confirm,
      reached: original,
    };
  }
}

/** A connection that was not redirected: its destination is unknown. */
export function notRedirected(): ProxyError {
  return new ProxyError(
    "request.misdirected",
    "this listener serves redirected connections only (listener.transparent_proxy_addr); a client that knows of the proxy uses listener.forward_proxy_addr",
  );
}

/** Where a request goes: to the host that it names, at the port that the client dialled. */
function targetOf(
  { target, host }: Pick<RequestHead, "target" | "host">,
  { authority, original }: Captured,
): { readonly destination: Destination; readonly path: string } {
  if (target === "*") throw new ProxyError("request.malformed", "OPTIONS * is not forwarded");
  const absolute = target.startsWith("/") ? undefined : parseAbsoluteTarget(target);
  // HTTP/1.0 may leave the host out; the address is then all that is known.
  const named =
    absolute?.destination ??
    (host === undefined ? parseAuthority(authority, "http", 80) : parseHostHeader(host, "http"));
  if (named.port !== original.port || named.scheme !== "http") {
    throw new ProxyError(
      "request.misdirected",
      `the request is for ${named.origin} on a connection to port ${original.port}`,
    );
  }
  return { destination: named, path: absolute?.path ?? originForm(target) };
}
