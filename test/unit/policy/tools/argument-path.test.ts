import { expect, test } from "vitest";
import { parseArgumentPath, selectArguments } from "../../../../src/policy/tools/argument-path.ts";

const args = {
  url: "u",
  "a.b": 1,
  "x/y": 2,
  nested: { list: [{ url: "1" }, { url: "2" }, {}], empty: [] },
  URLs: "v",
  masked: { taſK: "v" },
};

const value = (of: unknown) => ({ kind: "value", value: of });
const missing = { kind: "missing" };

test.each([
  ["url", [value("u")]],
  ["/url", [value("u")]],
  ["nested.list.url", [value("1"), value("2"), missing]],
  ["nested.list.*.url", [value("1"), value("2"), missing]],
  ["nested.list.0.url", [value("1")]],
  ["/nested/list/1/url", [value("2")]],
  ["nested.list.9.url", [missing]],
  ["nested.empty.url", [missing]],
  ["/a.b", [value(1)]],
  ["/x~1y", [value(2)]],
  ["url.host", [missing]],
  ["none", [missing]],
  ["urls", [{ kind: "ambiguous" }]],
  ["masked.task", [{ kind: "ambiguous" }]],
  ["__proto__", [missing]],
  ["constructor", [missing]],
])("%s", (path, expected) => {
  expect(selectArguments(args, parseArgumentPath(path))).toEqual(expected);
});

test.each(["", "a..b", "/a~2", "a.".repeat(40)])("%j is no address", (path) => {
  expect(() => parseArgumentPath(path)).toThrow();
});
