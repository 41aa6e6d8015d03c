import { describe, expect, test } from "vitest";
import { compileBypassPaths, compilePathGlob } from "../../../src/pattern/path-pattern.ts";

describe("compilePathGlob", () => {
  test.each([
    ["/a", ["/a"], ["/a/", "/A", "/ab"]],
    ["/a/*", ["/a/", "/a/b"], ["/a", "/a/b/c"]],
    ["/a/**", ["/a/b"], ["/a/b/c"]],
    ["*x", ["x", "ax"], ["/x"]],
    ["a*b*c", ["abc", "aXbbYc"], ["ab", "a/bc"]],
    ["/?x", ["/😀x"], ["/abx"]],
    ["/[😀-😎]?", ["/😁a"], ["/a😁"]],
    ["ab*ba", ["abba", "abxba"], ["aba"]],
    ["a?c", ["abc"], ["ac", "a/c", "abbc"]],
    ["[a-c]", ["a", "c"], ["d", "ab"]],
    ["[^a-c]", ["d"], ["a"]],
    ["[a\\-c]", ["-"], ["b"]],
    ["\\*", ["*"], ["a"]],
    ["a]b", ["a]b"], []],
    ["{a,b}", ["{a,b}"], ["a"]],
  ])("%s means what it means in Go", (pattern, matching, others) => {
    const glob = compilePathGlob(pattern);
    expect(matching.filter((path) => !glob.matches(path))).toEqual([]);
    expect(others.filter((path) => glob.matches(path))).toEqual([]);
  });

  test.each(["[", "[]", "[]a]", "[^]", "[-]", "[x-]", "[-x]", "[a-b-c]", "a[", "a\\", "[b-a]"])(
    "refuses %s",
    (pattern) => {
      expect(() => compilePathGlob(pattern)).toThrow(/path pattern .* is invalid/);
    },
  );

  test("a pattern made to backtrack comes back", () => {
    expect(compilePathGlob(`${"*a".repeat(60)}x`).matches(`${"a".repeat(4000)}b`)).toBe(false);
  });
});

describe("compileBypassPaths", () => {
  const usual = compileBypassPaths(["/.well-known/*", "/healthz", "/readyz", "/livez", "/metrics"]);

  test.each([
    "/.well-known/agent.json",
    "/readyz",
    "/livez",
    "/metrics",
    "/healthz?verbose=true",
    "/healthz/",
    "/healthz?x=/admin",
    "/healthz?x=//admin/../%68",
    "/.well-known/caf%C3%A9",
    "/.well-known/caf%c3%a9",
  ])("lets %s by", (target) => {
    expect(usual.matches(target)).toBe(true);
  });

  test.each([
    "/test",
    "/api/v1/agents",
    "/",
    "/metrics/cadvisor",
    "/.well-known/foo/bar",
    "//healthz",
    "///healthz",
    "/healthz//",
    "//.well-known/mcp",
    "///.well-known/mcp",
    "/.well-known//mcp",
    "/./healthz",
    "/healthz/.",
    "/foo/../healthz",
    "/%68ealthz",
    "/.well-known/%6Dcp",
    "/.well-known/a;b=c",
    "/.well-known/a%3Bb",
    "/healthz/../admin",
    "/healthz%2f..%2fadmin",
    "/HEALTHZ",
    "/healthz;/admin",
    "/healthz;x",
    "/.well-known/;/admin",
    "/.well-known/..;/admin",
    "/.well-known/%2e%2e/healthz",
    "/.well-known/..%5cadmin",
    "/.well-known//../healthz",
    "/.well-known/%252e%252e",
    "/healthz%00",
    "/healthz#",
    "healthz",
  ])("does not let %s by", (target) => {
    expect(usual.matches(target)).toBe(false);
  });

  test.each(["", "  ", "*", "/*", " /* ", "/**", "[invalid"])(
    "refuses the pattern %j",
    (pattern) => {
      expect(() => compileBypassPaths([pattern])).toThrow(/bypass_paths|path pattern/);
    },
  );

  test("a path that a server resolves as a reference to another path is never let by", () => {
    const targets = ["/healthz", "/.well-known/mcp", "/readyz/", "/mcp"].flatMap((path) =>
      ["", "/", "//", "/x", "//x", "\\", "/\\", "/.", "/..", "/x/.."].map(
        (prefix) => prefix + path,
      ),
    );
    for (const target of targets) {
      const read = new URL(target, "http://backend.test").pathname;
      if (read !== target) expect(usual.matches(target), target).toBe(false);
    }
  });

  test("trims patterns and keeps * within a segment", () => {
    const bypass = compileBypassPaths([" /public/* ", "/status"]);
    const targets = ["/public/index.html", "/status", "/private/data", "/public/a/b"];
    expect(targets.map((target) => bypass.matches(target))).toEqual([true, true, false, false]);
  });
});
