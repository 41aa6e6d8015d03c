import * as fc from "fast-check";
import { expect, test } from "vitest";
import { compileBypassPaths, compilePathGlob } from "../../src/pattern/path-pattern.ts";
import { readPath } from "../../src/http/path.ts";

const limits = { interruptAfterTimeLimit: 1500, numRuns: 20_000 };
const rawPath = fc.oneof(
  fc
    .array(
      fc.constantFrom(
        "a",
        "/",
        "//",
        "..",
        ".",
        ";",
        "%2e",
        "%2f",
        "%c3",
        "%a9",
        "%",
        "\\",
        "?",
        "é",
      ),
      { maxLength: 10 },
    )
    .map((pieces) => `/${pieces.join("")}`),
  fc.string(),
);

test("readings are canonical, and the shortest has no dot segment, no empty segment and no parameter", () => {
  fc.assert(
    fc.property(rawPath, (raw) => {
      const { readings, plain } = readPath(raw);
      for (const reading of readings) {
        expect(reading).toMatch(/^\/[\x21-\x7e]*$/);
        expect(reading).not.toMatch(/[\\#?]/);
        expect(readPath(reading).readings[0]).toBe(reading);
      }
      expect(readings).toContain(plain);
      expect(plain).not.toMatch(/;|\/\/|\/\.\.?(?:\/|$)/);
    }),
    limits,
  );
});

test("what WHATWG URL makes of a path that is not ambiguous has the same readings", () => {
  fc.assert(
    fc.property(rawPath, (raw) => {
      const read = readPath(raw);
      fc.pre(read.ambiguous === undefined && raw.startsWith("/"));
      const seen = new URL(`http://a.test${raw}`).pathname;
      expect(readPath(seen)).toEqual(read);
    }),
    limits,
  );
});

test("what a server resolves as a reference is one of the readings", () => {
  fc.assert(
    fc.property(rawPath, (raw) => {
      const read = readPath(raw);
      fc.pre(
        read.ambiguous === undefined && raw.startsWith("/") && URL.canParse(raw, "http://b.test"),
      );
      const seen = new URL(raw, "http://b.test").pathname;
      expect(read.readings).toContain(readPath(seen).readings[0]);
    }),
    limits,
  );
});

test("nothing but the listed path bypasses, however it is spelled", () => {
  const bypass = compileBypassPaths(["/healthz"]);
  fc.assert(
    fc.property(rawPath, (raw) => {
      expect(bypass.matches(raw)).toBe(false);
    }),
    limits,
  );
});

test("a path glob agrees with the regular expression that means the same, or says what is wrong", () => {
  const piece = fc.constantFrom(
    ["a", "a"],
    ["/", "/"],
    ["*", "[^/]*"],
    ["?", "[^/]"],
    ["[ab]", "[ab]"],
    ["[^a]", "[^a]"],
  );
  const path = fc.string({ unit: fc.constantFrom("a", "b", "/"), maxLength: 10 });
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 6 }), path, fc.string(), (pieces, text, odd) => {
      const glob = compilePathGlob(pieces.map(([pattern]) => pattern).join(""));
      const expression = new RegExp(`^${pieces.map(([, meant]) => meant).join("")}$`);
      expect(glob.matches(text)).toBe(expression.test(text));
      try {
        compilePathGlob(odd).matches(text);
      } catch (error) {
        expect(String(error)).toMatch(/path pattern ".*" is invalid/s);
      }
    }),
    limits,
  );
});
