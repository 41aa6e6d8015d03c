/** The reverse proxy: inbound requests are authenticated by the pipeline and forwarded to the one backend. */
import type { Socket } from "node:net";
import { ProxyError } from "../errors.ts";
import { appendForwardedFor, type HeaderList } from "../http/headers.ts";
import { peerAddress } from "../net/peer-address.ts";
import { originForm, parseAbsoluteTarget, parseHostHeader } from "../net/destination.ts";
import type { Denial } from "../pipeline/decision.ts";
import type { Client } from "../pipeline/flow.ts";
import type { Carrier, PeerConnection } from "../mtls/peer-connection.ts";
import type { PeerGate } from "../mtls/peer-gate.ts";
import {
  type RequestSurface,
  type Route,
  serveRequest,
  type SurfaceServices,
} from "../proxy/exchange/arrival.ts";
import type { HttpHandlers, HttpLimits } from "../proxy/exchange/http-server.ts";
import { Http2Sessions } from "../proxy/exchange/http2-sessions.ts";
import { clientTlsOf } from "../proxy/flow/client-tls.ts";
import type { Backend, Runtime } from "../proxy/flow/runtime.ts";
import type { RequestHead } from "../wire/head.ts";
import type { ServerExchange } from "../wire/server-exchange.ts";

/** Where the requests of one connection go. */
export interface Behind extends Backend {
  /** Set where the kernel redirected the connection: the client knows of no proxy, and dialled this itself. */
  readonly captured?: string;
}

/** Throws ProxyError where there is nothing. */
export type FindBackend = (socket: Socket, runtime: Runtime) => Behind;

const oneBackend: FindBackend = (_socket, { backend }) => {
  if (backend === undefined)
    throw new ProxyError("upstream.unreachable", "listener.reverse_proxy_backend is not set");
  return backend;
};

/** How inbound connections are read. */
export interface ReverseOptions {
  /** Set where connections may be of mutual TLS. */
  readonly peers?: PeerGate | undefined;
  readonly behind?: FindBackend;
}

/** Parses what arrives on the reverse port and hands it to the exchange. */
export class ReverseSurface implements HttpHandlers {
  readonly surface = "reverse";
  /** In the clear: TLS has sessions of its own. */
  readonly http2: Http2Sessions;
  readonly #services: SurfaceServices;
  readonly #surface: RequestSurface;

  constructor(services: SurfaceServices, limits: HttpLimits, options: ReverseOptions = {}) {
    const { peers, behind = oneBackend } = options;
    this.#services = services;
    this.http2 = reverseSessions(services, limits, options);
    this.#surface = {
      surface: "reverse",
      route: ({ head, socket }, runtime) => {
        const target = { ...originTarget(head), named: head.host, socket, carrier: socket };
        return routeOf(target, behind(socket, runtime), peers?.of(socket));
      },
    };
  }

  onRequest(exchange: ServerExchange): void {
    serveRequest(this.#services, this.#surface, exchange);
  }

  onConnect(): Denial {
    return { code: "request.method-not-allowed", message: "CONNECT belongs on the forward port" };
  }
}

/** HTTP/2 on the reverse port: each stream goes the way of a request of HTTP/1.1. */
export function reverseSessions(
  services: SurfaceServices,
  limits: HttpLimits,
  { peers, behind = oneBackend }: ReverseOptions,
): Http2Sessions {
  return new Http2Sessions(services, limits, (socket) => {
    const peer = peers?.of(socket);
    return {
      surface: "reverse",
      client: socket.remoteAddress ?? "",
      route: ({ path, host, stream }, runtime) => {
        const target = { path, host, named: host, socket, carrier: stream };
        return routeOf(target, spokenTo(behind(socket, runtime)), peer);
      },
      onOpen: (session) => peer?.carries(session),
    };
  });
}

/** What a client that speaks HTTP/2 says of what it speaks to: all where it dialled that itself, gRPC at least. */
function spokenTo(backend: Behind): Behind {
  const known = backend.captured === undefined ? "where-needed" : "always";
  return { ...backend, priorKnowledge: backend.priorKnowledge ?? known };
}

/** What is asked for, and on what. */
interface ReverseTarget {
  readonly path: string;
  readonly host: string;
  /** The host as the client spelt it. */
  readonly named: string | undefined;
  readonly socket: Socket;
  readonly carrier: Carrier;
}

function routeOf(
  { path, host, named, socket, carrier }: ReverseTarget,
  { destination, basePath, captured, priorKnowledge }: Behind,
  peer: PeerConnection | undefined,
): Route & { readonly client: Client } {
  const { revoked, tls = clientTlsOf(socket) } = peer ?? {};
  if (revoked !== undefined) {
    throw new ProxyError("policy.forbidden", `the peer is no longer trusted: ${revoked.message}`);
  }
  const { remoteAddress, remotePort } = socket;
  return {
    direction: "inbound",
    transport: captured === undefined ? "http" : "transparent",
    captured,
    priorKnowledge,
    keepsHost: captured !== undefined && named !== undefined,
    destination,
    basePath,
    path,
    host,
    client: {
      address: remoteAddress ?? "",
      port: remotePort ?? 0,
      ...(peer === undefined ? {} : { caller: peer.id }),
      tls,
    },
    begin:
      peer === undefined ? undefined : (isTunnel) => peer.begin(isTunnel ? carrier : undefined),
    forwarded: (headers) => {
      appendForwardedFor(headers, peerAddress(remoteAddress ?? "unknown"));
      setAbsent(headers, "X-Forwarded-Proto", tls === undefined ? "http" : "https");
      if (named !== undefined) setAbsent(headers, "X-Forwarded-Host", named);
    },
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

/** The first proxy of a chain sets the -Proto and -Host of X-Forwarded. */
function setAbsent(headers: HeaderList, name: string, value: string): void {
  if (!headers.has(name)) headers.set(name, value);
}
