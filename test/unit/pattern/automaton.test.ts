import { describe, expect, test } from "vitest";
import { compileNodes, type GlobNode, oneBut } from "../../../src/pattern/automaton.ts";

const all: GlobNode = { kind: "many", but: "" };
const label: GlobNode = { kind: "many", but: "." };
const either = (...branches: readonly (readonly GlobNode[])[]): GlobNode => ({
  kind: "either",
  branches,
});

describe("compileNodes", () => {
  test.each<[string, readonly GlobNode[], readonly string[], readonly string[]]>([
    ["nothing", [], [""], ["a"]],
    ["literals", ["a", "b"], ["ab"], ["a", "abc", "AB"]],
    ["ends that would overlap", ["a", "b", all, "b", "a"], ["abba", "ab.ba"], ["aba", "abab"]],
    ["a run before an end that has its barrier", [label, ".", "x"], ["a.x", ".x"], ["a.b.x", "x"]],
    ["a run with both ends", ["a", label, ".", "x"], ["a.x", "ab.x"], ["a.b.x", "a.xy"]],
    ["runs beside each other", [label, all, "x"], ["x", "a.x"], ["a.y"]],
    ["alternatives", [either(["a"], ["b", all, "c"]), "."], ["a.", "bc.", "b.c."], ["b.", "."]],
    ["an empty alternative", ["x", either([], ["a"])], ["x", "xa"], ["xaa", "a"]],
    ["only empty alternatives", [either([], [])], [""], ["a"]],
    ["a loop over alternatives", [all, either(["a"], ["b"]), all], ["a", "xby"], ["", "xyz"]],
    ["one character", [oneBut("."), oneBut("")], ["a.", "😀😀"], [".a", "a", "😀"]],
  ])("%s", (_name, nodes, matching, others) => {
    const matches = compileNodes(nodes);
    // Twice: nothing of a text is left for the next one.
    for (const round of [1, 2]) {
      expect(
        matching.filter((text) => !matches(text)),
        `round ${round}`,
      ).toEqual([]);
      expect(others.filter(matches), `round ${round}`).toEqual([]);
    }
  });

  test("braces nest as deep as the longest pattern lets them", () => {
    let node: GlobNode = either(["a"]);
    for (let depth = 0; depth < 512; depth += 1) node = either([node], ["b"]);
    const matches = compileNodes([node]);
    expect(["a", "b", "c"].map(matches)).toEqual([true, true, false]);
  });

  test("a pattern made to backtrack comes back", () => {
    const nodes = Array.from({ length: 60 }, () => [all, "a"]).flat();
    expect(compileNodes([...nodes, oneBut("a")])("a".repeat(2000))).toBe(false);
  });
});
