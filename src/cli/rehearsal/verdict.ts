/** What a chain says of a probe: the connection first, then the request in it, and whose word counted. */
import {
  explainRequest,
  type ExplainedCredential,
  type ExplainedStep,
  type Explanation,
} from "../../pipeline/explain.ts";
import type { AddressSet } from "../../net/address.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import { planFor, planWith, type TunnelPlan, unseenRefusal } from "../../proxy/tunnel/plan.ts";
import type { TlsBridge } from "../../proxy/flow/tls-bridge.ts";
import { statusOf } from "../../proxy/flow/reply.ts";
import type { JudgedAddress } from "../../upstream/address-guard.ts";
import { type Probe, probeContext } from "./probe.ts";

/** One stage of the way. */
export interface StageVerdict {
  readonly stage: "connect" | "request";
  readonly method: string;
  /** `host:port` or an absolute URL. */
  readonly target: string;
  readonly steps: readonly ExplainedStep[];
  /** Absent where the chain was not asked, with the reason in `note`. */
  readonly verdict?: Explanation["verdict"];
  readonly note?: string;
}

/** The whole answer. */
export interface ProbeVerdict {
  /** `audit`: let through, and recorded as a violation. */
  readonly verdict: "allow" | "audit" | "deny";
  /** Absent where the default of the chain decided. */
  readonly plugin?: string;
  readonly entry?: string;
  readonly rule?: string;
  readonly reason: string;
  /** Of a refusal. */
  readonly code?: string;
  readonly status?: number;
  readonly stages: readonly StageVerdict[];
  readonly tunnel?: TunnelPlan;
  /** Path and query as they would be sent. */
  readonly sentPath?: string;
  readonly credentials: readonly ExplainedCredential[];
  /** Ranges of the policy that the dialled address must be in. */
  readonly addressLimits: readonly AddressSet[];
}

/** A verdict with what the address guard adds to it. */
export interface ExplainedProbe extends ProbeVerdict {
  /** Empty where nothing would be dialled, and with `--no-resolve`. */
  readonly addresses: readonly JudgedAddress[];
}

/** What surrounds the chain. */
export interface VerdictOptions {
  readonly pipeline: Pipeline;
  /** Says which connections are opened; undefined: none is. */
  readonly bridge: Pick<TlsBridge, "decide"> | undefined;
}

/** Asks the chain as the journeys do. */
export async function judgeProbe(probe: Probe, options: VerdictOptions): Promise<ProbeVerdict> {
  const stages: StageVerdict[] = [];
  let connected: ProbeVerdict | undefined;
  if (probe.isTunnel) {
    connected = await judgeTunnel(probe, options, stages);
    if (connected.verdict === "deny" || probe.request === undefined) return connected;
    if (connected.tunnel !== "bridge") {
      stages.push({
        ...targetOf(probe),
        steps: [],
        note: "not seen: the TLS bridge does not open this connection",
      });
      return connected;
    }
  }
  const context = probeContext(probe, "request");
  const explanation = await explainRequest(options.pipeline, context);
  const { steps, verdict, credentials } = explanation;
  stages.push({ ...targetOf(probe), steps, verdict });
  const judged: ProbeVerdict = {
    ...verdictOf(explanation),
    stages,
    credentials,
    addressLimits: context.addressLimits,
    ...(connected?.tunnel === undefined ? {} : { tunnel: connected.tunnel }),
  };
  return judged.verdict === "deny" ? judged : { ...judged, sentPath: context.path };
}

async function judgeTunnel(
  probe: Probe,
  { pipeline, bridge }: VerdictOptions,
  stages: StageVerdict[],
): Promise<ProbeVerdict> {
  const context = probeContext(probe, "connect");
  const planned = planFor(bridge, context.destination, false);
  const explanation = await explainRequest(pipeline, context, {
    deferDefault: planned === "bridge",
  });
  const { steps, verdict } = explanation;
  const { authority } = context.destination;
  stages.push({ stage: "connect", method: "CONNECT", target: authority, steps, verdict });
  const said = {
    ...verdictOf(explanation),
    stages,
    credentials: [],
    addressLimits: context.addressLimits,
  };
  if (said.verdict === "deny") return said;
  const tunnel = planWith(planned, context.tunnelTerms);
  const unseen = unseenRefusal(tunnel, context.destination, context.tunnelTerms);
  if (unseen === undefined) return { ...said, tunnel };
  return {
    ...said,
    tunnel,
    verdict: "deny",
    reason: unseen,
    code: "policy.forbidden",
    status: 403,
  };
}

function targetOf({ destination, isTunnel, request }: Probe): Omit<StageVerdict, "steps"> {
  const { origin } = destination.with({ scheme: isTunnel ? "https" : "http" });
  const { method = "GET", path = "/" } = request ?? {};
  return { stage: "request", method, target: `${origin}${path}` };
}

function verdictOf(
  explanation: Explanation,
): Pick<ProbeVerdict, "verdict" | "plugin" | "entry" | "rule" | "reason" | "code" | "status"> {
  const { verdict, plugin, denial, steps } = explanation;
  const step = steps.findLast((one) => one.plugin === plugin && one.observed !== true);
  const { policy, rule, violation } = step?.details ?? {};
  const named = {
    ...(plugin === undefined ? {} : { plugin }),
    ...(policy === undefined ? {} : { entry: String(policy) }),
    ...(rule === undefined ? {} : { rule: String(rule) }),
  };
  if (denial !== undefined) {
    const { code, message } = denial;
    return { ...named, verdict: "deny", reason: message, code, status: statusOf(denial) };
  }
  if (verdict === "respond") {
    return { ...named, verdict: "deny", reason: "the plugin answers by itself" };
  }
  if (violation !== undefined) return { ...named, verdict: "audit", reason: String(violation) };
  return {
    ...named,
    verdict: "allow",
    reason: step?.reason ?? "pipeline.outbound.default is allow",
  };
}
