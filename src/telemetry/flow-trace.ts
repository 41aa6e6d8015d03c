/** What a flow tells a trace of itself; nothing here knows how spans are kept or sent. */

/** Facts of a span; names are those of the OpenTelemetry semantic conventions where these have one. */
export type SpanFacts = Readonly<Record<string, string | number | boolean>>;

/** What is known of a message when it arrives. */
export interface TraceStart {
  /** Id of the flow. */
  readonly flowId: string;
  /** The tunnel that carries it, which is its parent where the message names none. */
  readonly parentFlowId?: string | undefined;
  readonly name: string;
  /** The `traceparent` field as it came. */
  readonly traceparent: string | undefined;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly facts: SpanFacts;
}

/** How a message ended. */
export interface TraceEnd {
  readonly facts: SpanFacts;
  /** What failed, where something did: the span has the status error. */
  readonly error?: string | undefined;
  /** The same of the request that went on. */
  readonly onward: { readonly facts: SpanFacts; readonly error?: string | undefined };
}

/** The trace of one message, while it is under way. */
export interface FlowTrace {
  /** The field that the next hop gets: its spans become children of ours. */
  readonly traceparent: string;
  /** The message leaves for the next hop. */
  sent(facts: SpanFacts): void;
  /**
   * A part that is over now.
   *
   * @param startedAt as performance.now() gave it
   */
  part(name: string, startedAt: number, facts?: SpanFacts, error?: string): void;
  end(end: TraceEnd): void;
}

/** Where traces begin. */
export interface Tracing {
  start(start: TraceStart): FlowTrace;
  /** The trace of a flow that is under way. */
  of(flowId: string): FlowTrace | undefined;
}
