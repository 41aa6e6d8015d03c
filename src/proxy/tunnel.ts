/** One CONNECT: the host is judged, the vetted address dialled, and the bytes spliced. */
import type { Socket } from "node:net";
import type { HeaderList } from "../http/headers.ts";
import { adaptiveReader } from "../net/adaptive-reader.ts";
import type { IdleSweeper } from "../net/idle-sweeper.ts";
import { splice } from "../net/splice.ts";
import { RequestContext } from "../pipeline/context.ts";
import type { Denial } from "../pipeline/decision.ts";
import type { Flow } from "../pipeline/flow.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import type { Ending, FlowRecorder } from "./finish.ts";
import { denialOf, rawReply, renderDenial, statusOf } from "./reply.ts";
import type { Runtime } from "./runtime.ts";
import type { CutReason, OpenTunnel, TunnelRegistry } from "./tunnel-registry.ts";

/** What every tunnel of the process shares. */
export interface TunnelServices {
  readonly recorder: FlowRecorder;
  readonly tunnels: TunnelRegistry;
  readonly idle: IdleSweeper;
}

/** One CONNECT as a listener hands it over. */
export interface TunnelRequest {
  readonly runtime: Runtime;
  readonly flow: Flow;
  readonly client: Socket;
  /** Bytes that arrived together with the CONNECT; they go on only once the tunnel is up. */
  readonly head: Buffer;
  /** End-to-end fields of the CONNECT, for plugins. */
  readonly headers: HeaderList;
}

const established = "HTTP/1.1 200 Connection Established\r\n\r\n";

/** Runs the tunnel to its end. Never rejects. */
export async function tunnel(services: TunnelServices, request: TunnelRequest): Promise<void> {
  const { runtime, flow, client } = request;
  const leaving = new AbortController();
  client.on("error", () => leaving.abort());
  client.once("close", () => leaving.abort());
  const skipped = runtime.skipHosts.matches(flow.destination.host);
  const facts = {
    flow,
    stage: "connect" as const,
    method: "CONNECT",
    path: "",
    host: flow.destination.authority,
    headers: request.headers,
    hasBody: false,
    signal: leaving.signal,
  };
  const context = new RequestContext(facts);
  let ending: Ending;
  try {
    ending = await carry(services, request, context, skipped);
  } catch (error) {
    ending = refuse(client, denialOf(error), leaving.signal.aborted);
  }
  client.destroySoon();
  await services.recorder.finished(context, skipped ? undefined : runtime.outbound, ending);
}

async function carry(
  services: TunnelServices,
  request: TunnelRequest,
  context: RequestContext,
  skipped: boolean,
): Promise<Ending> {
  const { runtime, flow, client } = request;
  const { recorder, tunnels } = services;
  if (tunnels.size >= runtime.limits.maxTunnels) {
    recorder.metrics.refused("tunnels");
    return refuse(
      client,
      { code: "proxy.overloaded", message: "too many tunnels are open (limits.max_tunnels)" },
      false,
    );
  }
  let permit: Permit;
  if (skipped) {
    permit = runtime.outbound.permitSkipped(flow);
  } else {
    const verdict = await runtime.outbound.runRequest(context);
    if ("denial" in verdict) return refuse(client, verdict.denial, context.signal.aborted);
    if ("reply" in verdict) {
      client.write(rawReply(verdict.reply));
      return {
        status: verdict.reply.status,
        bytesReceived: 0,
        bytesSent: 0,
        refused: true,
        cancelled: false,
      };
    }
    permit = verdict.permit;
    const { mustInspect } = context.tunnelTerms;
    if (mustInspect !== undefined) {
      // Its requests would pass unseen; nothing has been dialled yet.
      const message = `${flow.destination.authority} is open only to requests that can be judged: ${mustInspect}`;
      return refuse(client, { code: "policy.forbidden", message }, false);
    }
    recorder.permitted(context);
  }
  return relay(services, request, context, permit, skipped);
}

/** Dials first and answers 200 after, so that a failure is still a clean 502. */
async function relay(
  services: TunnelServices,
  request: TunnelRequest,
  context: RequestContext,
  permit: Permit,
  skipped: boolean,
): Promise<Ending> {
  const { runtime, client, head } = request;
  const { metrics } = services.recorder;
  const startedAt = performance.now();
  const reader = adaptiveReader();
  const upstream = await runtime.upstream.connect(permit, {
    signal: context.signal,
    onread: reader.options,
  });
  metrics.phase("outbound", "connect", (performance.now() - startedAt) / 1_000);
  const cutting = new AbortController();
  let cutReason: CutReason | undefined;
  const open: OpenTunnel = {
    facts: context,
    skipped,
    cut: (reason) => {
      cutReason = reason;
      cutting.abort();
    },
  };
  services.tunnels.add(open);
  metrics.tunnelOpened();
  const openedAt = performance.now();
  client.write(established);
  try {
    const result = await splice(client, upstream, {
      idleTimeoutMs: runtime.limits.tunnelIdleTimeoutMs,
      sweeper: services.idle,
      signal: cutting.signal,
      reader,
      head,
    });
    const reason = cutReason === "revoked" ? "revoked" : result.reason;
    metrics.tunnelClosed(
      result.bytesUp,
      result.bytesDown,
      (performance.now() - openedAt) / 1_000,
      reason,
    );
    return {
      status: 200,
      bytesReceived: result.bytesUp,
      bytesSent: result.bytesDown,
      refused: false,
      cancelled: false,
      note: { closed: cutReason ?? result.reason },
    };
  } finally {
    services.tunnels.delete(open);
  }
}

function refuse(client: Socket, denial: Denial, cancelled: boolean): Ending {
  const reply = renderDenial(denial);
  if (!client.destroyed) client.write(rawReply(reply));
  return {
    status: reply.status,
    bytesReceived: 0,
    bytesSent: reply.body.length,
    denial,
    refused: statusOf(denial) < 500 || denial.plugin !== undefined,
    cancelled,
  };
}
