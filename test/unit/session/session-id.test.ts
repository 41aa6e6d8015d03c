/** Names of sessions are bounded, and different names stay different. */
import { expect, test } from "vitest";
import { restoreJournal } from "../../../src/session/journal.ts";
import { maxSessionIdLength, sessionIdOf } from "../../../src/session/session-id.ts";

test("a name that fits is the id", () => {
  const name = "a".repeat(maxSessionIdLength);
  expect(sessionIdOf(name)).toBe(name);
});

test("names that begin alike are two sessions, and the id of an id is the id", () => {
  const begin = "a".repeat(maxSessionIdLength);
  const [one, other] = [sessionIdOf(`${begin}b`), sessionIdOf(`${begin}c`)];
  expect(one).not.toBe(other);
  expect([one.length, other.length]).toEqual([maxSessionIdLength, maxSessionIdLength]);
  expect(sessionIdOf(one)).toBe(one);
  expect(one.startsWith("a".repeat(200))).toBe(true);
});

test("what has no end is no journal", async () => {
  const into = { restore: () => undefined, rekey: () => undefined };
  expect(await restoreJournal("/dev/zero", 1, into)).toEqual({ restored: 0, skipped: 0 });
});
