/** The events of recent sessions in memory, bounded by count, age and bytes, and a feed for whoever watches. */
import type { Clock, Intent } from "../pipeline/plugin.ts";
import type { SessionEvent } from "./event.ts";
import { sessionIdOf } from "./session-id.ts";
import { intentText } from "./turn.ts";
import type { Rekeying } from "./journal.ts";
import { Session, type StoredEvent } from "./session.ts";
import { approximateBytes } from "./size.ts";
import { Subscription, type EventListener, type SubscriptionOptions } from "./subscription.ts";

/** Bounds of a {@link SessionStore}; the defaults are those of the Go program. */
export interface SessionStoreOptions {
  readonly maxEvents?: number;
  readonly maxSessions?: number;
  /** Since a session's last event; Infinity keeps sessions until another bound takes them. */
  readonly ttlMs?: number;
  /** Of all events together, approximately. */
  readonly maxBytes?: number;
  readonly clock?: Clock;
  /** Called for everything that is kept and moved. */
  readonly journal?: StoreJournal | undefined;
}

/** Where the store writes down what it does. */
export interface StoreJournal {
  kept(stored: StoredEvent): void;
  moved(rekeying: Rekeying): void;
}

/** One line of the listing. */
export interface SessionSummary {
  readonly id: string;
  /** RFC 3339. */
  readonly createdAt: string;
  readonly updatedAt: string;
  readonly eventCount: number;
  readonly totalTokens?: number;
  /** True for the session that was appended to last. */
  readonly active: boolean;
}

/** One session with its events, oldest first. */
export interface SessionRecord {
  readonly id: string;
  readonly events: readonly SessionEvent[];
}

/** What {@link SessionStore.after} finds. */
export interface EventsAfter {
  readonly events: readonly StoredEvent[];
  readonly missed: number;
}

const defaults = { maxEvents: 500, maxSessions: 100, ttlMs: 1_800_000, maxBytes: 64 * 1_048_576 };
const minExpiryCheckMs = 1_000;
const maxTimerMs = 2_147_483_647;
/** An event that takes more than this share of the store is kept without what its parsers saw. */
const oversizeShare = 16;

/** Keeps what happened lately. One per App; it outlives reloads. */
export class SessionStore {
  readonly #maxEvents: number;
  readonly #maxSessions: number;
  readonly #ttlMs: number;
  readonly #maxBytes: number;
  readonly #clock: Clock;
  readonly #journal: StoreJournal | undefined;
  /** In the order of their last event, oldest first. */
  #sessions = new Map<string, Session>();
  readonly #subscriptions = new Set<Subscription>();
  readonly #expiryTimer: NodeJS.Timeout | undefined;
  #active: string | undefined;
  #bytes = 0;
  #sequence = 0;
  #droppedByClosed = 0;

