/** The explicit proxy: absolute-form requests and CONNECT, from an agent that knows that it speaks to a proxy. */
import type { Socket } from "node:net";
import { ProxyError } from "../errors.ts";
import { HeaderList, stripHopByHop } from "../http/headers.ts";
import { parseAbsoluteTarget, parseAuthority, parseHostHeader } from "../net/destination.ts";
import type { BridgeServer } from "../proxy/tunnel/bridge-server.ts";
import {
  type ArrivedRequest,
  type Route,
  serveRequest,
  type SurfaceServices,
} from "../proxy/exchange/arrival.ts";
import type { HttpHandlers, HttpLimits } from "../proxy/exchange/http-server.ts";
import { Http2Sessions } from "../proxy/exchange/http2-sessions.ts";
import { sendFinalResponse } from "../proxy/flow/final-response.ts";
import { denialOf } from "../proxy/flow/reply.ts";
import { checkHostAgrees } from "../proxy/exchange/request-head.ts";
import { type AskedTunnel, AskedTunnels } from "../proxy/tunnel/asked.ts";
import type { RequestHead } from "../wire/head.ts";
import type { ServerExchange } from "../wire/server-exchange.ts";
import { connectReplies } from "../proxy/tunnel/request.ts";
import { connectStream } from "./connect-streams.ts";
import { SocksServer } from "./socks.ts";

/** What a forward port is made with. */
export interface ForwardOptions {
  readonly limits: HttpLimits;
  /** Whether a connection may begin as one of SOCKS. */
  readonly socks: boolean;
}

/** Parses what arrives on the forward port and hands it to exchanges and tunnels. */
export class ForwardSurface implements HttpHandlers {
  readonly surface = "forward";
  /** Offered inside TLS; in the clear, for a client that knows that this proxy speaks it. */
  readonly http2: Http2Sessions;
  /** Where the file lets this port speak SOCKS too. */
  readonly socks: SocksServer | undefined;
  readonly #services: SurfaceServices;
  readonly #tunnels: AskedTunnels;

  constructor(services: SurfaceServices, bridge: BridgeServer, { limits, socks }: ForwardOptions) {
    this.#services = services;
    const tunnels = new AskedTunnels(services, bridge);
    this.#tunnels = tunnels;
    this.http2 = new Http2Sessions(services, limits, (socket) => ({
      surface: "forward",
      // A client of the proxy asks for plain HTTP inside TLS as well.
      scheme: "http",
      connect: (asked) => connectStream(services, tunnels, { ...asked, carrier: socket }),
      client: socket.remoteAddress ?? "",
      route: ({ path, host, credentials }, runtime) => ({
        destination: parseHostHeader(host, "http"),
        path,
        transport: "http",
        priorKnowledge: "where-needed",
        client: services.callers.clientOf(socket, runtime, { credentials }),
      }),
    }));
    if (socks)
      this.socks = new SocksServer(services, this.#tunnels, { ...limits, surface: "forward" });
  }

  onRequest(exchange: ServerExchange): void {
    serveRequest(this.#services, explicit, exchange);
  }

  onConnect(request: RequestHead, client: Socket, head: Buffer): undefined {
    const read = (): AskedTunnel => {
      const destination = parseAuthority(request.target, "tcp");
      checkHostAgrees(request, destination, "tcp");
      const headers = new HeaderList(stripHopByHop(request.rawHeaders));
      const credentials = request.proxyAuthorization;
      return { client, destination, head, headers, credentials, replies: connectReplies };
    };
    this.#tunnels.open(read, (error) => {
      this.#services.recorder.malformed(error, {
        surface: "forward",
        client: client.remoteAddress ?? "",
        method: "CONNECT",
      });
      sendFinalResponse(client, denialOf(error));
    });
  }
}

/** Absolute-form only: forwarding by Host alone would let any web page of the network use the proxy. */
function routeOf({ head: { target } }: ArrivedRequest): Route {
  if (target.startsWith("/") || target === "*") {
    throw new ProxyError(
      "request.malformed",
      "this is a forward proxy: the request target must be an absolute URI (RFC 9112 section 3.2.2)",
    );
  }
  return { ...parseAbsoluteTarget(target), transport: "http" };
}

const explicit = { surface: "forward", route: routeOf } as const;
