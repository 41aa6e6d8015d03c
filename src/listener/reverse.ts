/** The reverse proxy: inbound requests are authenticated by the pipeline and forwarded to the one backend. */
import { ProxyError } from "../errors.ts";
import { appendForwardedFor, type HeaderList } from "../http/headers.ts";
import { originForm, parseAbsoluteTarget, parseHostHeader } from "../net/destination.ts";
import type { Denial } from "../pipeline/decision.ts";
import type { PeerConnection } from "../mtls/peer-connection.ts";
import type { PeerGate } from "../mtls/peer-gate.ts";
import {
  type ArrivedRequest,
  type RequestSurface,
  type Route,
  serveRequest,
  type SurfaceServices,
} from "../proxy/exchange/arrival.ts";
import type { HttpHandlers } from "../proxy/exchange/http-server.ts";
import { clientTlsOf } from "../proxy/flow/client-tls.ts";
import type { Runtime } from "../proxy/flow/runtime.ts";
import type { RequestHead } from "../wire/head.ts";
import type { ServerExchange } from "../wire/server-exchange.ts";

/** Parses what arrives on the reverse port and hands it to the exchange. */
export class ReverseSurface implements HttpHandlers {
  readonly surface = "reverse";
  readonly #services: SurfaceServices;
  readonly #surface: RequestSurface;

  /** With `peers`, connections may be of mutual TLS. */
  constructor(services: SurfaceServices, peers?: PeerGate) {
    this.#services = services;
    this.#surface = {
      surface: "reverse",
      route: (request, runtime) => routeOf(request, runtime, peers?.of(request.socket)),
    };
  }

  onRequest(exchange: ServerExchange): void {
    serveRequest(this.#services, this.#surface, exchange);
  }

  onConnect(): Denial {
    return { code: "request.method-not-allowed", message: "CONNECT belongs on the forward port" };
  }
}

function routeOf(
  request: ArrivedRequest,
  { backend }: Runtime,
  peer: PeerConnection | undefined,
): Route {
  if (backend === undefined)
    throw new ProxyError("upstream.unreachable", "listener.reverse_proxy_backend is not set");
  const { revoked, tls = clientTlsOf(request.socket) } = peer ?? {};
  if (revoked !== undefined) {
    throw new ProxyError("policy.forbidden", `the peer is no longer trusted: ${revoked.message}`);
  }
  const { destination, basePath } = backend;
  const { remoteAddress, remotePort } = request.socket;
  return {
    direction: "inbound",
    transport: "http",
    destination,
    basePath,
    ...originTarget(request.head),
    client: {
      address: remoteAddress ?? "",
      port: remotePort ?? 0,
      ...(peer === undefined ? {} : { caller: peer.id }),
      tls,
    },
    begin: peer === undefined ? undefined : (isTunnel) => peer.begin(isTunnel),
    forwarded: (headers) => forwardedFields(headers, request, tls !== undefined),
  };
}

/** Path and host of an origin-form target; absolute-form is understood as RFC 9112 section 3.2.2 asks of servers. */
function originTarget(head: RequestHead): { readonly path: string; readonly host: string } {
  const { target, host = "" } = head;
  // Parsed for its refusals: a Host that is not one must not reach the backend or a per-host rule.
  const named = host === "" ? undefined : parseHostHeader(host, "http");
  if (target.startsWith("/")) return { path: originForm(target), host };
  if (target === "*") throw new ProxyError("request.malformed", "OPTIONS * is not forwarded");
  const { destination, path } = parseAbsoluteTarget(target);
  if (named !== undefined && !named.equals(destination)) {
    throw new ProxyError(
      "request.misdirected",
      `the request is for ${destination.authority} but its Host field names ${named.authority}`,
    );
  }
  return { path, host: destination.hostHeader };
}

/** The X-Forwarded fields for the backend; the first proxy of a chain sets -Proto and -Host. */
function forwardedFields(
  headers: HeaderList,
  { head, socket }: ArrivedRequest,
  isTls: boolean,
): void {
  appendForwardedFor(headers, socket.remoteAddress ?? "unknown");
  if (!headers.has("x-forwarded-proto")) headers.set("X-Forwarded-Proto", isTls ? "https" : "http");
  const { host } = head;
  if (!headers.has("x-forwarded-host") && host !== undefined) headers.set("X-Forwarded-Host", host);
}
