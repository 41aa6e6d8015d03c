/** What a trace tells of a flow: names of the OpenTelemetry semantic conventions, and nothing that is secret. */
import { parseTraceparent } from "../../http/trace-context.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import { type Denial, isUnavailable, refusingStep } from "../../pipeline/decision.ts";
import type { FlowTrace, SpanFacts, Tracing } from "../../telemetry/flow-trace.ts";

/** The part of an ending that a trace tells. */
interface TracedEnding {
  readonly status: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly refused: boolean;
  readonly denial?: Denial;
}

/** Begins the trace of a message and gives its id to the next hop. */
export function beginTrace(tracing: Tracing, context: RequestContext): void {
  const { flow, method, headers, destination } = context;
  const incoming = headers.get("traceparent");
  context.trace = tracing.start({
    flowId: flow.id,
    ...(flow.parentId === undefined ? {} : { parentFlowId: flow.parentId }),
    name: `${method} ${flow.direction}`,
    traceparent: incoming,
    startedAt: flow.startedAt,
    facts: {
      "http.request.method": method,
      "server.address": destination.host,
      "server.port": destination.port,
      "client.address": flow.client.address,
      "authbridge.direction": flow.direction,
      "authbridge.transport": flow.transport,
      "authbridge.flow": flow.id,
      // The query may hold what is nobody's business.
      ...(context.path === "" ? {} : { "url.path": context.pathname }),
    },
  });
  headers.set("traceparent", context.trace.traceparent);
  // W3C Trace Context, section 3.3: without a valid traceparent there is no tracestate.
  if (parseTraceparent(incoming) === undefined) headers.delete("tracestate");
}

/** Ends it with what became of the message. */
export function endTrace(trace: FlowTrace, context: RequestContext, ending: TracedEnding): void {
  const { denial } = ending;
  trace.end({
    facts: endFacts(context, ending),
    ...(denial === undefined ? {} : { error: denial.code }),
  });
}

function decisionOf({ refused, denial }: TracedEnding): string {
  if (!refused) return "allowed";
  return denial !== undefined && isUnavailable(denial) ? "unavailable" : "denied";
}

function endFacts(context: RequestContext, ending: TracedEnding): SpanFacts {
  const { sessionId, identity, flow } = context;
  const { status, denial, bytesReceived, bytesSent } = ending;
  const step = denial === undefined ? undefined : refusingStep(context.invocations, denial);
  return {
    ...(status === 0 ? {} : { "http.response.status_code": status }),
    "http.request.body.size": bytesReceived,
    "http.response.body.size": bytesSent,
    "authbridge.decision": decisionOf(ending),
    ...(denial?.plugin === undefined ? {} : { "authbridge.plugin": denial.plugin }),
    ...(step === undefined ? {} : { "authbridge.reason": step.cause ?? step.reason }),
    ...(sessionId === undefined ? {} : { "authbridge.session": sessionId }),
    ...(identity === undefined ? {} : { "user.id": identity.subject }),
    ...(flow.client.caller === undefined ? {} : { "authbridge.caller": flow.client.caller }),
  };
}
