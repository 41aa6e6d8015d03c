/** How a permitted CONNECT is carried: opened by the bridge, read in the clear, passed through, or spliced. */
import type { Destination } from "../../net/destination.ts";
import type { RequestContext, TunnelTerms } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import type { TlsBridge } from "../flow/tls-bridge.ts";

/**
 * `passthrough` is a splice on a port that the bridge would open, so that its server name is checked. `clear` is a
 * tunnel whose client shows its first bytes before anything is dialled, because it is expected to speak plain HTTP, or
 * may speak nothing else. `look` is spliced unless its client turns out to speak plain HTTP.
 */
export type TunnelPlan = "bridge" | "passthrough" | "clear" | "look" | "splice";

/** Of what arrives in a CONNECT to it, TLS is the exception. */
const plainPort = 80;
/** Of what arrives in a CONNECT to them, plain HTTP is the exception. */
const tlsPorts: ReadonlySet<number> = new Set([443, 8443]);

interface PlanTerms {
  /** The host skips the pipeline. */
  readonly skipped: boolean;
  /** Some plugin has to do with the requests of a client that speaks plain HTTP. */
  readonly readsClear: boolean;
}

/** The plan before the pipeline is asked. Hosts that skip the pipeline are not opened either. */
export function planFor(
  bridge: Pick<TlsBridge, "decide"> | undefined,
  destination: Destination,
  { skipped, readsClear }: PlanTerms,
): TunnelPlan {
  if (skipped) return "splice";
  const decision = bridge?.decide(destination);
  if (decision?.action === "bridge") return "bridge";
  if (decision !== undefined && decision.reason !== "port") return "passthrough";
  if (decision?.isExempt === true || !readsClear) return "splice";
  return destination.port === plainPort ? "clear" : "look";
}

/** The plan under the terms that plugins set. */
export function planWith(planned: TunnelPlan, context: PlannedTunnel): TunnelPlan {
  const { keepTls, mustInspect } = context.tunnelTerms;
  if (planned === "bridge") return keepTls ? "passthrough" : planned;
  if (planned === "passthrough" || planned === "splice") return planned;
  if (keepTls) return "splice";
  const isClear = mustInspect !== undefined && !tlsPorts.has(context.destination.port);
  return isClear ? "clear" : planned;
}

type PlannedTunnel = { readonly tunnelTerms: TunnelTerms } & Pick<RequestContext, "destination">;

/** Whether no plugin has to consent to the connection itself yet: it is known later whether its requests are judged. */
export function defersDefault(planned: TunnelPlan): boolean {
  return planned === "bridge" || planned === "clear" || planned === "look";
}

/** Whether the client reads a refusal of its CONNECT inside the tunnel. */
export function tellsInside(planned: TunnelPlan): boolean {
  return planned === "bridge" || planned === "clear";
}

/** A tunnel that the pipeline let pass. */
interface PassedTunnel {
  readonly context: RequestContext;
  readonly pipeline: Pipeline;
  /** No plugin consented: each of its requests has to be judged. */
  readonly isDeferred: boolean;
}

/** Why a tunnel is refused all the same whose requests would pass unseen although somebody has to judge them. */
export function unseenRefusal(
  plan: TunnelPlan,
  { context, pipeline, isDeferred }: PassedTunnel,
): Denial | undefined {
  if (plan === "bridge" || plan === "clear") return undefined;
  if (isDeferred) return pipeline.defaultDenial(context);
  const { destination, tunnelTerms } = context;
  if (tunnelTerms.mustInspect === undefined) return undefined;
  return {
    code: "policy.forbidden",
    message: `${destination.authority} is open only to requests that can be judged (${tunnelTerms.mustInspect}), and the TLS bridge does not open this connection`,
  };
}
