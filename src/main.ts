#!/usr/bin/env node
/** The process edge: the age of Node, the cache of compiled code, and then the program. */
import { nodeProblem, nodeRemedy } from "./cli/version.ts";
import { useCompileCache } from "./cli/compile-cache.ts";
import { nameSourceLines } from "./cli/stack-trace.ts";

const args = process.argv.slice(2);
const tooOld = nodeProblem(process.versions.node);
if (tooOld !== undefined) {
  process.stderr.write(
    `authbridge-proxy: ${tooOld}; without installing one:\n  ${nodeRemedy(args)}\n`,
  );
  process.exit(2);
}
useCompileCache(import.meta.dirname);
if (!import.meta.url.endsWith(".ts")) nameSourceLines();
// Loaded from here on, so that the cache has it.
const { runCommand } = await import("./cli/arguments/run-command.ts");
await runCommand(args);