  constructor(options: SessionStoreOptions = {}) {
    this.#maxEvents = options.maxEvents ?? defaults.maxEvents;
    this.#maxSessions = options.maxSessions ?? defaults.maxSessions;
    this.#ttlMs = options.ttlMs ?? defaults.ttlMs;
    this.#maxBytes = options.maxBytes ?? defaults.maxBytes;
    this.#clock = options.clock ?? Date;
    this.#journal = options.journal;
    if (Number.isFinite(this.#ttlMs)) {
      const period = Math.min(maxTimerMs, Math.max(minExpiryCheckMs, this.#ttlMs / 2));
      this.#expiryTimer = setInterval(() => this.removeExpired(), period).unref();
    }
  }

  /** Approximate size of everything kept. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Events that slow subscribers missed, past subscribers included. */
  get dropped(): number {
    let dropped = this.#droppedByClosed;
    for (const subscription of this.#subscriptions) dropped += subscription.dropped;
    return dropped;
  }

  /** Keeps one event and offers it to the subscribers. Never waits. */
  record(event: SessionEvent, shownIn?: string): void {
    this.#sequence += 1;
    const stored = this.#keep(this.#sequence, event, this.#clock.now());
    this.#journal?.kept(stored);
    for (const subscription of this.#subscriptions) subscription.offer(stored, shownIn);
  }

  /** Keeps an event of an earlier process, as of when it happened. */
  restore(sequence: number, event: SessionEvent): void {
    this.#sequence = Math.max(this.#sequence, sequence);
    this.#keep(sequence, event, Date.parse(event.at));
  }

  #keep(sequence: number, event: SessionEvent, now: number): StoredEvent {
    const { kept, bytes } = this.#fitted(event);
    const id = kept.sessionId;
    let session = this.#sessions.get(id);
    if (session !== undefined && this.#isExpired(session, now)) {
      this.#remove(id, session);
      session = undefined;
    }
    session ??= new Session(now);
    // Last in the Map means updated last.
    if (id !== this.#active) {
      this.#sessions.delete(id);
      this.#sessions.set(id, session);
    }
    const before = session.bytes;
    const stored: StoredEvent = { sequence, event: kept, bytes };
    session.append(stored, now, this.#maxEvents);
    this.#bytes += session.bytes - before;
    this.#active = id;
    if (this.#sessions.size > this.#maxSessions || this.#bytes > this.#maxBytes) {
      this.#evict(session);
    }
    return stored;
  }

  /**
   * Moves the events of flows to the session that they turned out to belong to; without `flows`, the whole
   * session, unless the other one exists.
   */
  rekey(from: string, to: string, flows?: ReadonlySet<string>): void {
    const moved = this.restoreRekey(from, to, flows);
    if (moved.length === 0) return;
    const requestIds = [...new Set(moved.map(({ event }) => event.requestId))];
    this.#journal?.moved({ from, to: sessionIdOf(to), requestIds });
  }

  /** The same for what an earlier process moved: it stands in the journal already. */
  restoreRekey(from: string, to: string, flows?: ReadonlySet<string>): readonly StoredEvent[] {
    const target = sessionIdOf(to);
    const now = this.#clock.now();
    const session = this.#sessions.get(from);
    if (from === "" || target === "" || from === target || session === undefined) return [];
    if (this.#isExpired(session, now)) return [];
    const known = this.#sessions.get(target);
    const existing = known !== undefined && this.#isExpired(known, now) ? undefined : known;
    if (flows === undefined && existing !== undefined) return [];
    if (known !== undefined && existing === undefined) this.#remove(target, known);
    const before = session.bytes + (existing?.bytes ?? 0);
    const taken = session.take(({ requestId }) => flows?.has(requestId) ?? true);
    const [first] = taken;
    if (first === undefined) return [];
    const createdAt = flows === undefined ? session.createdAt : Date.parse(first.event.at);
    const receiver = existing ?? new Session(createdAt);
    const moved = taken.map((entry) => ({
      ...entry,
      event: { ...entry.event, sessionId: target },
    }));
    receiver.merge(moved, session.updatedAt, this.#maxEvents);
    this.#bytes += session.bytes + receiver.bytes - before;
    if (session.eventCount === 0) this.#succeed(from, session, target, receiver);
    this.#sessions.set(target, receiver);
    // Eviction goes by the order of last events.
    this.#sessions = new Map([...this.#sessions].sort(([, a], [, b]) => a.updatedAt - b.updatedAt));
    return moved;
  }

  /** What the user asked for last in this session. */
  intentOf(id: string): Intent | undefined {
    const session = this.#sessions.get(id);
    if (session === undefined || this.#isExpired(session, this.#clock.now())) return undefined;
    const event = session.intent;
    const text = intentText(event?.a2a);
    return event === undefined || text === undefined
      ? undefined
      : { text, sessionId: id, at: event.at };
  }

  /** What users asked for last, of two sessions at most: who wants to know whether there is one need not count on. */
  someIntents(): readonly Intent[] {
    const found: Intent[] = [];
    for (const id of this.#sessions.keys()) {
      const intent = this.intentOf(id);
      if (intent !== undefined) found.push(intent);
      if (found.length > 1) break;
    }
    return found;
  }

  /** Newest first; expired sessions are not there. */
  list(): readonly SessionSummary[] {
    const now = this.#clock.now();
    const summaries: SessionSummary[] = [];
    for (const [id, session] of this.#sessions) {
      if (this.#isExpired(session, now)) continue;
      summaries.push({
        id,
        createdAt: new Date(session.createdAt).toISOString(),
        updatedAt: new Date(session.updatedAt).toISOString(),
        eventCount: session.eventCount,
        ...(session.totalTokens > 0 ? { totalTokens: session.totalTokens } : {}),
        active: id === this.#active,
      });
    }
    return summaries.reverse();
  }

  get(id: string): SessionRecord | undefined {
    const session = this.#sessions.get(id);
    if (session === undefined || this.#isExpired(session, this.#clock.now())) return undefined;
    return { id, events: session.stored.map(({ event }) => event) };
  }

  /** Number of the event that was recorded last; 0 before the first. */
  get sequence(): number {
    return this.#sequence;
  }

  /**
   * What is still kept of the events after a number, of all sessions or of one, oldest first; `missed` of them are gone,
   * which only the feed of all sessions can tell.
   */
  after(sequence: number, session?: string): EventsAfter {
    // A number that was never given out is one of an earlier process: everything is new to that reader.
    const from = sequence > this.#sequence ? 0 : sequence;
    const now = this.#clock.now();
    const found: StoredEvent[] = [];
    for (const [id, one] of this.#sessions) {
      if (session !== undefined && id !== session) continue;
      if (!this.#isExpired(one, now)) found.push(...one.after(from));
    }
    found.sort((a, b) => a.sequence - b.sequence);
    const missed = session === undefined ? this.#sequence - from - found.length : 0;
    return { events: found, missed };
  }

  /** Feeds new events to a listener until its subscription is closed. A slow listener misses events. */
  subscribe(listener: EventListener, options: SubscriptionOptions = {}): Subscription {
    const subscription = new Subscription(listener, options, (closed) => {
      this.#droppedByClosed += closed.dropped;
      this.#subscriptions.delete(closed);
    });
    this.#subscriptions.add(subscription);
    return subscription;
  }

  /** Forgets expired sessions; runs by itself every half ttl. */
  removeExpired(): void {
    const now = this.#clock.now();
    for (const [id, session] of this.#sessions) {
      if (this.#isExpired(session, now)) this.#remove(id, session);
    }
  }

  close(): void {
    clearInterval(this.#expiryTimer);
    for (const subscription of this.#subscriptions) subscription.close();
    this.#sessions.clear();
    this.#bytes = 0;
    this.#active = undefined;
  }

  /** The empty session is removed; its counts of events that are no longer kept stay. */
  #succeed(from: string, empty: Session, to: string, heir: Session): void {
    const isActive = this.#active === from;
    heir.totalTokens += empty.totalTokens;
    this.#remove(from, empty);
    if (isActive) this.#active = to;
  }

  #isExpired(session: Session, now: number): boolean {
    return now - session.updatedAt >= this.#ttlMs;
  }

  #fitted(event: SessionEvent): { readonly kept: SessionEvent; readonly bytes: number } {
    const bytes = approximateBytes(event);
    if (bytes <= this.#maxBytes / oversizeShare) return { kept: event, bytes };
    const { mcp: _mcp, a2a: _a2a, inference: _inference, plugins: _plugins, ...kept } = event;
    return { kept, bytes: Math.min(approximateBytes(kept), this.#maxBytes) };
  }

  /** Whole sessions go first, the one that was updated longest ago; the current one loses its oldest events. */
  #evict(current: Session): void {
    for (const [id, session] of this.#sessions) {
      const over = this.#sessions.size > this.#maxSessions || this.#bytes > this.#maxBytes;
      if (!over || session === current) break;
      this.#remove(id, session);
    }
    while (this.#bytes > this.#maxBytes && current.eventCount > 1) {
      const before = current.bytes;
      if (!current.dropOldest()) break;
      this.#bytes += current.bytes - before;
    }
  }

  #remove(id: string, session: Session): void {
    this.#sessions.delete(id);
    this.#bytes -= session.bytes;
    if (this.#active === id) this.#active = undefined;
  }
}
