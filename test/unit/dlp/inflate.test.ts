/** The inflater of the stream scanner gives what zlib gives, whatever the pieces, and holds no more than its window. */
import { constants, deflateSync, gzipSync } from "node:zlib";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { Inflater } from "../../../src/dlp/inflate.ts";

function inflate(frame: "gzip" | "zlib", bytes: Buffer, step: number): readonly [Buffer, string] {
  const parts: Buffer[] = [];
  const inflater = new Inflater(frame, (part) => parts.push(Buffer.from(part)) > 0);
  let outcome = "more";
  for (let at = 0; at < bytes.length && outcome === "more"; at += step)
    outcome = inflater.push(bytes.subarray(at, at + step));
  return [Buffer.concat(parts), outcome];
}

const pieces = fc.oneof(
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  fc.nat(255).chain((byte) => fc.nat(70_000).map((size) => Buffer.alloc(size, byte))),
  fc
    .string({ maxLength: 60 })
    .chain((text) => fc.nat(900).map((times) => Buffer.from(text.repeat(times)))),
);
const strategies = [
  constants.Z_DEFAULT_STRATEGY,
  constants.Z_FIXED,
  constants.Z_HUFFMAN_ONLY,
  constants.Z_RLE,
];

test("it gives what was packed", () => {
  fc.assert(
    fc.property(
      fc.array(pieces, { maxLength: 6 }),
      fc.constantFrom(...strategies),
      fc.integer({ min: 0, max: 9 }),
      fc.integer({ min: 1, max: 5_000 }),
      (parts, strategy, level, step) => {
        const clear = Buffer.concat(parts);
        for (const frame of ["gzip", "zlib"] as const) {
          const packed = (frame === "gzip" ? gzipSync : deflateSync)(clear, { strategy, level });
          const [seen, outcome] = inflate(frame, packed, step);
          expect([seen.equals(clear), outcome]).toEqual([true, "end"]);
        }
      },
    ),
    { interruptAfterTimeLimit: 3_000, numRuns: 400 },
  );
});

test("a header with a name, a comment, an extra field and a check is passed over in any pieces", () => {
  const packed = gzipSync("the words behind it");
  const head = Buffer.concat([
    Buffer.from([0x1f, 0x8b, 8, 0x1e, 0, 0, 0, 0, 0, 3, 5, 0]),
    Buffer.from("extraname of any length\0a comment\0"),
    Buffer.from([1, 2]),
  ]);
  const whole = Buffer.concat([head, packed.subarray(10)]);
  for (let step = 1; step < whole.length; step += 1)
    expect(inflate("gzip", whole, step)).toEqual([Buffer.from("the words behind it"), "end"]);
});

test("what is no stream is said to be none, and what breaks gives what it had", () => {
  expect(inflate("zlib", Buffer.from("789c07ff", "hex"), 9)[1]).toBe("broken");
  const packed = deflateSync("a".repeat(100) + "b".repeat(100), { level: 9 });
  const [seen, outcome] = inflate("zlib", packed.subarray(0, -7), 3);
  expect([seen.toString().startsWith("aaaa"), outcome]).toEqual([true, "more"]);
});

test("it stops when nobody wants more", () => {
  let seen = 0;
  const inflater = new Inflater("gzip", ({ length }) => (seen += length) < 100_000);
  expect(inflater.push(gzipSync(Buffer.alloc(50_000_000)))).toBe("broken");
  expect(seen).toBeLessThan(200_000);
});
