/**
 * Attributes of traces and HTTP durations, by the stable HTTP semantic conventions of OpenTelemetry, without anything
 * that is secret: no query, no user information.
 */
import { ownText } from "../../bounded-map.ts";
import { isSignedField } from "../../http/signed-fields.ts";
import { parseTraceparent } from "../../http/trace-context.ts";
import { parseHostHeader, type Scheme } from "../../net/destination.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import { type Denial, isUnavailable, refusingStep } from "../../pipeline/decision.ts";
import type { FlowTrace, SpanFacts, Tracing } from "../../telemetry/flow-trace.ts";
import type { HttpAttributes, HttpDurations } from "../../telemetry/http-durations.ts";

/** The part of an ending that is exported. */
interface TracedEnding {
  readonly status: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly refused: boolean;
  readonly cancelled: boolean;
  readonly denial?: Denial | undefined;
}

/** The methods that the conventions know; a client may send any word, and each would be a series. */
const knownMethods = new Set([
  "CONNECT",
  "DELETE",
  "GET",
  "HEAD",
  "OPTIONS",
  "PATCH",
  "POST",
  "PUT",
  "TRACE",
]);

/** Begins the trace of a message and gives its id to the next hop. */
export function beginTrace(tracing: Tracing, context: RequestContext): void {
  const { flow, method, headers } = context;
  const incoming = headers.get("traceparent");
  const userAgent = headers.get("user-agent");
  context.trace = tracing.start({
    flowId: flow.id,
    parentFlowId: flow.parentId,
    name: `${knownMethods.has(method) ? method : "HTTP"} ${flow.direction}`,
    traceparent: incoming,
    startedAt: flow.startedAt,
    facts: {
      ...methodFacts(method),
      ...namedServer(context),
      "client.address": flow.client.address,
      "client.port": flow.client.port,
      "authbridge.direction": flow.direction,
      "authbridge.transport": flow.transport,
      "authbridge.flow": flow.id,
      ...defined({
        "network.protocol.version": versionOf(context),
        // It waits to be sent for longer than its head.
        "user_agent.original": userAgent && ownText(userAgent),
      }),
      ...(context.stage === "connect"
        ? {}
        : { "url.scheme": schemeOf(context), "url.path": context.pathname }),
    },
  });
  if (isSignedField(headers, context.path, "traceparent")) return;
  headers.set("traceparent", context.trace.traceparent);
  // W3C Trace Context, section 3.3: without a valid traceparent there is no tracestate.
  if (parseTraceparent(incoming) === undefined) headers.delete("tracestate");
}

/** The request to the next hop, as a client span. */
export function sentFacts(context: RequestContext, basePath: string): SpanFacts {
  const { method, destination, pathname } = context;
  return {
    ...methodFacts(method),
    "server.address": destination.host,
    "server.port": destination.port,
    "url.full": `${destination.origin}${basePath}${pathname}`,
  };
}

/** Ends the span with the outcome of the message. */
export function endTrace(trace: FlowTrace, context: RequestContext, ending: TracedEnding): void {
  const { onward } = context;
  const error = serverError(ending);
  const upstreamError = clientError(context, ending);
  trace.end({
    facts: endFacts(context, ending),
    error,
    onward: {
      facts: defined({
        "http.response.status_code": onward?.status,
        "error.type": upstreamError,
      }),
      error: upstreamError,
    },
  });
}

/** Counts the request that was answered here, and the one that went on; a connection that became a tunnel is neither. */
export function countDurations(
  durations: HttpDurations,
  context: RequestContext,
  ending: TracedEnding,
  seconds: number,
): void {
  if (context.stage === "connect" || ending.status === 101) return;
  const method = methodFacts(context.method)["http.request.method"];
  const { onward, destination } = context;
  const served: HttpAttributes = {
    "http.request.method": method,
    "url.scheme": schemeOf(context),
    "http.response.status_code": ending.status === 0 ? undefined : ending.status,
    "error.type": serverError(ending),
    "network.protocol.version": versionOf(context),
  };
  durations.served(served, seconds);
  if (onward === undefined) return;
  const asked: HttpAttributes = {
    "http.request.method": method,
    "server.address": destination.host,
    "server.port": destination.port,
    "http.response.status_code": onward.status,
    "error.type": clientError(context, ending),
  };
  durations.asked(asked, (performance.now() - onward.sentAt) / 1_000);
}

