import * as fc from "fast-check";
import { expect, test } from "vitest";
import { HeaderList, stripHopByHop } from "../../src/http/headers.ts";

const limits = { interruptAfterTimeLimit: 1500, numRuns: 10_000 };
const name = fc.oneof(
  fc.constantFrom("Host", "CONNECTION", "connection", "te", "Upgrade", "x-a", "X-A", "Cookie"),
  fc.string({ maxLength: 20 }),
);
const value = fc.oneof(
  fc.constantFrom("close", "keep-alive, x-a", "host", "chunked", "Upgrade, TE"),
  fc.string({ maxLength: 20 }),
);
const raw = fc.array(fc.tuple(name, value), { maxLength: 12 }).map((fields) => fields.flat());

test("stripping twice is stripping once, keeps the order and invents nothing", () => {
  fc.assert(
    fc.property(raw, (fields) => {
      const once = stripHopByHop(fields);
      expect(stripHopByHop(once)).toEqual(once);
      let from = 0;
      for (let at = 0; at < once.length; at += 2) {
        while (fields[from] !== once[at] || fields[from + 1] !== once[at + 1]) {
          from += 2;
          expect(from).toBeLessThan(fields.length);
        }
        from += 2;
      }
    }),
    limits,
  );
});

test("a list agrees with a model of lines", () => {
  fc.assert(
    fc.property(raw, name, (fields, wanted) => {
      const headers = new HeaderList(fields.slice());
      const lines: string[] = [];
      for (let at = 0; at < fields.length; at += 2) {
        if (fields[at]?.toLowerCase() === wanted.toLowerCase()) {
          lines.push(fields[at + 1] ?? "");
        }
      }
      expect(headers.getAll(wanted)).toEqual(lines);
      expect(headers.delete(wanted)).toBe(lines.length > 0);
      expect(headers.has(wanted)).toBe(false);
      expect(headers.raw.length).toBe(fields.length - lines.length * 2);
    }),
    limits,
  );
});
