/** Budgets: messages at once never take more than there is, and what they give back is there, in all replicas together. */
import { type Arbitrary, constantFrom, nat, record } from "fast-check";
import { expect } from "vitest";
import { Accounts } from "../../src/plugins/budgets/accounts.ts";
import { Calendar } from "../../src/plugins/budgets/window.ts";
import { MemoryStore } from "../../src/state/memory-store.ts";
import { stateUnavailable } from "../../src/state/store.ts";
import { ends, Outside, promise, step, stoppedClock, waits, type World } from "./interleaving.ts";
import { SlowStore } from "./slow-store.ts";

stoppedClock();

const limits = { tokens: 60, calls: 8 };
const most = { tokens: 12, calls: 1 };
const units = ["tokens", "calls"] as const;
const lease = 0.5;

interface Reserve {
  readonly replica: number;
  readonly thread: number;
  readonly tokens: number;
}

interface Call extends Reserve {
  readonly keys: Readonly<Record<(typeof units)[number], string>>;
  readonly at: number;
}

/** Two processes with leases of one store, and threads in each. */
class Replicas implements World {
  readonly outside = new Outside(() => stateUnavailable("test"));
  readonly #store = new MemoryStore({ maxBytes: 1_000_000, clock: Date });
  readonly #calendar = new Calendar("minute");
  readonly #accounts = Array.from(
    { length: 2 },
    () => new Accounts(new SlowStore(this.#store, this.outside, () => (this.#isExact = false))),
  );
  readonly #running = new Set<Call>();
  /** What messages that were let pass have of a counter. */
  readonly #taken = new Map<string, number>();
  /** Threads that have ended, by process. */
  readonly #gone = new Set<string>();
  /** Every call of the store was made and answered, and every thread has said what came of its messages. */
  #isExact = true;
  #nextThread = 2;
  readonly #threads = [
    [0, 1],
    [0, 1],
  ];
  readonly #problems: string[] = [];

