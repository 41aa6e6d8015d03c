/** Threads: a reload is served by all of them or by none, and whoever takes the place of one that ended serves what they do. */
import { type Arbitrary, nat, record } from "fast-check";
import { pino } from "pino";
import { expect, test, vi } from "vitest";
import type { ProcessParts } from "../../src/app/process-parts.ts";
import type { LoadedConfig } from "../../src/config/load.ts";
import type { SentFile, StartOrder } from "../../src/crew/calls.ts";
import { Crew } from "../../src/crew/crew.ts";
import type { Ending } from "../../src/crew/member.ts";
import { type Kill, KillSwitch } from "../../src/pipeline/kill-switch.ts";
import {
  ends,
  Outside,
  promise,
  settled,
  step,
  stoppedClock,
  waits,
  type World,
} from "./interleaving.ts";

stoppedClock();

vi.mock("node:timers/promises", () => ({
  setTimeout: (milliseconds: number) =>
    new Promise((resolve) => void setTimeout(resolve, milliseconds)),
}));

/** A thread as the crew has it: each call takes its time, and none comes back from one that has ended. */
const { threads, StandIn } = vi.hoisted(() => {
  const threads: InstanceType<typeof StandIn>[] = [];
  class StandIn {
    static outside: Outside;
    static refuses: (generation: number, thread: number) => boolean = () => false;
    static #lastId = 0;
    readonly thread: number;
    readonly id: number;
    readonly report = { notReady: undefined };
    isServing = false;
    hasEnded = false;
    /** It follows no order any more, and takes its time to end. */
    isDeaf = false;
    serves = 0;
    kills: readonly Kill[] = [];
    readonly prepared = new Set<number>();
    readonly #onEnded: (member: StandIn, ending: Ending) => void;
    readonly #gone = Promise.withResolvers<never>();
    #isClosing = false;
    #orders = 0;
    #followed = 0;

    constructor(thread: number, _: unknown, onEnded: (member: StandIn, ending: Ending) => void) {
      this.thread = thread;
      StandIn.#lastId += 1;
      this.id = StandIn.#lastId;
      this.#onEnded = onEnded;
      this.#gone.promise.catch(() => undefined);
      threads.push(this);
    }

    start({ file, kills }: StartOrder): Promise<undefined> {
      return this.#call(() => {
        this.serves = file.generation;
        this.kills = kills;
        return undefined;
      });
    }

    async open(): Promise<object> {
      await this.#call(() => undefined);
      this.isServing = true;
      return {};
    }

    prepare({ generation }: SentFile): Promise<string | undefined> {
      return this.#call(() => {
        if (StandIn.refuses(generation, this.thread)) return "refused";
        this.prepared.add(generation);
        return undefined;
      });
    }

    swap(generation: number): Promise<void> {
      return this.#call(() => {
        if (!this.prepared.delete(generation)) throw new Error("it is not ready");
        this.serves = generation;
      });
    }

    drop(generation: number): Promise<void> {
      return this.#call(() => void this.prepared.delete(generation));
    }

    kill(kills: readonly Kill[]): Promise<number> {
      this.#orders += 1;
      const order = this.#orders;
      return this.#call(() => {
        if (this.isDeaf) throw new Error("it does not respond");
        // Orders come in the order in which they were given.
        if (order > this.#followed) [this.kills, this.#followed] = [kills, order];
        return 0;
      });
    }

    refresh(): Promise<void> {
      return Promise.resolve();
    }

    tell(): void {
      // What is told asks for nothing.
    }

    async close(): Promise<void> {
      this.#isClosing = true;
      if (this.isDeaf && !this.hasEnded) await StandIn.outside.call(() => undefined);
      this.die();
    }

    die(): void {
      if (this.hasEnded) return;
      this.isServing = false;
      this.hasEnded = true;
      this.#gone.reject(new Error(`thread ${this.thread} has ended`));
      if (!this.#isClosing) this.#onEnded(this, { code: 1, error: undefined });
    }

    #call<T>(effect: () => T): Promise<T> {
      const called = StandIn.outside.call(() => {
        if (this.hasEnded) throw new Error("it has ended");
        return effect();
      });
      return Promise.race([called, this.#gone.promise]);
    }
  }
  return { threads, StandIn };
});
vi.mock("../../src/crew/member.ts", () => ({ Member: StandIn }));

const count = 3;

interface Reload {
  /** The thread that does not take the file; none where there is no such thread. */
  readonly refusedBy: number;
}

class Threads implements World {
  readonly outside = new Outside();
  readonly #serving = { generation: 1 };
  readonly #crew: Crew;
  readonly #kills = new KillSwitch();
  #ordered = 0;
  #deaths = 0;
  /** Too many have ended: so does the process. */
  #isHopeless = false;
  #reloading: Promise<void> = Promise.resolve();
  #isReloading = false;
  #last = 1;

