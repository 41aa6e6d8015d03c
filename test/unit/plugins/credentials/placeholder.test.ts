import { expect, test } from "vitest";
import { PlaceholderStore } from "../../../../src/plugins/credentials/placeholder.ts";
import { ManualClock } from "../../../support/plugin-bench.ts";

test("F7 handles have the prefix and are all distinct", () => {
  const store = new PlaceholderStore(new ManualClock());
  const handles = Array.from({ length: 1_000 }, () => store.mint("token", 1_000));
  expect(new Set(handles).size).toBe(1_000);
  for (const handle of handles) expect(handle).toMatch(/^abph_[\w-]{43}$/);
});

test("F8 a handle ends with its time", () => {
  const clock = new ManualClock();
  const store = new PlaceholderStore(clock);
  const handle = store.mint("token", 1_000);
  clock.advance(999);
  expect(store.resolve(handle)?.reveal()).toBe("token");
  clock.advance(1);
  expect(store.resolve(handle)).toBeUndefined();
  expect(store.size).toBe(0);
});

test("the store is bounded, and what has ended goes before what lives", () => {
  const clock = new ManualClock();
  const store = new PlaceholderStore(clock, 8);
  for (let at = 0; at < 6; at += 1) store.mint("short", 10);
  const long = store.mint("long", 10_000);
  store.mint("short", 10);
  clock.advance(10);
  const last = store.mint("last", 10_000);
  expect(store.size).toBe(2);
  expect([store.resolve(long)?.reveal(), store.resolve(last)?.reveal()]).toEqual(["long", "last"]);
  for (let at = 0; at < 100; at += 1) store.mint("flood", 10_000);
  expect(store.size).toBeLessThanOrEqual(8);
});

test("the store is bounded by what it holds as well, for tokens as long as a head", () => {
  const store = new PlaceholderStore(new ManualClock(), 1_000, 8_000);
  const first = store.mint("a".repeat(1_000), 1_000);
  for (let at = 0; at < 100; at += 1) store.mint("x".repeat(1_000), 1_000);
  expect(store.size).toBeLessThanOrEqual(8);
  expect(store.size).toBeGreaterThanOrEqual(7);
  expect(store.resolve(first)).toBeUndefined();
});
