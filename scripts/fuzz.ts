/**
 * Feeds every reader of foreign bytes with bytes that are nearly good, and keeps those that reach code that none did before:
 * `npm run fuzz -- [--target NAME,…] [--seconds N] [--seed N] [--batches N] [--jobs N] [--save] [--ledger FILE]`.
 *
 * Each target runs for `--seconds` of processor time, or for a number of batches that is the same on every machine, in a
 * process of its own, `--jobs` of them at once. Ends with 1 where something does not hold; `--save` adds what was kept to
 * test/fixtures/fuzz, from where a test replays it; `--ledger` adds each target's time, inputs and finds to the table of that
 * file (test/fuzz/README.md). What a find is made of is written into a file of its own. SIGTERM ends a run early, with what it did until then.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Dice, mutated } from "../test/support/mutation.ts";
import type { Target } from "../test/fuzz/target.ts";
import { loadTarget, targetNames } from "../test/fuzz/targets.ts";
import { BlockCoverage } from "./block-coverage.ts";
import { noteRun } from "./fuzz-ledger.ts";

/** Inputs between two looks at the coverage, which cost more than any of them. */
const batchSize = 256;
const maxFinds = 10;
/** What is saved is replayed by a test, so that it has to be small. */
const maxSavedBytes = 600;
const maxSaved = 40;
const maxGrowth = 128 * 1_048_576;
/** An input of at most 40 kB that takes longer is one that an attacker would send again and again. */
const slowMs = 2_000;

