/** Turns the entries of one pipeline of the file into a Pipeline, or into all of its problems at once. */
import { messageOf } from "../errors.ts";
import {
  type AnyPluginDefinition,
  type BodyAccess,
  type Plugin,
  PluginConfigError,
  type PluginDefinition,
  type PluginDeps,
} from "./plugin.ts";
import type { Direction } from "./flow.ts";
import { Pipeline, type PipelineOptions } from "./pipeline.ts";
import type { Step } from "./step-runner.ts";
import { withoutEmpty } from "../yaml/empty-values.ts";
import { idleKeys } from "../yaml/idle-keys.ts";
import { check, type Remark, suggest } from "../yaml/schema-remarks.ts";

/** One entry of `pipeline.<direction>.plugins`. */
export interface PluginEntry {
  readonly name: string;
  readonly id?: string | undefined;
  readonly onError: "enforce" | "observe" | "off";
  readonly config?: unknown;
  readonly allowWeakenedAuth: boolean;
}

/** Something wrong with one entry; `path` starts below the entry, e.g. `["config", "issuer"]`. */
export interface AssemblyProblem extends Remark {
  readonly entry: number;
}

/** What the assembler needs besides the entries. */
export interface AssemblyOptions extends PipelineOptions {
  readonly definitions: readonly AnyPluginDefinition[];
  /** Another thread assembles the same, and tells of it. */
  readonly isEcho?: boolean;
  depsFor(instance: string, origins: readonly string[]): PluginDeps;
}

/** A pipeline, or everything that is wrong with it. */
export type Assembly =
  | { readonly kind: "assembled"; readonly pipeline: Pipeline }
  | { readonly kind: "rejected"; readonly problems: readonly AssemblyProblem[] };

/** Everything that can be wrong with a pipeline before an instance is made. */
export function chainProblems(
  entries: readonly PluginEntry[],
  definitions: readonly AnyPluginDefinition[],
): AssemblyProblem[] {
  const byName = new Map(definitions.map((definition) => [definition.name, definition]));
  const active = activeEntries(entries);
  const problems: AssemblyProblem[] = [];
  for (const [index, entry] of entries.entries()) {
    const definition = byName.get(entry.name);
    if (definition === undefined) {
      const { name } = entry;
      const known = definitions.flatMap((one) => (one.unavailable === undefined ? one.name : []));
      const message = `unknown plugin "${name}" (registered: [${known.join(", ")}])`;
      problems.push({ entry: index, path: ["name"], message, ...suggest(name, known) });
    } else {
      problems.push(...weakenedProblems(entry, index, definition));
    }
  }
  problems.push(
    ...relationshipProblems(active, byName),
    ...lateProblems(active, byName),
    ...bodyOrderProblems(active, byName),
  );
  for (const { entry, index } of active) {
    const definition = byName.get(entry.name);
    if (definition === undefined) continue;
    const { remarks = [] } = parseConfig(entry, definition);
    problems.push(...remarks.map((remark) => ({ ...remark, entry: index })));
  }
  return problems;
}

/** Keys of plugins that have no effect: as their schemas mark them, and as the plugins say, who may name some that are not written. */
export function unusedKeys(
  entries: readonly PluginEntry[],
  definitions: readonly AnyPluginDefinition[],
  direction: Direction,
): AssemblyProblem[] {
  const active = activeEntries(entries);
  return active.flatMap(({ entry, index }) => {
    const definition = definitions.find(({ name }) => name === entry.name);
    const { config, remarks } = definition === undefined ? {} : parseConfig(entry, definition);
    if (remarks !== undefined) return [];
    const absent = (definition?.missed?.(config as never) ?? []).filter(
      (name) => !active.some((other) => other.entry.name === name),
    );
    const missed = absent.map((name) => {
      const message = `has no effect on what ${name} finds: it is not in the pipeline`;
      return { path: ["include"], message };
    });
    const schema = (definition as PluginDefinition | undefined)?.config;
    const written = schema === undefined ? {} : withoutEmpty(schema, entry.config ?? {});
    const idle = schema === undefined ? [] : idleKeys(schema, written, config);
    const unused = definition?.unused?.(config as never, direction) ?? [];
    return [...missed, ...idle, ...unused].map(({ path, message }) => {
      return { entry: index, path: ["config", ...path], message };
    });
  });
}

