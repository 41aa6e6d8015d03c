/** Problems that plugins find in their configuration and building in the file, with the place that they are about. */
import type { LoadedConfig, RejectedConfig } from "../config/load.ts";
import type { KeyPath, Problem } from "../yaml/problem.ts";
import type { Remark } from "../yaml/schema-remarks.ts";
import { type AssemblyProblem, chainProblems, unusedKeys } from "../pipeline/assemble.ts";
import { messageOf, ProxyError } from "../errors.ts";
import type { Direction } from "../pipeline/flow.ts";
import { definitionsFor, entriesOf, type Loaded } from "./definitions.ts";

/** Something wrong with the file that only building could find. */
export type BuildProblem = Remark;

/** A configuration that cannot be started; every problem is in it. */
export class ConfigRejected extends Error {
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    super(`the configuration has ${problems.length} problem(s)`);
    this.name = "ConfigRejected";
    this.problems = problems;
  }
}

const directions = ["inbound", "outbound"] as const;

/** What `make` gives; undefined where it throws, which becomes a problem of the key. */
export function attempt<T>(path: KeyPath, make: () => T, problems: BuildProblem[]): T | undefined {
  try {
    return make();
  } catch (error) {
    problems.push({ path, message: messageOf(error) });
    return undefined;
  }
}

/** Each problem with its place. */
export function buildProblems(
  loaded: Pick<LoadedConfig, "problemAt">,
  problems: readonly BuildProblem[],
): Problem[] {
  return problems.map(({ path, message, suggestion }) =>
    loaded.problemAt(path, message, suggestion),
  );
}

/** Problems of one pipeline, with the path from the top of the file. */
export function located(
  direction: Direction,
  problems: readonly AssemblyProblem[],
): BuildProblem[] {
  return problems.map(({ entry, path, ...problem }) => ({
    path: ["pipeline", direction, "plugins", entry, ...path],
    ...problem,
  }));
}

/** In the order of the file. */
export async function rejectedProblems(rejected: RejectedConfig): Promise<readonly Problem[]> {
  const { rest, problems } = rejected;
  if (rest === undefined) return problems;
  let definitions: Awaited<ReturnType<typeof definitionsFor>>;
  try {
    definitions = await definitionsFor(rest);
  } catch (error) {
    if (!(error instanceof ProxyError)) throw error;
    const message = error.message.replace(/^plugin_modules: /, "");
    return [...problems, rest.problemAt(["plugin_modules"], message)];
  }
  const found = directions.flatMap((direction) =>
    located(direction, chainProblems(entriesOf(rest.config, direction), definitions)),
  );
  const all = [...problems, ...buildProblems(rest, found)];
  return all.sort((a, b) => a.line - b.line || a.column - b.column);
}

/** The file with those keys of its plugins among its warnings that it has and that do nothing there; a rejected one as it is. */
export async function withUnusedKeys<File extends Loaded | LoadedConfig | RejectedConfig>(
  reading: Promise<File>,
): Promise<File> {
  const file = await reading;
  if (file.kind === "rejected") return file;
  // What building would reject is said when it is built.
  const definitions = await definitionsFor(file).catch(() => []);
  const found = directions.flatMap((direction) =>
    located(direction, unusedKeys(entriesOf(file.config, direction), definitions, direction)),
  );
  const written = found.filter(({ path }) => file.isWritten(path));
  if (written.length === 0) return file;
  const warnings = [...file.warnings, ...buildProblems(file, written)];
  return { ...file, warnings: warnings.sort((a, b) => a.line - b.line || a.column - b.column) };
}
