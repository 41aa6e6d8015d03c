/** One HTTP request, from whichever surface and protocol: checked, turned into a Flow, exchanged or refused. */
import type { ProxyError } from "../../errors.ts";
import type { HeaderList } from "../../http/headers.ts";
import { isSignedField } from "../../http/signed-fields.ts";
import type { Destination } from "../../net/destination.ts";
import type { HeadWatch } from "../../net/head-watch.ts";
import type { SocketEnd } from "../../net/kernel/socket-table.ts";
import type { Reply } from "../../pipeline/decision.ts";
import { type Client, type Direction, makeFlow, type Transport } from "../../pipeline/flow.ts";
import { type Admitted, admit } from "../flow/admission.ts";
import type { Callers } from "../flow/callers.ts";
import type { ConfirmCaptured } from "../flow/captured.ts";
import type { RefusedHead } from "../flow/finish.ts";
import { denialOf, renderDenial } from "../flow/reply.ts";
import type { Lease, Runtime, RuntimeHolder } from "../flow/runtime.ts";
import type { ServerExchange } from "../../wire/server-exchange.ts";
import type { Downstream, DownstreamLimits } from "./downstream.ts";
import { exchange } from "./exchange.ts";
import type { ExchangeServices, UpgradeRequest } from "./exchange-request.ts";
import { Http1Downstream } from "./http1-downstream.ts";
import {
  checkHostAgrees,
  checkLoop,
  checkMethod,
  countHop,
  endToEndHeaders,
  upgradeProtocol,
} from "./request-head.ts";
import { type UpgradeParts, upgradeOf } from "./upgrade.ts";

/** What every surface shares. */
export interface SurfaceServices extends ExchangeServices {
  readonly runtimes: RuntimeHolder;
  readonly heads: HeadWatch;
  readonly callers: Callers;
}

/** Where a request goes, as its surface read the target. */
export interface Route {
  /** Outbound unless said otherwise. */
  readonly direction?: Direction;
  readonly destination: Destination;
  /** Path and query, byte for byte. */
  readonly path: string;
  /** What precedes the path on the wire. */
  readonly basePath?: string;
  /** The authority that the client named, for plugins and records; that of the destination where absent. */
  readonly host?: string;
  readonly transport: Transport;
  /** Peer of the connection that the agent opened; looked up where the surface does not know it. */
  readonly client?: Client | undefined;
  readonly parentId?: string | undefined;
  /**
   * HTTP/2 without TLS to the destination: for every request, because it is known to speak it, or for those that HTTP/1.1
   * cannot carry.
   */
  readonly priorKnowledge?: "always" | "where-needed" | undefined;
  /** The Host field stays as the client sent it: it knows of no proxy. */
  readonly keepsHost?: boolean;
  /** The original destination of a captured connection, and the check that the request's host agrees with it. */
  readonly captured?: string | undefined;
  readonly confirm?: ConfirmCaptured | undefined;
  /** The other end of the client's connection as the client sees it, where it is not our listener. */
  readonly reached?: SocketEnd | undefined;
  /** Adds the fields that tell the next hop who spoke to us. */
  readonly forwarded?: (headers: HeaderList) => void;
  /** Called with a fault of the upstream. */
  readonly onFault?: ((error: ProxyError) => void) | undefined;
  /** Called when the exchange begins, which may become a tunnel; what it returns is called at its end. */
  readonly begin?: ((isTunnel: boolean) => () => void) | undefined;
}

/** Where requests of one surface come from, and how it reads their targets. */
export interface RequestSurface extends Pick<RefusedHead, "surface" | "parent"> {
  /** Throws ProxyError for a target that the surface refuses. */
  route(this: void, request: ArrivedRequest, runtime: Runtime): Route;
}

/** The parts of a request that a surface reads its target from. */
export type ArrivedRequest = Pick<ServerExchange, "head" | "socket">;

/** A request whose protocol was read. */
export interface Arrival {
  readonly route: Route;
  client(this: void): Client | Promise<Client>;
  /** End-to-end fields only. */
  readonly headers: HeaderList;
  readonly upgrade: ((parts: UpgradeParts) => UpgradeRequest) | undefined;
}

