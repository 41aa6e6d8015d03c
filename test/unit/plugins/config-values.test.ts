import { expect, test } from "vitest";
import { age, duration } from "../../../src/plugins/config-values.ts";

const problemOf = (schema: ReturnType<typeof duration>, text: string): string | undefined =>
  schema.safeParse(text).error?.issues[0]?.message;

test.each([
  ["a wait that no timer holds, which would be none", duration(), "597h", "must be at most 576h"],
  ["a wait that a timer holds", duration(), "576h", undefined],
  ["a time that is only compared", age(), "2160h", undefined],
  ["one after which no date can be written", age(), "876001h", "must be at most 876000h"],
  ["too short", duration(5_000), "4999ms", "must be at least 5s"],
  ["too long for this key", duration(100, 60_000), "61s", "must be at most 1m"],
  ["no duration", duration(), "1d", 'must be a duration such as "250ms", "30s" or "1h30m"'],
])("%s", (_what, schema, text, problem) => {
  expect(problemOf(schema, text)).toBe(problem);
});