/** Builds the pipeline. Instances made before a problem was found are closed again. */
export async function assemble(
  entries: readonly PluginEntry[],
  options: AssemblyOptions,
): Promise<Assembly> {
  const byName = new Map(options.definitions.map((definition) => [definition.name, definition]));
  const problems = chainProblems(entries, options.definitions);
  const steps: Step[] = [];
  for (const { entry, index } of activeEntries(entries)) {
    const definition = byName.get(entry.name);
    if (definition === undefined) continue;
    const parsed = parseConfig(entry, definition);
    if (parsed.remarks !== undefined) continue;
    try {
      steps.push(makeStep(entry, definition, parsed.config, options));
    } catch (error) {
      const faults =
        error instanceof PluginConfigError
          ? error.problems
          : [{ path: [], message: messageOf(error) }];
      for (const { path, message } of faults)
        problems.push({ entry: index, path: ["config", ...path], message });
    }
  }
  if (problems.length > 0) {
    for (const step of steps) await step.plugin.close?.();
    return { kind: "rejected", problems };
  }
  if (options.isEcho !== true) warnOfOrder(activeEntries(entries), byName, options);
  for (const entry of options.isEcho === true ? [] : entries) {
    if (!isWeakened(entry, byName.get(entry.name))) continue;
    options.log.warn(
      { pipeline: options.direction, plugin: entry.name, on_error: entry.onError },
      "authentication is switched off by on_error: requests pass that the plugin would refuse",
    );
  }
  return { kind: "assembled", pipeline: new Pipeline(steps, options) };
}

function activeEntries(entries: readonly PluginEntry[]): Placed[] {
  return entries
    .map((entry, index) => ({ entry, index }))
    .filter(({ entry }) => entry.onError !== "off");
}

function weakenedProblems(
  entry: PluginEntry,
  index: number,
  definition: AnyPluginDefinition,
): AssemblyProblem[] {
  if (!isWeakened(entry, definition) || entry.allowWeakenedAuth) return [];
  const message = `on_error: ${entry.onError} would let unauthenticated requests pass ${entry.name}; set allow_weakened_auth: true at the top of the file, or on this entry, if that is meant`;
  return [{ entry: index, path: ["on_error"], message }];
}

function isWeakened({ onError }: PluginEntry, definition?: AnyPluginDefinition): boolean {
  return definition?.authenticates === true && onError !== "enforce";
}

function makeStep(
  entry: PluginEntry,
  definition: AnyPluginDefinition,
  config: unknown,
  options: AssemblyOptions,
): Step {
  const origins = definition.origins?.(config as never) ?? [];
  const deps = options.depsFor(entry.id ?? entry.name, origins);
  const objection = deps.isAlone ? undefined : definition.needsOneThread?.(config as never);
  if (objection !== undefined) {
    const message = `${objection}: set workers: 1`;
    throw new PluginConfigError([{ path: [], message }]);
  }
  const plugin: Plugin = definition.create(config as never, deps);
  return {
    name: entry.name,
    plugin,
    onError: entry.onError === "observe" ? "observe" : "enforce",
    stages: definition.stages ?? ["request"],
    body: plugin.body ?? definition.body ?? {},
    observes: definition.observes === true,
  };
}

function parseConfig(
  entry: PluginEntry,
  definition: AnyPluginDefinition,
): { readonly config?: unknown; readonly remarks?: readonly Remark[] } {
  if (definition.unavailable !== undefined) {
    const message = `plugin "${entry.name}" is not available in this version: ${definition.unavailable}`;
    return { remarks: [{ path: ["name"], message }] };
  }
  const schema = (definition as PluginDefinition).config;
  const given = entry.config ?? undefined;
  if (schema === undefined) {
    if (given === undefined) return {};
    const message = `plugin "${entry.name}" does not accept configuration`;
    return { remarks: [{ path: ["config"], message }] };
  }
  const checked = check(schema, withoutEmpty(schema, given ?? {}));
  if (checked.kind === "valid") return { config: checked.data };
  return {
    remarks: checked.remarks.map(({ path, message, suggestion }) => {
      return { path: ["config", ...path], message, suggestion };
    }),
  };
}

interface Placed {
  readonly entry: PluginEntry;
  readonly index: number;
}

type ByName = ReadonlyMap<string, AnyPluginDefinition>;

