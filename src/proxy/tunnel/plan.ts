/** What becomes of a permitted CONNECT: opened by the bridge, passed through it, or spliced. */
import type { Destination } from "../../net/destination.ts";
import type { TunnelTerms } from "../../pipeline/context.ts";
import type { TlsBridge } from "../flow/tls-bridge.ts";

/** `passthrough` is a splice on a port that the bridge would open, so that its server name is checked. */
export type TunnelPlan = "bridge" | "passthrough" | "splice";

/** The plan before the chain is asked. Hosts that skip the chain are not opened either. */
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

/** Why a tunnel is refused whose requests would pass unseen although a rule is about them. */
export function unseenRefusal(
  plan: TunnelPlan,
  { authority }: Destination,
  { mustInspect }: TunnelTerms,
): string | undefined {
  return mustInspect === undefined || plan === "bridge"
    ? undefined
    : `${authority} is open only to requests that can be judged (${mustInspect}), and the TLS bridge does not open this connection`;
}
