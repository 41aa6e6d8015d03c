/** The bounded record of one session: a ring of events with the user's latest intent kept in front of it. */
import type { SessionEvent } from "./event.ts";

interface Entry {
  readonly event: SessionEvent;
  readonly bytes: number;
}

/** One session of the store; the store decides when it goes. */
export class Session {
  readonly createdAt: number;
  updatedAt: number;
  /** Sum over everything that was ever appended, evicted events included. */
  totalTokens = 0;
  bytes = 0;
  #entries: (Entry | undefined)[] = [];
  /** Slots before this index are empty; the array is cut now and then, not at every append. */
  #head = 0;
  /** The latest inbound agent request, once the ring has moved past it. */
  #pinned: Entry | undefined;
  #intent: Entry | undefined;

  constructor(now: number) {
    this.createdAt = now;
    this.updatedAt = now;
  }

  get eventCount(): number {
    return this.#entries.length - this.#head + (this.#pinned === undefined ? 0 : 1);
  }

  /** Oldest first. */
  get events(): readonly SessionEvent[] {
    const kept = [this.#pinned, ...this.#entries];
    return kept.flatMap((entry) => (entry === undefined ? [] : [entry.event]));
  }

  append(event: SessionEvent, bytes: number, now: number, maxEvents: number): void {
    const entry = { event, bytes };
    this.#entries.push(entry);
    this.bytes += bytes;
    this.updatedAt = now;
    this.totalTokens += tokensOf(event);
    if (isIntent(event)) {
      if (this.#pinned !== undefined) this.bytes -= this.#pinned.bytes;
      this.#pinned = undefined;
      this.#intent = entry;
    }
    while (this.eventCount > maxEvents) this.dropOldest();
  }

  /** Drops the oldest event that is not the pinned intent, then the intent; false when nothing is left. */
  dropOldest(): boolean {
    const oldest = this.#entries[this.#head];
    if (oldest === undefined) return this.#unpin();
    this.#entries[this.#head] = undefined;
    this.#head += 1;
    if (this.#head > 64 && this.#head * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head);
      this.#head = 0;
    }
    if (oldest === this.#intent) {
      this.#intent = undefined;
      if (this.#head < this.#entries.length) {
        this.#pinned = oldest;
        return true;
      }
    }
    this.bytes -= oldest.bytes;
    return true;
  }

  /** Rewrites the events' session id (contract 5: rekey). */
  rename(sessionId: string): void {
    const renamed = (entry: Entry | undefined): Entry | undefined => {
      if (entry === undefined) return undefined;
      const copy = { event: { ...entry.event, sessionId }, bytes: entry.bytes };
      if (entry === this.#intent) this.#intent = copy;
      return copy;
    };
    this.#entries = this.#entries.slice(this.#head).map(renamed);
    this.#head = 0;
    this.#pinned = renamed(this.#pinned);
  }

  #unpin(): boolean {
    if (this.#pinned === undefined) return false;
    this.bytes -= this.#pinned.bytes;
    this.#pinned = undefined;
    return true;
  }
}

function isIntent(event: SessionEvent): boolean {
  return event.direction === "inbound" && event.phase === "request" && event.a2a !== undefined;
}

/** Tokens are known with the answer; the request's event shows the same view and must not count twice. */
function tokensOf(event: SessionEvent): number {
  if (event.phase === "request") return 0;
  const { inference } = event;
  if (typeof inference !== "object" || inference === null) return 0;
  const total = "totalTokens" in inference ? inference.totalTokens : undefined;
  return typeof total === "number" && Number.isFinite(total) && total > 0 ? total : 0;
}
