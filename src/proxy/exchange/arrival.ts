/** One HTTP/1 request of the agent, from whichever surface: checked, turned into a Flow, exchanged or refused. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { ProxyError } from "../../errors.ts";
import type { IdleSweeper } from "../../net/idle-sweeper.ts";
import type { Destination } from "../../net/destination.ts";
import { http } from "../../net/node-http.ts";
import type { SocketEnd } from "../../net/kernel/socket-table.ts";
import { type Client, makeFlow, type Transport } from "../../pipeline/flow.ts";
import type { HeaderList } from "../../http/headers.ts";
import type { Callers } from "../flow/callers.ts";
import { type DownstreamLimits, Http1Downstream } from "./downstream.ts";
import { exchange } from "./exchange.ts";
import type { ExchangeRequest, ExchangeServices, UpgradeRequest } from "./exchange-request.ts";
import type { RefusedHead } from "../flow/finish.ts";
import { denialOf, renderDenial } from "../flow/reply.ts";
import {
  checkFraming,
  checkHostAgrees,
  checkLoop,
  checkMethod,
  endToEndHeaders,
  upgradeProtocol,
} from "./request-head.ts";
import type { Lease, Runtime, RuntimeHolder } from "../flow/runtime.ts";
import type { ConfirmCaptured } from "../flow/captured.ts";
import { upgradeOf } from "./upgrade.ts";

/** What every surface shares. */
export interface SurfaceServices extends ExchangeServices {
  readonly runtimes: RuntimeHolder;
  readonly idle: IdleSweeper;
  readonly maxHeaders: number;
  readonly callers: Callers;
}

/** Where a request goes, as its surface read the target. */
export interface Route {
  readonly destination: Destination;
  /** Path and query, byte for byte. */
  readonly path: string;
  readonly transport: Transport;
  /** Peer of the connection that the agent opened, where the surface knows it already. */
  readonly client?: Client;
  readonly parentId?: string;
  /** Where the client of a captured connection was going, and the check that goes with it. */
  readonly captured?: string;
  readonly confirm?: ConfirmCaptured;
  /** The other end of the client's connection as the client sees it, where it is not our listener. */
  readonly reached?: SocketEnd;
  /** Hears of a fault of the upstream. */
  readonly onFault?: (error: ProxyError) => void;
}

/** Where requests of one surface come from, and how it reads their targets. */
export interface RequestSurface extends Pick<RefusedHead, "surface" | "parent"> {
  route(this: void, request: IncomingMessage): Route;
}

/** A request as its server hands it over. */
export interface ArrivedRequest {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Bytes that came after the head of an upgrade; absent for other requests. */
  readonly upgradeHead?: Buffer;
}

/** Serves one request. `route` throws ProxyError for a target that the surface refuses. */
export function serveRequest(
  services: SurfaceServices,
  surface: RequestSurface,
  { request, response, upgradeHead }: ArrivedRequest,
): void {
  const { route, ...origin } = surface;
  const lease = services.runtimes.acquire();
  const downstream = new Http1Downstream(request, response, stallLimits(lease));
  const refuse = (error: unknown): void => {
    lease.release();
    services.recorder.malformed(error, {
      ...origin,
      client: request.socket.remoteAddress ?? "",
      method: request.method ?? "",
    });
    refuseMalformed(downstream, error);
  };
  try {
    checkFraming(request, services.maxHeaders);
    checkMethod(request.method);
    const routed = route(request);
    const { destination } = routed;
    checkHostAgrees(request, destination, destination.scheme);
    const headers = endToEndHeaders(request);
    checkLoop(headers, services.pseudonym);
    headers.set("Host", destination.hostHeader);
    const protocol = upgradeHead === undefined ? undefined : upgradeProtocol(request);
    const { runtime } = lease;
    const upgrade =
      protocol === undefined || upgradeHead === undefined
        ? undefined
        : upgradeOf({
            protocol,
            head: upgradeHead,
            client: request.socket,
            response,
            idleTimeoutMs: runtime.limits.tunnelIdleTimeoutMs,
            idle: services.idle,
            metrics: services.recorder.metrics,
          });
    const start = (client: Client): void => {
      void exchange(
        services,
        exchangeOf(routed, client, { runtime, downstream, headers, upgrade }),
      ).finally(() => lease.release());
    };
    const client =
      routed.client ??
      services.callers.clientOf(request.socket, runtime, {
        credentials: request.headers["proxy-authorization"],
        reached: routed.reached,
      });
    if (client instanceof Promise) client.then(start, refuse);
    else start(client);
  } catch (error) {
    refuse(error);
  }
}

function exchangeOf(
  routed: Route,
  client: Client,
  parts: {
    readonly runtime: Runtime;
    readonly downstream: Http1Downstream;
    readonly headers: HeaderList;
    readonly upgrade: UpgradeRequest | undefined;
  },
): ExchangeRequest {
  const { destination, path, transport, parentId, captured, confirm, onFault } = routed;
  const { upgrade, ...shared } = parts;
  const flow = makeFlow({
    direction: "outbound",
    transport,
    client,
    destination,
    ...(parentId === undefined ? {} : { parentId }),
    ...(captured === undefined ? {} : { captured }),
  });
  return {
    ...shared,
    flow,
    path,
    host: destination.authority,
    ...(onFault === undefined ? {} : { onFault }),
    ...(confirm === undefined ? {} : { confirm }),
    ...(upgrade === undefined ? {} : { upgrade }),
  };
}

/** A response object for a connection that Node's parser has let go of: it carries one answer, or a new protocol. */
export function responseFor(request: IncomingMessage, client: Socket): ServerResponse {
  const response = new http.ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(client);
  response.once("finish", () => client.destroySoon());
  // Nobody reads the connection before the new protocol begins: without this a client that has left is not noticed.
  client.once("end", () => {
    if (response.socket === client) client.destroy();
  });
  client.read(0);
  return response;
}

/** The stall limits of the generation that the request started with. */
export function stallLimits(lease: Lease): DownstreamLimits {
  const { bodyTimeoutMs, streamIdleTimeoutMs } = lease.runtime.limits;
  return { bodyTimeoutMs, readerTimeoutMs: streamIdleTimeoutMs };
}

/** An ambiguous message is refused and its connection closed: what follows on it cannot be trusted either. */
export function refuseMalformed(downstream: Http1Downstream, error: unknown): void {
  const reply = renderDenial(denialOf(error));
  downstream.reply({ ...reply, headers: { ...reply.headers, Connection: "close" } });
}
