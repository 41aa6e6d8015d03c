/** The inbound side: what comes in for the agent, authenticated by the chain and forwarded to its one backend. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { ProxyError } from "../errors.ts";
import { appendForwardedFor, type HeaderList } from "../http/headers.ts";
import {
  type Destination,
  originForm,
  parseAbsoluteTarget,
  parseHostHeader,
} from "../net/destination.ts";
import { type Flow, makeFlow } from "../pipeline/flow.ts";
import { Http1Downstream } from "../proxy/exchange/downstream.ts";
import { exchange } from "../proxy/exchange/exchange.ts";
import {
  refuseMalformed,
  responseFor,
  stallLimits,
  type SurfaceServices,
} from "../proxy/exchange/arrival.ts";
import { upgradeOf } from "../proxy/exchange/upgrade.ts";
import { answerLast } from "../proxy/exchange/last-answer.ts";
import type { Lease } from "../proxy/flow/runtime.ts";
import type { ListenerHandlers } from "./listener.ts";
import {
  checkFraming,
  checkLoop,
  checkMethod,
  endToEndHeaders,
  upgradeProtocol,
} from "../proxy/exchange/request-head.ts";

interface InboundHead {
  readonly path: string;
  readonly host: string;
  readonly headers: HeaderList;
  readonly flow: Flow;
  readonly basePath: string;
}

/** Parses what arrives on the reverse port and hands it to the journeys. */
export class ReverseSurface implements ListenerHandlers {
  readonly #services: SurfaceServices;

  constructor(services: SurfaceServices) {
    this.#services = services;
  }

  onRequest(request: IncomingMessage, response: ServerResponse): void {
    this.#serve(request, response, undefined);
  }

  #serve(request: IncomingMessage, response: ServerResponse, head: Buffer | undefined): void {
    const services = this.#services;
    const lease = services.runtimes.acquire();
    const downstream = new Http1Downstream(request, response, stallLimits(lease));
    try {
      const parsed = this.#parse(request, lease);
      const { runtime } = lease;
      const protocol = head === undefined ? undefined : upgradeProtocol(request);
      const upgrade =
        head === undefined || protocol === undefined
          ? {}
          : {
              upgrade: upgradeOf({
                protocol,
                head,
                client: request.socket,
                response,
                idleTimeoutMs: runtime.limits.tunnelIdleTimeoutMs,
                idle: services.idle,
                metrics: services.recorder.metrics,
              }),
            };
      const run = exchange(services, { runtime, downstream, ...parsed, ...upgrade });
      void run.finally(() => lease.release());
    } catch (error) {
      lease.release();
      this.#refused(request, error);
      refuseMalformed(downstream, error);
    }
  }

  carriesUpgrade(request: IncomingMessage): boolean {
    return upgradeProtocol(request) !== undefined;
  }

  onUpgrade(request: IncomingMessage, client: Socket, head: Buffer): void {
    client.on("error", ignore);
    this.#serve(request, responseFor(request, client), head);
  }

  onConnect(_request: IncomingMessage, client: Socket, _head: Buffer): void {
    client.on("error", ignore);
    const denial = {
      code: "request.method-not-allowed",
      message: "CONNECT belongs on the forward port",
    };
    answerLast(client, denial);
  }

  #refused(request: IncomingMessage, error: unknown): void {
    this.#services.recorder.malformed(error, {
      surface: "reverse",
      client: request.socket.remoteAddress ?? "",
      method: request.method ?? "",
    });
  }

  #parse(request: IncomingMessage, lease: Lease): InboundHead {
    checkFraming(request, this.#services.maxHeaders);
    checkMethod(request.method);
    const { backend } = lease.runtime;
    if (backend === undefined)
      throw new ProxyError("upstream.unreachable", "listener.reverse_proxy_backend is not set");
    const { path, host } = originTarget(request);
    const headers = endToEndHeaders(request);
    checkLoop(headers, this.#services.pseudonym);
    forwardedFields(headers, request, backend.destination);
    const { remoteAddress, remotePort } = request.socket;
    const client = { address: remoteAddress ?? "", port: remotePort ?? 0 };
    const flow = makeFlow({
      direction: "inbound",
      transport: "http",
      client,
      destination: backend.destination,
    });
    return { path, host, headers, flow, basePath: backend.basePath };
  }
}

/** Path and host of an origin-form target; absolute-form is understood as RFC 9112 section 3.2.2 asks of servers. */
function originTarget(request: IncomingMessage): { readonly path: string; readonly host: string } {
  const target = request.url ?? "";
  const host = request.headers.host ?? "";
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

/** The fields that tell the backend who spoke to us; the first proxy of a chain sets -Proto and -Host. */
function forwardedFields(
  headers: HeaderList,
  request: IncomingMessage,
  backend: Destination,
): void {
  appendForwardedFor(headers, request.socket.remoteAddress ?? "unknown");
  if (!headers.has("x-forwarded-proto")) headers.set("X-Forwarded-Proto", "http");
  const host = request.headers.host;
  if (!headers.has("x-forwarded-host") && host !== undefined) headers.set("X-Forwarded-Host", host);
  headers.set("Host", backend.hostHeader);
}

function ignore(): void {
  // `close` follows and is what ends the flow.
}
