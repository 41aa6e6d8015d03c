/** One CONNECT: the host is judged, then the connection is opened by the bridge or spliced to a vetted address. */
import { FirstLine } from "../../net/first-line.ts";
import { Cancellation } from "../../pipeline/cancellation.ts";
import { RequestContext } from "../../pipeline/context.ts";
import type { Permit } from "../../pipeline/pipeline.ts";
import type { BridgeServer } from "./bridge-server.ts";
import { bridgeTunnel } from "./bridged.ts";
import type { Ending } from "../flow/finish.ts";
import { clearTunnel, lookingTunnel } from "./clear.ts";
import { notTls, type RefusedTunnel, refuse, refuseInside, refuseOutside } from "./refused.ts";
import { denialOf, statusOf } from "../flow/reply.ts";
import { spliceTunnel } from "./spliced.ts";
import { defersDefault, planFor, planWith, tellsInside, unseenRefusal } from "./plan.ts";
import type { TunnelRequest, TunnelServices } from "./request.ts";

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
  const { isExempt = runtime.skipHosts.matches(flow.destination.host) } = request;
  const skipped = isExempt;
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
  const arriving = skipped ? undefined : services.recorder.arrived(context);
  let ending: Ending;
  try {
    if (arriving !== undefined) await arriving;
    ending = services.tunnels.take(runtime.limits.maxTunnels)
      ? await carry(services, bridge, { ...request, context, skipped }).finally(() =>
          services.tunnels.leave(),
        )
      : refuseFull(services, request);
  } catch (error) {
    ending = refuse(request, denialOf(error), leaving.aborted);
  }
  client.destroySoon();
  await services.recorder.finished(context, skipped ? undefined : runtime.outbound, ending);
}

async function carry(
  services: TunnelServices,
  bridge: BridgeServer,
  request: TunnelRequest & { readonly context: RequestContext; readonly skipped: boolean },
): Promise<Ending> {
  const { runtime, flow, captured, context, skipped } = request;
  const { recorder } = services;
  const planned = planFor(runtime.bridge, flow.destination, {
    skipped,
    // The listener of captured connections has looked already, and serves plain HTTP itself.
    readsClear: captured === undefined && runtime.outbound.readsRequests,
  });
  // The protocol of a captured connection is known; other than TLS there is nothing to open.
  const isRaw = captured !== undefined && !captured.isTls;
  const judgedBy = { pipeline: runtime.outbound, epoch: services.tunnels.epoch };
  let isDeferred = false;
  let permit: Permit;
  if (skipped) {
    permit = runtime.outbound.permitSkipped(flow);
  } else {
    const startedAt = performance.now();
    const verdict = await runtime.outbound.runRequest(context, {
      deferDefault: defersDefault(planned) && !isRaw,
    });
    recorder.phase(context, "pipeline", startedAt);
    if (verdict.kind !== "permit") {
      const parts = { ...request, verdict };
      return tellsInside(planned) && !isRaw && !isForTheProxy(verdict)
        ? refuseInside(services, bridge, { ...parts, planned })
        : refuseOutside(parts);
    }
    permit = verdict.permit;
    isDeferred = verdict.isDeferred === true;
    const told = recorder.permitted(context);
    if (told !== undefined) await told;
  }
  const parts = { ...request, permit, judgedBy };
  const plan = planWith(planned, context);
  const passed = { context, pipeline: runtime.outbound, isDeferred };
  const denial = unseenRefusal(plan, passed);
  if (denial !== undefined) return refuse(request, denial, false);
  if (plan === "bridge") {
    return isRaw
      ? refuse(request, notTls(flow.destination), false)
      : bridgeTunnel(services, bridge, parts);
  }
  const isWatched = !skipped && captured?.hasSpoken === true && runtime.outbound.readsRequests;
  const firstLine = isWatched ? new FirstLine() : undefined;
  const spliced = { ...parts, checkServerName: plan === "passthrough" && !isRaw, firstLine };
  if (plan === "clear") {
    const unseen = unseenRefusal("splice", passed);
    return clearTunnel(services, bridge, { tunnel: spliced, unseen });
  }
  return plan === "look"
    ? lookingTunnel(services, bridge, spliced)
    : spliceTunnel(services, spliced);
}

/** 407 is about the connection to the proxy: a client reads it nowhere else (RFC 9110 section 15.5.8). */
function isForTheProxy(verdict: RefusedTunnel["verdict"]): boolean {
  return (verdict.kind === "denial" ? statusOf(verdict.denial) : verdict.reply.status) === 407;
}

function refuseFull({ recorder }: TunnelServices, request: TunnelRequest): Ending {
  recorder.metrics.refused("tunnels");
  const message = "too many tunnels are open (limits.max_tunnels)";
  return refuse(request, { code: "proxy.overloaded", message }, false);
}
