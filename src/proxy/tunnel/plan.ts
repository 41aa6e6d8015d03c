/** How a permitted CONNECT is carried: opened by the bridge, passed through it, or spliced. */
import type { Destination } from "../../net/destination.ts";
import type { RequestContext, TunnelTerms } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import type { TlsBridge } from "../flow/tls-bridge.ts";

/** `passthrough` is a splice on a port that the bridge would open, so that its server name is checked. */
export type TunnelPlan = "bridge" | "passthrough" | "splice";

/** The plan before the pipeline is asked. Hosts that skip the pipeline are not opened either. */
export function planFor(
  bridge: Pick<TlsBridge, "decide"> | undefined,
  destination: Destination,
  skipped: boolean,
): TunnelPlan {
  if (skipped || bridge === undefined) return "splice";
  const decision = bridge.decide(destination);
  if (decision.action === "bridge") return "bridge";
  return decision.reason === "port" ? "splice" : "passthrough";
}

/** The plan under the terms that plugins set. */
export function planWith(planned: TunnelPlan, { keepTls }: TunnelTerms): TunnelPlan {
  return planned === "bridge" && keepTls ? "passthrough" : planned;
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
  if (plan === "bridge") return undefined;
  if (isDeferred) return pipeline.defaultDenial(context);
  const { destination, tunnelTerms } = context;
  if (tunnelTerms.mustInspect === undefined) return undefined;
  return {
    code: "policy.forbidden",
    message: `${destination.authority} is open only to requests that can be judged (${tunnelTerms.mustInspect}), and the TLS bridge does not open this connection`,
  };
}
