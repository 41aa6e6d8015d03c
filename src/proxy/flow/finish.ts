/** The end of every flow: plugins get `onFinish`, one log line is written, events and metrics are recorded. */
import { ProxyError } from "../../errors.ts";
import { peerAddress } from "../../net/peer-address.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { TlsPeer } from "../../pipeline/flow.ts";
import { type Denial, refusingStep } from "../../pipeline/decision.ts";
import type { Outcome } from "../../pipeline/plugin.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import type { EventError, EventFacts } from "../../session/event.ts";
import type { SessionRecorder } from "../../session/recorder.ts";
import { type FieldValue, type Logger, objectOf, writeFields } from "../../telemetry/log.ts";
import type { Tracing } from "../../telemetry/flow-trace.ts";
import type { HttpDurations } from "../../telemetry/http-durations.ts";
import type { FlowOutcome, FlowPhase, Refusal } from "../../telemetry/catalogue.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { Dial } from "../../upstream/dial.ts";
import { denialOf } from "./reply.ts";
import { beginTrace, countDurations, endTrace, judgementOf, sentFacts } from "./trace-facts.ts";

/** How a flow ended. */
export interface Ending {
  /** What the client got; 0 when the connection was cut before a status was sent. */
  readonly status: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  /** The refusal or fault, if there was one. */
  readonly denial?: Denial | undefined;
  /** True when the pipeline or the proxy refused before anything was sent upstream. */
  readonly refused: boolean;
  /** True when the client left first. */
  readonly cancelled: boolean;
  /** Its requests are flows of their own, whose bytes these are. */
  readonly isOpened?: true;
  /** Extra fields of the log line, e.g. the reason why a tunnel ended. */
  readonly note?: Readonly<Record<string, string | number | readonly string[]>>;
}

/** Known facts of a message that was refused before it became a flow. */
export interface RefusedHead {
  readonly surface: "forward" | "socks" | "reverse" | "bridge" | "transparent";
  readonly client: string;
  readonly method: string;
  /** The tunnel that carried it, when there was one. */
  readonly parent?: string | undefined;
}

/** What the recorder writes to. */
export interface RecorderOptions {
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Absent when sessions are off. */
  readonly sessions: SessionRecorder | undefined;
  /** Absent when no traces are sent. */
  readonly tracing?: Tracing | undefined;
  /** Absent when no metrics are sent. */
  readonly durations?: HttpDurations | undefined;
}

/** Records flows. One per process. */
export class FlowRecorder {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly #sessions: SessionRecorder | undefined;
  readonly #tracing: Tracing | undefined;
  readonly #durations: HttpDurations | undefined;

  constructor(options: RecorderOptions) {
    this.log = options.log;
    this.metrics = options.metrics;
    this.#sessions = options.sessions;
    this.#tracing = options.tracing;
    this.#durations = options.durations;
  }

  /** A message that was refused before it could become a flow: it has a log line and a count, and no event. */
  malformed(error: unknown, head: RefusedHead): void {
    const denial = denialOf(error);
    this.metrics.refused(refusalOf(denial.code));
    if (!(error instanceof ProxyError)) this.log.error({ err: error }, "listener fault");
    const { code, message: reason } = denial;
    const client = peerAddress(head.client);
    this.log.warn({ ...head, client, outcome: "denied", code, reason }, "refused");
  }

