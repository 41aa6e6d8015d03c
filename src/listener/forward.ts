/** The explicit proxy: absolute-form requests and CONNECT, from an agent that knows that it speaks to a proxy. */
import { type IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { ProxyError } from "../errors.ts";
import { HeaderList, stripHopByHop } from "../http/headers.ts";
import type { IdleSweeper } from "../net/idle-sweeper.ts";
import { parseAbsoluteTarget, parseAuthority } from "../net/destination.ts";
import { type Flow, makeFlow, type Transport } from "../pipeline/flow.ts";
import { Http1Downstream, type DownstreamLimits } from "../proxy/downstream.ts";
import { exchange, type ExchangeServices } from "../proxy/exchange.ts";
import { denialOf, rawReply, renderDenial } from "../proxy/reply.ts";
import type { Lease, RuntimeHolder } from "../proxy/runtime.ts";
import { tunnel } from "../proxy/tunnel.ts";
import type { TunnelRegistry } from "../proxy/tunnel-registry.ts";
import { upgradeOf } from "../proxy/upgrade.ts";
import type { ListenerHandlers } from "./listener.ts";
import {
  checkFraming,
  checkHostAgrees,
  checkLoop,
  checkMethod,
  endToEndHeaders,
  upgradeProtocol,
} from "./request-head.ts";

/** What a surface is made with. */
export interface SurfaceServices extends ExchangeServices {
  readonly runtimes: RuntimeHolder;
  readonly tunnels: TunnelRegistry;
  readonly idle: IdleSweeper;
  readonly maxHeaders: number;
}

interface Upgrade {
  readonly protocol: string;
  readonly head: Buffer;
}

/** Parses what arrives on the forward port and hands it to the journeys. */
export class ForwardSurface implements ListenerHandlers {
  readonly #services: SurfaceServices;

  constructor(services: SurfaceServices) {
    this.#services = services;
  }

  onRequest(request: IncomingMessage, response: ServerResponse): void {
    this.#serve(request, response, undefined);
  }

  onUpgrade(request: IncomingMessage, client: Socket, head: Buffer): void {
    client.on("error", ignore);
    const response = new ServerResponse(request);
    // The parser has let go of this connection: it carries one answer, or the new protocol.
    response.shouldKeepAlive = false;
    response.assignSocket(client);
    response.once("finish", () => client.destroySoon());
    const protocol = upgradeProtocol(request);
    this.#serve(request, response, protocol === undefined ? undefined : { protocol, head });
  }

  onConnect(request: IncomingMessage, client: Socket, head: Buffer): void {
    client.on("error", ignore);
    const lease = this.#services.runtimes.acquire();
    let flow: Flow;
    try {
      checkFraming(request, this.#services.maxHeaders);
      const destination = parseAuthority(request.url ?? "", "tcp");
      checkHostAgrees(request, destination, "tcp");
      flow = flowTo(destination, client, "connect");
    } catch (error) {
      lease.release();
      this.#services.recorder.metrics.refused("malformed");
      client.end(rawReply(renderDenial(denialOf(error))));
      return;
    }
    const headers = new HeaderList(stripHopByHop(request.rawHeaders));
    void tunnel(this.#services, { runtime: lease.runtime, flow, client, head, headers }).finally(
      () => lease.release(),
    );
  }

  #serve(request: IncomingMessage, response: ServerResponse, upgrade: Upgrade | undefined): void {
    const lease = this.#services.runtimes.acquire();
    const downstream = new Http1Downstream(request, response, stallLimits(lease));
    try {
      checkFraming(request, this.#services.maxHeaders);
      checkMethod(request.method);
      const { destination, path } = parseTarget(request.url ?? "");
      checkHostAgrees(request, destination, destination.scheme);
      const headers = endToEndHeaders(request);
      checkLoop(headers, this.#services.pseudonym);
      headers.set("Host", destination.hostHeader);
      const { runtime } = lease;
      const client = request.socket;
      const flow = flowTo(destination, client, "http");
      const run = exchange(this.#services, {
        runtime,
        flow,
        downstream,
        headers,
        path,
        host: destination.authority,
        ...(upgrade === undefined
          ? {}
          : {
              upgrade: upgradeOf({
                ...upgrade,
                client,
                response,
                idleTimeoutMs: runtime.limits.tunnelIdleTimeoutMs,
                idle: this.#services.idle,
                metrics: this.#services.recorder.metrics,
              }),
            }),
      });
      void run.finally(() => lease.release());
    } catch (error) {
      lease.release();
      this.#services.recorder.metrics.refused("malformed");
      refuseMalformed(downstream, error);
    }
  }
}

/** Absolute-form only: forwarding by Host alone would let any web page of the network use the proxy. */
function parseTarget(target: string): ReturnType<typeof parseAbsoluteTarget> {
  if (target.startsWith("/") || target === "*") {
    throw new ProxyError(
      "request.malformed",
      "this is a forward proxy: the request target must be an absolute URI (RFC 9112 section 3.2.2)",
    );
  }
  return parseAbsoluteTarget(target);
}

function flowTo(destination: Flow["destination"], client: Socket, transport: Transport): Flow {
  const { remoteAddress, remotePort } = client;
  return makeFlow({
    direction: "outbound",
    transport,
    client: { address: remoteAddress ?? "", port: remotePort ?? 0 },
    destination,
  });
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

function ignore(): void {
  // `close` follows and is what ends the flow.
}
