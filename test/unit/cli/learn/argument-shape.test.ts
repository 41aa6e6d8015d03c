import { describe, expect, test } from "vitest";
import { shapeOf } from "../../../../src/cli/learn/argument-shape.ts";
import { compileArgumentSchema } from "../../../../src/policy/tools/argument-schema.ts";

function accepts(seen: readonly unknown[], value: unknown): boolean {
  const args = seen.map((one) => ({ value: one }));
  return compileArgumentSchema(shapeOf(args)).objection({ value }) === undefined;
}

const long = "x".repeat(100);

describe("the shape of arguments", () => {
  test.each<[unknown[], unknown[], unknown[]]>([
    [["Oslo", "Rome"], ["Rome"], ["rome", "Oslo ", 1, null]],
    [
      [1, 5],
      [1, 3, 5],
      [0, 6, 1.5, "1"],
    ],
    [
      [0.5, 2],
      [0.5, 1, 2],
      [2.1, "1"],
    ],
    [[true], [true], [false]],
    [[null], [null], [0]],
    [
      [[1, 2], [3]],
      [[1], [2, 3]],
      [[1, 2, 3], [4], ["1"]],
    ],
    [
      [{ a: 1 }, { a: 1, b: "x" }],
      [{ a: 1 }, { a: 1, b: "x" }],
      [{}, { b: "x" }, { a: 1, c: 1 }],
    ],
    [
      ["42", "77"],
      ["99", "3f2a9c1"],
      ["../etc", "a b", ""],
    ],
    [
      ["https://a.test/x", "https://b.test:8443/y?z"],
      ["https://a.test", "https://a.test/other#f", "https://b.test:8443/"],
      ["http://a.test/x", "https://a.test.evil/", "https://a.test@evil/", "https://a.test\\evil"],
    ],
    [[long], [long.slice(1)], [long + long]],
    [["a [REDACTED] b"], ["anything at all"], [1]],
    [
      [1, "a"],
      [1, "a"],
      [2, "b", true],
    ],
  ])("of %j accepts %j and refuses %j", (seen, good, bad) => {
    for (const value of [...seen.filter((one) => !String(one).includes("[RED")), ...good])
      expect(accepts(seen, value), JSON.stringify(value)).toBe(true);
    for (const value of bad) expect(accepts(seen, value), JSON.stringify(value)).toBe(false);
  });

  test("of many files is their folder", () => {
    const files = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].map(
      (name) => `/work/src/${name}.ts`,
    );
    expect(accepts(files, "/work/src/deep/er.ts")).toBe(true);
    for (const path of ["/work/x.ts", "/work/src/../x", "/work/src/.ssh", "/work/src"])
      expect(accepts(files, path), path).toBe(false);
  });

  test("can be what was seen and nothing else", () => {
    const schema = compileArgumentSchema(shapeOf([{ n: 1 }, { n: 5 }], true));
    expect(schema.objection({ n: 3 })).toBeDefined();
    expect(schema.objection({ n: 5 })).toBeUndefined();
  });
});
