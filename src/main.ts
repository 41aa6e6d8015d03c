#!/usr/bin/env node
/** The process edge: arguments, signals and exit codes. 0 success, 1 failure while running, 2 bad usage or file. */
// As a whole: an old Node without some of its names has to get as far as the sentence about its age.
import nodeModule from "node:module";
import { parseCommand } from "./cli/arguments/command-line.ts";
import { commands } from "./cli/arguments/commands.ts";
import { nodeProblem, nodeRemedy } from "./cli/version.ts";
import { helpFor, usageFor } from "./cli/arguments/usage.ts";

const tooOld = nodeProblem(process.versions.node);
if (tooOld !== undefined) {
  const line = nodeRemedy(process.argv.slice(2));
  process.stderr.write(`authbridge-proxy: ${tooOld}; without installing one:\n  ${line}\n`);
  process.exit(2);
}
// Compiled code of the last start is used again, where there is a place to keep it; without one nothing is lost.
nodeModule.enableCompileCache();

const argv = process.argv.slice(2);
const asked = parseCommand(argv);
if (asked.kind === "help") {
  process.stdout.write(helpFor(argv));
} else if (asked.kind === "usage-error") {
  process.stderr.write(`authbridge-proxy: ${asked.message}\n\n${usageFor(argv)}`);
  process.exitCode = 2;
} else {
  const { load, exits } = commands[asked.kind];
  const run = await load();
  process.exitCode = await run(asked);
  if (exits === true) process.exit();
}
