import { expect, test } from "vitest";
import { giveBack } from "../../../src/net/give-back.ts";

test("empties a large chunk that is all of its memory", () => {
  const chunk = Buffer.from(new ArrayBuffer(65_536));
  const before = process.memoryUsage().arrayBuffers;
  giveBack(chunk);
  expect(chunk.length).toBe(0);
  expect(process.memoryUsage().arrayBuffers).toBeLessThanOrEqual(before - 65_536);
  expect(() => giveBack(chunk)).not.toThrow();
});

test("leaves alone what shares its memory with something else, or is small", () => {
  const whole = Buffer.from(new ArrayBuffer(65_536));
  const part = whole.subarray(0, 40_000);
  const small = Buffer.from(new ArrayBuffer(1_024));
  const shared = Buffer.from(new SharedArrayBuffer(65_536));
  for (const chunk of [part, small, shared]) giveBack(chunk);
  expect([whole, part, small, shared].map(({ length }) => length)).toEqual([
    65_536, 40_000, 1_024, 65_536,
  ]);
});