  constructor() {
    threads.length = 0;
    StandIn.outside = this.outside;
    StandIn.refuses = () => false;
    const tally = { of: () => ({ value: 0 }) };
    const parts = {
      state: { seed: Buffer.alloc(32) },
      serving: this.#serving,
      metrics: { gauge: () => undefined, counters: { threads_ended_total: tally } },
      kills: this.#kills,
      services: { carried: { threadEnded: () => undefined } },
    } as unknown as ProcessParts;
    this.#crew = new Crew({
      threads: count,
      loaded: { bytes: Buffer.alloc(0), path: "" } as unknown as LoadedConfig,
      parts,
      options: { log: pino({ level: "silent" }), version: "0", lenient: false, file: "", env: {} },
      services: { writeLines: () => undefined, onHopeless: () => (this.#isHopeless = true) },
    });
  }

  async open(): Promise<this> {
    const opening = this.#crew.open();
    await this.outside.endAll();
    await opening;
    return this;
  }

  /** As the process applies a file: both phases, one file after another. */
  reload({ refusedBy }: Reload): void {
    this.#reloading = this.#reloading.then(async () => {
      const generation = this.#last + 1;
      this.#last = generation;
      this.#isReloading = true;
      StandIn.refuses = (one, thread) => one === generation && thread === refusedBy;
      const loaded = { bytes: Buffer.alloc(0), path: "" } as unknown as LoadedConfig;
      if ((await this.#crew.prepare(loaded, generation)) === undefined) {
        this.#serving.generation = generation;
        await this.#crew.swap(loaded);
      }
      this.#isReloading = false;
    });
  }

  die(at: number): void {
    this.#oneOfThem(at)?.die();
  }

  /** An operator's order, which is another one each time, and which one of the threads may not follow. */
  kill(deafAt: number): void {
    const deaf = deafAt < count ? this.#oneOfThem(deafAt) : undefined;
    if (deaf !== undefined) deaf.isDeaf = true;
    this.#ordered += 1;
    void this.#crew.kill([{ scope: "session", value: String(this.#ordered), at: 0 }]);
  }

  /** One that serves, while there may be more that fail. */
  #oneOfThem(at: number): InstanceType<typeof StandIn> | undefined {
    const alive = threads.filter(({ isServing, isDeaf }) => isServing && !isDeaf);
    if (this.#deaths >= 5 || alive.length === 0) return undefined;
    this.#deaths += 1;
    return alive[at % alive.length];
  }

  check(): void {
    const serving = threads.filter(({ isServing }) => isServing);
    const places = serving.map(({ thread }) => thread);
    expect(new Set(places).size, "one thread in each place").toBe(places.length);
    if (this.#isReloading) return;
    const { generation } = this.#serving;
    for (const { serves, prepared, thread } of serving) {
      expect(serves, `thread ${thread} serves what is served`).toBe(generation);
      expect([...prepared], `thread ${thread} keeps nothing that was refused`).toEqual([]);
    }
  }

  async end(): Promise<void> {
    for (let rounds = 0; rounds < 10; rounds += 1) await this.outside.endAll(10_000);
    await this.#reloading;
    await settled();
    this.check();
    const serving = threads.filter(({ isServing, isDeaf }) => isServing && !isDeaf);
    const { kills } = this.#kills;
    for (const one of serving) expect(one.kills, `thread ${one.thread} follows`).toEqual(kills);
    if (!this.#isHopeless) expect(serving, "each place is taken again").toHaveLength(count);
    await this.#crew.close(0);
  }
}

const reload = record({ refusedBy: nat({ max: 2 * count }) }) as Arbitrary<Reload>;
promise(
  "all threads serve a file or none does, and follow orders, also those that take another one's place",
  () => new Threads().open(),
  [
    step<Threads, Reload>("reload", reload, (world, one) => world.reload(one)),
    step<Threads, number>("die", nat({ max: 2 }), (world, at) => world.die(at)),
    step<Threads, number>("kill", nat({ max: 2 * count }), (world, at) => world.kill(at)),
    ends<Threads>("done"),
    ends<Threads>("done"),
    ends<Threads>("done"),
    step<Threads, number>("end all", nat({ max: 0 }), ({ outside }) => outside.endAll()),
    waits<Threads>(100, 1_000, 10_000),
  ],
);

/** What serves after a reload, in which these threads end before they have said a word. */
async function servedAfter(ended: readonly number[]): Promise<number[]> {
  const world = await new Threads().open();
  world.reload({ refusedBy: count });
  await settled();
  for (const at of ended) threads[at]?.die();
  await world.end();
  return Array.from(
    { length: count },
    (_, place) => threads.findLast(({ thread }) => thread === place)?.serves ?? 0,
  );
}

test("a thread that ends while a file is prepared does not refuse it", async () => {
  expect(await servedAfter([1])).toEqual([2, 2, 2]);
});

test("a file is refused where every thread ends that prepares it", async () => {
  expect(await servedAfter([0, 1, 2])).toEqual([1, 1, 1]);
});
