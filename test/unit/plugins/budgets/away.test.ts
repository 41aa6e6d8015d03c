/** budgets while the store of `state` is away, with `when_away: allow`: what has gone by is counted, however it ended. */
import { expect, test } from "vitest";
import type { StateStore } from "../../../../src/pipeline/plugin.ts";
import { budgets } from "../../../../src/plugins/budgets/plugin.ts";
import { message, PluginBench } from "../../../support/plugin-bench.ts";

const limitOf = (unit: string): object => ({ name: "l", unit, limit: 1_000, window: "hour" });

/** An instance whose store is away until that is set. */
function made(unit: string) {
  const bench = new PluginBench();
  const { store } = bench.state;
  const away = { isAway: true };
  const gone: StateStore = {
    ...bench.state.store,
    add: (additions) => {
      if (away.isAway) throw new Error("away");
      return store.add(additions);
    },
    counters: (keys) => store.counters(keys),
  };
  bench.state = { ...bench.state, store: gone };
  const plugin = bench.create(budgets, { limits: [limitOf(unit)], when_away: "allow" });
  const used = async (): Promise<number> => {
    const seen = (await plugin.budgetsOf?.([plugin.budgets?.()])) as {
      readonly limits: readonly { readonly used: number }[];
    };
    return seen.limits[0]?.used ?? 0;
  };
  return { plugin, away, used };
}

const refused = (plugin: string): object => ({ status: 403, durationMs: 1, deniedBy: plugin });

test("bytes that went by before the store was back, and refused the rest", async () => {
  const { plugin, away } = made("bytes_up");
  const context = message({ headers: { "Transfer-Encoding": "chunked" } });
  expect(await plugin.onRequest?.(context)).toMatchObject({ action: "observe" });
  expect(plugin.countsBytes?.(context)).toBe(true);
  context.onward = { sentAt: 0 };
  await plugin.onBytes?.(context, { from: "client", bytes: 700 });
  away.isAway = false;
  expect(await plugin.onBytes?.(context, { from: "client", bytes: 2_000 })).toMatchObject({
    action: "deny",
  });
  await plugin.onFinish?.(context, refused("budgets") as never, AbortSignal.timeout(1_000));
  const next = await plugin.onRequest?.(message({ body: "x".repeat(400) }));
  expect(next).toMatchObject({ action: "deny" });
});

test("a request that was sent, and whose response somebody refused", async () => {
  const { plugin, away, used } = made("requests");
  const sent = message();
  await plugin.onRequest?.(sent);
  sent.onward = { sentAt: 0, status: 200 };
  away.isAway = false;
  await plugin.onFinish?.(sent, refused("other") as never, AbortSignal.timeout(1_000));
  expect(await used()).toBe(1);
  const kept = message();
  away.isAway = true;
  await plugin.onRequest?.(kept);
  away.isAway = false;
  await plugin.onFinish?.(kept, refused("other") as never, AbortSignal.timeout(1_000));
  expect(await used()).toBe(1);
});
