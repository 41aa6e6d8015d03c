import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { nodeProblem, nodeRemedy } from "../../../src/cli/version.ts";

test("a Node.js that is too old is told in words, with the version that package.json asks for", () => {
  const manifest = readFileSync("package.json", "utf8");
  const [, wanted] = /"node": ">=(\d+\.\d+)\.0"/.exec(manifest) ?? [];
  expect(nodeProblem("20.20.2")).toBe(
    `Node.js ${wanted ?? ""} or later is needed, this is 20.20.2`,
  );
  expect(nodeProblem("22.18.0")).toContain("this is 22.18.0");
  for (const version of ["22.19.0", "24.0.0", process.versions.node])
    expect(nodeProblem(version)).toBeUndefined();
});

test("the line to run instead has the same arguments, whatever is in them", () => {
  const program = "npx -p node@24 -p authbridge-proxy authbridge-proxy";
  expect(nodeRemedy([])).toBe(program);
  expect(nodeRemedy(["run", "--", "sh", "-c", "echo 'a b'; exit"])).toBe(
    `${program} run -- sh -c 'echo '\\''a b'\\''; exit'`,
  );
  expect(nodeRemedy(["--config=./a.yaml"])).toBe(`${program} --config=./a.yaml`);
});
