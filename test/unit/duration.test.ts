import { expect, test } from "vitest";
import { durationMs, durationText, parseDuration, passingClock } from "../../src/duration.ts";

test.each([
  ["0", 0],
  ["250ms", 250],
  ["1h30m", 5_400_000],
  ["1.5h", 5_400_000],
  [".5s", 500],
  ["1.s", 1000],
  ["1m1ms", 60_001],
  ["1000us", 1],
  ["1000µs", 1],
  ["1000μs", 1],
  ["1000000ns", 1],
])("reads %s as Go does", (text, milliseconds) => {
  expect(parseDuration(text)).toBeCloseTo(milliseconds, 6);
});

test.each(["", "5", "1d", "-1s", "+1s", "1 s", "s", ".s", "1h 30m", "1e3s", "1S", "9".repeat(70)])(
  "takes %j for no duration",
  (text) => {
    expect(parseDuration(text)).toBeUndefined();
    expect(() => durationMs(text)).toThrow("not a duration");
  },
);

test.each([
  ["1.07m", 64_200],
  ["2.01s", 2_010],
  ["0.29h", 1_044_000],
  ["1500us", 2],
  ["1ns", 1],
])("%s is a whole number of milliseconds, as limits want it", (text, milliseconds) => {
  expect(durationMs(text)).toBe(milliseconds);
  expect(() => AbortSignal.timeout(durationMs(text))).not.toThrow();
});

test.each([
  [0, "0s"],
  [100, "100ms"],
  [300_000, "5m"],
  [90_500, "1m30s500ms"],
  [2_073_600_000, "576h"],
])("%i ms are written as %s", (milliseconds, text) => {
  expect(durationText(milliseconds)).toBe(text);
  expect(durationMs(text)).toBe(milliseconds);
});

test("time that passes goes with the wall clock, and on where that is set back", () => {
  let [wall, steady] = [1_000_000, 5];
  const clock = passingClock({ now: () => wall }, () => steady);
  const after = (wallMs: number, steadyMs: number): number => {
    wall += wallMs;
    steady += steadyMs;
    return clock.now();
  };
  expect(clock.now()).toBe(1_000_000);
  expect(after(40, 40)).toBe(1_000_040);
  // The machine was asleep, or its clock was set forward.
  expect(after(3_600_000, 10)).toBe(4_600_040);
  expect(after(-3_599_000, 1_000)).toBe(4_601_040);
  expect(after(7, 7)).toBe(4_601_047);
});
