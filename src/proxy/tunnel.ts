/** One CONNECT: the host is judged, then the connection is opened by the bridge or spliced to a vetted address. */
import type { Socket } from "node:net";
import { Cancellation } from "../pipeline/cancellation.ts";
import { RequestContext } from "../pipeline/context.ts";
import type { Denial } from "../pipeline/decision.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import type { BridgeServer } from "./bridge-server.ts";
import { bridgeTunnel } from "./bridged-tunnel.ts";
import type { Ending } from "./finish.ts";
import { denialOf, rawReply, renderDenial, statusOf } from "./reply.ts";
import { spliceTunnel } from "./spliced-tunnel.ts";
import { planFor, planWith, unseenRefusal } from "./tunnel-plan.ts";
import type { TunnelRequest, TunnelServices } from "./tunnel-request.ts";

/** Runs the tunnel to its end. Never rejects. */
export async function tunnel(
  services: TunnelServices,
  bridge: BridgeServer,
  request: TunnelRequest,
): Promise<void> {
  const { runtime, flow, client } = request;
  const leaving = new Cancellation();
  client.on("error", () => leaving.abort());
  client.once("close", () => leaving.abort());
  const skipped = runtime.skipHosts.matches(flow.destination.host);
  const context = new RequestContext({
    flow,
    stage: "connect",
    method: "CONNECT",
    path: "",
    host: flow.destination.authority,
    headers: request.headers,
    hasBody: false,
    cancellation: leaving,
  });
  if (!skipped) services.recorder.arrived(context);
  let ending: Ending;
  try {
    ending = services.tunnels.take(runtime.limits.maxTunnels)
      ? await carry(services, bridge, request, context, skipped).finally(() =>
          services.tunnels.leave(),
        )
      : refuseFull(services, client);
  } catch (error) {
    ending = refuse(client, denialOf(error), leaving.aborted);
  }
  client.destroySoon();
  await services.recorder.finished(context, skipped ? undefined : runtime.outbound, ending);
}

async function carry(
  services: TunnelServices,
  bridge: BridgeServer,
  request: TunnelRequest,
  context: RequestContext,
  skipped: boolean,
): Promise<Ending> {
  const { runtime, flow, client } = request;
  const { recorder } = services;
  const planned = planFor(runtime.bridge, flow.destination, skipped);
  let isDeferred = false;
  let permit: Permit;
  if (skipped) {
    permit = runtime.outbound.permitSkipped(flow);
  } else {
    const startedAt = performance.now();
    const verdict = await runtime.outbound.runRequest(context, {
      deferDefault: planned === "bridge",
    });
    recorder.phase(context, "pipeline", startedAt);
    if ("denial" in verdict) return refuse(client, verdict.denial, context.cancellation.aborted);
    if ("reply" in verdict) {
      client.write(rawReply(verdict.reply));
      const { status } = verdict.reply;
      return { status, bytesReceived: 0, bytesSent: 0, refused: true, cancelled: false };
    }
    permit = verdict.permit;
    isDeferred = verdict.isDeferred === true;
    recorder.permitted(context);
  }
  const parts = { ...request, context, permit, skipped };
  const plan = planWith(planned, context.tunnelTerms);
  if (isDeferred && plan !== "bridge") {
    return refuse(client, runtime.outbound.defaultDenial(context), false);
  }
  const message = unseenRefusal(plan, flow.destination, context.tunnelTerms);
  if (message !== undefined) return refuse(client, { code: "policy.forbidden", message }, false);
  if (plan === "bridge") return bridgeTunnel(services, bridge, parts);
  return spliceTunnel(services, { ...parts, checkServerName: plan === "passthrough" });
}

function refuseFull({ recorder }: TunnelServices, client: Socket): Ending {
  recorder.metrics.refused("tunnels");
  const message = "too many tunnels are open (limits.max_tunnels)";
  return refuse(client, { code: "proxy.overloaded", message }, false);
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
