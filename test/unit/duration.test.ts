import { expect, test } from "vitest";
import { durationMs, parseDuration } from "../../src/duration.ts";

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
