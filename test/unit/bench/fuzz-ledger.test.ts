/** The table of what was fuzzed adds up, and loses nothing that stands around it. */
import { expect, test } from "vitest";
import { type FuzzRun, withRun } from "../../../scripts/fuzz-ledger.ts";

const run: FuzzRun = { target: "jwt", seconds: 3_599.6, inputs: 70, finds: 0, date: "2026-11-29" };

test("a first run makes the table, others add to their row", () => {
  const one = withRun("# Fuzzing\n", run);
  expect(one.split("\n")).toEqual([
    "# Fuzzing",
    "",
    "| target | time in all | inputs | finds | last run   |",
    "| ------ | ----------- | ------ | ----- | ---------- |",
    "| `jwt`  | 1:00:00     | 70     | 0     | 2026-11-29 |",
    "",
  ]);
  const more = withRun(`${one}\nNotes.\n`, {
    ...run,
    seconds: 61,
    inputs: 5,
    finds: 1,
    date: "2027-01-02",
  });
  const both = withRun(more, { ...run, target: "der", seconds: 9 });
  expect(both.split("\n").slice(2)).toEqual([
    "| target | time in all | inputs | finds | last run   |",
    "| ------ | ----------- | ------ | ----- | ---------- |",
    "| `der`  | 0:00:09     | 70     | 0     | 2026-11-29 |",
    "| `jwt`  | 1:01:01     | 75     | 1     | 2027-01-02 |",
    "",
    "Notes.",
    "",
  ]);
});

test("a row that was edited to something else is a problem, and not lost", () => {
  const text = withRun("", run).replace("1:00:00", "an hour");
  expect(() => withRun(text, run)).toThrow("no row of a ledger: | `jwt`");
});
