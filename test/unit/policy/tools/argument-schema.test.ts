import { expect, test } from "vitest";
import { compileArgumentSchema } from "../../../../src/policy/tools/argument-schema.ts";

const schema = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  type: "object",
  properties: {
    city: { type: "string", pattern: "^[A-Z]" },
    days: { type: "integer", maximum: 7 },
    at: { type: "array", prefixItems: [{ type: "number" }, { type: "number" }], items: false },
  },
  required: ["city"],
  additionalProperties: false,
};

test.each([
  [{ city: "Oslo", days: 7, at: [1, 2] }, undefined],
  [{ city: "oslo" }, "/city must match pattern"],
  [{ city: "Oslo", days: 8 }, "/days must be <= 7"],
  [{ city: "Oslo", days: "7" }, "/days must be integer"],
  [{ city: "Oslo", at: [1, 2, 3] }, "/at must NOT have more than 2 items"],
  [{ city: "Oslo", url: "x" }, "the arguments must NOT have additional properties"],
  [{}, "the arguments must have required property 'city'"],
  [[], "the arguments must be object"],
])("%j", (args, expected) => {
  const objection = compileArgumentSchema(schema).objection(args);
  if (expected === undefined) expect(objection).toBeUndefined();
  else expect(objection).toContain(expected);
});

test.each([
  [{ type: "strnig" }, /type/],
  [{ propreties: {} }, /unknown keyword/],
  [{ type: "string", format: "uri" }, /unknown format/],
  [{ pattern: "(?=a)" }, /linear time/],
  [{ $ref: "https://evil.test/schema.json" }, /can't resolve reference/],
  [{ $schema: "http://json-schema.org/draft-07/schema#" }, /2020-12/],
  [{ type: "array", uniqueItems: true }, /maxItems/],
])("%j is refused when it is compiled", (bad, message) => {
  expect(() => compileArgumentSchema(bad)).toThrow(message);
});

test("a hostile text costs a pattern linear time", () => {
  const slow = compileArgumentSchema({ properties: { a: { type: "string", pattern: "^(a+)+$" } } });
  expect(slow.objection({ a: `${"a".repeat(50_000)}!` })).toContain("/a must match");
});

test("a text that is too long for a pattern grants nothing, and escapes no rule that refuses", () => {
  const compiled = compileArgumentSchema(schema);
  const long = { city: "O".repeat(65_537) };
  expect(compiled.objection(long)).toContain("65536 characters");
  expect([long, { city: "Oslo" }, { city: "oslo" }].map((args) => compiled.mayMatch(args))).toEqual(
    [true, true, false],
  );
});

test("every pattern of a schema is its own", () => {
  const two = compileArgumentSchema({
    properties: { a: { type: "string", pattern: "^a" }, b: { type: "string", pattern: "^b" } },
    patternProperties: { "^x": { type: "number" } },
    additionalProperties: false,
  });
  expect(two.objection({ a: "a", b: "b", x1: 1 })).toBeUndefined();
  expect(two.objection({ a: "b" })).toContain("/a");
  expect(two.objection({ b: "a" })).toContain("/b");
  expect(two.objection({ x1: "1" })).toContain("/x1");
});
