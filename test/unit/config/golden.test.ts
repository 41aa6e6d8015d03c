/** Faulty files and the exact problems that they must give: test/golden/config/*.case. */
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { parseConfig } from "../../../src/config/load.ts";
import { formatProblem } from "../../../src/yaml/problem.ts";

const folder = new URL("../../golden/config/", import.meta.url);
const env = { TOP_SECRET: "hunter2", NEWLINES: "one\n      two\n      three" };
const divider = "=====\n";

const cases = readdirSync(folder)
  .filter((name) => name.endsWith(".case"))
  .map((name) => {
    const [yaml = "", expected = ""] = readFileSync(new URL(name, folder), "utf8").split(divider);
    return { name, yaml, expected };
  });

test("there are cases", () => {
  expect(cases.length).toBeGreaterThan(10);
});

test.each(cases)("$name gives exactly its problems", ({ yaml, expected }) => {
  const loaded = parseConfig(Buffer.from(yaml), "config.yaml", { env });
  const problems = loaded.kind === "loaded" ? [] : loaded.problems;
  const printed = problems.map((problem) => `${formatProblem(problem)}\n`).join("");
  expect(printed).toBe(expected);
  expect(printed).not.toBe("");
  expect(printed).not.toContain("hunter2");
});
