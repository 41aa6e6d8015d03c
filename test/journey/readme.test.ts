/** Whoever follows README.md word by word gets what it says, from nothing. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { enclosureProblem } from "../../src/cli/enforce/namespace.ts";
import { mainFile } from "../support/program.ts";
import { walkReadme } from "../support/readme-path.ts";

let directory = "";
const problem = process.platform === "linux" ? enclosureProblem() : "only Linux has namespaces";

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "authbridge-readme-test-"));
  // As an installed package has it, with the program from its sources.
  const programs = join(directory, "node_modules", ".bin");
  mkdirSync(programs, { recursive: true });
  const program = join(programs, "authbridge-proxy");
  writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${mainFile}" "$@"\n`);
  chmodSync(program, 0o755);
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

test(`the five-minute path${problem === undefined ? "" : `, without --enforce (${problem})`}`, async () => {
  const path = [dirname(process.execPath), process.env["PATH"] ?? ""].join(":");
  const env = { PATH: path, HOME: directory, TMPDIR: directory };
  const { faults } = await walkReadme({ directory, env, canEnforce: problem === undefined });
  expect(faults).toEqual([]);
}, 120_000);
