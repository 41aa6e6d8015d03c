/**
 * The contract of what replicas share: small values and counters by key, in memory, in a file or in Redis.
 *
 * A store that has the value at hand gives it at once; only one that has to ask somebody gives a promise.
 */
import { ProxyError } from "../errors.ts";

/** A value, or the promise of one where somebody has to be asked. */
export type Soon<T> = T | Promise<T>;

/** One addition to a counter. A counter that does not exist is 0. */
export interface Addition {
  readonly key: string;
  /** A whole number; a negative one gives back. No counter goes below 0. */
  readonly by: number;
  /** Nothing is added where the counter is not less than this. */
  readonly below?: number | undefined;
  /** How long the counter is kept after this addition. Absent: for ever. */
  readonly ttlMs?: number | undefined;
  /**
   * What is counted, at most 64 characters: one that the counter has had is not added again, nor refused. With a negative
   * `by` it is taken out again. Past {@link maxMembers} of a counter none is remembered, and each is added every time.
   */
  readonly member?: string | undefined;
}

/** What a counter remembers of {@link Addition.member}: strangers choose how many there are. */
export const maxMembers = 10_000;

/** What became of additions: all of them were made, or none. */
export interface Added {
  /** Index of the first addition whose bound was reached; undefined where all were made. */
  readonly refusedAt: number | undefined;
  /** The counters as they are now, in the order of the additions. */
  readonly values: readonly number[];
}

/**
 * Values and counters by key. Keys are at most 1,024 characters; in a cluster, keys of one call share a `{tag}`.
 *
 * Every call fails with ProxyError `state.unavailable` where the store is away or full, within its own limit of time.
 */
export interface StateStore {
  get(key: string): Soon<string | undefined>;
  set(key: string, value: string, ttlMs?: number): Soon<void>;
  delete(key: string): Soon<void>;
  /** Makes all additions in one step, or none. */
  add(additions: readonly Addition[]): Soon<Added>;
  /** The counters as they are, in this order; reading does not keep them longer. */
  counters(keys: readonly string[]): Soon<readonly number[]>;
  /** Sets the value where it is `expected` (undefined: where there is none); false where it is not. */
  compareAndSet(
    key: string,
    expected: string | undefined,
    value: string,
    ttlMs?: number,
  ): Soon<boolean>;
  /** Reaches whoever subscribes now; nothing is kept for those who do not. */
  publish(channel: string, message: string): Soon<void>;
  /** Returns what ends the subscription. */
  subscribe(channel: string, listener: (message: string) => void): () => void;
}

/** Messages that every replica hears, those that were away later. */
export interface StateFeed {
  /** Why messages of others may be missing; undefined where all have been heard up to about a second ago. */
  readonly problem: string | undefined;
  /** False where it is told later, as the store is away. */
  tell(text: string): Promise<boolean>;
  /** Hears what others told before, then what they tell; resolves with what ends it. */
  follow(listener: (texts: readonly string[]) => void): Promise<() => void>;
  /** Hears what others tell from now on, for as long as somebody follows. */
  listen(listener: (texts: readonly string[]) => void): void;
}

/** A store with an end, as the process holds it. */
export interface OwnedStore extends StateStore {
  /** Connects, or reads what there is. A store that can come back later does not fail. */
  open(): Promise<void>;
  close(): Promise<void>;
}

/** What a store tells of itself. */
export interface StateWatch {
  /** The store is away, and why; undefined: it is back. */
  onState?(problem: string | undefined): void;
  onOperation?(result: "ok" | "failed"): void;
  /** Counters that the store had lost were put back. */
  onRestored?(counters: number): void;
  /** Nobody has the store any more: what it said last does not count. */
  onClosed?(): void;
}

/** The fault of a call to which the store did not respond. */
export function stateUnavailable(why: string, cause?: unknown): ProxyError {
  return new ProxyError("state.unavailable", `the state store is not available: ${why}`, { cause });
}
