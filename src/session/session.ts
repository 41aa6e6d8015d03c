/** The bounded record of one session: a ring of events with the user's latest intent kept in front of it. */
import type { SessionEvent } from "./event.ts";
import { isUserMessage } from "./turn.ts";

/** An event as the store keeps it. */
export interface StoredEvent {
  /** From 1, in the order in which the process recorded events. */
  readonly sequence: number;
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
  #entries: (StoredEvent | undefined)[] = [];
  /** Slots before this index are empty; the array is cut now and then, not at every append. */
  #head = 0;
  /** The latest inbound agent request, once the ring has moved past it. */
  #pinned: StoredEvent | undefined;
  #intent: StoredEvent | undefined;

  constructor(now: number) {
    this.createdAt = now;
    this.updatedAt = now;
  }

  get eventCount(): number {
    return this.#entries.length - this.#head + (this.#pinned === undefined ? 0 : 1);
  }

  /** Oldest first. */
  get stored(): readonly StoredEvent[] {
    return [this.#pinned, ...this.#entries].filter((entry) => entry !== undefined);
  }

  /** The user's latest request to the agent, be it pinned or still in the ring. */
  get intent(): SessionEvent | undefined {
    return this.#intent?.event ?? this.#pinned?.event;
  }

  append(entry: StoredEvent, now: number, maxEvents: number): void {
    this.#entries.push(entry);
    this.bytes += entry.bytes;
    this.updatedAt = now;
    this.totalTokens += tokensOf(entry.event);
    if (isIntent(entry.event)) this.#setIntent(entry);
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

  /** Events after a sequence number, oldest first; looks at no more than those. */
  after(sequence: number): StoredEvent[] {
    const found: StoredEvent[] = [];
    for (let at = this.#entries.length - 1; at >= this.#head; at -= 1) {
      const entry = this.#entries[at];
      if (entry === undefined || entry.sequence <= sequence) break;
      found.push(entry);
    }
    if (this.#pinned !== undefined && this.#pinned.sequence > sequence) found.push(this.#pinned);
    return found.reverse();
  }

  /** Removes events and gives them back, oldest first. */
  take(belongs: (event: SessionEvent) => boolean): StoredEvent[] {
    const taken: StoredEvent[] = [];
    const left: StoredEvent[] = [];
    for (const entry of this.stored) (belongs(entry.event) ? taken : left).push(entry);
    if (taken.length > 0) this.#rebuild(left);
    for (const { event } of taken) this.totalTokens -= tokensOf(event);
    return taken;
  }

  /** Puts events of another session in their places among these. */
  merge(entries: readonly StoredEvent[], now: number, maxEvents: number): void {
    this.#rebuild([...this.stored, ...entries].sort((a, b) => a.sequence - b.sequence));
    for (const { event } of entries) this.totalTokens += tokensOf(event);
    this.updatedAt = Math.max(this.updatedAt, now);
    while (this.eventCount > maxEvents) this.dropOldest();
  }

  #rebuild(entries: StoredEvent[]): void {
    this.#entries = entries;
    this.#head = 0;
    this.#pinned = undefined;
    this.#intent = entries.findLast(({ event }) => isIntent(event));
    this.bytes = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  }

  #setIntent(entry: StoredEvent): void {
    this.#unpin();
    this.#intent = entry;
  }

  #unpin(): boolean {
    if (this.#pinned === undefined) return false;
    this.bytes -= this.#pinned.bytes;
    this.#pinned = undefined;
    return true;
  }
}

function isIntent(event: SessionEvent): boolean {
  return event.direction === "inbound" && event.phase === "request" && isUserMessage(event.a2a);
}

/** Tokens are known with the response; the request's event shows the same view and must not count twice. */
function tokensOf(event: SessionEvent): number {
  if (event.phase === "request") return 0;
  const { inference } = event;
  if (typeof inference !== "object" || inference === null) return 0;
  const total = "totalTokens" in inference ? inference.totalTokens : undefined;
  return typeof total === "number" && Number.isFinite(total) && total > 0 ? total : 0;
}
