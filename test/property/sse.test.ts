import * as fc from "fast-check";
import { expect, test } from "vitest";
import { JsonLineReader } from "../../src/http/json-lines.ts";
import { type SseFields, SseReader, writeSseFrame } from "../../src/http/sse.ts";

const limits = { interruptAfterTimeLimit: 1500, numRuns: 10_000 };
const line = fc
  .string({ unit: "grapheme", maxLength: 8 })
  .map((text) => text.replace(/[\p{Cc}\u2028\u2029]/gu, "") + "x");

function readInPieces(bytes: Buffer, sizes: readonly number[]): SseFields[] {
  const reader = new SseReader({ limitBytes: 100_000 });
  const frames: SseFields[] = [];
  let at = 0;
  for (const size of sizes) {
    frames.push(...reader.push(bytes.subarray(at, at + size)));
    at += size;
  }
  frames.push(...reader.push(bytes.subarray(at)), ...reader.end());
  return frames.map(({ event, data, id, comments }) => ({
    ...(event !== undefined && { event }),
    ...(data !== undefined && { data }),
    ...(id !== undefined && { id }),
    ...(comments !== undefined && { comments }),
  }));
}

test("what was written is read back, however it is cut and whatever ends its lines", () => {
  const frame = fc.record({
    event: line,
    id: line,
    data: fc.array(line, { minLength: 1, maxLength: 3 }).map((lines) => lines.join("\n")),
    comments: fc.array(line, { maxLength: 2 }),
  });
  const sizes = fc.array(fc.nat(7), { maxLength: 40 });
  fc.assert(
    fc.property(
      fc.array(frame, { maxLength: 4 }),
      sizes,
      fc.constantFrom("\n", "\r\n", "\r"),
      (frames, cuts, newline) => {
        const text = frames.map(writeSseFrame).join("").replaceAll("\n", newline);
        expect(readInPieces(Buffer.from(text), cuts)).toEqual(frames);
      },
    ),
    limits,
  );
});

test("any bytes are read the same whole and in pieces", () => {
  const bytes = fc
    .array(fc.constantFrom("\r", "\n", "data: x", `data: ${"y".repeat(200)}`, ":", "id", "é"), {
      maxLength: 20,
    })
    .map((pieces) => Buffer.from(pieces.join("")));
  fc.assert(
    fc.property(bytes, fc.array(fc.nat(3), { maxLength: 40 }), (whole, cuts) => {
      expect(readInPieces(whole, cuts)).toEqual(readInPieces(whole, []));
    }),
    limits,
  );
});

test("lines of JSON keep every byte, however they are cut, and data is the line without its end", () => {
  const bytes = fc
    .array(fc.constantFrom("\r\n", "\n", '{"a":"é"}', " ", "1"), { maxLength: 20 })
    .map((pieces) => Buffer.from(pieces.join("")));
  fc.assert(
    fc.property(bytes, fc.array(fc.nat(3), { maxLength: 40 }), (whole, sizes) => {
      const reader = new JsonLineReader({ limitBytes: 1_000 });
      let at = 0;
      const lines = sizes.flatMap((size) => reader.push(whole.subarray(at, (at += size))));
      lines.push(...reader.push(whole.subarray(at)), ...reader.end());
      expect(Buffer.concat(lines.map(({ raw }) => raw))).toEqual(whole);
      expect(lines.map(({ data }) => data?.toString() ?? "")).toEqual(
        whole
          .toString()
          .split("\n")
          .map((line) => line.trimEnd())
          .slice(0, lines.length),
      );
    }),
    limits,
  );
});
