/** What is used of each budget that was seen, for operators. */
import { BoundedMap } from "../../bounded-map.ts";
import type { Held, PluginDeps, Soon, StateStore } from "../../pipeline/plugin.ts";
import type { Ages } from "./ages.ts";
import type { Limit, LimitOptions, Place } from "./limit.ts";

/** A counter, and of which limit it is. */
type Sighting = Pick<LimitOptions, "name" | "unit" | "window" | "by"> &
  Pick<Place, "key" | "values" | "until">;

/** As a thread saw it last. */
interface Seen {
  readonly key: string;
  readonly budget: string;
  readonly used: number;
  /** What that thread has leased of it, and no message has taken. */
  readonly left: number;
}

const maxKnown = 5_000;
const maxShown = 500;

/** The counters that any thread has seen, whichever generation: one thread has them for all. */
class SeenByAll {
  readonly #seen = new BoundedMap<string, Sighting>(maxKnown);

  saw(sighting: Sighting): void {
    this.#seen.renew(sighting.key, sighting);
  }

  /** What has ended is left out. */
  since(now: number): Sighting[] {
    return [...this.#seen.values()].filter(({ until }) => until > now);
  }
}

/** What the instance of one thread has seen. */
export interface SeenHere {
  readonly limits: readonly Seen[];
  /** How many calls there were of each model without a price. */
  readonly unknownModels: Readonly<Record<string, number>>;
  /** Amounts that the store is still to be told. */
  readonly owed: number;
  /** Every thread tells of the same amounts. */
  readonly isOwedByAll?: boolean;
}

/** Where it is read what is used by now. */
interface Counted {
  readonly now: number;
  readonly store: Pick<StateStore, "counters">;
  readonly ages: Pick<Ages, "read">;
}

/** The counters that the instance of this thread has seen, and with {@link shown} those that all have. */
export class Sightings {
  readonly #byAll: Held<Pick<SeenByAll, "saw" | "since">>;
  readonly #used = new BoundedMap<string, Omit<Seen, "left">>(maxKnown);

  constructor(deps: Pick<PluginDeps, "held" | "instance">) {
    const name = `budgets seen by ${deps.instance}`;
    this.#byAll = deps.held(name, ["saw", "since"], () => new SeenByAll());
  }

  saw({ name, unit, window, by }: LimitOptions, place: Place, used: number): void {
    const { key, values, until } = place;
    const isKnown = this.#used.has(key);
    this.#used.set(key, { key, budget: name, used });
    if (isKnown) return;
    const told = this.#byAll.saw({ name, unit, window, by, key, values, until });
    // Told when it is seen again.
    if (told instanceof Promise) told.catch(() => this.#used.delete(key));
  }

  here(leftOf: (key: string) => number): Seen[] {
    return [...this.#used.values()].map((seen) => ({ ...seen, left: leftOf(seen.key) }));
  }

  /** What was counted for these limits, with the counters as the store has them now. */
  async shown(
    limits: readonly Limit[],
    threads: readonly SeenHere[],
    { now, store, ages }: Counted,
  ): Promise<object[]> {
    const all = (await this.#byAll.since(now)).flatMap((sighting) => {
      const limit = limits.find(({ options }) => isOf(sighting, options));
      return limit === undefined ? [] : [{ sighting, limit: limit.options }];
    });
    const shown = all.slice(-maxShown);
    const last = lastOf(threads);
    const counted = shown.filter(({ limit }) => limit.unit !== "seconds");
    const keys = counted.map(({ sighting }) => sighting.key);
    // While the store is away, they are as they were seen last.
    const values = await orNothing(() => store.counters(keys));
    const at = new Map(keys.map((key, index) => [key, values?.[index]]));
    const used = async ({ key }: Sighting, { unit }: LimitOptions): Promise<number> => {
      const [seen, left] = last.get(key) ?? [0, 0];
      if (unit === "seconds") return (await orNothing(() => ages.read(key, now))) ?? seen;
      const value = at.get(key);
      return value === undefined ? seen : Math.max(0, value - left);
    };
    return Promise.all(
      shown.map(async ({ sighting, limit }) => rowOf(sighting, limit, await used(sighting, limit))),
    );
  }
}

/** A limit may have gone, or count something else by now. */
function isOf({ name, unit, window, by }: Sighting, limit: LimitOptions): boolean {
  const isSame = name === limit.name && unit === limit.unit && window === limit.window;
  return isSame && by.join() === limit.by.join();
}

/** What was seen last of each counter, and what is left of all leases. */
function lastOf(threads: readonly SeenHere[]): Map<string, readonly [used: number, left: number]> {
  const last = new Map<string, readonly [number, number]>();
  for (const { key, used, left } of threads.flatMap(({ limits }) => limits)) {
    const [most, all] = last.get(key) ?? [0, 0];
    last.set(key, [Math.max(most, used), all + left]);
  }
  return last;
}

function rowOf({ values, until }: Sighting, limit: LimitOptions, used: number): object {
  const { name, unit, window, isHard, asks, by } = limit;
  return {
    budget: name,
    unit,
    window,
    mode: asks === true ? "ask" : isHard ? "hard" : "soft",
    ...Object.fromEntries(by.map((dimension, at) => [dimension, values[at] ?? ""])),
    used: shownAmount(unit, used),
    limit: shownAmount(unit, limit.limit),
    ...(until === Infinity ? {} : { resets_at: new Date(until).toISOString() }),
  };
}

/** Undefined where nobody can say. */
async function orNothing<T>(ask: () => Soon<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch {
    return undefined;
  }
}

/** What several threads have seen besides counters. */
export function sharedSight(threads: readonly SeenHere[]): {
  readonly unknown_models: Readonly<Record<string, number>>;
  readonly owed: number;
} {
  const models = new Map<string, number>();
  for (const { unknownModels } of threads)
    for (const [model, calls] of Object.entries(unknownModels))
      models.set(model, (models.get(model) ?? 0) + calls);
  return {
    unknown_models: Object.fromEntries(models),
    owed: threads.reduce(
      (sum, { owed, isOwedByAll = false }) => (isOwedByAll ? Math.max(sum, owed) : sum + owed),
      0,
    ),
  };
}

const nanosPerDollar = 1_000_000_000;

/** Dollars in place of billionths of them. */
export function shownAmount(unit: LimitOptions["unit"], amount: number): number {
  return unit === "cost" ? amount / nanosPerDollar : amount;
}
