/** What `GET /v1/budgets` shows when the file has changed, and when a thread has ended. */
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";

const own = owner();
const threadPlugins = fileURLToPath(new URL("../support/thread-plugins.ts", import.meta.url));
let origin: HttpOrigin;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
});

interface Shown {
  readonly budget: string;
  readonly used: number;
  readonly limit: number;
  readonly mode: string;
}

const run = { name: "run", unit: "requests", limit: 50, window: "day", by: ["route"] };
const day = { name: "day", unit: "requests", limit: 100, window: "day" };

function fileOf(limits: readonly object[], over: Settings, config: object = {}): Settings {
  const plugins = [
    { name: "thread", config: {} },
    { name: "budgets", config: { limits, ...config } },
  ];
  const pipeline = { outbound: { default: "allow", plugins } };
  return merge(settings({ plugin_modules: [threadPlugins], pipeline }), over);
}

async function shown(proxy: ProxyProcess): Promise<readonly Shown[]> {
  const { instances } = (await proxy.sessions("/v1/budgets")).json() as {
    readonly instances: readonly { readonly budgets: { readonly limits: readonly Shown[] } }[];
  };
  return instances.flatMap(({ budgets }) => budgets.limits);
}

async function send(proxy: ProxyProcess, times: number): Promise<void> {
  const all = Array.from({ length: times }, () => get(proxy.forward, `${origin.url}/pass`));
  for (const { status } of await Promise.all(all)) expect(status).toBe(200);
}

const stores: [string, () => Promise<Settings> | Settings][] = [
  ["memory", () => ({})],
  ["a file", () => ({ state: { store: "file", path: "state.log" } })],
];
if (hasRedis) {
  stores.push([
    "Redis",
    async () => ({
      state: { store: "redis", url: (await own(RedisServer.start())).url, timeout: "5s" },
    }),
  ]);
}

describe.each(stores)("in %s", (_name, state) => {
  test.each([
    [1, 0],
    [2, 0],
    [2, 0.1],
  ])("%s threads, lease %s: what was counted, as the file is now", async (workers, lease) => {
    const over = merge(await state(), { workers });
    const file = (limits: readonly object[], more: Settings = {}): Settings =>
      fileOf(limits, merge(over, more), { lease });
    const proxy = await own(ProxyProcess.start(file([day, run])));
    const sees = (rows: readonly object[]): Promise<unknown> =>
      eventually(async () => {
        const now = await shown(proxy);
        expect(now).toHaveLength(rows.length);
        expect(now).toEqual(
          expect.arrayContaining(rows.map((row) => expect.objectContaining(row) as unknown)),
        );
      });
    const route = `127.0.0.1:${origin.port}`;
    await send(proxy, 12);
    const both = [
      { budget: "day", used: 12, limit: 100, mode: "hard" },
      { budget: "run", used: 12, limit: 50, route },
    ];
    await sees(both);
    await proxy.reload(file([day, run], { limits: { max_body: "1MiB" } }));
    await sees(both);
    await proxy.reload(file([{ ...day, limit: 20, mode: "soft" }, run]));
    await sees([{ budget: "day", used: 12, limit: 20, mode: "soft" }, both[1] ?? {}]);
    await proxy.reload(file([run]));
    await sees([both[1] ?? {}]);
    const added = { ...day, name: "added" };
    await proxy.reload(file([day, run, added]));
    await sees(both);
    await send(proxy, 3);
    await sees([
      { budget: "day", used: 15, limit: 100 },
      { budget: "run", used: 15, limit: 50 },
      { budget: "added", used: 3, limit: 100 },
    ]);
    // Another window is another counter.
    await proxy.reload(file([{ ...day, window: "month" }, run, added]));
    await sees([
      { budget: "run", used: 15 },
      { budget: "added", used: 3 },
    ]);
    if (workers === 1) return;
    await get(proxy.forward, "http://thread.test/exit").catch(() => undefined);
    await proxy.log(({ msg }) => msg.startsWith("a thread serves in place"));
    await sees([
      { budget: "run", used: 15 },
      { budget: "added", used: 3 },
    ]);
  });
});
