/** All problems of a file that was rejected: those of its keys, and those of its plugins where they can be told. */
import type { RejectedConfig } from "../config/load.ts";
import type { Problem } from "../config/problem.ts";
import { chainProblems } from "../pipeline/assemble.ts";
import { located } from "./build-problems.ts";
import { buildProblems } from "./build-problems.ts";
import { definitionsFor } from "./definitions.ts";
import { entryOf } from "./plugin-entry.ts";

/** In the order of the file. */
export async function rejectedProblems(rejected: RejectedConfig): Promise<readonly Problem[]> {
  const { rest, problems } = rejected;
  if (rest === undefined) return problems;
  const definitions = await definitionsFor(rest);
  const found = (["inbound", "outbound"] as const).flatMap((direction) => {
    const entries = rest.config.pipeline[direction].plugins.map(entryOf);
    return located(direction, chainProblems(entries, definitions));
  });
  const all = [...problems, ...buildProblems(rest, found)];
  return all.sort((a, b) => a.line - b.line || a.column - b.column);
}