/** Serves one request of HTTP/1. */
export function serveRequest(
  services: SurfaceServices,
  { route, ...origin }: RequestSurface,
  exchanged: ServerExchange,
): void {
  const { head, socket } = exchanged;
  const lease = services.runtimes.acquire();
  const downstream = new Http1Downstream(exchanged, downstreamLimits(services, lease));
  const from = { ...origin, client: socket.remoteAddress ?? "", method: head.method };
  arrive(services, { lease, downstream, from }, (runtime) => {
    checkMethod(head.method);
    const routed = route(exchanged, runtime);
    const { destination, direction, reached } = routed;
    if (direction !== "inbound") checkHostAgrees(head, destination, destination.scheme);
    const protocol = upgradeProtocol(head);
    // A client that speaks the new protocol too early must not be heard as one that pipelines requests.
    if (protocol !== undefined) exchanged.response.closes = true;
    return {
      headers: endToEndHeaders(head),
      upgrade:
        protocol === undefined
          ? undefined
          : (parts) => upgradeOf({ ...parts, protocol, exchange: exchanged }),
      route: routed,
      client: () =>
        routed.client ??
        services.callers.clientOf(socket, runtime, {
          credentials: head.proxyAuthorization,
          reached,
        }),
    };
  });
}

/** Serves one request of any protocol; `read` throws ProxyError for what is refused before it is a flow. */
export function arrive(
  services: SurfaceServices,
  message: {
    readonly lease: Lease;
    readonly downstream: Downstream;
    readonly from: RefusedHead;
  },
  read: (runtime: Runtime) => Arrival,
): void {
  const { lease, downstream, from } = message;
  const begin = (runtime: Runtime): Admitted => {
    const { route, headers, upgrade, client } = read(runtime);
    checkLoop(headers, services.pseudonym);
    countHop(from.method, headers);
    route.forwarded?.(headers);
    if (route.keepsHost !== true && !isSignedHost(headers, route))
      headers.set("Host", route.destination.hostHeader);
    const { direction = "outbound", transport, destination, parentId, captured } = route;
    const { path, basePath = "", host = destination.authority, confirm, onFault } = route;
    const { priorKnowledge } = route;
    return {
      client: client(),
      run: (peer, done) => {
        const ended = route.begin?.(upgrade !== undefined);
        const over = ended === undefined ? done : () => (ended(), done());
        exchange(services, over, {
          runtime,
          flow: makeFlow({ direction, transport, client: peer, destination, parentId, captured }),
          downstream,
          headers,
          path,
          basePath,
          host,
          confirm,
          onFault,
          priorKnowledge,
          upgrade: upgrade?.({
            idleTimeoutMs: runtime.limits.tunnelIdleTimeoutMs,
            stalls: services.stalls,
            backlogs: services.backlogs,
            metrics: services.recorder.metrics,
          }),
        });
      },
    };
  };
  admit(lease, begin, (error) => {
    services.recorder.malformed(error, from);
    // An ambiguous message ends its connection: later bytes on it cannot be trusted either.
    const reply = renderDenial(denialOf(error));
    const headers = { ...reply.headers, Connection: "close" };
    replyAlone(services, downstream, { ...reply, headers });
  });
}

/** Replies where there is no exchange: a client that does not read it is let go in time all the same. */
export function replyAlone(
  { stalls }: Pick<SurfaceServices, "stalls">,
  downstream: Downstream,
  reply: Reply,
): void {
  const slot = stalls.add(downstream);
  downstream.onClose(() => stalls.delete(slot));
  downstream.reply(reply);
}

/** Whether a signature covers the client's own Host, which is the destination's but for case and a default port. */
function isSignedHost(headers: HeaderList, { destination, path }: Route): boolean {
  const [host = "", ...more] = headers.getAll("host");
  const { authority, hostHeader } = destination;
  if (more.length > 0 || host === hostHeader) return false;
  const isSame = [authority, hostHeader].includes(host.toLowerCase());
  return isSame && isSignedField(headers, path, "host");
}

/** Limits of time and memory for a client, from the generation that the request starts with. */
export function downstreamLimits(
  { backlogs }: Pick<SurfaceServices, "backlogs">,
  { runtime }: Pick<Lease, "runtime">,
): DownstreamLimits {
  const { bodyTimeoutMs, streamIdleTimeoutMs: readerTimeoutMs } = runtime.limits;
  return { bodyTimeoutMs, readerTimeoutMs, backlogs };
}