function endFacts(context: RequestContext, ending: TracedEnding): SpanFacts {
  const { sessionId, tiedBy, identity, flow } = context;
  const { status, denial, bytesReceived, bytesSent } = ending;
  const step = denial === undefined ? undefined : refusingStep(context.invocations, denial);
  return {
    "http.request.body.size": bytesReceived,
    "http.response.body.size": bytesSent,
    "authbridge.decision": judgementOf(ending),
    ...defined({
      "http.response.status_code": status === 0 ? undefined : status,
      // A refusal is no error of the server, and has a name of its own all the same.
      "error.type": denial?.code ?? serverError(ending),
      "authbridge.plugin": denial?.plugin,
      "authbridge.reason": step?.cause ?? step?.reason,
      "authbridge.session": sessionId,
      "authbridge.session.tied_by": tiedBy,
      "user.id": identity?.subject,
      "authbridge.caller": flow.client.caller,
    }),
  };
}

/** Errors of the server span: 5xx, or a response that was cut. A 4xx is the client's fault, not an error here. */
function serverError({ status, denial, refused, cancelled }: TracedEnding): string | undefined {
  if (cancelled) return undefined;
  const isCut = denial !== undefined && denial.plugin === undefined && !refused && status < 400;
  return status >= 500 || isCut ? (denial?.code ?? String(status)) : undefined;
}

/** Errors of the client span: a status from 400, or no complete response. */
function clientError(
  { onward }: RequestContext,
  { denial, refused }: TracedEnding,
): string | undefined {
  if (onward === undefined) return undefined;
  if (onward.status !== undefined && onward.status >= 400) return String(onward.status);
  return denial === undefined || refused || denial.plugin !== undefined ? undefined : denial.code;
}

/** The final verdict on the request or on the response. */
export function judgementOf({
  refused,
  denial,
}: Pick<TracedEnding, "refused" | "denial">): "allowed" | "denied" | "unavailable" {
  if (denial !== undefined && isUnavailable(denial)) return "unavailable";
  return refused || denial?.plugin !== undefined ? "denied" : "allowed";
}

function methodFacts(method: string): SpanFacts {
  return knownMethods.has(method)
    ? { "http.request.method": method }
    : { "http.request.method": "_OTHER", "http.request.method_original": ownText(method) };
}

/** The server that the client named: inbound it is ourselves, and not the backend. */
function namedServer(context: RequestContext): SpanFacts {
  const { flow, host, destination } = context;
  const isOurs = flow.direction === "inbound" && host !== "";
  const named = isOurs ? parseHostHeader(host, schemeOf(context)) : destination;
  return { "server.address": named.host, "server.port": named.port };
}

/** Inbound the scheme that the first proxy of the chain saw; the backend's may differ. */
function schemeOf({ flow, headers, destination }: RequestContext): Scheme {
  if (flow.direction === "outbound") return destination.scheme;
  return headers.get("x-forwarded-proto") === "https" ? "https" : "http";
}

/** The conventions write HTTP/2 as `2`. */
function versionOf({ httpVersion }: RequestContext): string | undefined {
  return httpVersion === "2.0" ? "2" : httpVersion;
}

function defined(
  facts: Readonly<Record<string, string | number | undefined>>,
): Record<string, string | number> {
  const kept: Record<string, string | number> = {};
  for (const [name, fact] of Object.entries(facts)) if (fact !== undefined) kept[name] = fact;
  return kept;
}