/** `requires` and `requiresAny`: the named plugins have to stand earlier in the same pipeline. */
function relationshipProblems(active: readonly Placed[], byName: ByName): AssemblyProblem[] {
  const problems: AssemblyProblem[] = [];
  const positionOf = (name: string): number => active.findIndex(({ entry }) => entry.name === name);
  for (const [position, { entry, index }] of active.entries()) {
    const definition = byName.get(entry.name);
    const { requiresAny = [] } = definition ?? {};
    const needs = requiredOf(entry, definition).map((name) => ({
      names: [name],
      absent: `"${name}", which is not configured in this chain`,
      late: `"${name}" (position ${positionOf(name) + 1}) to appear earlier`,
    }));
    if (requiresAny.length > 0) {
      const list = `[${requiresAny.join(", ")}]`;
      const absent = `at least one of ${list}, and none are configured in this chain`;
      needs.push({
        names: [...requiresAny],
        absent,
        late: `one of ${list}, which must appear earlier`,
      });
    }
    for (const { names, absent, late } of needs) {
      const places = names.map(positionOf).filter((at) => at !== -1);
      if (places.some((at) => at < position)) continue;
      const message =
        places.length === 0
          ? `plugin "${entry.name}" requires ${absent}`
          : `plugin "${entry.name}" (position ${position + 1}) requires ${late}`;
      problems.push({ entry: index, path: ["name"], message });
    }
  }
  return problems;
}

/** `behind`: what another plugin finds would come too late to be judged by, and nobody would notice. */
function lateProblems(active: readonly Placed[], byName: ByName): AssemblyProblem[] {
  return active.flatMap(({ entry, index }, position) => {
    const wanted = judgedBy(entry, byName);
    return laterOf(active, position, wanted).map((name) => ({
      entry: index,
      path: ["name"],
      message: `plugin "${entry.name}" (position ${position + 1}) judges by what "${name}" finds, which stands behind it; put it later`,
    }));
  });
}

/** Whose findings the configuration of an entry judges by; one with mistakes is told those, and names nobody. */
function judgedBy(entry: PluginEntry, byName: ByName): readonly string[] {
  const definition = byName.get(entry.name);
  if (definition?.behind === undefined) return [];
  const parsed = parseConfig(entry, definition);
  return parsed.remarks === undefined ? definition.behind(parsed.config as never) : [];
}

/** Which of these stand behind this position only. */
function laterOf(active: readonly Placed[], at: number, wanted: readonly string[]): string[] {
  const names = active.map(({ entry }) => entry.name);
  return wanted.filter((name) => !names.slice(0, at).includes(name) && names.includes(name, at));
}

function warnOfOrder(
  active: readonly Placed[],
  byName: ByName,
  { direction, log }: AssemblyOptions,
): void {
  for (const [position, { entry }] of active.entries()) {
    const { bestBehind = [] } = byName.get(entry.name) ?? {};
    for (const name of laterOf(active, position, bestBehind))
      log.warn(
        { pipeline: direction, plugin: entry.name },
        `${entry.name} is not shown what ${name} finds, which stands behind it`,
      );
  }
}

function requiredOf(entry: PluginEntry, definition: AnyPluginDefinition | undefined): string[] {
  const { requires = [] } = definition ?? {};
  if (definition?.requiredBy === undefined) return [...requires];
  // A configuration with mistakes is told those, and needs nothing.
  const parsed = parseConfig(entry, definition);
  const more = parsed.remarks === undefined ? definition.requiredBy(parsed.config as never) : [];
  return [...new Set([...requires, ...more])];
}

/** One writer per body at most, and nobody reads a request body after it was rewritten. */
function bodyOrderProblems(active: readonly Placed[], byName: ByName): AssemblyProblem[] {
  const problems: AssemblyProblem[] = [];
  let writer: Placed | undefined;
  for (const placed of active) {
    const body = bodyOf(placed.entry, byName.get(placed.entry.name));
    const { redacts = false } = byName.get(placed.entry.name) ?? {};
    if (body === undefined) continue;
    const writes = body.request === "write" || body.response === "write";
    if (writes && redacts && byName.get(writer?.entry.name ?? "")?.redacts !== true) {
      writer = placed;
    } else if (writer !== undefined) {
      const message = writes
        ? `plugins "${writer.entry.name}" and "${placed.entry.name}" both write bodies; one chain takes at most one`
        : `plugin "${placed.entry.name}" reads bodies after "${writer.entry.name}" has rewritten them; put it earlier`;
      problems.push({ entry: placed.index, path: ["name"], message });
    } else if (writes) {
      writer = placed;
    }
  }
  return problems;
}

function bodyOf(
  entry: PluginEntry,
  definition: AnyPluginDefinition | undefined,
): BodyAccess | undefined {
  if (definition?.bodyOf === undefined) return definition?.body;
  const parsed = parseConfig(entry, definition);
  return parsed.remarks === undefined ? definition.bodyOf(parsed.config as never) : undefined;
}
