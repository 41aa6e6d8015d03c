/** Places: bounds in all, for each destination and caller; turns for those who wait; an end to every wait. */
import { describe, expect, test, vi } from "vitest";
import { type Claim, Places, type PlacesOptions } from "../../../src/net/places.ts";

/** Claims and what became of them. */
class Bench {
  readonly places: Places;
  readonly granted: string[] = [];
  readonly refused: string[] = [];
  readonly counted: string[] = [];
  readonly #releases = new Map<string, () => void>();

  constructor(options: Partial<PlacesOptions>) {
    this.places = new Places({
      all: 100,
      perCaller: 100,
      perDestination: 100,
      waitMs: 60_000,
      onRefused: (limit, { caller }) => this.counted.push(`${caller}: ${limit}`),
      ...options,
    });
  }

  /** `name` is "caller/what". */
  take(name: string, destination = "d"): () => void {
    const claim: Claim = { caller: name.split("/")[0] ?? "", destination };
    return this.places.take(
      claim,
      (release) => {
        this.granted.push(name);
        this.#releases.set(name, release);
      },
      (limit) => this.refused.push(`${name}: ${limit}`),
    );
  }

  release(name: string): void {
    this.#releases.get(name)?.();
  }
}

test("callers have their turns, however much one of them asks for", () => {
  const bench = new Bench({ all: 2 });
  for (const name of ["a/1", "a/2", "a/3", "a/4", "a/5", "b/1", "b/2"]) bench.take(name);
  for (const name of ["a/1", "a/2", "a/3", "b/1"]) bench.release(name);
  expect(bench.granted).toEqual(["a/1", "a/2", "a/3", "b/1", "a/4", "b/2"]);
});

test.each([
  ["caller", { perCaller: 1 }, "a/2", "d2", "b/1"],
  ["destination", { perDestination: 1 }, "b/1", "d", "c/1"],
] as const)("a full %s keeps nobody else back", (_limit, options, blocked, where, free) => {
  const bench = new Bench(options);
  bench.take("a/1", "d");
  bench.take(blocked, where);
  bench.take(free, "other");
  expect(bench.granted).toEqual(["a/1", free]);
  bench.release("a/1");
  expect(bench.granted).toEqual(["a/1", free, blocked]);
});

describe("a wait", () => {
  test("ends with its time, and says what was in the way", () => {
    vi.useFakeTimers();
    try {
      const bench = new Bench({ perDestination: 1, waitMs: 1_000 });
      bench.take("a/1");
      bench.take("a/2");
      vi.advanceTimersByTime(1_000);
      expect(bench.refused).toEqual(["a/2: destination"]);
      expect(bench.counted).toEqual(["a: destination"]);
      bench.release("a/1");
      expect(bench.granted).toEqual(["a/1"]);
    } finally {
      vi.useRealTimers();
    }
  });

  test("that is withdrawn takes no place, and a place is given back once", () => {
    const bench = new Bench({ all: 1 });
    bench.take("a/1");
    bench.take("a/2")();
    bench.release("a/1");
    bench.release("a/1");
    expect(bench.places.used).toBe(0);
    expect(bench.granted).toEqual(["a/1"]);
    expect(bench.refused).toEqual([]);
  });

  test("of one caller is bounded, and a full queue makes room for who has less in it", () => {
    const bench = new Bench({ all: 1, maxWaiting: 4 });
    for (const name of ["a/1", "a/2", "a/3", "a/4", "b/1", "b/2"]) bench.take(name);
    expect(bench.refused).toEqual(["a/4: all"]);
    bench.take("b/3");
    expect(bench.refused).toEqual(["a/4: all", "b/3: all"]);
    bench.take("c/1");
    expect(bench.refused).toEqual(["a/4: all", "b/3: all", "a/3: all"]);
    for (const name of ["a/1", "a/2", "b/1"]) bench.release(name);
    expect(bench.granted).toEqual(["a/1", "a/2", "b/1", "c/1"]);
  });
});
