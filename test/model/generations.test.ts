/** Generations: what is under way keeps the one that it began with, and each is closed once, when nobody has it any more. */
import { constantFrom, nat } from "fast-check";
import { pino } from "pino";
import { expect, vi } from "vitest";
import { CarriedState } from "../../src/app/carried-state.ts";
import { inputsDigest } from "../../src/app/chaining/reload.ts";
import type { Loaded } from "../../src/app/definitions.ts";
import { ReloadStatus } from "../../src/app/reload-status.ts";
import { Reloader } from "../../src/app/reloader.ts";
import type { Config } from "../../src/config/presets.ts";
import { type Lease, type Runtime, RuntimeHolder } from "../../src/proxy/flow/runtime.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import { ends, Outside, promise, step, stoppedClock, waits, type World } from "./interleaving.ts";

stoppedClock();

const drainMs = 10_000;
const pipeline = { plugins: [], default: "allow" } as const;
const config = {
  pipeline: { inbound: pipeline, outbound: pipeline },
  plugin_modules: [],
} as unknown as Config;

type Content = "valid" | "wrong" | "refused" | "broken";

interface Generation {
  readonly file: number;
  readonly number: number;
  readonly runtime: Runtime;
  leases: number;
  retiredAt: number | undefined;
  closed: number;
}

interface Flow {
  readonly lease: Lease;
  readonly generation: Generation;
  isOver: boolean;
}

/** One thread that serves a file, which somebody writes. */
class Serving implements World {
  readonly outside = new Outside();
  readonly #carried = new CarriedState();
  readonly #all: Generation[] = [];
  readonly #holder: RuntimeHolder;
  readonly #status = new ReloadStatus("0", inputsDigest(config));
  readonly #metrics = new Metrics({ version: "0", generation: () => 1 });
  readonly #reloader: Reloader;
  readonly #flows: Flow[] = [];
  /** What is written, by its number; the last one counts. */
  readonly #files: Content[] = ["valid"];
  #serving: Generation;
  #building = 0;
  #asked = 0;
  #answered = 0;
  #isClosed = false;
  /** The last attempt came to its end. */
  #isRead = true;

  constructor() {
    this.#serving = this.#generation(0);
    this.#holder = new RuntimeHolder(this.#serving.runtime);
    this.#reloader = new Reloader({
      file: undefined,
      debounceMs: 0,
      status: this.#status,
      log: pino({ level: "silent" }),
      metrics: this.#metrics,
      load: () => this.#load(),
      apply: ({ sha256 }) => this.#apply(Number(sha256)),
      chain: { retryAfterMs: () => undefined },
    });
  }

  write(content: Content): void {
    this.#files.push(content);
    this.#asked += 1;
    void this.#reloader.reload().then(() => (this.#answered += 1));
  }

  begin(): void {
    if (this.#isClosed) return;
    const lease = this.#holder.acquire();
    const generation = this.#serving;
    expect(lease.runtime, "a flow begins with what serves").toBe(generation.runtime);
    generation.leases += 1;
    this.#flows.push({ lease, generation, isOver: false });
  }

  /** Also twice, as the end of a flow may be noticed at more than one place. */
  finish(at: number): void {
    const flow = this.#flows[at % Math.max(1, this.#flows.length)];
    if (flow === undefined) return;
    flow.lease.release();
    if (flow.isOver) return;
    flow.isOver = true;
    flow.generation.leases -= 1;
  }

  check(): void {
    const now = Date.now();
    for (const generation of this.#all) {
      const { closed, leases, retiredAt, number } = generation;
      const isForced = retiredAt !== undefined && now - retiredAt >= drainMs;
      const isOver = retiredAt !== undefined && (leases === 0 || isForced);
      if (!isOver) expect(closed, `generation ${number} is held`).toBe(0);
      if (isOver) expect(closed, `generation ${number} is over`).toBe(1);
    }
    const flows = this.#all.filter(({ closed }) => closed === 0);
    expect(this.#holder.flows).toBe(flows.reduce((sum, { leases }) => sum + leases, 0));
    expect(this.#building, "one at a time").toBeLessThanOrEqual(1);
    expect(this.#holder.runtime).toBe(this.#serving.runtime);
  }

  async end(): Promise<void> {
    await this.outside.endAll();
    expect(this.#answered, "each reload is answered").toBe(this.#asked);
    this.check();
    const last = this.#files.findLastIndex((content) => content === "valid");
    // A file that is valid and not the last one may have been written over before it was read.
    if (last === this.#files.length - 1 && this.#isRead) expect(this.#serving.file).toBe(last);
    await this.#reloader.close();
    expect(await this.#reloader.reload()).toBe("the proxy is closed");
    this.#isClosed = true;
    this.#serving.retiredAt = Date.now();
    const closing = this.#holder.close(drainMs);
    await vi.advanceTimersByTimeAsync(drainMs);
    await this.outside.endAll();
    await closing;
    expect(this.#all.map(({ closed }) => closed)).toEqual(this.#all.map(() => 1));
    expect(this.#carried.peek("cache"), "what is carried ends with the last").toBeUndefined();
    this.#metrics.close();
  }

  #generation(file: number): Generation {
    const number = this.#all.length + 1;
    this.#carried.claim(number, "cache", () => ({}));
    const generation: Generation = {
      file,
      number,
      leases: 0,
      retiredAt: undefined,
      closed: 0,
      runtime: {
        generation: number,
        close: async () => {
          generation.closed += 1;
          await this.#carried.release(number);
          await this.outside.call(() => undefined);
        },
      } as unknown as Runtime,
    };
    this.#all.push(generation);
    return generation;
  }

  /** What is in the file when it is read. */
  async #load(): Promise<Loaded> {
    this.#isRead = false;
    const file = await this.outside.call(() => this.#files.length - 1);
    if (this.#files[file] === "broken") throw new Error("it cannot be read");
    return { kind: "loaded", sha256: String(file), config, warnings: [] } as unknown as Loaded;
  }

  async #apply(file: number): Promise<string | undefined> {
    if (this.#files[file] === "wrong") return "a key is wrong";
    this.#building += 1;
    try {
      await this.outside.call(() => undefined);
      this.#isRead = true;
      const built = this.#generation(file);
      if (this.#files[file] === "refused") {
        built.retiredAt = Date.now();
        await built.runtime.close();
        return "another thread refuses it";
      }
      this.#serving.retiredAt = Date.now();
      this.#serving = built;
      this.#holder.swap(built.runtime, drainMs);
      return undefined;
    } finally {
      this.#building -= 1;
    }
  }
}

const contents = constantFrom<Content[]>("valid", "valid", "wrong", "refused", "broken");

promise(
  "a flow keeps its generation, and each is closed once, when its last flow or its time is over",
  () => new Serving(),
  [
    step<Serving, Content>("write", contents, (world, content) => world.write(content)),
    step<Serving, number>("begin", nat({ max: 0 }), (world) => world.begin()),
    step<Serving, number>("begin", nat({ max: 0 }), (world) => world.begin()),
    step<Serving, number>("finish", nat({ max: 7 }), (world, at) => world.finish(at)),
    ends<Serving>("done"),
    ends<Serving>("done"),
    ends<Serving>("done", "failed"),
    waits<Serving>(1, 5_000, drainMs),
  ],
);
