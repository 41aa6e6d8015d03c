/** What a pipeline says of a probe: the connection first, then the request in it, and whose word counted. */
import { Readable } from "node:stream";
import { ReadableSource } from "../../http/body-source.ts";
import { BodyBudget } from "../../http/body.ts";
import type { AddressSet } from "../../net/address.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import type { ExplainedCredential, ExplainedStep, Explanation } from "../../pipeline/rehearsal.ts";
import { bufferBody } from "../../proxy/exchange/buffered-body.ts";
import { checkMethod } from "../../proxy/exchange/request-head.ts";
import { denialOf, statusOf } from "../../proxy/flow/reply.ts";
import type { Runtime } from "../../proxy/flow/runtime.ts";
import type { TlsBridge } from "../../proxy/flow/tls-bridge.ts";
import {
  defersDefault,
  planFor,
  planWith,
  type TunnelPlan,
  unseenRefusal,
} from "../../proxy/tunnel/plan.ts";
import type { JudgedAddress } from "../../upstream/address-guard.ts";
import { placeOf, type Probe, probeContext } from "./probe.ts";

/** One stage of the way. */
export interface StageVerdict {
  readonly stage: "connect" | "request";
  readonly method: string;
  /** `host:port` or an absolute URL. */
  readonly target: string;
  readonly steps: readonly ExplainedStep[];
  /** Absent where the pipeline was not asked, with the reason in `note`. */
  readonly verdict?: Explanation["verdict"];
  readonly note?: string;
}

/** The verdict as a whole. */
export interface ProbeVerdict {
  /** `audit`: let through, and recorded as a violation. */
  readonly verdict: "allow" | "audit" | "deny";
  /** Absent where the default of the pipeline decided. */
  readonly plugin?: string;
  readonly entry?: string;
  readonly rule?: string;
  readonly reason: string;
  /** Of a refusal. */
  readonly code?: string;
  readonly status?: number;
  readonly stages: readonly StageVerdict[];
  readonly tunnel?: TunnelPlan | undefined;
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

/** What surrounds the pipeline. */
export interface VerdictOptions {
  readonly pipeline: Pipeline;
  readonly skipHosts: Runtime["skipHosts"];
  /** Says which connections are opened; undefined: none is. */
  readonly bridge: Pick<TlsBridge, "decide"> | undefined;
  readonly maxBodyBytes: number;
}

/** Asks the pipeline as the proxy does. */
export async function judgeProbe(probe: Probe, options: VerdictOptions): Promise<ProbeVerdict> {
  const stages: StageVerdict[] = [];
  if (options.skipHosts.matches(probe.destination.host)) {
    return {
      verdict: "allow",
      reason: "listener.skip_hosts exempts the host from the chain",
      stages,
      credentials: [],
      addressLimits: [],
    };
  }
  let connected: ProbeVerdict | undefined;
  let isClear = false;
  if (probe.isTunnel) {
    connected = await judgeTunnel(probe, options, stages);
    if (connected.verdict === "deny" || probe.request === undefined) return connected;
    const { tunnel } = connected;
    isClear = tunnel === "clear" && probe.source.url === undefined;
    if (tunnel !== "bridge" && !isClear) {
      stages.push({
        ...targetOf(probe),
        steps: [],
        note: "not seen: the TLS bridge does not open this connection",
      });
      return connected;
    }
  }
  const context = probeContext(probe, "request", isClear);
  const explanation = await explainRequest(probe, context, options);
  const { steps, verdict, credentials } = explanation;
  stages.push({ ...targetOf(probe, isClear), steps, verdict });
  const judged: ProbeVerdict = {
    ...verdictOf(explanation),
    stages,
    credentials,
    addressLimits: context.addressLimits,
    tunnel: connected?.tunnel,
  };
  return judged.verdict === "deny" ? judged : { ...judged, sentPath: context.path };
}

async function explainRequest(
  { source }: Probe,
  context: RequestContext,
  { pipeline, maxBodyBytes }: VerdictOptions,
): Promise<Explanation> {
  try {
    checkMethod(context.method);
  } catch (error) {
    return { verdict: "deny", denial: denialOf(error), steps: [], credentials: [] };
  }
  const need = context.hasBody ? pipeline.bodyNeed(context) : "nobody";
  if (need !== "nobody") {
    const read = await bufferBody(
      context,
      new ReadableSource(Readable.from([Buffer.from(source.body ?? "")])),
      {
        limitBytes: maxBodyBytes,
        budget: new BodyBudget(Number.POSITIVE_INFINITY),
        signal: context.signal,
      },
    );
    if (read.kind === "unread") {
      if (need === "guards")
        return { verdict: "deny", denial: read.denial, steps: [], credentials: [] };
      context.unread = read.denial;
    }
  }
  return pipeline.rehearse(context);
}

async function judgeTunnel(
  probe: Probe,
  { pipeline, bridge }: VerdictOptions,
  stages: StageVerdict[],
): Promise<ProbeVerdict> {
  const context = probeContext(probe, "connect");
  const planned = planFor(bridge, context.destination, {
    skipped: false,
    readsClear: pipeline.readsRequests,
  });
  const explanation = await pipeline.rehearse(context, { deferDefault: defersDefault(planned) });
  const { steps, verdict, isDeferred = false } = explanation;
  const { authority } = context.destination;
  const stage = { stage: "connect", method: "CONNECT", target: authority, steps } as const;
  const said = {
    ...verdictOf(explanation),
    stages,
    credentials: [],
    addressLimits: context.addressLimits,
  };
  if (said.verdict === "deny") {
    stages.push({ ...stage, verdict });
    return said;
  }
  const tunnel = planWith(planned, context);
  // An `https:` URL is TLS, of which a tunnel in the clear shows nothing.
  const isUnread = tunnel === "clear" && probe.source.url !== undefined;
  const unseen = unseenRefusal(isUnread ? "splice" : tunnel, { context, pipeline, isDeferred });
  stages.push({ ...stage, verdict: isDeferred && unseen !== undefined ? "deny" : verdict });
  return { ...said, tunnel, ...(unseen === undefined ? {} : refusalOf(unseen)) };
}

function targetOf(probe: Probe, isClear = false): Omit<StageVerdict, "steps"> {
  const { method = "GET", path = "/" } = probe.request ?? {};
  return { stage: "request", method, target: `${placeOf(probe, isClear).origin}${path}` };
}

type Word = Pick<
  ProbeVerdict,
  "verdict" | "plugin" | "entry" | "rule" | "reason" | "code" | "status"
>;

function refusalOf(denial: Denial): Word & { readonly verdict: "deny" } {
  const { code, message } = denial;
  return { verdict: "deny", reason: message, code, status: statusOf(denial) };
}

function verdictOf({ verdict, by, denial, isDeferred }: Explanation): Word {
  const { policy, rule, violation } = by?.details ?? {};
  const named = {
    ...(by === undefined ? {} : { plugin: by.plugin }),
    ...(policy === undefined ? {} : { entry: String(policy) }),
    ...(rule === undefined ? {} : { rule: String(rule) }),
  };
  if (denial !== undefined) {
    const { fault } = by ?? {};
    return { ...named, ...refusalOf(denial), ...(fault === undefined ? {} : { reason: fault }) };
  }
  if (verdict === "respond")
    return { ...named, verdict: "deny", reason: "the plugin answers by itself" };
  if (violation !== undefined) return { ...named, verdict: "audit", reason: String(violation) };
  const otherwise =
    isDeferred === true
      ? "each request in the connection is judged"
      : "pipeline.outbound.default is allow";
  return { ...named, verdict: "allow", reason: by?.reason ?? otherwise };
}
