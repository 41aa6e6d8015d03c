/** Turns the moments of a flow into session events: in the right session, kept, and shown to whoever watches. */
import type { RequestContext } from "../pipeline/context.ts";
import type { Intent, SessionReader } from "../pipeline/plugin.ts";
import type { Attribution } from "./attribution.ts";
import { type EventFacts, eventOf, type SessionEvent } from "./event.ts";

/** Where finished events go. */
export interface EventSink {
  append(event: SessionEvent): void;
}

/** What a {@link SessionRecorder} is made with. */
export interface SessionRecorderOptions {
  readonly events: EventSink;
  readonly attribution: Attribution;
}

/** Records flows as events. One per process; absent where sessions are off. */
export class SessionRecorder implements SessionReader {
  readonly #events: EventSink;
  readonly #attribution: Attribution;

  constructor(options: SessionRecorderOptions) {
    this.#events = options.events;
    this.#attribution = options.attribution;
  }

  /** Called before the chain of an outbound message runs. */
  arrived(context: RequestContext): void {
    this.#attribution.arrived(context);
  }

  /** The chain let the message pass, and nothing of it has been sent yet. */
  permitted(context: RequestContext, at: number): void {
    this.#attribution.permitted(context);
    this.#events.append(eventOf(context, { phase: "request", at }));
  }

  /** The message is over; without facts it leaves no event. */
  finished(context: RequestContext, facts: EventFacts | undefined): void {
    this.#attribution.finished(context);
    if (facts !== undefined) this.#events.append(eventOf(context, facts));
  }

  intentOf(context: RequestContext): Intent | undefined {
    return this.#attribution.intentOf(context);
  }

  isInDoubt(context: RequestContext): boolean {
    return this.#attribution.isInDoubt(context);
  }
}
