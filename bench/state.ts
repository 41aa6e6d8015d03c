/**
 * What one bounded addition costs in every state store, and what a check of a budget costs in memory: `node bench/state.ts [redis://HOST:PORT]`.
 *
 * Without an address a server of Debian's package is started on loopback.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { budgets } from "../src/plugins/budgets/plugin.ts";
import { inferenceFact } from "../src/protocols/inference-view.ts";
import { FileStore } from "../src/state/file-store.ts";
import { MemoryStore } from "../src/state/memory-store.ts";
import { RedisStore } from "../src/state/redis-store.ts";
import type { OwnedStore } from "../src/state/store.ts";
import { message, PluginBench, stateIn } from "../test/support/plugin-bench.ts";
import { hasRedis, RedisServer } from "../test/support/redis.ts";
import { redisPlace } from "../test/support/redis-place.ts";

const maxBytes = 67_108_864;
const timeoutMs = 10_000;
const directory = mkdtempSync(join(tmpdir(), "authbridge-bench-"));
const given = process.argv[2];
const server = given === undefined && hasRedis ? await RedisServer.start() : undefined;
const url = given ?? server?.url;

async function measure(name: string, store: OwnedStore, times: number): Promise<void> {
  await store.open();
  const one = { key: "{bench}one", by: 1, below: Number.MAX_SAFE_INTEGER, ttlMs: 60_000 };
  for (let at = 0; at < times / 10; at += 1) await store.add([one]);
  const took: number[] = [];
  const began = performance.now();
  for (let at = 0; at < times; at += 1) {
    const start = performance.now();
    const added = store.add([one]);
    if (added instanceof Promise) await added;
    took.push(performance.now() - start);
  }
  const mean = ((performance.now() - began) / times) * 1_000;
  const sorted = took.sort((a, b) => a - b);
  const at = (share: number): string =>
    ((sorted[Math.floor(times * share)] ?? 0) * 1_000).toFixed(1).padStart(8);
  process.stdout.write(
    `${name.padEnd(8)} mean ${mean.toFixed(2).padStart(8)} µs  p50 ${at(0.5)}  p99 ${at(0.99)}\n`,
  );
  await store.close();
}

await measure("memory", new MemoryStore({ maxBytes }), 500_000);
await measure(
  "file",
  new FileStore({ path: join(directory, "state"), maxBytes, timeoutMs }),
  1_000,
);
if (url !== undefined) {
  const store = new RedisStore({ place: redisPlace(url), prefix: "bench:", timeoutMs });
  await measure("redis", store, 10_000);
}
rmSync(directory, { recursive: true, force: true });

const limit = { name: "l", unit: "tokens", limit: 9_000_000_000, window: "day", by: ["caller"] };

function call(): ReturnType<typeof message> {
  const context = message({ path: "/v1/chat/completions", method: "POST" });
  context.facts.set(inferenceFact, { api: "openai.chat", model: "m", totalTokens: 100 });
  context.onward = { sentAt: 0, status: 200 };
  return context;
}

let requests = 0;

/** One of a thousand hosts of a hundred domains, and a page of a list that nobody asked for before. */
function request(): ReturnType<typeof message> {
  requests += 1;
  const to = `www${requests % 1_000}.site${requests % 100}.example:443`;
  const path = `/repos/acme/site/issues?state=open&per_page=100&page=${requests}`;
  const context = message({ to, path, headers: { accept: "application/json" } });
  context.onward = { sentAt: 0, status: 200 };
  return context;
}

/** Microseconds of a processor for one call: on a machine that others use, elapsed time has their turns in it. */
function processorTime(run: () => void, times: number): number {
  for (let at = 0; at < times / 10; at += 1) run();
  const before = process.cpuUsage();
  for (let at = 0; at < times; at += 1) run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / times;
}

/** Check and settlement in memory, of calls that are gone when they are over. */
function measureProcessor(
  name: string,
  limits: readonly object[],
  make: typeof call,
  times: number,
) {
  const bench = new PluginBench();
  bench.state = stateIn(new MemoryStore({ maxBytes }));
  const plugin = bench.create(budgets, { limits, lease: 0 });
  const signal = AbortSignal.timeout(600_000);
  const checked = (): void => {
    const context = make();
    void plugin.onRequest?.(context);
    void plugin.onFinish?.(context, { status: 200, durationMs: 1 }, signal);
  };
  const both = processorTime(checked, times) - processorTime(make, times);
  process.stdout.write(`budgets, memory, ${name}: ${both.toFixed(2)} µs of a processor\n`);
}

/** The check of the plugin itself, with one limit for each user. */
async function measurePlugin(name: string, store: OwnedStore, lease: number, times: number) {
  await store.open();
  const bench = new PluginBench();
  bench.state = stateIn(store);
  const plugin = bench.create(budgets, { limits: [limit], lease });
  const signal = AbortSignal.timeout(600_000);
  const calls = Array.from({ length: times }, call);
  const asking: number[] = [];
  const settling: number[] = [];
  for (const context of calls) {
    const start = performance.now();
    const answer = plugin.onRequest?.(context);
    if (answer instanceof Promise) await answer;
    const between = performance.now();
    const settled = plugin.onFinish?.(context, { status: 200, durationMs: 1 }, signal);
    if (settled instanceof Promise) await settled;
    asking.push(between - start);
    settling.push(performance.now() - between);
  }
  for (const [phase, all] of Object.entries({ before: asking, after: settling })) {
    const took = all.slice(all.length / 2).sort((a, b) => a - b);
    const middle = (took[Math.floor(took.length / 2)] ?? 0) * 1_000;
    const mean = (took.reduce((sum, one) => sum + one, 0) / took.length) * 1_000;
    process.stdout.write(
      `budgets, ${name}, ${phase} a call: mean ${mean.toFixed(2)} µs  p50 ${middle.toFixed(2)}\n`,
    );
  }
  await store.close();
}

measureProcessor("tokens, both", [limit], call, 200_000);
const ofCaller = { limit: 9_000, window: "day", by: ["caller"] };
for (const unit of ["requests", "hosts", "subdomains", "name_entropy", "url_entropy", "bytes_up"]) {
  const one = { ...ofCaller, name: unit, unit };
  const large = unit.includes("_") || unit === "requests" ? { limit: 9_000_000_000_000 } : {};
  measureProcessor(unit, [{ ...one, ...large }], request, 200_000);
}
await measurePlugin("memory", new MemoryStore({ maxBytes }), 0, 100_000);
if (url !== undefined) {
  const far = (): RedisStore =>
    new RedisStore({ place: redisPlace(url), prefix: `bench${Math.random()}:`, timeoutMs });
  await measurePlugin("redis", far(), 0, 10_000);
  await measurePlugin("redis, leased", far(), 0.01, 100_000);
}
await server?.close();
process.exit(0);
