/**
 * What was reserved and what was taken: every amount goes to the store before its call, and is put right after it.
 *
 * Amounts that the store did not take are owed, and are added when it is back.
 */
import type { Added, Addition, Soon, StateStore } from "../../pipeline/plugin.ts";
import { type LeasedAddition, Leases } from "./leases.ts";
import { usedIn } from "./used-here.ts";

/** The end of a wait. */
type Wake = () => void;

const maxOwed = 10_000;
const maxWaiting = 1_000;
const retryMs = 1_000;
const noThread = -1;

/** What is waited for, and how long. */
export interface Awaited {
  readonly held: number;
  readonly limitMs: number;
}

/** What one thread has of the counters. */
interface Share {
  /** What its calls under way hold. */
  readonly reserved: Map<string, number>;
  /** What stands in the store for it, but for what is settled. Against what it has used: what goes back at its end. */
  readonly taken: Map<string, Omit<Addition, "key">>;
  /** What it has used, once it has lent that; undefined where nobody knows. */
  used: ((key: string) => number) | undefined;
  isOver: boolean;
}

/** Takes what the store did not: resolves when somebody else owes it. */
export type Owe = (addition: Addition) => Promise<unknown>;

/** The accounts of one store in this process; they live as long as it does, reloads included. */
export class Accounts {
  readonly #store: Pick<StateStore, "add">;
  readonly #leases: Leases;
  readonly #owe: Owe | undefined;
  readonly #reserved = new Map<string, number>();
  readonly #shares = new Map<number, Share>();
  readonly #owed = new Map<string, Addition>();
  readonly #waiting = new Map<string, Set<Wake>>();
  #waiters = 0;
  #retry: NodeJS.Timeout | undefined;

  /** `owe`: who is told of amounts that the store has not taken; absent: they are kept here. */
  constructor(store: Pick<StateStore, "add">, owe?: Owe) {
    this.#store = store;
    this.#leases = new Leases(store);
    this.#owe = owe;
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
    const share = this.#shareOf(thread);
    const made = (added: Added): Added => {
      if (added.refusedAt !== undefined) return added;
      for (const { key, by } of additions.filter(comesBack)) {
        // A thread that has ended meanwhile settles nothing.
        if (share.isOver) continue;
        change(this.#reserved, key, by);
        change(share.reserved, key, by);
      }
      return added;
    };
    const added = this.#take(this.#leases, additions, share);
    return added instanceof Promise ? added.then(made) : made(added);
  }

  /** The same for the leases of another thread, which reserves from what it has got. */
  take(additions: readonly Addition[], thread: number): Soon<Added> {
    return this.#take(this.#store, additions, this.#shareOf(thread));
  }

  /** The memory in which a thread counts what it uses. */
  lend(thread: number, memory: SharedArrayBuffer): void {
    this.#shareOf(thread).used ??= usedIn(memory);
  }

  /** What a thread has used, and counts no longer itself. */
  used(amounts: readonly Addition[], thread: number): void {
    const share = this.#shareOf(thread);
    for (const { key, by } of amounts) this.#count(share, { key, by: -by });
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
    const share = this.#shares.get(thread);
    for (const { key, by } of reservations) {
      change(this.#reserved, key, -by);
      if (share === undefined) continue;
      change(share.reserved, key, -by);
      this.#count(share, { key, by: -by });
    }
    const wake = (added?: Added): Added | undefined => {
      for (const { key } of reservations) this.#wake(key);
      return added;
    };
    if (corrections.length === 0) return wake();
    const owe = (): undefined => {
      for (const one of corrections) this.#isOwed(one);
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

  /** What the thread had taken and not used goes back to the store, and nobody waits for it. */
  threadEnded(thread: number): void {
    const share = this.#shares.get(thread);
    if (share === undefined) return;
    this.#shares.delete(thread);
    share.isOver = true;
    const { taken, used, reserved } = share;
    const unused = [...taken].flatMap(([key, { by, ttlMs }]): Addition[] => {
      const left = by - (used?.(key) ?? by);
      taken.set(key, { by: Math.min(0, left), ttlMs });
      return left > 0 ? [{ key, by: -left, ttlMs }] : [];
    });
    const held = [...reserved].map(([key, by]) => ({ key, by }));
    void this.settle(held, unused, thread);
  }

  close(): Promise<void> {
    clearTimeout(this.#retry);
    return this.#leases.close();
  }

  #shareOf(thread: number): Share {
    let share = this.#shares.get(thread);
    if (share === undefined) {
      share = { reserved: new Map(), taken: new Map(), used: undefined, isOver: false };
      this.#shares.set(thread, share);
    }
    return share;
  }

  #take(
    store: Pick<StateStore, "add">,
    additions: readonly LeasedAddition[],
    share: Share,
  ): Soon<Added> {
    const back = additions.filter(({ by, member }) => by < 0 && member === undefined);
    // Were it known only later, a thread that ends meanwhile would have it given back twice.
    for (const one of back) this.#count(share, one);
    const undo = (): void => {
      for (const one of back) this.#count(share, { ...one, by: -one.by });
    };
    const made = (added: Added): Added => {
      if (added.refusedAt !== undefined) undo();
      else for (const one of additions.filter(comesBack)) this.#count(share, one);
      return added;
    };
    try {
      const added = store.add(additions);
      if (!(added instanceof Promise)) return made(added);
      return added.then(made, (error: unknown) => {
        undo();
        throw error;
      });
    } catch (error) {
      undo();
      throw error;
    }
  }

  /** What comes when the thread has ended is used by nobody, but for what it had used before. */
  #count({ taken, used, isOver }: Share, { key, by, ttlMs }: Addition): void {
    const known = taken.get(key);
    const before = known?.by ?? (isOver ? -(used?.(key) ?? 0) : 0);
    const amount = before + by;
    const isUnused = isOver && used !== undefined && amount > 0;
    if (amount === 0 && !isOver) taken.delete(key);
    else taken.set(key, { by: isUnused ? 0 : amount, ttlMs: ttlMs ?? known?.ttlMs });
    if (isUnused) void this.settle([], [{ key, by: -amount, ttlMs }], noThread);
  }

  #wake(key: string): void {
    for (const wake of this.#waiting.get(key) ?? []) wake();
  }

  #isOwed(addition: Addition): void {
    if (this.#owe === undefined) this.#keep(addition);
    else this.#owe(addition).catch(() => this.#keep(addition));
  }

  #keep(addition: Addition): void {
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
        for (const left of owed.slice(at)) this.#keep(left);
        return;
      }
    }
  }
}

/** What has been counted once stays. */
function comesBack({ by, member }: Addition): boolean {
  return by > 0 && member === undefined;
}

/** What is nothing is not kept. */
function change(amounts: Map<string, number>, key: string, by: number): void {
  const amount = (amounts.get(key) ?? 0) + by;
  if (amount > 0) amounts.set(key, amount);
  else amounts.delete(key);
}
