/** Runs one case: rounds interleaved over its contestants, medians of what was seen. */
import type { AfterCase, Case, IdleCase, LoadCase, StartCase } from "./cases.ts";
import type { Child } from "./child.ts";
import type { Contestant, Running } from "./contestants.ts";
import type { LoadCommand, LoadResult } from "./load/command.ts";
import type { Stage } from "./stage.ts";

/** Two rounds agree where their processor time does to this part; a proxy that never does is measured all the same. */
const AGREEMENT = 0.05;
const MOST_WARM_UPS = 12;
const SETTLE_MS = 500;
const HOLD_SETTLE_MS = 1_500;
const AFTER_LIMIT_SECONDS = 120;
const ANSWER_SLACK_MS = 60_000;
const GIGABYTE = 1e9;
const MEGABYTE = 1e6;

/** One contestant's figures: medians over the rounds; absent where the case does not give them. */
export interface Row {
  readonly contestant: string;
  readonly note: string;
  /** Why there are no figures. */
  readonly skipped?: string;
  readonly failed?: string;
  /** Operations, tunnels or megabytes per second. */
  readonly rate?: number;
  readonly p50Ms?: number;
  readonly p99Ms?: number;
  /** Microseconds of processor per operation; milliseconds per gigabyte of a bulk transfer, or of a start. */
  readonly cpu?: number;
  readonly rssMb?: number;
  readonly kibEach?: number;
  readonly startMs?: number;
  /** Before the first request. */
  readonly idleRssMb?: number;
  /** Rate and processor cost of every round, for whoever wants another statistic than the median. */
  /** False where no two rounds of the warm-up agreed. */
  readonly isWarm?: boolean;
  readonly rates?: readonly number[];
  readonly cpus?: readonly number[];
}

export interface Options {
  readonly rounds: number;
  readonly seconds: number;
  readonly contestants: readonly Contestant[];
  /** Empty: all. */
  readonly peers: readonly string[];
  /** Takes part in every case besides those that the case names. */
  readonly extra: readonly Contestant[];
}

export interface Bench {
  readonly stage: Stage;
  readonly load: Child;
  readonly options: Options;
  readonly say: (text: string) => void;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}

async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

function reason(error: unknown): string {
  return (error instanceof Error ? error.message : String(error))
    .replace(/\s+/g, " ")
    .slice(0, 300);
}

async function ask(bench: Bench, command: LoadCommand): Promise<LoadResult> {
  const seconds = "seconds" in command ? command.seconds : 0;
  const answer = await bench.load.ask<LoadResult | { error: string }>(
    command,
    seconds * 1000 + ANSWER_SLACK_MS,
  );
  if ("error" in answer) {
    throw new Error(answer.error);
  }
  if (answer.failed > 0) {
    throw new Error(`${answer.failed} of ${answer.count + answer.failed}: ${answer.firstFailure}`);
  }
  return answer;
}

/** A contestant in one case: running, or the row that says why not. */
interface Entry {
  readonly contestant: Contestant;
  proxy: Running | undefined;
  row: Row | undefined;
}

function chosen(test: Case, options: Options): readonly Entry[] {
  const entries: Entry[] = [];
  const named = test.contestants.flatMap(
    (name) => options.contestants.find((known) => known.name === name) ?? [],
  );
  const wanted = named.filter(
    ({ name }) => options.peers.length === 0 || options.peers.includes(name),
  );
  for (const contestant of [...wanted, ...options.extra]) {
    const missing = contestant.missing();
    const { name, note } = contestant;
    entries.push({
      contestant,
      proxy: undefined,
      row: missing === undefined ? undefined : { contestant: name, note, skipped: missing },
    });
  }
  return entries;
}

async function attempt(bench: Bench, entry: Entry, action: () => Promise<void>): Promise<void> {
  if (entry.row !== undefined) {
    return;
  }
  try {
    await action();
  } catch (error) {
    const { name, note } = entry.contestant;
    const log = entry.proxy?.child.stderr.slice(-200) ?? "";
    entry.row = { contestant: name, note, failed: reason(error) };
    bench.say(`  ${name} FAILED: ${reason(error)} ${log}`);
    await entry.proxy?.stop();
    entry.proxy = undefined;
  }
}

interface Sample {
  readonly rate: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly cpu: number;
  readonly rssMb: number;
}

async function sample(bench: Bench, test: LoadCase, proxy: Running): Promise<Sample> {
  const command = test.command(bench.stage, proxy, bench.options.seconds);
  const before = proxy.child.usage();
  const result = await ask(bench, command);
  const after = proxy.child.usage();
  const cpuMs = after.cpuMs - before.cpuMs;
  const isBulk = test.unit === "MB/s";
  return {
    rate: result.count / result.seconds / (isBulk ? MEGABYTE : 1),
    p50Ms: result.p50Ms,
    p99Ms: result.p99Ms,
    cpu: isBulk ? cpuMs / (result.total / GIGABYTE) : (cpuMs * 1000) / result.total,
    rssMb: after.rssBytes / MEGABYTE,
  };
}

/** Asks until two rounds after each other cost the same: an engine compiles, and optimises, for seconds. */
async function warmUp(bench: Bench, test: LoadCase, proxy: Running): Promise<boolean> {
  let last = Infinity;
  for (let round = 0; round < MOST_WARM_UPS; round += 1) {
    const { cpu } = await sample(bench, test, proxy);
    if (Math.abs(cpu - last) <= AGREEMENT * cpu) return true;
    last = cpu;
  }
  return false;
}

