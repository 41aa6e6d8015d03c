/** What is used of each budget that was seen, for operators. */
import { BoundedMap } from "../../bounded-map.ts";
import type { LimitOptions, Place } from "./limit.ts";

interface Sighting {
  readonly limit: LimitOptions;
  readonly place: Place;
  used: number;
}

/** One counter as a thread has seen it. */
interface Seen {
  readonly key: string;
  readonly unit: LimitOptions["unit"];
  /** What operators see of it, in this order, but for what is used. */
  readonly before: Readonly<Record<string, unknown>>;
  readonly after: Readonly<Record<string, unknown>>;
  /** As it was when it was seen last. */
  readonly used: number;
  /** Counted in the store, and taken by no message. */
  readonly left: number;
}

const maxShown = 500;

/** The counters that were used last. */
export class Sightings {
  readonly #seen = new BoundedMap<string, Sighting>(maxShown);

  saw(limit: LimitOptions, place: Place, used: number): void {
    const known = this.#seen.get(place.key);
    if (known === undefined) this.#seen.set(place.key, { limit, place, used });
    else known.used = used;
  }

  /** What has ended is left out. */
  view(now: number, leftOf: (key: string) => number): Seen[] {
    return [...this.#seen.values()]
      .filter(({ place }) => place.until > now)
      .map(({ limit: { name, unit, window, isHard, asks, limit, by }, place, used }) => ({
        key: place.key,
        unit,
        before: {
          budget: name,
          unit,
          window,
          mode: asks === true ? "ask" : isHard ? "hard" : "soft",
          ...Object.fromEntries(by.map((dimension, at) => [dimension, place.values[at] ?? ""])),
        },
        used,
        left: leftOf(place.key),
        after: {
          limit: shownAmount(unit, limit),
          ...(place.until === Infinity ? {} : { resets_at: new Date(place.until).toISOString() }),
        },
      }));
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

/** Reads counters of the store. */
type Counters = (keys: readonly string[]) => Promise<readonly number[]>;

/** One view of what several threads have seen, with the counters as the store has them now. */
export async function shownBudgets(
  threads: readonly SeenHere[],
  counters: Counters,
): Promise<object> {
  const models = new Map<string, number>();
  for (const { unknownModels } of threads)
    for (const [model, calls] of Object.entries(unknownModels))
      models.set(model, (models.get(model) ?? 0) + calls);
  return {
    limits: await shownLimits(
      threads.map(({ limits }) => limits),
      counters,
    ),
    unknown_models: Object.fromEntries(models),
    owed: threads.reduce(
      (sum, { owed, isOwedByAll = false }) => (isOwedByAll ? Math.max(sum, owed) : sum + owed),
      0,
    ),
  };
}

async function shownLimits(
  threads: readonly (readonly Seen[])[],
  counters: Counters,
): Promise<object[]> {
  const all = new Map<string, Seen>();
  for (const seen of threads.flat()) {
    const known = all.get(seen.key);
    const used = Math.max(seen.used, known?.used ?? 0);
    all.set(seen.key, { ...seen, used, left: seen.left + (known?.left ?? 0) });
  }
  const counted = [...all.values()].filter(({ unit }) => unit !== "seconds");
  const values = await counters(counted.map(({ key }) => key)).catch(() => undefined);
  for (const [at, seen] of counted.entries()) {
    const value = values?.[at];
    if (value !== undefined) all.set(seen.key, { ...seen, used: Math.max(0, value - seen.left) });
  }
  return [...all.values()].map(({ before, unit, used, after }) => ({
    ...before,
    used: shownAmount(unit, used),
    ...after,
  }));
}

const nanosPerDollar = 1_000_000_000;

/** Dollars in place of billionths of them. */
export function shownAmount(unit: LimitOptions["unit"], amount: number): number {
  return unit === "cost" ? amount / nanosPerDollar : amount;
}
