import { describe, expect, test } from "vitest";
import { Glob, quoteGlob } from "../../../src/pattern/glob.ts";

const slash = ["/"];
const dot = ["."];

describe("path patterns", () => {
  test.each([
    ["**", "/any/thing", true],
    ["**", "", true],
    ["/**", "/", true],
    ["/**", "", false],
    ["/a/*", "/a/b", true],
    ["/a/*", "/a/", true],
    ["/a/*", "/a/b/c", false],
    ["/a/**", "/a/b/c", true],
    ["/a/**", "/a", false],
    ["/a/**/b", "/a/b", true],
    ["/a/**/b", "/a/x/y/b", true],
    ["/a/**/b", "/ab", false],
    ["**/b", "b", true],
    ["**/b", "/x/b", true],
    ["**/b", "xb", false],
    ["a**b", "a/b", false],
    ["/a?c", "/abc", true],
    ["/a?c", "/a/c", false],
    ["/[a-c]x", "/bx", true],
    ["/[!a-c]x", "/bx", false],
    ["/[^a-c]x", "/dx", true],
    ["/[]]", "/]", true],
    ["/[a-]", "/-", true],
    ["/{a,b{c,d}}", "/bd", true],
    ["/{a,b{c,d}}", "/b", false],
    ["/x{,y}", "/x", false],
    ["/{a/**,b}", "/a/z", true],
    [String.raw`/\*`, "/*", true],
    [String.raw`/\*`, "/x", false],
    ["/a,b", "/a,b", true],
    ["/A", "/a", false],
    ["/*", "/é", true],
    ["/?", "/😀", true],
    ["/a*b*c", "/axxbyyc", true],
    ["/a*b*c", "/axxbyy", false],
  ])("%s on %s: %s", (pattern, value, isMatch) => {
    expect(new Glob(pattern, slash).matches(value)).toBe(isMatch);
  });
});

describe("host patterns", () => {
  test.each([
    ["*.example.com", "a.example.com", true],
    ["*.example.com", "a.b.example.com", false],
    ["*.example.com", "example.com", false],
    ["**.example.com", "a.b.example.com", true],
    ["**.example.com", "example.com", false],
    ["**.example.com", "evilexample.com", false],
    ["api.**.com", "api.com", false],
    ["api.**.com", "api.x.y.com", true],
    ["*.s3.*.amazonaws.com", "b.s3.eu.amazonaws.com", true],
    ["api-*.example.com", "api-1.example.com", true],
    ["api-*.example.com", "api-1.x.example.com", false],
  ])("%s on %s: %s", (pattern, value, isMatch) => {
    expect(new Glob(pattern, dot).matches(value)).toBe(isMatch);
  });
});

describe("patterns over values", () => {
  test("stop at dots and cross slashes", () => {
    expect(new Glob("v*", []).matches("v1")).toBe(true);
    expect(new Glob("v*", []).matches("v1.2")).toBe(false);
    expect(new Glob("NVIDIA/*", []).matches("NVIDIA/a/b")).toBe(true);
  });

  test("never match a value with NUL", () => {
    expect(new Glob("**", []).matches("a\0")).toBe(false);
  });
});

describe("endpoint selectors", () => {
  test.each([
    ["/v1/*", "/v1/a/b", true],
    ["/v1/**", "/v1", true],
    ["/v1/**", "/v1/a/b", true],
    ["/v1/**", "/v11", false],
    ["/v1/*/x", "/v1/a/b/x", true],
    ["/{a}", "/{a}", true],
  ])("%s on %s: %s", (pattern, value, isMatch) => {
    expect(new Glob(pattern, slash, { selector: true }).matches(value)).toBe(isMatch);
  });
});

test.each(["[", "[]", "[z-a]", "{a", "a}", "\\", "a\0b", "{".repeat(20), "x".repeat(1025)])(
  "a pattern that cannot be read is refused: %j",
  (pattern) => {
    expect(() => new Glob(pattern, slash)).toThrow();
  },
);

test("a quoted text matches itself only", () => {
  const text = String.raw`/a*b?[c]{d,e}\f`;
  const glob = new Glob(quoteGlob(text), slash);
  expect(glob.matches(text)).toBe(true);
  expect(glob.matches("/axb")).toBe(false);
});
