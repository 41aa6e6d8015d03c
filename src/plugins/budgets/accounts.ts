/**
 * What was reserved and what was taken: every amount goes to the store before its call, and is put right after it.
 *
 * Amounts that the store did not take are owed, and are added when it is back.
 */
import type { Added, Addition, Soon, StateStore } from "../../pipeline/plugin.ts";
import { type LeasedAddition, Leases } from "./leases.ts";

/** The end of a wait. */
type Wake = () => void;

const maxOwed = 10_000;
const maxWaiting = 1_000;
const retryMs = 1_000;

/** What is waited for, and how long. */
export interface Awaited {
  readonly held: number;
  readonly limitMs: number;
}

/** The accounts of one store in this process; they live as long as it does, reloads included. */
export class Accounts {
  readonly #store: StateStore;
  readonly #leases: Leases;
  readonly #reserved = new Map<string, number>();
  /** The same for each thread: what one has reserved that ends nobody settles. */
  readonly #byThread = new Map<number, Map<string, number>>();
  readonly #owed = new Map<string, Addition>();
  readonly #waiting = new Map<string, Set<Wake>>();
  #waiters = 0;
  #retry: NodeJS.Timeout | undefined;

  constructor(store: StateStore) {
    this.#store = store;
    this.#leases = new Leases(store);
  }

  /** Amounts that the store has not taken yet. */
  owed(): number {
    return this.#owed.size;
  }

  /** What this process has leased of a counter beyond what its messages took. */
  leftOf(key: string): number {
    return this.#leases.leftOf(key);
  }

  /** Adds within bounds, all or nothing; throws or rejects where the store is away. */
  reserve(additions: readonly LeasedAddition[], thread: number): Soon<Added> {
    const added = this.#leases.add(additions);
    if (!(added instanceof Promise)) return this.#reservedBy(additions, added, thread);
    const own = this.#reservedIn(thread);
    return added.then((done) =>
      // A thread that has ended meanwhile settles nothing.
      this.#byThread.get(thread) === own ? this.#reservedBy(additions, done, thread) : done,
    );
  }

  /** Sets a counter that has nothing yet. */
  async begin({ key, ttlMs }: Omit<Addition, "by">, amount: number): Promise<void> {
    const first = { key, ttlMs, by: amount };
    try {
      await this.#store.add([{ ...first, below: 1 }]);
    } catch {
      // A server that is away may have the counter already.
    }
  }

  /** What calls under way in this process hold of a counter beyond what they are known to take. */
  reservedOf(key: string): number {
    return this.#reserved.get(key) ?? 0;
  }

  /** A call is over: reservations end, and what it took in place of them is added. Gives the counters as they are then. */
  settle(
    reservations: readonly Addition[],
    corrections: readonly Addition[],
    thread: number,
  ): Soon<Added | undefined> {
    const own = this.#byThread.get(thread);
    for (const { key, by } of reservations) {
      change(this.#reserved, key, -by);
      if (own !== undefined) change(own, key, -by);
    }
    const wake = (added?: Added): Added | undefined => {
      for (const { key } of reservations) this.#wake(key);
      return added;
    };
    if (corrections.length === 0) return wake();
    const owe = (): undefined => {
      for (const one of corrections) this.#owe(one);
      wake();
    };
    try {
      const added = this.#leases.add(corrections);
      return added instanceof Promise ? added.then(wake, owe) : wake(added);
    } catch {
      return owe();
    }
  }

  /**
   * Resolves when a call of this process is over that held some of the counter, of which `held` was seen, or the time is;
   * false where none is to come.
   */
  async settlement(
    key: string,
    { held, limitMs }: Awaited,
    signal?: AbortSignal,
  ): Promise<boolean> {
    if (this.reservedOf(key) < held) return true;
    if (this.#waiters >= maxWaiting || limitMs <= 0 || signal?.aborted === true) return false;
    this.#waiters += 1;
    const waiting = this.#waiting.get(key) ?? new Set();
    this.#waiting.set(key, waiting);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const wake = (): void => resolve(true);
    waiting.add(wake);
    const timer = setTimeout(() => resolve(false), limitMs);
    const abort = (): void => resolve(false);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      waiting.delete(wake);
      if (waiting.size === 0 && this.#waiting.get(key) === waiting) this.#waiting.delete(key);
      this.#waiters -= 1;
    }
  }

  /** What the thread had reserved stays counted in the store, and nobody waits for it. */
  threadEnded(thread: number): void {
    const own = this.#byThread.get(thread);
    this.#byThread.delete(thread);
    for (const [key, by] of own ?? []) {
      change(this.#reserved, key, -by);
      this.#wake(key);
    }
  }

  close(): Promise<void> {
    clearTimeout(this.#retry);
    return this.#leases.close();
  }

  #reservedBy(additions: readonly Addition[], added: Added, thread: number): Added {
    if (added.refusedAt !== undefined) return added;
    const own = this.#reservedIn(thread);
    for (const { key, by, member } of additions) {
      // What has been counted once stays.
      if (by <= 0 || member !== undefined) continue;
      change(this.#reserved, key, by);
      change(own, key, by);
    }
    return added;
  }

  #reservedIn(thread: number): Map<string, number> {
    const own = this.#byThread.get(thread) ?? new Map<string, number>();
    this.#byThread.set(thread, own);
    return own;
  }

  #wake(key: string): void {
    for (const wake of this.#waiting.get(key) ?? []) wake();
  }

  #owe(addition: Addition): void {
    const { key, member } = addition;
    const name = member === undefined ? key : `${key} ${member}`;
    const known = this.#owed.get(name);
    // Past this, what is reserved stays counted in place of what was taken.
    if (known === undefined && this.#owed.size >= maxOwed) return;
    // What is counted once is owed once.
    const before = member === undefined ? (known?.by ?? 0) : 0;
    this.#owed.set(name, { ...addition, by: before + addition.by });
    this.#retry ??= setTimeout(() => void this.#pay(), retryMs).unref();
  }

  async #pay(): Promise<void> {
    this.#retry = undefined;
    const owed = [...this.#owed.values()];
    this.#owed.clear();
    for (const [at, addition] of owed.entries()) {
      try {
        await this.#store.add([addition]);
      } catch {
        for (const left of owed.slice(at)) this.#owe(left);
        return;
      }
    }
  }
}

/** What is nothing is not kept. */
function change(amounts: Map<string, number>, key: string, by: number): void {
  const amount = (amounts.get(key) ?? 0) + by;
  if (amount > 0) amounts.set(key, amount);
  else amounts.delete(key);
}
