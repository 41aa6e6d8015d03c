import { expect, test } from "vitest";
import { Serving } from "../../../src/session/serving.ts";
import { Turn } from "../../../src/session/turn.ts";

const turn = (sessionId?: string, startedAt = 0): Turn =>
  new Turn({ id: "flow", sessionId, startedAt, keys: [], isServed: true });

test("the last message of the only conversation is alone", () => {
  const serving = new Serving();
  expect(serving.alone).toBeUndefined();
  const [first, second, third] = [turn("a", 1), turn("a", 2), turn("a", 3)];
  for (const one of [first, second, third]) serving.add(one);
  expect(serving.alone).toBe(third);
  serving.delete(third);
  expect(serving.alone).toBe(second);
  const other = turn("b", 4);
  serving.add(other);
  expect(serving.alone).toBeUndefined();
  serving.delete(first);
  serving.delete(second);
  expect(serving.alone).toBe(other);
  serving.delete(other);
  expect(serving.delete(other)).toBe(false);
  expect([[...serving].length, serving.alone]).toEqual([0, undefined]);
});

test("messages without a name are conversations of their own until they get one", () => {
  const serving = new Serving();
  const [first, second] = [turn(undefined, 1), turn(undefined, 2)];
  serving.add(first);
  expect(serving.alone).toBe(first);
  serving.add(second);
  expect(serving.alone).toBeUndefined();
  for (const one of [second, first]) {
    one.sessionId = "same";
    serving.named(one);
  }
  expect(serving.alone).toBe(second);
  expect([...serving]).toHaveLength(2);
  serving.clear();
  expect([...serving].length).toBe(0);
});
