/** Leases of budgets: never more than there is, whatever comes at once, and few questions. */
import { array, assert, asyncProperty, boolean, integer, record } from "fast-check";
import { expect, test } from "vitest";
import { Leases } from "../../../../src/plugins/budgets/leases.ts";
import { MemoryStore } from "../../../../src/state/memory-store.ts";
import { type Addition, type Added, stateUnavailable } from "../../../../src/state/store.ts";
import { owner } from "../../../support/owner.ts";

const own = owner();

/** Answers later, as a server does, and counts what it is asked. */
class Distant extends MemoryStore {
  asked = 0;
  isAway = false;

  constructor() {
    super({ maxBytes: 1_000_000 });
  }

  override add(additions: readonly Addition[]): Added {
    this.asked += 1;
    return (async (): Promise<Added> => {
      await Promise.resolve();
      if (this.isAway) throw stateUnavailable("test");
      return super.add(additions);
    })() as never;
  }

  now(key: string): number {
    return super.add([{ key, by: 0 }]).values[0] ?? 0;
  }
}

const message = (by: number, below = 10_000, lease = 0.1) => ({ key: "k", by, below, lease });
const leases = (store: MemoryStore): Promise<Leases> => own(Promise.resolve(new Leases(store)));

test("most messages ask nobody, and counters are as the process knows them", async () => {
  const store = new Distant();
  const one = await leases(store);
  let added: Added | undefined;
  for (let at = 0; at < 500; at += 1) added = await one.add([message(1)]);
  expect(added).toEqual({ refusedAt: undefined, values: [500] });
  expect(store.asked).toBeLessThan(5);
  await one.close();
  expect(store.now("k")).toBe(500);
});

test("all that is there is taken, by one process or by several, and no more", async () => {
  const store = new Distant();
  const several = await Promise.all([leases(store), leases(store), leases(store)]);
  let taken = 0;
  for (let round = 0; round < 6; round += 1) {
    const all = await Promise.all(
      Array.from({ length: 300 }, async (_, at) => {
        const added = await several[at % 3]?.add([message(1, 1_000)]);
        return added?.refusedAt === undefined ? 1 : 0;
      }),
    );
    taken += all.reduce<number>((sum, one) => sum + one, 0);
  }
  expect(taken).toBeLessThanOrEqual(1_000);
  await Promise.all(several.map((one) => one.close()));
  for (const one of several) {
    while ((await one.add([message(1, 1_000)])).refusedAt === undefined) taken += 1;
  }
  expect([taken, store.now("k")]).toEqual([1_000, 1_000]);
});

test("what a message gives back is there for the next; what one limit refuses, no other one counts", async () => {
  const store = new Distant();
  const one = await leases(store);
  for (let at = 0; at < 50; at += 1) {
    await one.add([message(10)]);
    await one.add([{ key: "k", by: -9 }]);
  }
  const other = { key: "full", by: 1, below: 1 };
  expect((await one.add([message(1), other])).refusedAt).toBeUndefined();
  expect(await one.add([message(1), other])).toEqual({ refusedAt: 1, values: [51, 1] });
  await one.close();
  expect(store.now("k")).toBe(51);
});

test("away: what was leased is used, then it is refused, and nothing is lost", async () => {
  const store = new Distant();
  const one = await leases(store);
  await one.add([message(1, 100)]);
  await one.add([message(1, 100)]);
  store.isAway = true;
  let passed = 2;
  await expect(
    (async () => {
      for (;;) {
        await one.add([message(1, 100)]);
        passed += 1;
      }
    })(),
  ).rejects.toThrow(/not available/);
  expect(passed).toBeGreaterThan(5);
  store.isAway = false;
  while ((await one.add([message(1, 100)])).refusedAt === undefined) passed += 1;
  expect(passed).toBe(100);
});

test("any messages: the store has what was taken, and a message goes only while something is left", async () => {
  const step = record({
    who: integer({ min: 0, max: 2 }),
    by: integer({ min: 0, max: 40 }),
    back: integer({ min: 0, max: 40 }),
  });
  await assert(
    asyncProperty(array(step, { maxLength: 60 }), boolean(), async (steps, atOnce) => {
      const store = new Distant();
      const several = [new Leases(store), new Leases(store), new Leases(store)];
      let taken = 0;
      const run = async ({ who, by, back }: (typeof steps)[number]): Promise<void> => {
        const added = await several[who]?.add([message(by, 200, 0.3)]);
        if (added?.refusedAt !== undefined) return;
        const returned = Math.min(by, back);
        taken += by - returned;
        if (returned > 0) await several[who]?.add([{ key: "k", by: -returned }]);
      };
      if (atOnce) await Promise.all(steps.map(run));
      else for (const one of steps) await run(one);
      await Promise.all(several.map((one) => one.close()));
      expect(store.now("k")).toBe(taken);
      // The last one may take more than there is; of those at once, all that were let pass before.
      if (!atOnce) expect(taken).toBeLessThan(200 + 40);
    }),
    { numRuns: 200 },
  );
});
