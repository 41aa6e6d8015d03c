/** What a thread has of a counter when it ends: what it used stays, the rest goes back, once. */
import { array, assert, asyncProperty, constantFrom, integer, record } from "fast-check";
import { expect, test } from "vitest";
import { Accounts } from "../../../../src/plugins/budgets/accounts.ts";
import { UsedHere } from "../../../../src/plugins/budgets/used-here.ts";
import { MemoryStore } from "../../../../src/state/memory-store.ts";
import type { Addition } from "../../../../src/state/store.ts";

/** Makes additions when it is told to. */
class Slow extends MemoryStore {
  #gate = Promise.withResolvers<void>();

  constructor() {
    super({ maxBytes: 1_000_000 });
  }

  override add(additions: readonly Addition[]): never {
    return this.#gate.promise.then(() => super.add(additions)) as never;
  }

  go(): void {
    this.#gate.resolve();
    this.#gate = Promise.withResolvers();
  }

  now(key: string): number {
    return this.counters([key])[0] ?? 0;
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("a thread that ends while the store is asked holds nothing for ever", async () => {
  const store = new Slow();
  const accounts = new Accounts(store);
  const asked = accounts.reserve([{ key: "k", by: 5, below: 10 }], 1);
  accounts.threadEnded(1);
  store.go();
  expect(await asked).toEqual({ refusedAt: undefined, values: [5] });
  expect(accounts.reservedOf("k")).toBe(0);
  const next = accounts.reserve([{ key: "k", by: 1, below: 10 }], 2);
  store.go();
  await next;
  expect(accounts.reservedOf("k")).toBe(1);
});

test("what nobody counted the use of stays counted", () => {
  const store = new MemoryStore({ maxBytes: 1_000_000 });
  const accounts = new Accounts(store);
  void accounts.reserve([{ key: "k", by: 5, below: 10 }], 1);
  accounts.threadEnded(1);
  expect(store.counters(["k"])).toEqual([5]);
});

test("more counters than there are places for", () => {
  const store = new MemoryStore({ maxBytes: 100_000_000 });
  const accounts = new Accounts(store);
  const here = new UsedHere((amounts) => accounts.used(amounts, 1));
  accounts.lend(1, here.memory);
  const keys = Array.from({ length: 10_000 }, (_, at) => `k${at}`);
  for (const key of keys) {
    void accounts.reserve([{ key, by: 5 }], 1);
    here.use(key, 2);
  }
  accounts.threadEnded(1);
  expect(new Set(store.counters(keys))).toEqual(new Set([2]));
});

test("whatever it was doing, what went stays counted and nothing else", async () => {
  const step = record({
    kind: constantFrom("reserve", "go", "use", "settle", "lease", "back"),
    by: integer({ min: 1, max: 9 }),
  });
  await assert(
    asyncProperty(array(step, { maxLength: 40 }), async (steps) => {
      const store = new Slow();
      const accounts = new Accounts(store);
      const here = new UsedHere((amounts) => accounts.used(amounts, 1));
      accounts.lend(1, here.memory);
      /** Reserved and not gone, gone and not settled, leased and free. */
      const open: number[] = [];
      const gone: number[] = [];
      let went = 0;
      let free = 0;
      for (const { kind, by } of steps) {
        if (kind === "reserve")
          Promise.resolve(accounts.reserve([{ key: "k", by }], 1)).then(
            () => open.push(by),
            () => undefined,
          );
        else if (kind === "lease")
          Promise.resolve(accounts.take([{ key: "k", by }], 1)).then(
            () => (free += by),
            () => undefined,
          );
        else if (kind === "back" && free >= by) {
          free -= by;
          void accounts.take([{ key: "k", by: -by }], 1);
        } else if (kind === "use" && free >= by) {
          free -= by;
          here.use("k", by);
          went += by;
        } else if (kind === "use") {
          const one = open.pop();
          if (one === undefined) continue;
          here.use("k", one);
          gone.push(one);
        } else if (kind === "settle") {
          // It took one less than was expected.
          const one = gone.pop();
          if (one === undefined) continue;
          void accounts.settle([{ key: "k", by: one }], [{ key: "k", by: -1 }], 1);
          here.use("k", -one);
          went += one - 1;
        } else if (kind === "go") {
          store.go();
          await settled();
        }
      }
      accounts.threadEnded(1);
      for (let round = 0; round < 4; round += 1) {
        store.go();
        await settled();
      }
      const expected = went + gone.reduce((sum, one) => sum + one, 0);
      expect(store.now("k")).toBe(expected);
      expect(accounts.reservedOf("k")).toBe(0);
    }),
  );
});
