/**
 * Feeds the readers of HTTP/1.1 with bytes that are nearly good, and keeps those that reach code that none did before:
 * `npm run fuzz -- [--seconds N] [--seed N] [--save]`. Ends with 1 where something does not hold.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { requestCorpus } from "../test/support/wire-corpus.ts";
import { responseCorpus } from "../test/support/response-corpus.ts";
import {
  Dice,
  mutated,
  requestTarget,
  responseTarget,
  type Target,
} from "../test/support/wire-fuzz.ts";
import { BlockCoverage } from "./block-coverage.ts";

/** Inputs between two looks at the coverage, which cost more than any of them. */
const batchSize = 64;
const maxFinds = 10;
/** What is saved is replayed by a test, so that it has to be small. */
const maxSavedBytes = 600;
const maxGrowth = 128 * 1_048_576;

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "30" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    save: { type: "boolean", default: false },
  },
});
const seconds = Number(values.seconds);
const seed = Number(values.seed);
if (!(seconds > 0) || !Number.isInteger(seed)) {
  console.error("--seconds and --seed are numbers");
  process.exit(2);
}

let present: Buffer = Buffer.alloc(0);
process.on("uncaughtException", (error) => {
  console.error(`thrown: ${error.stack}\nby ${JSON.stringify(present.toString("latin1"))}`);
  process.exit(1);
});

/** One target's inputs, and what they found. */
class Fuzzer {
  readonly #target: Target;
  readonly #coverage: BlockCoverage;
  readonly #dice: Dice;
  readonly #inputs: Buffer[];
  readonly #outcomes = new Set<string>();
  readonly kept: Buffer[] = [];
  readonly finds = new Map<string, Buffer>();
  executions = 0;

  constructor(target: Target, corpus: readonly string[], coverage: BlockCoverage, dice: Dice) {
    this.#target = target;
    this.#coverage = coverage;
    this.#dice = dice;
    this.#inputs = corpus.map((text) => Buffer.from(text, "latin1"));
  }

  /** Runs what is known, so that only what is more is kept. */
  async begin(): Promise<void> {
    for (const input of this.#inputs) await this.#run(input);
    await this.#coverage.hasGrown();
  }

  async batch(): Promise<void> {
    const inputs = Array.from({ length: batchSize }, () =>
      mutated(this.#dice.oneOf(this.#inputs), this.#dice.oneOf(this.#inputs), this.#dice),
    );
    for (const input of inputs) if (await this.#run(input)) this.#keep(input);
    if (!(await this.#coverage.hasGrown(true))) return;
    for (const input of inputs) {
      await this.#run(input);
      if (await this.#coverage.hasGrown()) this.#keep(input);
    }
  }

  get name(): string {
    return this.#target.name;
  }

  get summary(): string {
    const { executions, kept, finds } = this;
    const outcomes = this.#outcomes.size;
    return `${this.name}: ${executions} executions, ${outcomes} outcomes, ${kept.length} kept, ${finds.size} finds`;
  }

  /** True where the outcome is new. */
  async #run(input: Buffer): Promise<boolean> {
    present = input;
    this.executions += 1;
    const { outcome, problem } = await this.#target.check(input, this.#dice);
    if (problem !== undefined && !this.finds.has(problem) && this.finds.size < maxFinds) {
      this.finds.set(problem, input);
      console.log(
        `${this.name}: ${problem}\n  ${JSON.stringify(input.toString("latin1").slice(0, maxSavedBytes))}`,
      );
    }
    const isNew = !this.#outcomes.has(outcome);
    this.#outcomes.add(outcome);
    return isNew;
  }

  #keep(input: Buffer): void {
    this.#inputs.push(input);
    if (input.length <= maxSavedBytes) this.kept.push(input);
  }
}

const coverage = await BlockCoverage.start((url) => url.includes("/src/wire/"));
const dice = new Dice(seed);
const fuzzers = [
  new Fuzzer(requestTarget, requestCorpus, coverage, dice),
  new Fuzzer(responseTarget, responseCorpus, coverage, dice),
];
for (const fuzzer of fuzzers) await fuzzer.begin();
const { blocks: before } = coverage;
globalThis.gc?.();
const heapBefore = process.memoryUsage().heapUsed;
const end = performance.now() + seconds * 1_000;
while (performance.now() < end) for (const fuzzer of fuzzers) await fuzzer.batch();

const { blocks } = coverage;
for (const fuzzer of fuzzers) console.log(fuzzer.summary);
console.log(
  `blocks: ${blocks.reached} of ${blocks.known} reached, ${before.reached} by the corpus`,
);
globalThis.gc?.();
const grown = process.memoryUsage().heapUsed - heapBefore;
console.log(`heap: ${Math.round(grown / 1_048_576)} MiB more than after the corpus; seed ${seed}`);
coverage.close();
if (values.save) {
  for (const { name, kept } of fuzzers) {
    const texts = kept.map((input) => input.toString("latin1"));
    const file = new URL(`../test/fixtures/wire/${name}.json`, import.meta.url);
    writeFileSync(file, `${JSON.stringify(texts, null, 2)}\n`);
  }
}
process.exitCode = grown > maxGrowth || fuzzers.some(({ finds }) => finds.size > 0) ? 1 : 0;
