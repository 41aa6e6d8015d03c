/** The accounts that an instance uses: of its own thread, or those that one thread of the process has for all of them. */
import { threadId } from "node:worker_threads";
import type { Added, Addition, Held, PluginDeps, Soon, StateStore } from "../../pipeline/plugin.ts";
import { Accounts, type Awaited } from "./accounts.ts";
import type { LeasedAddition } from "./leases.ts";

const calls = ["begin", "owed", "reserve", "reservedOf", "settle"] as const;
/** Until the answer of another thread is here. */
const callMarginMs = 1_000;

/** Options of an {@link AccountBook}. */
export interface AccountBookOptions {
  readonly store: StateStore;
  /** Where the counters are, for what lives as long as they do. */
  readonly storeName: string;
  readonly waitMs: number;
  /** Leases are taken so that nobody has to be asked: each thread has its own, and its own accounts. */
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

/** The accounts of one store. */
export class AccountBook {
  readonly #deps: PluginDeps;
  readonly #isAlone: boolean;
  /** Present where the leases are of this thread. */
  readonly #own: Accounts | undefined;
  readonly #accounts: Held<Pick<Accounts, (typeof calls)[number]>>;
  readonly #settlements: Held<Pick<Accounts, "settlement">>;
  /** As they said last. */
  #owed = 0;

  constructor({ store, storeName, waitMs, isLeased }: AccountBookOptions, deps: PluginDeps) {
    this.#deps = deps;
    const name = `budgets at ${storeName}`;
    const make = (): Accounts => new Accounts(store);
    this.#isAlone = deps.isAlone || isLeased;
    if (isLeased) this.#own = this.#accounts = this.#settlements = deps.carry(name, make);
    else {
      this.#accounts = deps.held(name, calls, make);
      this.#settlements = deps.held(name, ["settlement"], make, waitMs + callMarginMs);
    }
  }

  /** Amounts that the store has not taken yet. */
  get owed(): number {
    const owed = this.#accounts.owed();
    const know = (count: number): void => {
      this.#owed = count;
    };
    if (owed instanceof Promise) owed.then(know, () => undefined);
    else know(owed);
    return this.#owed;
  }

  /** Whether each thread tells of the same amounts that are owed. */
  get isOfAllThreads(): boolean {
    return !this.#isAlone;
  }

  /** What the leases of this thread have left of a counter. */
  leftOf(key: string): number {
    return this.#own?.leftOf(key) ?? 0;
  }

  begin(place: Omit<Addition, "by">, amount: number): Soon<void> {
    return this.#accounts.begin(place, amount);
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

  /** Never rejects. */
  settle(held: readonly Addition[], corrections: readonly Addition[]): Soon<Added | undefined> {
    const settled = this.#accounts.settle(held, corrections, threadId);
    return settled instanceof Promise ? settled.catch(() => undefined) : settled;
  }

  /** A signal does not cross: whoever has left does not wait for the other thread. */
  async #settlement(key: string, awaited: Awaited, signal: AbortSignal): Promise<boolean> {
    if (this.#isAlone) return this.#settlements.settlement(key, awaited, signal);
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
