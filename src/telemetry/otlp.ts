/** OpenTelemetry over OTLP: spans of flows and the metrics of this process, by the SDK, sent by whoever may dial. */
import { type Context, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import {
  ProtobufMetricsSerializer,
  ProtobufTraceSerializer,
} from "@opentelemetry/otlp-transformer";
import { defaultResource, type Resource, resourceFromAttributes } from "@opentelemetry/resources";
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  type ReadableSpan,
  type SpanExporter,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import type { MetricObjectWithValues, MetricValue } from "./prom-client.ts";
import { formatTraceparent, parseTraceparent } from "../http/trace-context.ts";
import type { FlowTrace, SpanFacts, TraceEnd, TraceStart, Tracing } from "./flow-trace.ts";
import { resourceMetricsOf } from "./otlp-metrics.ts";
import { messageOf } from "../errors.ts";

/** Sends one request body to `/v1/traces` or `/v1/metrics` of the collector; rejects when it is not taken. */
export type OtlpSend = (signal: OtlpSignal, body: Uint8Array) => Promise<void>;

/** What is sent. */
export type OtlpSignal = "traces" | "metrics";

/** Options of {@link Otlp}. */
export interface OtlpOptions {
  readonly version: string;
  /** `service.name` and whatever else tells this process from others. */
  readonly resource: Readonly<Record<string, string>>;
  /** Share of the traces begun here that is recorded, 0 to 1; a sender's own choice is kept. */
  readonly sampleRatio: number;
  /** Milliseconds between two reports of metrics; undefined for none. */
  readonly metricsIntervalMs: number | undefined;
  readonly isTracing: boolean;
  /** Milliseconds for one report. */
  readonly timeoutMs: number;
  send: OtlpSend;
  /** The metrics as of now. */
  metrics(): Promise<readonly MetricObjectWithValues<MetricValue<string>>[]>;
  /** Called after every attempt to send. */
  onSent(signal: OtlpSignal, problem: string | undefined): void;
}

const scope = "authbridge-proxy";
/** Spans that wait: at 1 KiB each a collector that is away costs 8 MiB, then spans are dropped. */
const maxQueuedSpans = 8_192;
const maxBatch = 512;
const batchDelayMs = 1_000;
const maxAttributeLength = 1_024;

/** One per process, made where the file asks for it. */
export class Otlp implements Tracing {
  readonly #options: OtlpOptions;
  readonly #resource: Resource;
  readonly #provider: TracerProvider;
  readonly #active = new Map<string, SpanTrace>();
  readonly #startedAt = Date.now();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: OtlpOptions) {
    this.#options = options;
    // The default names the SDK.
    this.#resource = defaultResource().merge(resourceFromAttributes({ ...options.resource }));
    const exporter: SpanExporter = {
      export: (spans, done) => {
        void this.#exportSpans(spans).then((code) => done({ code }));
      },
      shutdown: () => Promise.resolve(),
    };
    this.#provider = new TracerProvider({
      resource: this.#resource,
      sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(options.sampleRatio) }),
      spanLimits: { attributeValueLengthLimit: maxAttributeLength },
      spanProcessors: [
        new BatchSpanProcessor({
          exporter,
          maxQueueSize: maxQueuedSpans,
          maxExportBatchSize: maxBatch,
          scheduledDelayMillis: batchDelayMs,
          exportTimeoutMillis: options.timeoutMs,
        }),
      ],
    });
    if (options.metricsIntervalMs !== undefined) {
      this.#timer = setInterval(
        () => void this.#exportMetrics(),
        options.metricsIntervalMs,
      ).unref();
    }
  }

  /** Undefined where only metrics are wanted. */
  get tracing(): Tracing | undefined {
    return this.#options.isTracing ? this : undefined;
  }

  start(start: TraceStart): FlowTrace {
    const tracer = this.#provider.getTracer(scope, this.#options.version);
    const begun = new SpanTrace(tracer, start, this.#parentOf(start), () =>
      this.#active.delete(start.flowId),
    );
    this.#active.set(start.flowId, begun);
    return begun;
  }

  of(flowId: string): FlowTrace | undefined {
    return this.#active.get(flowId);
  }

  /** Sends what is left and stops; gives up after the deadline. */
  async close(deadlineMs: number): Promise<void> {
    clearInterval(this.#timer);
    const isReporting = this.#timer !== undefined;
    this.#timer = undefined;
    const rest = [this.#provider.shutdown(), ...(isReporting ? [this.#exportMetrics()] : [])];
    let giveUp: NodeJS.Timeout | undefined;
    const deadline = new Promise<void>((resolve) => {
      giveUp = setTimeout(resolve, deadlineMs);
    });
    await Promise.race([Promise.allSettled(rest), deadline]);
    clearTimeout(giveUp);
  }

  #parentOf({ traceparent, parentFlowId }: TraceStart): Context {
    const remote = parseTraceparent(traceparent);
    if (remote !== undefined) {
      const { traceId, spanId, isSampled } = remote;
      const traceFlags = isSampled ? 1 : 0;
      return trace.setSpanContext(ROOT_CONTEXT, { traceId, spanId, traceFlags, isRemote: true });
    }
    const tunnel = parentFlowId === undefined ? undefined : this.#active.get(parentFlowId);
    return tunnel === undefined ? ROOT_CONTEXT : tunnel.context;
  }

  /** 0 when the collector took them, 1 when not, as the SDK counts. */
  async #exportSpans(spans: ReadableSpan[]): Promise<0 | 1> {
    return this.#send("traces", () => ProtobufTraceSerializer.serializeRequest(spans));
  }

  async #exportMetrics(): Promise<void> {
    const metrics = await this.#options.metrics();
    const { version } = this.#options;
    const report = resourceMetricsOf(metrics, {
      resource: this.#resource,
      scope: { name: scope, version },
      startedAt: this.#startedAt,
      now: Date.now(),
    });
    await this.#send("metrics", () => ProtobufMetricsSerializer.serializeRequest(report));
  }

  async #send(signal: OtlpSignal, serialise: () => Uint8Array | undefined): Promise<0 | 1> {
    try {
      const body = serialise();
      if (body !== undefined) await this.#options.send(signal, body);
      this.#options.onSent(signal, undefined);
      return 0;
    } catch (error) {
      this.#options.onSent(signal, messageOf(error));
      return 1;
    }
  }
}

