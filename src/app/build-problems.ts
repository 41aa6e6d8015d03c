/** Problems that building found, with the place in the file that they are about. */
import type { LoadedConfig } from "../config/load.ts";
import { type KeyPath, nearestKey, type Problem } from "../config/problem.ts";
import type { AssemblyProblem } from "../pipeline/assemble.ts";
import type { Direction } from "../pipeline/flow.ts";

/** Something wrong with the file that only building could find. */
export interface BuildProblem {
  readonly path: KeyPath;
  readonly message: string;
  /** The plugin schema's issue, when there is one. */
  readonly issue?: AssemblyProblem["issue"];
}

/** Words each problem once, unknown plugin keys with the nearest known one where the schema tells. */
export function buildProblems(
  loaded: Pick<LoadedConfig, "problemAt">,
  problems: readonly BuildProblem[],
): Problem[] {
  return problems.flatMap((problem) => wordProblem(loaded, problem));
}

function wordProblem(loaded: Pick<LoadedConfig, "problemAt">, problem: BuildProblem): Problem[] {
  const { issue, path } = problem;
  if (issue?.code !== "unrecognized_keys") return [loaded.problemAt(path, problem.message)];
  const known = knownKeys(issue);
  return issue.keys.map((key) => {
    const suggestion = nearestKey(key, known);
    const located = loaded.problemAt([...path, key], "unknown key");
    return suggestion === undefined ? located : { ...located, suggestion };
  });
}

/** zod keeps the object's schema on the issue's instance; without it there is no suggestion. */
function knownKeys(issue: NonNullable<BuildProblem["issue"]>): readonly string[] {
  const { inst } = issue as { inst?: { _zod?: { def?: { shape?: Record<string, unknown> } } } };
  return Object.keys(inst?._zod?.def?.shape ?? {});
}

/** Problems of one chain, with the path from the top of the file. */
export function located(
  direction: Direction,
  problems: readonly AssemblyProblem[],
): BuildProblem[] {
  return problems.map(({ entry, path, message, issue }) => ({
    path: ["pipeline", direction, "plugins", entry, ...path],
    message,
    ...(issue === undefined ? {} : { issue }),
  }));
}