const { values } = parseArgs({
  options: {
    target: { type: "string", default: targetNames.join(",") },
    seconds: { type: "string", default: "30" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    jobs: { type: "string", default: "2" },
    batches: { type: "string", default: "0" },
    save: { type: "boolean", default: false },
    ledger: { type: "string" },
    child: { type: "boolean", default: false },
  },
});
const [seconds, seed, jobs] = [values.seconds, values.seed, values.jobs].map(Number) as [
  number,
  number,
  number,
];
const batches = Number(values.batches);
const chosen = values.target.split(",");
const unknown = chosen.filter((name) => !targetNames.includes(name));
if (!(seconds > 0) || !Number.isInteger(seed) || !(jobs > 0) || unknown.length > 0) {
  console.error(
    unknown.length > 0
      ? `--target: there is no ${unknown.join()}; there are ${targetNames.join()}`
      : "--seconds, --seed and --jobs are numbers",
  );
  process.exit(2);
}

function fixtureOf(name: string): URL {
  return new URL(`../test/fixtures/fuzz/${name}.json`, import.meta.url);
}

/** In base64: most targets read bytes. */
function keptInputs(name: string): Buffer[] {
  const file = fixtureOf(name);
  if (!existsSync(file)) return [];
  const kept = JSON.parse(readFileSync(file, "utf8")) as readonly string[];
  return kept.map((text) => Buffer.from(text, "base64"));
}

let present: Buffer = Buffer.alloc(0);

/** One target's inputs, and what they found. */
class Fuzzer {
  readonly #target: Target;
  readonly #coverage: BlockCoverage;
  readonly #dice: Dice;
  readonly #inputs: Buffer[];
  readonly #outcomes = new Set<string>();
  readonly #finds = new Map<string, Buffer>();
  readonly kept: Buffer[] = [];
  executions = 0;

  constructor(target: Target, coverage: BlockCoverage, dice: Dice) {
    this.#target = target;
    this.#coverage = coverage;
    this.#dice = dice;
    this.#inputs = [...target.seeds, ...keptInputs(target.name)];
  }

  /** Runs what is known, so that only what is more is kept. */
  async begin(): Promise<void> {
    for (const input of this.#inputs) await this.#run(input);
    await this.#coverage.hasGrown();
  }

  async batch(): Promise<void> {
    const { words } = this.#target;
    const inputs = Array.from({ length: batchSize }, () =>
      mutated(this.#dice.oneOf(this.#inputs), this.#dice.oneOf(this.#inputs), this.#dice, words),
    );
    for (const input of inputs) if (await this.#run(input)) this.#keep(input);
    if (await this.#coverage.hasGrown(true)) await this.#keepReaching(inputs);
  }

  /** Keeps those of the inputs that reach something new, at few looks at the coverage. */
  async #keepReaching(inputs: readonly Buffer[]): Promise<void> {
    const [only] = inputs;
    for (const input of inputs) await this.#run(input);
    if (!(await this.#coverage.hasGrown(inputs.length > 1)) || only === undefined) return;
    if (inputs.length === 1) {
      this.#keep(only);
      return;
    }
    const half = inputs.length >> 1;
    await this.#keepReaching(inputs.slice(0, half));
    await this.#keepReaching(inputs.slice(half));
  }

  get finds(): number {
    return this.#finds.size;
  }

  get summary(): string {
    const { executions, kept, finds } = this;
    const { reached, known } = this.#coverage.blocks;
    return `${this.#target.name}: ${executions} executions, ${this.#outcomes.size} outcomes, ${reached} of ${known} blocks, ${kept.length} kept, ${finds} finds`;
  }

  /** True where the outcome is new. */
  async #run(input: Buffer): Promise<boolean> {
    present = input;
    this.executions += 1;
    const began = process.cpuUsage();
    const { outcome, problem } = await this.#target.check(input, this.#dice);
    const { user, system } = process.cpuUsage(began);
    const slow =
      (user + system) / 1_000 > slowMs
        ? `takes more than ${slowMs} ms of processor time`
        : undefined;
    this.#note(problem ?? slow, input);
    const isNew = !this.#outcomes.has(outcome) && this.#outcomes.size < 150;
    if (isNew) this.#outcomes.add(outcome);
    return isNew;
  }

  #note(problem: string | undefined, input: Buffer): void {
    if (problem === undefined || this.#finds.has(problem) || this.#finds.size === maxFinds) return;
    this.#finds.set(problem, input);
    const name = `authbridge-fuzz-${this.#target.name}-${process.pid}-${this.#finds.size}.bin`;
    const file = join(tmpdir(), name);
    writeFileSync(file, input);
    console.log(`${this.#target.name}: ${problem}\n  ${file}`);
    console.log(`  ${JSON.stringify(input.toString("latin1").slice(0, 200))}`);
  }

  #keep(input: Buffer): void {
    this.#inputs.push(input);
    if (input.length <= maxSavedBytes) this.kept.push(input);
  }
}

function save(name: string, kept: readonly Buffer[]): void {
  const all = new Set([...keptInputs(name), ...kept].map((input) => input.toString("base64")));
  writeFileSync(fixtureOf(name), `${JSON.stringify([...all].slice(0, maxSaved), null, 2)}\n`);
}

let isInterrupted = false;

/** A machine that is busy with something else fuzzes nothing. */
function processorSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000_000;
}

/** Runs one target in this process; true where nothing was found. */
async function fuzz(target: Target): Promise<boolean> {
  process.on("uncaughtException", (error) => {
    console.log(`${target.name}: thrown ${error.stack}\n  ${present.toString("base64")}`);
    process.exit(1);
  });
  const coverage = await BlockCoverage.start((url) =>
    target.covers.some((part) => url.includes(part)),
  );
  const fuzzer = new Fuzzer(target, coverage, new Dice(seed));
  await fuzzer.begin();
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  const end = processorSeconds() + seconds;
  process.once("SIGTERM", () => (isInterrupted = true));
  const isLeft = (done: number): boolean => {
    if (isInterrupted) return false;
    return batches > 0 ? done < batches : processorSeconds() < end;
  };
  for (let done = 0; isLeft(done); done += 1) {
    await fuzzer.batch();
    // A signal is heard between two turns.
    await setImmediate();
  }
  globalThis.gc?.();
  const grown = process.memoryUsage().heapUsed - before;
  const isGrown = grown > maxGrowth;
  console.log(
    `${fuzzer.summary}, seed ${seed}${isGrown ? `, ${Math.round(grown / 1_048_576)} MiB more than before` : ""}`,
  );
  coverage.close();
  const finds = fuzzer.finds + (isGrown ? 1 : 0);
  process.send?.({ seconds: processorSeconds(), inputs: fuzzer.executions, finds });
  if (values.save) save(target.name, fuzzer.kept);
  return fuzzer.finds === 0 && !isGrown;
}

const left = [...chosen];
const children = new Set<ChildProcess>();

/** What was done until then counts, and is noted. */
function interrupt(): void {
  left.length = 0;
  for (const child of children) child.kill("SIGTERM");
}

/** Runs one target in a process of its own; true where nothing was found. */
function inChild(name: string): Promise<boolean> {
  const options = [
    "--child",
    "--target",
    name,
    "--seconds",
    String(seconds),
    "--seed",
    String(seed),
    "--batches",
    values.batches,
  ];
  const child = spawn(
    process.execPath,
    ["--expose-gc", import.meta.filename, ...options, ...(values.save ? ["--save"] : [])],
    { stdio: ["inherit", "inherit", "inherit", "ipc"] },
  );
  children.add(child);
  // Of a process that died nothing else is known.
  let told = { seconds: 0, inputs: 0, finds: 1 };
  child.once("message", (message) => (told = message as typeof told));
  return new Promise((resolve) =>
    child.once("close", (code) => {
      children.delete(child);
      const date = new Date().toISOString().slice(0, 10);
      if (values.ledger !== undefined) noteRun(values.ledger, { target: name, ...told, date });
      resolve(code === 0);
    }),
  );
}

async function fuzzAll(): Promise<boolean> {
  const results: boolean[] = [];
  const work = async (): Promise<void> => {
    for (let name = left.shift(); name !== undefined; name = left.shift())
      results.push(await inChild(name));
  };
  process.once("SIGTERM", interrupt).once("SIGINT", interrupt);
  await Promise.all(Array.from({ length: jobs }, work));
  return results.every(Boolean);
}

const [only = ""] = chosen;
const isGood = values.child ? await fuzz(await loadTarget(only)) : await fuzzAll();
process.exitCode = isGood ? 0 : 1;
