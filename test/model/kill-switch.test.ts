/** The kill switch: an order holds where it was given at once, and all replicas come to the same, whatever their clocks say. */
import { type Arbitrary, boolean, constantFrom, nat, record } from "fast-check";
import { pino } from "pino";
import { expect, vi } from "vitest";
import { Kills } from "../../src/app/kills/kills.ts";
import { type Kill, killName } from "../../src/pipeline/kill-switch.ts";
import type { StateFeed } from "../../src/state/store.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import { Outside, promise, settled, step, stoppedClock, type World } from "./interleaving.ts";

stoppedClock();

type Hear = (texts: readonly string[]) => void;

/** What one replica tells reaches each of the others once or twice, in any order. */
class LateFeed implements StateFeed {
  readonly problem = undefined;
  hear: Hear | undefined;
  readonly #outside: Outside;
  readonly #all: readonly LateFeed[];

  constructor(outside: Outside, all: readonly LateFeed[]) {
    this.#outside = outside;
    this.#all = all;
  }

  tell(text: string): Promise<boolean> {
    for (const one of this.#all) void this.#outside.call(() => one.hear?.([text]));
    return Promise.resolve(true);
  }

  follow(listener: Hear): Promise<() => void> {
    this.hear = listener;
    return Promise.resolve(() => undefined);
  }

  listen(listener: Hear): void {
    this.hear = listener;
  }
}

interface Order {
  readonly replica: number;
  readonly value: "x" | "y";
  readonly isRelease: boolean;
}

class Replicas implements World {
  readonly outside = new Outside();
  readonly #feeds: LateFeed[] = [];
  readonly #metrics: Metrics[] = [];
  /** What serves at each replica. */
  readonly #applied: (readonly Kill[])[] = [];
  readonly #kills = [0, 1, 2].map((at) => this.#replica(at));
  /** The last order of each thing, where all had heard of those before it. */
  readonly #last = new Map<string, boolean>();

  async start(): Promise<this> {
    await Promise.all(this.#kills.map((kills) => kills.start()));
    return this;
  }

  async order({ replica, value, isRelease }: Order): Promise<void> {
    const kills = this.#kills[replica];
    const kill = { scope: "caller", value } as const;
    const name = killName(kill);
    const isKnown = this.outside.pending === 0;
    if (isRelease && (await kills?.release(name, "test")) === undefined) return;
    if (!isRelease) await kills?.kill(kill, "test");
    await settled();
    const isStopped = this.#applied[replica]?.some((one) => killName(one) === name) === true;
    expect(isStopped, "an order holds at once").toBe(!isRelease);
    if (isKnown) this.#last.set(name, !isRelease);
    else this.#last.delete(name);
  }

  check(): void {
    if (this.outside.pending > 0) return;
    const [first, ...others] = this.#applied.map((kills) => new Set(kills.map(killName)));
    for (const other of others) expect(other, "replicas agree").toEqual(first);
    for (const [name, isStopped] of this.#last)
      expect(first?.has(name), `the last word on ${name}`).toBe(isStopped);
  }

  async end(): Promise<void> {
    await this.outside.endAll();
    this.check();
    for (const kills of this.#kills) kills.close();
    for (const metrics of this.#metrics) metrics.close();
  }

  #replica(at: number): Kills {
    const feed = new LateFeed(this.outside, this.#feeds);
    this.#feeds.push(feed);
    this.#applied[at] = [];
    const metrics = new Metrics({ version: "test", generation: () => 1 });
    this.#metrics.push(metrics);
    return new Kills({
      log: pino({ level: "silent" }),
      metrics,
      file: undefined,
      feed,
      apply: (kills) => {
        this.#applied[at] = kills;
        return Promise.resolve(0);
      },
    });
  }
}

const order = record({
  replica: nat({ max: 2 }),
  value: constantFrom("x", "x", "y"),
  isRelease: boolean(),
}) as Arbitrary<Order>;
const orders = step<Replicas, Order>("order", order, (world, one) => world.order(one));

promise("all replicas come to what was ordered last", () => new Replicas().start(), [
  orders,
  orders,
  step<Replicas, number>("hear", nat({ max: 7 }), ({ outside }, at) => outside.end(at)),
  step<Replicas, number>("hear", nat({ max: 7 }), ({ outside }, at) => outside.end(at)),
  step<Replicas, number>("hear all", nat({ max: 0 }), ({ outside }) => outside.endAll()),
  // The clock of whoever gives the next order is another one, or was put right.
  step<Replicas, number>("clock", constantFrom(-60_000, -1, 1, 60_000), (_, by) =>
    vi.setSystemTime(Date.now() + by),
  ),
]);
