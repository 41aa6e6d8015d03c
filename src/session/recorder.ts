/** Turns the moments of a flow into session events: in the right session, kept, and shown to whoever watches. */
import type { RequestContext } from "../pipeline/context.ts";
import type { Intent, SessionReader } from "../pipeline/plugin.ts";
import type { Decisions } from "./audit-log.ts";
import type { Attribution } from "./attribution.ts";
import type { ContentPolicy } from "./content.ts";
import { type EventFacts, eventOf, type SessionEvent } from "./event.ts";

/** Where events go. Takes them without waiting and without failing. */
export interface EventSink {
  /** `shownIn`: the session in which the message's first event was shown. */
  record(event: SessionEvent, shownIn: string): void;
}

/** Options of a {@link SessionRecorder}. */
export interface SessionRecorderOptions {
  readonly sinks: readonly EventSink[];
  readonly attribution: Attribution;
  readonly content: ContentPolicy;
  readonly audit?: Decisions | undefined;
}

/** Records flows as events. One per process; absent where sessions are off. */
export class SessionRecorder implements SessionReader {
  readonly #sinks: readonly EventSink[];
  readonly #attribution: Attribution;
  readonly #content: ContentPolicy;
  readonly #audit: Decisions | undefined;

  constructor(options: SessionRecorderOptions) {
    this.#sinks = options.sinks;
    this.#attribution = options.attribution;
    this.#content = options.content;
    this.#audit = options.audit;
  }

  /** Called before the pipeline of an outbound message runs, which waits for the promise if a plugin reads sessions. */
  arrived(context: RequestContext): Promise<void> | undefined {
    return this.#attribution.arrived(context);
  }

  /** The pipeline let the message pass, and nothing of it has been sent yet: it is sent when the promise resolves. */
  permitted(context: RequestContext, at: number): Promise<void> | undefined {
    return this.#whenKnown(context, () => {
      const told = this.#attribution.permitted(context);
      this.#whenKnown(context, () => this.#append(context, { phase: "request", at }));
      return told;
    });
  }

  /** Called before a client can know that its message to the agent is over. */
  ending(context: RequestContext): void {
    this.#attribution.ending(context);
  }

  /** The message is over; without facts it leaves no event. */
  finished(context: RequestContext, facts: EventFacts | undefined): void {
    this.#whenKnown(context, () => {
      this.#attribution.finished(context);
      if (facts !== undefined) this.#append(context, facts);
    });
  }

  /** The file exempts the message from its pipeline: it leaves no event, but a decision it is. */
  exempted(context: RequestContext, at: number): void {
    this.#audit?.exempted(context, at);
  }

  intentOf(context: RequestContext): Intent | undefined {
    return this.#attribution.intentOf(context);
  }

  sessionOf(context: RequestContext): string | undefined {
    return this.#attribution.sessionOf(context);
  }

  scopeOf(context: RequestContext): ReturnType<SessionReader["scopeOf"]> {
    return this.#attribution.scopeOf(context);
  }

  subjectOf(context: RequestContext): string | undefined {
    return this.#attribution.subjectOf(context);
  }

  isInDoubt(context: RequestContext): boolean {
    return this.#attribution.isInDoubt(context);
  }

  /** At once, or when it is known whose the message is, for which the message does not wait. */
  #whenKnown<T>(context: RequestContext, run: () => T): T | undefined {
    const pending = this.#attribution.pending(context);
    if (pending === undefined) return run();
    void pending.then(run);
    return undefined;
  }

  #append(context: RequestContext, facts: EventFacts): void {
    const event = this.#content.shaped(eventOf(context, facts));
    const shownIn = (context.shownIn ??= event.sessionId);
    for (const sink of this.#sinks) sink.record(event, shownIn);
    this.#audit?.decided(event, context);
  }
}
