import { expect, test } from "vitest";
import { allowedIdProblem, AllowedIds } from "../../../src/spiffe/allowed-ids.ts";
import { parseSpiffeId, type SpiffeId } from "../../../src/spiffe/spiffe-id.ts";

function id(text: string): SpiffeId {
  const parsed = parseSpiffeId(text);
  if (typeof parsed === "string") throw new Error(parsed);
  return parsed;
}

test.each([
  ["spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/b", true],
  ["spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/bc", false],
  ["spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/b/c", false],
  ["spiffe://td/ns/a/sa/b", "spiffe://other/ns/a/sa/b", false],
  ["spiffe://td", "spiffe://td/anything", true],
  ["spiffe://td", "spiffe://td", true],
  ["spiffe://td", "spiffe://td.evil/anything", false],
  ["spiffe://td/*", "spiffe://td/anything/below", true],
  ["spiffe://td/*", "spiffe://td", false],
  ["spiffe://td/ns/a/*", "spiffe://td/ns/a/sa/b", true],
  ["spiffe://td/ns/a/*", "spiffe://td/ns/a", false],
  ["spiffe://td/ns/a/*", "spiffe://td/ns/ab/sa/b", false],
  ["spiffe://td/ns/a/*", "spiffe://td.evil/ns/a/sa/b", false],
])("%s and %s: %s", (pattern, text, isAllowed) => {
  expect(allowedIdProblem(pattern)).toBeUndefined();
  expect(new AllowedIds([pattern]).allows(id(text))).toBe(isAllowed);
});

test("without a list every ID is allowed, with an empty one none is", () => {
  expect(new AllowedIds().allows(id("spiffe://td/x"))).toBe(true);
  expect(new AllowedIds([]).allows(id("spiffe://td/x"))).toBe(false);
});

test.each([
  "td/x",
  "spiffe://",
  "spiffe:///x",
  "spiffe://td/",
  "spiffe://td/a*",
  "spiffe://td/*/b",
  "spiffe://TD/x",
  "spiffe://*/x",
  "spiffe://*",
  "spiffe://td/../x",
  "*",
])("%s is no pattern", (pattern) => {
  expect(allowedIdProblem(pattern)).toMatch(/^must be spiffe:\/\/domain/);
});
