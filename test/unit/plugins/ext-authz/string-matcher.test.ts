/** Envoy's matchers for names of header fields, which have no case. */
import { expect, test } from "vitest";
import { patternList, StringMatcher } from "../../../../src/plugins/ext-authz/string-matcher.ts";

const matcherOf = (...patterns: unknown[]): StringMatcher =>
  new StringMatcher(patternList().parse({ patterns }));

test.each<[unknown, string[], string[]]>([
  ["X-Tenant", ["x-tenant"], ["x-tenant-id", "y-x-tenant"]],
  [{ exact: "X-Tenant" }, ["x-tenant"], ["x-tenant-id"]],
  [{ prefix: "X-Te" }, ["x-te", "x-tenant"], ["y-x-te"]],
  [{ suffix: "-Id" }, ["x-id"], ["x-id-2"]],
  [{ contains: "Ten" }, ["x-tenant"], ["x-te-n"]],
  [{ safe_regex: { regex: "X-T.*" } }, ["x-tenant"], ["y-x-tenant", "xx"]],
  [{ safe_regex: { regex: "x-[A-C]" } }, ["x-b"], ["x-d", "x-bb"]],
  [{ exact: "x-tenant", ignore_case: false }, ["x-tenant"], ["x"]],
])("%j", (pattern, matching, others) => {
  const matcher = matcherOf("unrelated", pattern);
  expect(matching.filter((name) => !matcher.matches(name))).toEqual([]);
  expect(others.filter((name) => matcher.matches(name))).toEqual([]);
});

test.each<[object, string]>([
  [{}, "needs one of"],
  [{ exact: "a", prefix: "b" }, "needs one of"],
  [{ prefix: "" }, "prefix"],
  [{ safe_regex: { regex: "(a)\\1" } }, "linear time"],
  [{ exact: "X-Tenant", ignore_case: false }, "compared in lower case"],
  [{ contains: "Ten", ignore_case: false }, "compared in lower case"],
])("%j is refused", (pattern, words) => {
  const { error } = patternList().safeParse({ patterns: [pattern] });
  expect(JSON.stringify(error?.issues)).toContain(words);
});
