/**
 * A promise of the product as a model test: lists of steps against the real classes and a small model of what they owe.
 *
 * What comes from outside (stores, endpoints, other threads) ends when a step says so, and the time stands until one turns it:
 * an interleaving is nothing but the list, so that it is the same at each run and shrinks to the shortest that fails.
 */
import {
  type Arbitrary,
  assert,
  type AsyncCommand,
  asyncModelRun,
  asyncProperty,
  commands,
  constantFrom,
  nat,
  record,
  stringify,
} from "fast-check";
import { afterAll, beforeAll, test, vi } from "vitest";

/** Interleavings of each promise; `MODEL_RUNS=100000` for a night. */
const runs = Number(process.env["MODEL_RUNS"] ?? 1_000);
/** The same ones at each run, so that nobody's change fails for what was there before; `MODEL_SEED=random` for others. */
const seed = process.env["MODEL_SEED"] ?? "1";
const maxSteps = 40;
const limitMs = 120_000 + runs * 100;

/** How a call of something outside ends: `unheard` is made, and whoever called is told that it failed. */
export const endings = ["done", "failed", "unheard"] as const;
export type Ending = (typeof endings)[number];

interface Call {
  end(ending: Ending): void;
}

/** What is outside of the product, and takes its time. */
export class Outside {
  readonly #calls: Call[] = [];
  readonly #fault: () => Error;

  constructor(fault: () => Error = () => new Error("it is away")) {
    this.#fault = fault;
  }

  get pending(): number {
    return this.#calls.length;
  }

  /** The effect is when the call ends, at once with its response. */
  call<T>(effect: () => T | Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const fail = (): void => reject(this.#fault());
    this.#calls.push({
      end: (ending) => {
        if (ending === "failed") fail();
        else if (ending === "unheard") void Promise.resolve(effect()).then(fail, fail);
        else {
          try {
            resolve(effect());
          } catch (error) {
            reject(error);
          }
        }
      },
    });
    return promise;
  }

  /** Ends one of the calls that are under way, the oldest for 0. */
  end(at: number, ending: Ending = "done"): void {
    const { length } = this.#calls;
    if (length > 0) this.#calls.splice(at % length, 1)[0]?.end(ending);
  }

  /** Ends all, and what follows from that; then the time passes until nobody waits for anything any more. */
  async endAll(passingMs = 0): Promise<void> {
    await settled();
    for (let left = 1_000; this.pending > 0 && left > 0; left -= 1) {
      this.end(0);
      await settled();
    }
    if (passingMs === 0) return;
    await vi.advanceTimersByTimeAsync(passingMs);
    await settled();
    await this.endAll();
  }
}

/** Everything that needs nobody outside has happened. */
export function settled(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/** The product and the model of it, at one moment. */
export interface World {
  /** Throws where the product is not as the model says; called after each step. */
  check(): void;
  /** Lets everything end, and throws where something is left. */
  end(): Promise<void>;
}

/** One kind of step. A step that has to wait for somebody outside begins it, and lets {@link World.check} see the end. */
export type Step<W extends World> = Arbitrary<AsyncCommand<object, W, true>>;

/** A step with what the list says of it. */
export function step<W extends World, T>(
  name: string,
  values: Arbitrary<T>,
  run: (world: W, value: T) => unknown,
): Step<W> {
  return values.map((value) => ({
    check: () => Promise.resolve(true),
    run: async (_, world) => {
      await run(world, value);
      await settled();
      world.check();
    },
    toString: () => `${name}(${stringify(value)})`,
  }));
}

/** The steps that end a call of something outside. */
export function ends<W extends World & { readonly outside: Outside }>(
  ...ways: readonly Ending[]
): Step<W> {
  const values = record({ at: nat({ max: 7 }), ending: constantFrom(...ways) });
  return step("end", values, ({ outside }, { at, ending }) => outside.end(at, ending));
}

/** The step that turns the clock, and calls the timers that are due. */
export function waits<W extends World>(...milliseconds: readonly number[]): Step<W> {
  return step("wait", constantFrom(...milliseconds), (_, passed) =>
    vi.advanceTimersByTimeAsync(passed),
  );
}

/** Midnight, some day. */
export const beginning = Date.UTC(2030, 0, 7);

/** Every list of steps keeps the promise. */
export function promise<W extends World>(
  name: string,
  make: () => W | Promise<W>,
  steps: readonly Step<W>[],
): void {
  test(
    name,
    async () => {
      const lists = commands<object, W, true>([...steps], { maxCommands: maxSteps, size: "max" });
      const property = asyncProperty(lists, async (list) => {
        vi.setSystemTime(beginning);
        try {
          const world = await make();
          await asyncModelRun(() => ({ model: {}, real: world }), list);
          await world.end();
        } finally {
          vi.clearAllTimers();
        }
      });
      const from = seed === "random" ? {} : { seed: Number(seed) };
      await assert(property, { numRuns: runs, ...from });
    },
    limitMs,
  );
}

/** Time stands in the tests of a file. */
export function stoppedClock(): void {
  beforeAll(() => {
    vi.useFakeTimers({
      now: beginning,
      toFake: ["Date", "setTimeout", "clearTimeout", "setInterval", "clearInterval"],
    });
  });
  afterAll(() => {
    vi.useRealTimers();
  });
}