  reserve({ replica, thread: at, tokens }: Reserve): void {
    const { name, until } = this.#calendar.at(Date.now());
    const ttlMs = until - Date.now() + 3_600_000;
    const keys = { tokens: `tokens ${name}`, calls: `calls ${name}` };
    const by = { tokens, calls: 1 };
    const thread = this.#threads[replica]?.[at] ?? 0;
    const call: Call = { replica, thread, tokens, keys, at: Date.now() };
    const additions = units.map((unit) => ({
      key: keys[unit],
      by: by[unit],
      below: limits[unit],
      ttlMs,
      lease,
    }));
    const before = units.map((unit) => this.#taken.get(keys[unit]) ?? 0);
    Promise.resolve(this.#of(replica).reserve(additions, thread)).then(
      ({ refusedAt }) => {
        if (this.#gone.has(`${replica} ${thread}`)) {
          this.#isExact = false;
          if (refusedAt === undefined) for (const unit of units) this.#take(keys[unit], by[unit]);
        } else if (refusedAt === undefined) {
          this.#running.add(call);
          for (const unit of units) this.#take(keys[unit], by[unit]);
        } else if (this.#isExact && before.every((one) => one === 0) && this.#running.size === 0) {
          this.#problems.push("refused although nothing was ever taken");
        }
      },
      () => undefined,
    );
  }

  /** A call is over, and took less than was reserved, or more. */
  settle(at: number, tookTokens: number): void {
    const call = [...this.#running][at % Math.max(1, this.#running.size)];
    if (call === undefined) return;
    this.#running.delete(call);
    const { replica, thread, tokens, keys } = call;
    const reserved = [
      { key: keys.tokens, by: tokens },
      { key: keys.calls, by: 1 },
    ];
    const by = Math.min(tookTokens, most.tokens) - tokens;
    const corrections = by === 0 ? [] : [{ key: keys.tokens, by, ttlMs: 3_600_000 }];
    this.#take(keys.tokens, by);
    void this.#of(replica).settle(reserved, corrections, thread);
  }

  /** What the thread had reserved nobody settles. */
  endThread(replica: number, at: number): void {
    const thread = this.#threads[replica]?.[at] ?? 0;
    this.#gone.add(`${replica} ${thread}`);
    for (const call of this.#running)
      if (call.replica === replica && call.thread === thread) this.#running.delete(call);
    this.#of(replica).threadEnded(thread);
    const threads = this.#threads[replica];
    if (threads !== undefined) threads[at] = this.#nextThread;
    this.#nextThread += 1;
  }

  check(): void {
    expect(this.#problems).toEqual([]);
    for (const [key, taken] of this.#taken) {
      const unit = key.startsWith("tokens") ? "tokens" : "calls";
      // The last message may take more than there is, and a call more than it reserved.
      const above = unit === "calls" ? 0 : this.#running.size * most.tokens + most.tokens;
      expect(taken, `${key} together`).toBeLessThan(limits[unit] + Math.max(1, above));
    }
    for (const [at, accounts] of this.#accounts.entries()) {
      const held = new Map<string, number>();
      for (const { replica, keys, tokens } of this.#running) {
        if (replica !== at) continue;
        held.set(keys.tokens, (held.get(keys.tokens) ?? 0) + tokens);
        held.set(keys.calls, (held.get(keys.calls) ?? 0) + 1);
      }
      for (const key of this.#taken.keys())
        expect(accounts.reservedOf(key), `held of ${key}`).toBe(held.get(key) ?? 0);
    }
  }

  async end(): Promise<void> {
    await this.outside.endAll(5_000);
    this.check();
    while (this.#running.size > 0) this.settle(0, 1);
    await this.outside.endAll(5_000);
    for (const accounts of this.#accounts) void accounts.close();
    await this.outside.endAll(5_000);
    this.check();
    for (const [key, taken] of this.#taken) {
      const counted = this.#store.counters([key])[0] ?? 0;
      if (this.#isExact) expect(counted, `${key} in the store`).toBe(taken);
      else expect(counted, `${key} in the store`).toBeGreaterThanOrEqual(taken);
    }
  }

  #of(replica: number): Accounts {
    const accounts = this.#accounts[replica];
    if (accounts === undefined) throw new Error("no such replica");
    return accounts;
  }

  #take(key: string, by: number): void {
    this.#taken.set(key, (this.#taken.get(key) ?? 0) + by);
  }
}

const reserve = record({
  replica: nat({ max: 1 }),
  thread: nat({ max: 1 }),
  tokens: constantFrom(1, 5, 12),
}) as Arbitrary<Reserve>;
const some = { at: nat({ max: 7 }), took: constantFrom(0, 1, 12) };
const steps = [
  step<Replicas, Reserve>("reserve", reserve, (world, one) => world.reserve(one)),
  step<Replicas, Reserve>("reserve", reserve, (world, one) => world.reserve(one)),
  step<Replicas, Reserve>("reserve", reserve, (world, one) => world.reserve(one)),
  step<Replicas, { at: number; took: number }>("settle", record(some), (world, { at, took }) =>
    world.settle(at, took),
  ),
  step<Replicas, number>("end all", nat({ max: 0 }), ({ outside }) => outside.endAll()),
  waits<Replicas>(1_000, 2_000, 20_000),
  ends<Replicas>("done"),
  ends<Replicas>("done"),
];

promise(
  "what is counted is what was taken, and it is within the limit",
  () => new Replicas(),
  steps,
);
promise(
  "a store that is away and threads that end take nothing of the limit back",
  () => new Replicas(),
  [
    ...steps,
    ends<Replicas>("failed", "done"),
    step<Replicas, number>("end thread", nat({ max: 3 }), (world, at) =>
      world.endThread(at % 2, at >> 1),
    ),
  ],
);
