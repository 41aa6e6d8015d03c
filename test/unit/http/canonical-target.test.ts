import { array, assert, boolean, constantFrom, property } from "fast-check";
import { expect, test } from "vitest";
import { canonicalTarget } from "../../../src/http/canonical-target.ts";

test.each([
  ["/a/./b/../c", "/a/c"],
  ["/a/b/..", "/a/"],
  ["/", "/"],
  ["//", "/"],
  ["/a//", "/a/"],
  ["/%7Euser/%e4%b8%ad", "/~user/%E4%B8%AD"],
  ["/a%3Bx/b", "/a%3Bx/b"],
  ["/a;x/b", "/a/b"],
  ["/a|b", "/a%7Cb"],
])("%s is %s in the format", (target, path) => {
  expect(canonicalTarget(target)).toMatchObject({ path });
});

test("the query stays byte for byte", () => {
  expect(canonicalTarget("/a/b?x=/../%zz&y=")).toEqual({
    kind: "target",
    path: "/a/b",
    query: "?x=/../%zz&y=",
    readings: ["/a/b"],
    remote: [],
  });
});

test.each([
  ["/\\x", "backslash"],
  ["/%5C", "backslash"],
  ["/%252e%252e/x", "twice"],
  ["/a/./b", "dot segment"],
  ["/a/%c0%ae", "UTF-8"],
])("%s is ambiguous", (target, why) => {
  expect(canonicalTarget(target)).toMatchObject({ ambiguous: expect.stringContaining(why) });
});

test("a canonical path is its own canonical path, and holds no dot segment", () => {
  const piece = constantFrom(
    "a",
    ".",
    "..",
    "/",
    "//",
    ";",
    "%2e",
    "%2F",
    "%25",
    "%3b",
    "\\",
    "é",
    "%41",
    "%c3",
    "~",
  );
  const targets = array(piece, { maxLength: 12 }).map((pieces) => `/${pieces.join("")}`);
  assert(
    property(targets, boolean(), (target, allowEncodedSlash) => {
      const once = canonicalTarget(target, { allowEncodedSlash });
      if (once.kind === "fault") return;
      expect(once.path.split(/\/|%2F/)).not.toContain("..");
      expect(once.path.split(/\/|%2F/)).not.toContain(".");
      const twice = canonicalTarget(once.path, { allowEncodedSlash });
      expect(twice.kind === "fault" ? twice.fault : twice.path).toBe(once.path);
    }),
    { numRuns: 2000 },
  );
});
