/** Windows of budgets, in UTC. */
import { expect, test } from "vitest";
import { Calendar, type Window } from "../../../../src/plugins/budgets/window.ts";

const at = (text: string): number => Date.parse(text);

test.each<[Window, string, string, string, string]>([
  [
    "minute",
    "2026-02-28T23:59:59.999Z",
    "2026-02-28T23:59Z",
    "2026-03-01T00:00Z",
    "2026-02-28T23:59",
  ],
  ["hour", "2026-02-28T23:59:59.999Z", "2026-02-28T23:00Z", "2026-03-01T00:00Z", "2026-02-28T23"],
  ["day", "2026-02-28T23:59:59.999Z", "2026-02-28T00:00Z", "2026-03-01T00:00Z", "2026-02-28"],
  // A Sunday, and the Monday after it.
  ["week", "2026-11-29T23:59:59.999Z", "2026-11-23T00:00Z", "2026-11-30T00:00Z", "W2026-11-23"],
  ["week", "2026-11-30T00:00:00.000Z", "2026-11-30T00:00Z", "2026-12-07T00:00Z", "W2026-11-30"],
  ["month", "2028-02-29T12:00:00.000Z", "2028-02-01T00:00Z", "2028-03-01T00:00Z", "2028-02"],
  ["month", "2026-12-31T23:59:59.999Z", "2026-12-01T00:00Z", "2027-01-01T00:00Z", "2026-12"],
])("%s of %s", (window, now, from, until, name) => {
  const calendar = new Calendar(window);
  expect(calendar.at(at(now))).toEqual({ name, from: at(from), until: at(until) });
  // The same stretch until it ends, and another one then; a clock that is set back finds its own.
  expect(calendar.at(at(from)).name).toBe(name);
  expect(calendar.at(at(until)).from).toBe(at(until));
  expect(calendar.at(at(until) - 1).name).toBe(name);
});

test("a lifetime has no end", () => {
  expect(new Calendar("lifetime").at(0)).toMatchObject({ name: "life", until: Infinity });
});
