/** Stack traces of compiled files name the lines of their sources. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";

const module = new URL("../../../src/cli/stack-trace.ts", import.meta.url).href;
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "authbridge-trace-"));
  writeFileSync(
    join(folder, "made.mjs"),
    "export function fail() { throw new TypeError('no'); }\n",
  );
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** In a process of its own: how traces are written is the process's. */
function traceOf(expression: string): string {
  const made = pathToFileURL(join(folder, "made.mjs")).href;
  const code = `
    const { nameSourceLines } = await import(${JSON.stringify(module)});
    const { fail } = await import(${JSON.stringify(made)});
    nameSourceLines();
    try { ${expression} } catch (error) { console.log(error.stack); }`;
  return execFileSync(process.execPath, ["--input-type=module", "-e", code], { encoding: "utf8" });
}

test("with a map beside the file, by the source's place", () => {
  // Line 1, column 0 of the file is line 7, column 0 of the source.
  const map = { version: 3, sources: ["../src/asked.ts"], names: [], mappings: "AAMA" };
  writeFileSync(join(folder, "made.mjs.map"), JSON.stringify(map));
  const trace = traceOf("fail()");
  const source = new URL("../src/asked.ts", pathToFileURL(join(folder, "made.mjs"))).href;
  expect(trace).toMatch(/^TypeError: no\n {4}at fail \(/);
  expect(trace).toContain(`at fail (${source}:7:`);
});

test.each([
  ["without a map", undefined],
  ["with a map that is none", "{"],
])("%s, as they are", (_name, text) => {
  if (text !== undefined) writeFileSync(join(folder, "made.mjs.map"), text);
  expect(traceOf("fail()")).toMatch(/at fail \(file:.*\/made\.mjs:1:32\)/);
});

test("an error that cannot be written has a trace", () => {
  expect(traceOf("throw Object.assign(new Error('x'), { name: Symbol('y') })")).toMatch(
    /^Error\n {4}at /,
  );
});
