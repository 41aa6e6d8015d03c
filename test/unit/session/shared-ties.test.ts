/** Many users behind one value: whose a message is must not be claimed because the others were forgotten. */
import { describe, expect, test } from "vitest";
import { SharedTies } from "../../../src/session/shared-ties.ts";
import { Turn } from "../../../src/session/turn.ts";
import { MemoryStore } from "../../../src/state/memory-store.ts";

const key = "bearer";
const hour = 3_600_000;

function tiesAt(clock: { now(): number }): SharedTies {
  const store = new MemoryStore({ maxBytes: 1_048_576, clock });
  return new SharedTies({ store, ttlMs: hour, refusesWhenAway: true, clock });
}

function turnOf(user: number, startedAt: number): Turn {
  const id = `m${user}`;
  const [sessionId, intent] = [`s${user}`, `do ${user}`];
  return new Turn({ id, sessionId, intent, startedAt, keys: [key], isServed: true });
}

describe("a hundred users with one credential", () => {
  const clock = { now: () => 1_000_000 };
  const turns = Array.from({ length: 100 }, (_, user) => turnOf(user, clock.now()));

  test("one that is served longest is not forgotten", async () => {
    const ties = tiesAt(clock);
    for (const turn of turns) await ties.tell([key], turn);
    // The first and the last are served all the while.
    for (const turn of turns.slice(1, -1)) {
      turn.isOpen = false;
      await ties.tell([key], turn);
      expect(await ties.find([key])).toBe("several");
    }
    const last = turns.at(-1) ?? turnOf(0, 0);
    last.isOpen = false;
    await ties.tell([key], last);
    expect(await ties.find([key])).toMatchObject({ shared: { sessionId: "s0" } });
  });

  test("told of at once, none is lost", async () => {
    const ties = tiesAt(clock);
    const many = Array.from({ length: 20 }, (_, user) => turnOf(user, clock.now()));
    await Promise.all(many.map((turn) => ties.tell([key], turn)));
    for (const turn of many.slice(1)) {
      turn.isOpen = false;
      await ties.tell([key], turn);
    }
    expect(await ties.find([key])).toMatchObject({ shared: { sessionId: "s0" } });
  });
});

test("one whose replica ended without a word is not served for ever", async () => {
  let now = 1_000_000;
  const ties = tiesAt({ now: () => now });
  await ties.tell([key], turnOf(1, now));
  now += hour / 2;
  await ties.tell([key], turnOf(2, now));
  expect(await ties.find([key])).toBe("several");
  now += hour / 2 + 1;
  expect(await ties.find([key])).toMatchObject({ shared: { sessionId: "s2" } });
});
