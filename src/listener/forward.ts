/** The explicit proxy: absolute-form requests and CONNECT, from an agent that knows that it speaks to a proxy. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { ProxyError } from "../errors.ts";
import { HeaderList, stripHopByHop } from "../http/headers.ts";
import { parseAbsoluteTarget, parseAuthority } from "../net/destination.ts";
import { type Client, makeFlow } from "../pipeline/flow.ts";
import type { BridgeServer } from "../proxy/tunnel/bridge-server.ts";
import {
  responseFor,
  type Route,
  serveRequest,
  type SurfaceServices,
} from "../proxy/exchange/arrival.ts";
import { answerLast } from "../proxy/exchange/last-answer.ts";
import { denialOf } from "../proxy/flow/reply.ts";
import { checkFraming, checkHostAgrees, upgradeProtocol } from "../proxy/exchange/request-head.ts";
import { tunnel } from "../proxy/tunnel/tunnel.ts";
import { connectAnswers } from "../proxy/tunnel/request.ts";
import type { ListenerHandlers } from "./listener.ts";

/** Parses what arrives on the forward port and hands it to the journeys. */
export class ForwardSurface implements ListenerHandlers {
  readonly #services: SurfaceServices;
  readonly #bridge: BridgeServer;

  constructor(services: SurfaceServices, bridge: BridgeServer) {
    this.#services = services;
    this.#bridge = bridge;
  }

  onRequest(request: IncomingMessage, response: ServerResponse): void {
    serveRequest(this.#services, explicit, { request, response });
  }

  carriesUpgrade(request: IncomingMessage): boolean {
    return upgradeProtocol(request) !== undefined;
  }

  onUpgrade(request: IncomingMessage, client: Socket, head: Buffer): void {
    client.on("error", ignore);
    const response = responseFor(request, client);
    serveRequest(this.#services, explicit, { request, response, upgradeHead: head });
  }

  onConnect(request: IncomingMessage, client: Socket, head: Buffer): void {
    client.on("error", ignore);
    const lease = this.#services.runtimes.acquire();
    const refuse = (error: unknown): void => {
      lease.release();
      const address = client.remoteAddress ?? "";
      const head = { surface: "forward", client: address, method: "CONNECT" } as const;
      this.#services.recorder.malformed(error, head);
      answerLast(client, denialOf(error));
    };
    try {
      checkFraming(request, this.#services.maxHeaders);
      const destination = parseAuthority(request.url ?? "", "tcp");
      checkHostAgrees(request, destination, "tcp");
      const { runtime } = lease;
      const headers = new HeaderList(stripHopByHop(request.rawHeaders));
      const start = (peer: Client): void => {
        const flow = makeFlow({
          direction: "outbound",
          transport: "connect",
          client: peer,
          destination,
        });
        const parts = { runtime, flow, client, head, headers, answers: connectAnswers };
        void tunnel(this.#services, this.#bridge, parts).finally(() => lease.release());
      };
      const peer = this.#services.callers.clientOf(client, runtime, {
        credentials: request.headers["proxy-authorization"],
      });
      if (peer instanceof Promise) peer.then(start, refuse);
      else start(peer);
    } catch (error) {
      refuse(error);
    }
  }
}

/** Absolute-form only: forwarding by Host alone would let any web page of the network use the proxy. */
function routeOf(request: IncomingMessage): Route {
  const target = request.url ?? "";
  if (target.startsWith("/") || target === "*") {
    throw new ProxyError(
      "request.malformed",
      "this is a forward proxy: the request target must be an absolute URI (RFC 9112 section 3.2.2)",
    );
  }
  return { ...parseAbsoluteTarget(target), transport: "http" };
}

const explicit = { surface: "forward", route: routeOf } as const;

function ignore(): void {
  // `close` follows and is what ends the flow.
}
