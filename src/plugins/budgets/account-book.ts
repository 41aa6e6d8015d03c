/** The accounts that an instance uses: of its own thread, or those that one thread of the process has for all of them. */
import { threadId } from "node:worker_threads";
import type { Added, Addition, Held, PluginDeps, Soon, StateStore } from "../../pipeline/plugin.ts";
import { Accounts, type Awaited } from "./accounts.ts";
import type { LeasedAddition } from "./leases.ts";
import { UsedHere } from "./used-here.ts";

const calls = ["begin", "lend", "owed", "reserve", "reservedOf", "settle", "take", "used"] as const;
/** Until the answer of another thread is here. */
const callMarginMs = 1_000;

/** Options of an {@link AccountBook}. */
export interface AccountBookOptions {
  readonly store: StateStore;
  /** Where the counters are, for what lives as long as they do. */
  readonly storeName: string;
  readonly waitMs: number;
  /** Leases are taken so that nobody has to be asked: each thread has its own. */
  readonly isLeased: boolean;
}

/** The counter as it is, what it may be, and how long a message can wait. */
interface Wanted {
  readonly used: number;
  readonly limit: number;
  readonly leftMs: number;
}

/** Whether there is room now; `held`: there will be, when calls under way are over. */
export type Room = "free" | "held" | "none";

/** Of each store what this thread uses: it is known for as long as the thread lives, whichever generations do. */
const usedHere = new Map<string, UsedHere>();

/** The accounts of one store. */
export class AccountBook {
  readonly #deps: PluginDeps;
  /** Present where the leases are of this thread. */
  readonly #own: Accounts | undefined;
  /** Those of all threads. */
  readonly #held: Held<Pick<Accounts, (typeof calls)[number]>>;
  readonly #accounts: Held<Pick<Accounts, "reserve" | "reservedOf" | "settle">>;
  readonly #settlements: Held<Pick<Accounts, "settlement">>;
  /** Absent where this is the only thread: nothing outlives it. */
  readonly #used: UsedHere | undefined;
  /** As they said last. */
  #owed = 0;

  constructor({ store, storeName, waitMs, isLeased }: AccountBookOptions, deps: PluginDeps) {
    this.#deps = deps;
    const name = `budgets at ${storeName}`;
    const make = (): Accounts => new Accounts(store);
    const held = deps.held(name, calls, make);
    this.#held = held;
    if (deps.isAlone) this.#own = deps.carry(name, make);
    else {
      this.#used = usedHere.get(storeName) ?? new UsedHere((amounts) => this.#tellUsed(amounts));
      usedHere.set(storeName, this.#used);
      if (isLeased) this.#own = deps.carry(`leases at ${storeName}`, () => leasesFrom(held));
    }
    this.#accounts = this.#own ?? held;
    this.#settlements = this.#own ?? deps.held(name, ["settlement"], make, waitMs + callMarginMs);
  }

  /** Before anything is used. */
  async start(): Promise<void> {
    if (this.#used !== undefined) await this.#held.lend(threadId, this.#used.memory);
  }

  /** Amounts that the store has not taken yet. */
  get owed(): number {
    const owed = this.#held.owed();
    const know = (count: number): void => {
      this.#owed = count;
    };
    if (owed instanceof Promise) owed.then(know, () => undefined);
    else know(owed);
    return this.#owed;
  }

  /** Whether each thread tells of the same amounts that are owed. */
  get isOfAllThreads(): boolean {
    return !this.#deps.isAlone;
  }

  /** What the leases of this thread have left of a counter. */
  leftOf(key: string): number {
    return this.#own?.leftOf(key) ?? 0;
  }

  begin(place: Omit<Addition, "by">, amount: number): Soon<void> {
    return this.#held.begin(place, amount);
  }

  reserve(additions: readonly LeasedAddition[]): Soon<Added> {
    return this.#accounts.reserve(additions, threadId);
  }

  /** Waits for calls under way where what they hold of a counter is what lacks. Rejects where nobody can say. */
  room(key: string, { used, limit, leftMs }: Wanted, signal: AbortSignal): Soon<Room> {
    const look = (held: number): Soon<Room> => {
      if (held <= 0 || used - held >= limit) return "none";
      if (leftMs <= 0) return "held";
      this.#deps.count("waited");
      const settled = this.#settlement(key, { held, limitMs: leftMs }, signal);
      return settled.then((isFree) => (isFree ? "free" : "held"));
    };
    const held = this.#accounts.reservedOf(key);
    return held instanceof Promise ? held.then(look) : look(held);
  }

  /** So much of what was reserved is gone from now on: a thread that ends does not give it back. */
  use(key: string, by: number): void {
    this.#used?.use(key, by);
  }

  /** Never rejects. `used`: what {@link use} was told of it. */
  settle(
    held: readonly Addition[],
    corrections: readonly Addition[],
    used: readonly Addition[] = [],
  ): Soon<Added | undefined> {
    const settled = this.#accounts.settle(held, corrections, threadId);
    // What is settled in the store needs no memory; of a lease the thread has it still.
    for (const { key, by } of used) this.use(key, -by);
    if (this.#used !== undefined && this.#own !== undefined)
      for (const { key, by, member } of [...held, ...corrections])
        if (member === undefined) this.use(key, by);
    return settled instanceof Promise ? settled.catch(() => undefined) : settled;
  }

  #tellUsed(amounts: readonly Addition[]): void {
    const told = this.#held.used(amounts, threadId);
    // Too little is given back then.
    if (told instanceof Promise) told.catch(() => undefined);
  }

  /** A signal does not cross: whoever has left does not wait for the other thread. */
  async #settlement(key: string, awaited: Awaited, signal: AbortSignal): Promise<boolean> {
    if (this.#own !== undefined) return this.#settlements.settlement(key, awaited, signal);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const leave = (): void => resolve(false);
    signal.addEventListener("abort", leave, { once: true });
    try {
      const settled = Promise.resolve(this.#settlements.settlement(key, awaited));
      return await Promise.race([settled.catch(() => false), promise]);
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }
}

/** The leases of this thread, out of the accounts of all. */
function leasesFrom(held: Held<Pick<Accounts, "settle" | "take">>): Accounts {
  return new Accounts({ add: (additions) => held.take(additions, threadId) }, async (addition) =>
    held.settle([], [addition], threadId),
  );
}
