import * as fc from "fast-check";
import { expect, test } from "vitest";
import { compileHostGlob } from "../../src/pattern/host-pattern.ts";

const limits = { interruptAfterTimeLimit: 1500, numRuns: 10_000 };
const host = fc.string({ unit: fc.constantFrom("a", "b", ".", "-"), maxLength: 12 });

type Piece = readonly [pattern: string, expression: string];
const piece: fc.Arbitrary<Piece> = fc.letrec<{ piece: Piece; group: Piece }>((tie) => ({
  piece: fc.oneof(
    { depthSize: "small" },
    fc.constantFrom<Piece>(
      ["a", "a"],
      ["b", "b"],
      [".", "\\."],
      ["*", "[^.]*"],
      ["**", ".*"],
      ["?", "[^.]"],
      ["[ab]", "[ab]"],
      ["[!a]", "[^a]"],
    ),
    tie("group"),
  ),
  group: fc
    .array(tie("piece"), { minLength: 1, maxLength: 3 })
    .map((parts): Piece => [
      `{${parts.map(([pattern]) => pattern).join(",")}}`,
      `(?:${parts.map(([, expression]) => expression).join("|")})`,
    ]),
})).piece;

test("agrees with the regular expression that means the same", () => {
  fc.assert(
    fc.property(fc.array(piece, { minLength: 1, maxLength: 5 }), host, (pieces, text) => {
      let pattern = "";
      let expression = "";
      for (const [written, meant] of pieces) {
        // "*" beside "*" would be read as "**".
        if (pattern.endsWith("*") && written.startsWith("*")) {
          continue;
        }
        pattern += written;
        expression += meant;
      }
      // A root dot is no part of a canonical name.
      fc.pre(!pattern.endsWith("."));
      expect(compileHostGlob(pattern).matches(text)).toBe(
        new RegExp(`^(?:${expression})$`).test(text),
      );
    }),
    limits,
  );
});

test("any text is a pattern or an Error that says what is wrong", () => {
  const text = fc.oneof(
    fc.string(),
    fc.string({ unit: fc.constantFrom(..."a*?[]{},!-\\.".split("")) }),
  );
  fc.assert(
    fc.property(text, host, (pattern, name) => {
      try {
        compileHostGlob(pattern).matches(name);
      } catch (error) {
        expect(String(error)).toMatch(/^Error: host pattern ".*" is invalid/s);
      }
    }),
    limits,
  );
});