async function loadCase(bench: Bench, test: LoadCase): Promise<readonly Row[]> {
  const entries = chosen(test, bench.options);
  const samples = new Map<Entry, Sample[]>();
  const warm = new Map<Entry, boolean>();
  for (const entry of entries) {
    await attempt(bench, entry, async () => {
      entry.proxy = await entry.contestant.start(bench.stage, test.role);
      warm.set(entry, await warmUp(bench, test, entry.proxy));
    });
  }
  for (let round = 0; round < bench.options.rounds; round += 1) {
    for (const entry of entries) {
      await attempt(bench, entry, async () => {
        if (entry.proxy !== undefined) {
          const seen = await sample(bench, test, entry.proxy);
          samples.set(entry, [...(samples.get(entry) ?? []), seen]);
        }
      });
    }
  }
  const rows: Row[] = [];
  for (const entry of entries) {
    await entry.proxy?.stop();
    const seen = samples.get(entry) ?? [];
    const { name, note } = entry.contestant;
    const of = (pick: (one: Sample) => number): number => median(seen.map(pick));
    rows.push(
      entry.row ?? {
        contestant: name,
        note,
        rate: of((one) => one.rate),
        cpu: of((one) => one.cpu),
        rssMb: of((one) => one.rssMb),
        isWarm: warm.get(entry) === true,
        rates: seen.map((one) => Math.round(one.rate)),
        cpus: seen.map((one) => Math.round(one.cpu * 10) / 10),
        ...(test.unit === "MB/s"
          ? {}
          : { p50Ms: of((one) => one.p50Ms), p99Ms: of((one) => one.p99Ms) }),
      },
    );
  }
  return rows;
}

async function idleCase(bench: Bench, test: IdleCase): Promise<readonly Row[]> {
  const entries = chosen(test, bench.options);
  for (const entry of entries) {
    await attempt(bench, entry, async () => {
      const proxy = await entry.contestant.start(bench.stage, test.role);
      entry.proxy = proxy;
      await ask(bench, test.warmUp(bench.stage, proxy));
      await pause(HOLD_SETTLE_MS);
      const before = proxy.child.usage();
      const opened = await ask(bench, test.hold(bench.stage, proxy));
      await pause(HOLD_SETTLE_MS);
      const held = proxy.child.usage();
      const released = await ask(bench, { mode: "release" });
      if (opened.count !== test.count || released.count !== test.count) {
        throw new Error(`${opened.count} opened, ${released.count} of ${test.count} still open`);
      }
      entry.row = {
        contestant: entry.contestant.name,
        note: entry.contestant.note,
        rssMb: held.rssBytes / MEGABYTE,
        kibEach: (held.rssBytes - before.rssBytes) / 1024 / test.count,
        p50Ms: opened.p50Ms,
        p99Ms: opened.p99Ms,
      };
      await proxy.stop();
      entry.proxy = undefined;
    });
    await bench.load.ask({ mode: "release" }, ANSWER_SLACK_MS);
  }
  return entries.flatMap((entry) => entry.row ?? []);
}

async function afterCase(bench: Bench, test: AfterCase): Promise<readonly Row[]> {
  const entries = chosen(test, bench.options);
  for (const entry of entries) {
    await attempt(bench, entry, async () => {
      const proxy = await entry.contestant.start(bench.stage, test.role);
      entry.proxy = proxy;
      const idle = proxy.child.usage();
      // The time is a limit: the load ends with the last of the requests.
      const load = { ...test.command(bench.stage, proxy, AFTER_LIMIT_SECONDS), most: test.count };
      const { count } = await ask(bench, load);
      if (count < test.count) throw new Error(`${count} of ${test.count} requests in time`);
      await pause(HOLD_SETTLE_MS);
      entry.row = {
        contestant: entry.contestant.name,
        note: entry.contestant.note,
        rssMb: proxy.child.usage().rssBytes / MEGABYTE,
        idleRssMb: idle.rssBytes / MEGABYTE,
      };
      await proxy.stop();
      entry.proxy = undefined;
    });
  }
  return entries.flatMap((entry) => entry.row ?? []);
}

async function startCase(bench: Bench, test: StartCase): Promise<readonly Row[]> {
  const entries = chosen(test, bench.options);
  const times = new Map<Entry, number[]>();
  const processor = new Map<Entry, number[]>();
  const memory = new Map<Entry, number[]>();
  // One start more than rounds: the first fills the page cache (and a compile cache) and is dropped.
  for (let round = 0; round <= Math.max(bench.options.rounds, 5); round += 1) {
    for (const entry of entries) {
      await attempt(bench, entry, async () => {
        const startedAt = performance.now();
        const proxy = await entry.contestant.start(bench.stage, test.role);
        const ms = performance.now() - startedAt;
        entry.proxy = proxy;
        if (round > 0) {
          times.set(entry, [...(times.get(entry) ?? []), ms]);
          processor.set(entry, [...(processor.get(entry) ?? []), proxy.child.usage().cpuMs]);
        }
        if (round > 0) {
          await pause(SETTLE_MS);
          memory.set(entry, [...(memory.get(entry) ?? []), proxy.child.usage().rssBytes]);
        }
        await proxy.stop();
        entry.proxy = undefined;
      });
    }
  }
  return entries.map(
    (entry) =>
      entry.row ?? {
        contestant: entry.contestant.name,
        note: entry.contestant.note,
        cpu: median(processor.get(entry) ?? []),
        startMs: median(times.get(entry) ?? []),
        rssMb: median(memory.get(entry) ?? []) / MEGABYTE,
      },
  );
}

/** Measures one case. */
export async function measure(bench: Bench, test: Case): Promise<readonly Row[]> {
  switch (test.kind) {
    case "load":
      return await loadCase(bench, test);
    case "idle":
      return await idleCase(bench, test);
    case "after":
      return await afterCase(bench, test);
    case "start":
      return await startCase(bench, test);
  }
}
