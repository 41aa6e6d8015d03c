import { expect, test } from "vitest";
import { formatKillFile, parseKillFile } from "../../../../src/app/kills/kill-file.ts";
import type { Kill } from "../../../../src/pipeline/kill-switch.ts";

const kills: readonly Kill[] = [
  { scope: "caller", value: "agent-1", at: 1 },
  { scope: "destination", value: "one.test", reason: "incident 7", at: 1 },
];
const ids = new Map([["caller agent-1", ["abc"]]]);
const text = formatKillFile(kills, ids);

test("what is written is read", () => {
  const read = parseKillFile(text, 1);
  expect(read.problem).toBeUndefined();
  expect(read.kills).toEqual(kills);
  expect(read.ids?.get("caller agent-1")).toEqual(["abc"]);
});

test.each(["a b", "a#b", ' "', "\\", '"quoted"', "two\nlines", "\u2028", "\u00a0x", "\ud800"])(
  "a session may have any name: %j",
  (value) => {
    const one: Kill = { scope: "session", value, reason: "why # not", at: 1 };
    const read = parseKillFile(formatKillFile([one], new Map([[`session ${value}`, ["x"]]])), 1);
    expect([read.problem, read.kills, read.ids?.get(`session ${value}`)]).toEqual([
      undefined,
      [one],
      ["x"],
    ]);
  },
);

test.each(['session "a', 'session "a" b', "caller a b", 'session "\\x"'])(
  "what is not understood stops all: %s",
  (line) => {
    const { kills, problem } = parseKillFile(`${line}\n`, 1);
    expect([kills, problem]).toEqual([[], expect.stringMatching(/^line 1: /)]);
  },
);

test("a file that was cut at any length stops all", () => {
  // Its last line end says nothing.
  for (let length = 0; length < text.length - 1; length += 1)
    expect(parseKillFile(text.slice(0, length), 1).problem, `${length} characters`).toBeDefined();
});

test("an operator adds a line behind what was written, and takes one out", () => {
  const added = parseKillFile(`${text}session s-1\n`, 1);
  expect(added.problem).toBeUndefined();
  expect(added.kills).toHaveLength(3);
  const taken = parseKillFile(text.replace("caller agent-1\n", ""), 1);
  expect([taken.problem, taken.kills.length]).toEqual([undefined, 1]);
});

test("what is written by hand needs no end", () => {
  expect(parseKillFile("# mine\nall\n", 1)).toMatchObject({ kills: [{ scope: "all" }] });
});

test.each([
  ["[::1]", "::1"],
  ["0:0:0:0:0:0:0:1", "::1"],
  ["::ffff:127.0.0.1", "127.0.0.1"],
  ["agent-1", "agent-1"],
  ["spiffe://example.org/agent", "spiffe://example.org/agent"],
])("a caller by its address has one spelling: %s", (spelled, value) => {
  expect(parseKillFile(`caller ${spelled}\n`, 1).kills).toMatchObject([{ value }]);
});
