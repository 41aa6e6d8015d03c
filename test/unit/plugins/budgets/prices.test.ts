/** The table of prices: which names are one model, and what tokens cost. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { ownPrices, PriceTable } from "../../../../src/plugins/parsers/prices.ts";

const table = new PriceTable(readFileSync(ownPrices, "utf8"), "prices.yaml");
const million = { promptTokens: 1_000_000, completionTokens: 1_000_000 };

test.each([
  ["gpt-4o", 12.5],
  ["GPT-4o-2024-08-06", 12.5],
  ["openai/gpt-4o-latest", 12.5],
  ["gpt-4o-mini", 0.75],
  ["gpt-4o-mini-2024-07-18", 0.75],
  ["us.anthropic.claude-sonnet-4-5-20250929-v1:0", 18],
  ["claude-3-5-haiku@20241022", 4.8],
  ["models/gemini-2.5-flash-001", 2.8],
  ["claude-opus-4-8-20260801", 30],
  ["global.amazon.nova-pro-v1:0", 4],
  ["openai/gpt-5.4-mini", 5.25],
])("%s costs %d dollars for a million each", (model, dollars) => {
  expect(table.nanosOf(model, million)).toBe(Math.round(dollars * 1e9));
});

test.each(["gpt-5-grand", "gpt-4o-audio-preview", "o3-deep-research", "mine", ""])(
  "%j is not taken for a model that it is not",
  (model) => {
    expect([table.knows(model), table.nanosOf(model, million)]).toEqual([false, undefined]);
  },
);

test.each(["v1:0", "v1:123", "v12:20250929", "v1:1234567890", "v1:0-latest", "v1:123:001"])(
  "%s is a version, and does not make it another model",
  (version) => expect(table.knows(`gpt-4o-${version}`)).toBe(true),
);

test("a name of many versions that is none of a model is read in one way", () => {
  const begun = performance.now();
  expect(table.knows(`gpt-4o${"-v0:123".repeat(24)}!`)).toBe(false);
  expect(performance.now() - begun).toBeLessThan(1_000);
});

test("tokens of the cache have their own prices", () => {
  const usage = { promptTokens: 3_000, cacheReadTokens: 1_000, cacheWriteTokens: 1_000 };
  expect(table.nanosOf("claude-sonnet-4", usage)).toBe((3 + 0.3 + 3.75) * 1e6);
});

test("a table says what is wrong with it, and where", () => {
  expect(() => new PriceTable("as_of: soon\nmodels: { a: { inputs: 1 } }", "mine.yaml")).toThrow(
    /mine\.yaml:1:1 as_of: [\s\S]*mine\.yaml:2:\d+ models\.a\.inputs/,
  );
});
