/** What calls under way hold of a counter, when the thread that has them ends. */
import { expect, test } from "vitest";
import { Accounts } from "../../../../src/plugins/budgets/accounts.ts";
import { MemoryStore } from "../../../../src/state/memory-store.ts";

test("a thread that ends while the store is asked holds nothing for ever", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const store = new MemoryStore({ maxBytes: 1_000_000 });
  const slow = Object.assign(Object.create(store) as MemoryStore, {
    add: async (...given: Parameters<MemoryStore["add"]>) => {
      await promise;
      return store.add(...given);
    },
  });
  const accounts = new Accounts(slow);
  const asked = accounts.reserve([{ key: "k", by: 5, below: 10 }], 1);
  accounts.threadEnded(1);
  resolve();
  expect(await asked).toEqual({ refusedAt: undefined, values: [5] });
  expect(accounts.reservedOf("k")).toBe(0);
  await accounts.reserve([{ key: "k", by: 1, below: 10 }], 2);
  expect(accounts.reservedOf("k")).toBe(1);
});