  /** A message is about to be judged, which waits for the promise; no pipeline judges one that is exempt. */
  arrived(context: RequestContext, pipeline: Pipeline | undefined): Promise<void> | undefined {
    if (pipeline === undefined) return undefined;
    const { direction } = context.flow;
    const arriving = direction === "outbound" ? this.#sessions?.arrived(context) : undefined;
    if (this.#tracing !== undefined) beginTrace(this.#tracing, context);
    return pipeline.readsSessions ? arriving : undefined;
  }

  /** A phase of a flow is over; gives the time of its end. Times are as performance.now() gives them. */
  phase(context: RequestContext, phase: FlowPhase, startedAt: number): number {
    const endedAt = performance.now();
    this.metrics.flows.phase(context.flow.direction, phase, (endedAt - startedAt) / 1_000);
    context.trace?.part(phase, startedAt);
    return endedAt;
  }

  /** The message leaves for the next hop, whose address may have a path of its own. */
  sent(context: RequestContext, basePath = ""): void {
    context.onward = { sentAt: performance.now() };
    context.trace?.sent(sentFacts(context, basePath));
  }

  /** The head of the next hop's response is there, over mutual TLS from `peer`; gives the time. */
  answered(context: RequestContext, status: number, peer?: TlsPeer): number {
    const { onward = { sentAt: performance.now() } } = context;
    context.onward = { ...onward, status, peer };
    return this.phase(context, "first_byte", onward.sentAt);
  }

  /** A connection to an upstream was dialled, or secured, for the flow with this id. */
  dialled(dial: Dial): void {
    const { direction, flowId, phase, startedAt, host, error } = dial;
    if (error === undefined) {
      this.metrics.flows.phase(direction, phase, (performance.now() - startedAt) / 1_000);
    }
    this.#tracing?.of(flowId)?.part(phase, startedAt, { "server.address": host }, error);
  }

  /** The pipeline let the message pass, which is sent when the promise resolves. */
  permitted(context: RequestContext): Promise<void> | undefined {
    return this.#sessions?.permitted(context, Date.now());
  }

  /** The response to a message to the agent is about to end: what its client sends next comes after that. */
  ending(context: RequestContext): void {
    this.#sessions?.ending(context);
  }

  /** The message is over. `pipeline` is absent for flows that skipped the pipeline. */
  finished(
    context: RequestContext,
    pipeline: Pipeline | undefined,
    ending: Ending,
  ): Promise<void> | undefined {
    const { flow } = context;
    const now = Date.now();
    const durationMs = Math.max(0, now - flow.startedAt);
    const kind = outcomeOf(ending);
    this.metrics.flows.finished({
      direction: flow.direction,
      transport: flow.transport,
      outcome: kind,
      status: ending.status,
      seconds: durationMs / 1_000,
    });
    this.metrics.bytes(flow.direction, ending.bytesReceived, ending.bytesSent);
    this.#writeLine(context, ending, kind, durationMs);
    if (this.#durations !== undefined)
      countDurations(this.#durations, context, ending, durationMs / 1_000);
    if (pipeline === undefined) this.#sessions?.exempted(context, now);
    else this.#sessions?.finished(context, endingFacts(context, ending, now, durationMs));
    // Its span tells the session, which is settled by now.
    if (context.trace !== undefined) endTrace(context.trace, context, ending);
    if (pipeline === undefined) return undefined;
    if (!pipeline.hasAsked(context)) return undefined;
    return pipeline.finish(context, pluginOutcome(ending, durationMs));
  }

  #writeLine(context: RequestContext, ending: Ending, outcome: string, durationMs: number): void {
    const { flow, identity } = context;
    const { denial, note } = ending;
    const fields: FieldValue[] = [
      "flow",
      flow.id,
      "direction",
      flow.direction,
      "transport",
      flow.transport,
      "outcome",
      outcome,
      "client",
      flow.client.address,
      "method",
      context.method,
      "host",
      context.host,
      "status",
      ending.status,
      "durationMs",
      durationMs,
      "received",
      ending.bytesReceived,
      "sent",
      ending.bytesSent,
      "path",
      context.path === "" ? undefined : context.pathname,
      "subject",
      identity?.subject,
      "caller",
      flow.client.caller,
      "parent",
      flow.parentId,
      "captured",
      flow.captured,
      "upstream_peer",
      context.onward?.peer?.spiffeId,
    ];
    for (const name in note) fields.push(name, note[name]);
    const isInfo = outcome === "ok" || outcome === "cancelled";
    if (isInfo && denial === undefined) {
      writeFields(this.log, fields, "flow");
      return;
    }
    const line: Record<string, unknown> = objectOf(fields);
    if (denial !== undefined) {
      line["code"] = denial.code;
      line["reason"] = denial.message;
      if (denial.plugin !== undefined) line["plugin"] = denial.plugin;
      Object.assign(line, refusalFacts(context, denial));
    }
    if (isInfo) this.log.info(line, "flow");
    else this.log.warn(line, "flow");
  }
}

/** The reason word of a plugin's refusal; where a check compared values, the expected and the actual one. */
function refusalFacts({ invocations }: RequestContext, denial: Denial): Record<string, string> {
  const step = refusingStep(invocations, denial);
  if (step === undefined) return {};
  const facts: Record<string, string> = { cause: step.cause ?? step.reason };
  for (const name of ["claim", "expected", "found", "problem"]) {
    const fact = step.details?.[name];
    if (fact !== undefined) facts[name] = String(fact);
  }
  return facts;
}

function refusalOf(code: string): Refusal {
  if (code === "auth.caller-unknown") return "caller";
  return code === "request.timeout" ? "timeout" : "malformed";
}

function outcomeOf(ending: Ending): FlowOutcome {
  if (ending.cancelled) return "cancelled";
  if (ending.denial === undefined) return "ok";
  const judgement = judgementOf(ending);
  return judgement === "allowed" ? "error" : judgement;
}

/** A refusal that no plugin took part in (a malformed request) is a log line, not an event. */
function endingFacts(
  context: RequestContext,
  ending: Ending,
  at: number,
  durationMs: number,
): EventFacts | undefined {
  if (ending.refused && context.invocations.length === 0) return undefined;
  const phase = ending.refused ? "denied" : "response";
  const { status: statusCode, bytesReceived, bytesSent } = ending;
  const bridged = (ending.note?.["bridged"] ?? ending.note?.["opened"]) !== undefined;
  return {
    phase,
    at,
    statusCode,
    durationMs,
    bytesReceived,
    bytesSent,
    bridged,
    ...errorOf(ending),
  };
}

function errorOf(ending: Ending): { readonly error?: EventError } {
  const { denial } = ending;
  if (denial === undefined) return {};
  const kind = judgementOf(ending) === "denied" ? "policy" : "backend_error";
  return { error: { kind, code: denial.code, message: denial.message } };
}

function pluginOutcome(ending: Ending, durationMs: number): Outcome {
  const { denial } = ending;
  return {
    status: ending.status,
    durationMs,
    ...(ending.isOpened === true
      ? {}
      : { bytes: { received: ending.bytesReceived, sent: ending.bytesSent } }),
    deniedBy: denial?.plugin,
    ...(ending.cancelled ? { cancelled: true as const } : {}),
    ...(denial === undefined ? {} : { error: { code: denial.code, message: denial.message } }),
  };
}