type Tracer = ReturnType<TracerProvider["getTracer"]>;
type Span = ReturnType<Tracer["startSpan"]>;

/** A server span for the message and a client span for what we send on, whose id the next hop gets. */
class SpanTrace implements FlowTrace {
  readonly context: Context;
  readonly traceparent: string;
  readonly #tracer: Tracer;
  readonly #span: Span;
  readonly #onward: Span;
  readonly #onEnd: () => void;
  #isSent = false;

  constructor(tracer: Tracer, start: TraceStart, parent: Context, onEnd: () => void) {
    this.#tracer = tracer;
    this.#onEnd = onEnd;
    const { name, startedAt: startTime, facts: attributes } = start;
    this.#span = tracer.startSpan(name, { kind: SpanKind.SERVER, startTime, attributes }, parent);
    this.context = trace.setSpan(ROOT_CONTEXT, this.#span);
    this.#onward = tracer.startSpan("upstream", { kind: SpanKind.CLIENT }, this.context);
    const { traceId, spanId, traceFlags } = this.#onward.spanContext();
    this.traceparent = formatTraceparent({ traceId, spanId, isSampled: (traceFlags & 1) === 1 });
  }

  sent(facts: SpanFacts): void {
    this.#isSent = true;
    this.#onward.setAttributes({ ...facts });
  }

  part(name: string, startedAt: number, facts: SpanFacts = {}, error?: string): void {
    // What happens after the message has left belongs to the span that the next hop continues.
    const parent = this.#isSent ? trace.setSpan(ROOT_CONTEXT, this.#onward) : this.context;
    const startTime = performance.timeOrigin + startedAt;
    const span = this.#tracer.startSpan(name, { startTime, attributes: { ...facts } }, parent);
    if (error !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: error });
    span.end();
  }

  end({ facts, error, onward }: TraceEnd): void {
    this.#onEnd();
    // A span that is not ended is not sent: a refused message never went on.
    if (this.#isSent) endSpan(this.#onward, onward.facts, onward.error);
    endSpan(this.#span, facts, error);
  }
}

function endSpan(span: Span, facts: SpanFacts, error: string | undefined): void {
  span.setAttributes({ ...facts });
  if (error !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: error });
  span.end();
}
