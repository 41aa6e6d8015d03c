import * as fc from "fast-check";
import { expect, test } from "vitest";
import { Gathered } from "../../../src/http/gathered.ts";

test("everything comes back in order, whatever the pieces", () => {
  const piece = fc.oneof(fc.nat(40), fc.nat(9_000)).map((size) => Buffer.alloc(size, size & 0xff));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
      const whole = Buffer.concat(pieces);
      const gathered = new Gathered();
      for (const one of pieces) gathered.push(one);
      expect(gathered.length).toBe(whole.length);
      expect(Buffer.concat(gathered.pieces()).equals(whole)).toBe(true);
      expect(gathered.takeAll().equals(whole)).toBe(true);
      expect([gathered.length, gathered.takeAll().length]).toEqual([0, 0]);
    }),
    { numRuns: 200 },
  );
});

test("bytes that come one by one are few objects, and hold no chunk that they came in", () => {
  const gathered = new Gathered();
  const chunk = Buffer.alloc(60_000, "x");
  for (let at = 0; at < 200_000; at += 1) {
    const start = at % chunk.length;
    gathered.push(chunk.subarray(start, start + 1));
  }
  const pieces = gathered.pieces();
  expect(pieces.length).toBeLessThan(10);
  expect(pieces.every(({ buffer }) => buffer !== chunk.buffer)).toBe(true);
});
