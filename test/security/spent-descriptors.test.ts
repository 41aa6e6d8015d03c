/** Whoever uses up the descriptors of the process ends no other part of it: a program that cannot be run is a fault like others. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const source = (path: string): string =>
  JSON.stringify(new URL(`../../src/${path}`, import.meta.url));

const script = `
import { closeSync, openSync } from "node:fs";
import { RegoCompiler } from ${source("opa/compiler.ts")};
import { ExecSecret } from ${source("secrets/exec-secret.ts")};
const secret = new ExecSecret({ command: ["/bin/true"], env: {}, ttlMs: 1, clock: Date });
const opa = new RegoCompiler({ program: "/bin/true" });
const signal = new AbortController().signal;
let last;
try {
  for (;;) last = openSync("/dev/null");
} catch {
  // One is left, for the folder of the compiler to be removed.
  closeSync(last);
}
const said = [];
for (const run of [() => secret.fetch(undefined, signal), () => opa.compile(new Map(), "", signal)])
  await run().catch(({ message }) => said.push(message));
await new Promise(setImmediate);
process._rawDebug(said.join("\\n"));
`;

test("a command of a secret, and the compiler of policies", async () => {
  const command = 'ulimit -n 64 && exec "$0" --input-type=module-typescript --eval "$1"';
  const run = promisify(execFile)("/bin/sh", ["-c", command, process.execPath, script]);
  expect((await run).stderr.trim().split("\n")).toEqual([
    "the command cannot be run: spawn /bin/true EMFILE",
    "/bin/true cannot be run: spawn /bin/true EMFILE",
  ]);
});
