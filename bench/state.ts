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
await server?.close();
rmSync(directory, { recursive: true, force: true });

// The check of the plugin itself, with one limit for each user, in memory.
const bench = new PluginBench();
bench.state = stateIn(new MemoryStore({ maxBytes }));
const limit = { name: "l", unit: "tokens", limit: 9_000_000_000, window: "day", by: ["caller"] };
const plugin = bench.create(budgets, { limits: [limit] });
const signal = AbortSignal.timeout(600_000);
const ended = { status: 200, durationMs: 1 };
const times = 200_000;

function call(): ReturnType<typeof message> {
  const context = message({ path: "/v1/chat/completions", method: "POST" });
  context.facts.set(inferenceFact, { api: "openai.chat", model: "m", totalTokens: 100 });
  context.onward = { sentAt: 0, status: 200 };
  return context;
}

const took: number[] = [];

function checked(): void {
  const context = call();
  const start = performance.now();
  const said = plugin.onRequest?.(context);
  const settled = plugin.onFinish?.(context, ended, signal);
  took.push((performance.now() - start) * 1_000);
  if (said instanceof Promise || settled instanceof Promise) throw new Error("it waited");
}

/** Microseconds of a processor for one call: on a machine that others use, elapsed time has their turns in it. */
function processorTime(run: () => void): number {
  for (let at = 0; at < times / 10; at += 1) run();
  const before = process.cpuUsage();
  for (let at = 0; at < times; at += 1) run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / times;
}

const bare = processorTime(call);
const whole = processorTime(checked);
const median = took.toSorted((a, b) => a - b)[Math.floor(took.length / 2)] ?? 0;
process.stdout.write(
  `budgets, check and settlement: ${(whole - bare).toFixed(2)} µs of a processor, p50 ${median.toFixed(2)} µs\n`,
);
