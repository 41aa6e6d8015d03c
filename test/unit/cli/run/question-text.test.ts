import { expect, test } from "vitest";
import { newWord, typedIn } from "../../../../src/cli/run/question-text.ts";

const order = { kind: "order", scope: "once", duration: "", reason: "" };

test.each([
  ["KQ7M", { ...order, decision: "allow" }],
  [" kq7m ", { ...order, decision: "allow" }],
  ["KQ7M s", { ...order, decision: "allow", scope: "session" }],
  ["KQ7M p", { ...order, decision: "allow", scope: "policy" }],
  ["KQ7M 15m", { ...order, decision: "allow", scope: "duration", duration: "15m" }],
  ["no", { ...order, decision: "deny" }],
  ["no not today", { ...order, decision: "deny", reason: "not today" }],
  ["later", { kind: "later" }],
  ["", { kind: "nothing" }],
  ["yes", { kind: "nothing" }],
  ["allow", { kind: "nothing" }],
  ["s KQ7M", { kind: "nothing" }],
  ["KQ7MX", { kind: "nothing" }],
  ["KQ7M everything", { kind: "nothing" }],
  ["KQ7M 15m more", { kind: "nothing" }],
])("%j is understood", (line, typed) => {
  expect(typedIn(line, "KQ7M")).toEqual(typed);
});

test("each question has a word of its own", () => {
  const words = new Set(Array.from({ length: 100 }, newWord));
  expect(words.size).toBeGreaterThan(90);
  for (const word of words) expect(word).toMatch(/^[A-Z2-9]{4}$/);
});
