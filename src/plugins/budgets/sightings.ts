/** What is used of each budget, as far as this process has seen it, for operators. */
import { BoundedMap } from "../../bounded-map.ts";
import type { LimitOptions, Place } from "./limit.ts";

interface Sighting {
  readonly limit: LimitOptions;
  readonly place: Place;
  used: number;
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

  /** In the units of the file; what has ended is left out. */
  view(now: number): unknown[] {
    return [...this.#seen.values()]
      .filter(({ place }) => place.until > now)
      .map(({ limit: { name, unit, window, isHard, limit, by }, place, used }) => ({
        budget: name,
        unit,
        window,
        mode: isHard ? "hard" : "soft",
        ...Object.fromEntries(by.map((dimension, at) => [dimension, place.values[at] ?? ""])),
        used: shownAmount(unit, used),
        limit: shownAmount(unit, limit),
        ...(place.until === Infinity ? {} : { resets_at: new Date(place.until).toISOString() }),
      }));
  }
}

const nanosPerDollar = 1_000_000_000;

/** Dollars in place of billionths of them. */
export function shownAmount(unit: LimitOptions["unit"], amount: number): number {
  return unit === "cost" ? amount / nanosPerDollar : amount;
}
