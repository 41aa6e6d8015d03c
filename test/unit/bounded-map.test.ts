import { expect, test, vi } from "vitest";
import { BoundedMap } from "../../src/bounded-map.ts";

test("a new key takes the place of the oldest, a known one takes none", () => {
  const map = new BoundedMap<string, number>(2);
  map.set("a", 1).set("b", 2).set("b", 3).set("c", 4);
  expect([...map]).toEqual([
    ["b", 3],
    ["c", 4],
  ]);
});

test("a thousand keys are never more than the limit", () => {
  const map = new BoundedMap<number, number>(10);
  for (let key = 0; key < 1_000; key += 1) map.set(key, key);
  expect([...map.keys()]).toEqual([990, 991, 992, 993, 994, 995, 996, 997, 998, 999]);
});

test("makes what is not there once, also where that is undefined", () => {
  const map = new BoundedMap<string, number | undefined>(2);
  const make = vi.fn(() => undefined);
  expect(map.getOrMake("a", make)).toBeUndefined();
  expect(map.getOrMake("a", make)).toBeUndefined();
  expect(make).toHaveBeenCalledTimes(1);
});
