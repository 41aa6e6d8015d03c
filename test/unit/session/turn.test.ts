/** The index of turns: what is not unambiguous belongs to nobody, however many there are. */
import { describe, expect, test } from "vitest";
import { Turn, TurnIndex } from "../../../src/session/turn.ts";

const now = 1_000;

function turn(id: number, sessionId?: string): Turn {
  return new Turn({ id: `m-${id}`, keys: [], isServed: true, startedAt: now, sessionId });
}

/** Many messages of one user beside one of another, all with the same credential. */
function crowd(others: number) {
  const index = new TurnIndex(60_000);
  const alice = turn(0, "alice");
  index.add("shared", alice, now);
  const bobs = Array.from({ length: others }, (_, at) => turn(at + 1, "bob"));
  for (const one of bobs) index.add("shared", one, now);
  return { index, alice, bobs };
}

describe("a value that two conversations have at once", () => {
  test.each([1, 8, 9, 100])("is nobody's beside %s messages of the other one", (others) => {
    const { index, alice } = crowd(others);
    expect(index.find("shared", now)).toBeUndefined();
    alice.close(now);
    expect(index.find("shared", now)?.sessionId).toBe("bob");
  });

  test("is the first one's when the others are over", () => {
    const { index, alice, bobs } = crowd(100);
    for (const one of bobs) one.close(now);
    expect(index.find("shared", now)).toBe(alice);
  });
});

test("a hundred messages of one conversation are one", () => {
  const index = new TurnIndex(60_000);
  for (let at = 0; at < 100; at += 1) index.add("own", turn(at, "alice"), now);
  expect(index.find("own", now)?.id).toBe("m-99");
});
