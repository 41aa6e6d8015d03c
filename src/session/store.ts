/** The events of recent sessions in memory, bounded by count, age and bytes, and a feed for whoever watches. */
import type { Clock } from "../pipeline/plugin.ts";
import { maxSessionIdLength, type SessionEvent } from "./event.ts";
import { Session } from "./session.ts";
import { approximateBytes } from "./size.ts";
import { Subscription, type EventListener, type SubscriptionOptions } from "./subscription.ts";

/** Bounds of a {@link SessionStore}; the defaults are those of contract 1.1. */
export interface SessionStoreOptions {
  readonly maxEvents?: number;
  readonly maxSessions?: number;
  /** Since a session's last event; Infinity keeps sessions until another bound takes them. */
  readonly ttlMs?: number;
  /** Of all events together, approximately. */
  readonly maxBytes?: number;
  readonly clock?: Clock;
}

/** One line of the listing (contract 4.10). */
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

const defaults = { maxEvents: 500, maxSessions: 100, ttlMs: 1_800_000, maxBytes: 64 * 1_048_576 };
const minSweepMs = 1_000;
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
  /** In the order of their last event, oldest first. */
  #sessions = new Map<string, Session>();
  readonly #subscriptions = new Set<Subscription>();
  readonly #sweeper: NodeJS.Timeout | undefined;
  #active: string | undefined;
  #bytes = 0;
  #droppedByClosed = 0;

  constructor(options: SessionStoreOptions = {}) {
    this.#maxEvents = options.maxEvents ?? defaults.maxEvents;
    this.#maxSessions = options.maxSessions ?? defaults.maxSessions;
    this.#ttlMs = options.ttlMs ?? defaults.ttlMs;
    this.#maxBytes = options.maxBytes ?? defaults.maxBytes;
    this.#clock = options.clock ?? Date;
    if (Number.isFinite(this.#ttlMs)) {
      const period = Math.min(maxTimerMs, Math.max(minSweepMs, this.#ttlMs / 2));
      this.#sweeper = setInterval(() => this.sweep(), period).unref();
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
  append(event: SessionEvent): void {
    const now = this.#clock.now();
    const { kept, bytes } = this.#fitted(event);
    const id = kept.sessionId;
    let session = this.#sessions.get(id);
    if (session !== undefined && this.#isExpired(session, now)) {
      this.#remove(id, session);
      session = undefined;
    }
    session ??= new Session(now);
    // Last in the Map means updated last.
    this.#sessions.delete(id);
    this.#sessions.set(id, session);
    const before = session.bytes;
    session.append(kept, bytes, now, this.#maxEvents);
    this.#bytes += session.bytes - before;
    this.#active = id;
    this.#evict(session);
    for (const subscription of this.#subscriptions) subscription.offer(kept);
  }

  /** Moves a session to another id, as soon as its real one is known; nothing happens when that one exists. */
  rekey(from: string, to: string): void {
    const target = to.slice(0, maxSessionIdLength);
    const now = this.#clock.now();
    const session = this.#sessions.get(from);
    if (from === "" || target === "" || from === target || session === undefined) return;
    if (this.#isExpired(session, now)) return;
    const existing = this.#sessions.get(target);
    if (existing !== undefined) {
      if (!this.#isExpired(existing, now)) return;
      this.#remove(target, existing);
    }
    session.rename(target);
    // Rebuilt, so that the order of last events stays as it was.
    this.#sessions = new Map(
      [...this.#sessions].map(([id, one]) => (id === from ? [target, one] : [id, one])),
    );
    if (this.#active === from) this.#active = target;
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
    return { id, events: session.events };
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
  sweep(): void {
    const now = this.#clock.now();
    for (const [id, session] of this.#sessions) {
      if (this.#isExpired(session, now)) this.#remove(id, session);
    }
  }

  close(): void {
    clearInterval(this.#sweeper);
    for (const subscription of this.#subscriptions) subscription.close();
    this.#sessions.clear();
    this.#bytes = 0;
    this.#active = undefined;
  }

  #isExpired(session: Session, now: number): boolean {
    return now - session.updatedAt >= this.#ttlMs;
  }

  #fitted(event: SessionEvent): { readonly kept: SessionEvent; readonly bytes: number } {
    const bytes = approximateBytes(event);
    if (bytes <= this.#maxBytes / oversizeShare) return { kept: event, bytes };
    const { mcp: _mcp, a2a: _a2a, inference: _inference, ...kept } = event;
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
