/**
 * From a path to a checked configuration, or to every problem of the file at once.
 */
import { createHash } from "node:crypto";
import { checkValue } from "./check-value.ts";
import { expand, type Environment, type Expansion } from "./expand.ts";
import { applyPresets, type Config } from "./presets.ts";
import { readGiven } from "../files/given-file.ts";
import { formatKeyPath, type KeyPath, type Position, type Problem } from "../yaml/problem.ts";
import type { Remark } from "../yaml/schema-remarks.ts";
import { sharedAddresses } from "./surfaces.ts";
import { relationWarnings } from "./relations.ts";
import { YamlDocument } from "../yaml/document.ts";

/** How a file is read. */
export interface LoadOptions {
  /** Unknown keys become warnings, for files that were written for the Go program. */
  readonly lenient?: boolean;
  /** The variables of `$NAME`; none when left out. */
  readonly env?: Environment;
  /** Variables that are not set become warnings, for commands that read a file and serve nothing. */
  readonly allowUnset?: boolean;
}

/** A file, or options given in code, that can be run. */
export interface LoadedConfig {
  readonly kind: "loaded";
  readonly config: Config;
  readonly warnings: readonly Problem[];
  /** Hex digest of the bytes of the file, before variables are expanded. */
  readonly sha256: string;
  /** The file itself, for other threads that load the same; empty where there is none. */
  readonly bytes: Uint8Array;
  /** Of the file, which relative paths in it start from; where there is none, a name in the working directory. */
  readonly path: string;
  /** Whether the file itself has the key, whatever its value. */
  readonly isWritten: (path: KeyPath) => boolean;
  /** The place of a key, for problems that are found later, such as in the settings of a plugin. */
  readonly locate: (path: KeyPath) => Position;
  /** A problem of the key at `path`, with its place. */
  readonly problemAt: (path: KeyPath, message: string, suggestion?: string) => Problem;
}

/** A file that cannot be run, and all that is wrong with it. */
export interface RejectedConfig {
  readonly kind: "rejected";
  readonly problems: readonly Problem[];
  /** What is left without the faults, so that plugins can be checked as well and all problems are reported at once. */
  readonly rest?: Pick<LoadedConfig, "config" | "path" | "problemAt"> | undefined;
}

/** Larger files are refused unread. */
const maxFileBytes = 4 * 1024 * 1024;

/** Reads and checks the file at `path`. Never throws for what is in the file or for a file that cannot be read. */
export async function loadConfig(
  path: string,
  options: LoadOptions = {},
): Promise<LoadedConfig | RejectedConfig> {
  const bytes = await readGiven(path, maxFileBytes);
  return typeof bytes === "string" ? rejectWhole(path, bytes) : parseConfig(bytes, path, options);
}

/** Checks the bytes of a file; `path` is only named in problems. */
export function parseConfig(
  bytes: Uint8Array,
  path: string,
  options: LoadOptions = {},
): LoadedConfig | RejectedConfig {
  const text = readText(bytes, path, options.env ?? {});
  if (text.kind === "rejected") return text;
  const { document, expansion } = text;

  const unset = document.inScalars(expansion.unexpanded).map(({ name, line, column }) => ({
    file: path,
    line,
    column,
    keyPath: "",
    message: unsetMessage(name),
  }));
  return checkSource(document.value, options, {
    path,
    bytes,
    sha256: createHash("sha256").update(bytes).digest("hex"),
    locate: (at) => document.locate(at),
    unset,
  });
}

/** Checks what would be in a file, given as plain data; `name` stands for the file in problems, which have no lines. */
export function checkOptions(
  value: unknown,
  name: string,
  sha256: string,
): LoadedConfig | RejectedConfig {
  return checkSource(
    value,
    {},
    {
      path: name,
      bytes: new Uint8Array(),
      sha256,
      locate: () => ({ line: 1, column: 1 }),
      unset: [],
    },
  );
}

/** Where a value came from. */
interface Source extends Pick<LoadedConfig, "path" | "bytes" | "sha256" | "locate"> {
  /** References to variables that are not set. */
  readonly unset: readonly Problem[];
}

function checkSource(
  value: unknown,
  options: LoadOptions,
  { unset, ...source }: Source,
): LoadedConfig | RejectedConfig {
  const { path, locate } = source;
  const problemAt = (at: KeyPath, message: string, suggestion?: string): Problem => ({
    file: path,
    ...locate(at),
    keyPath: formatKeyPath(at),
    message,
    suggestion,
  });
  const toProblem = (remark: Remark): Problem =>
    problemAt(remark.path, remark.message, remark.suggestion);

  const checked = checkValue(value, options.lenient ?? false);
  // The text of a reference is no value: as a credential it would be sent to an origin.
  const isRefused = unset.length > 0 && options.allowUnset !== true;
  const rejected = (problems: Problem[], config: Config | undefined): RejectedConfig => ({
    kind: "rejected",
    problems: inOrder([...unset, ...problems]),
    rest: config && { config, path, problemAt },
  });
  if (checked.kind === "invalid")
    return rejected(
      checked.problems.map(toProblem),
      checked.mended && applyPresets(checked.mended),
    );
  const config = applyPresets(checked.file);
  if (isRefused) return rejected([], config);
  const shared = sharedAddresses(config, checked.isWritten);
  if (shared.length > 0) return rejected(shared.map(toProblem), config);
  const remarks = [
    ...checked.warnings,
    ...relationWarnings(checked.file, config, checked.isWritten),
  ];
  return {
    kind: "loaded",
    config,
    warnings: inOrder([...unset, ...remarks.map(toProblem)]),
    ...source,
    isWritten: checked.isWritten,
    problemAt,
  };
}

/** The YAML of a file with its variables filled in. */
function readText(
  bytes: Uint8Array,
  path: string,
  env: Environment,
):
  | RejectedConfig
  | { readonly kind: "text"; readonly document: YamlDocument; readonly expansion: Expansion } {
  if (bytes.byteLength > maxFileBytes) return rejectWhole(path, "is larger than 4 MiB");
  let source: string;
  try {
    source = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return rejectWhole(path, "is not valid UTF-8");
  }
  const expansion = expand(source, env);
  const document = new YamlDocument(source, expansion);
  if (document.problems.length > 0) {
    const lines = new Set(document.problems.map(({ line }) => line));
    // Braces that stay because a variable is not set are often what makes a line unreadable.
    const hints = expansion.unexpanded
      .map(({ name, start }) => ({ ...document.positionOf(start), message: unsetMessage(name) }))
      .filter(({ line }) => lines.has(line));
    const problems = [...hints, ...document.problems].map((problem) => ({
      file: path,
      keyPath: "",
      ...problem,
    }));
    return { kind: "rejected", problems: inOrder(problems) };
  }
  if (document.value === null || document.value === undefined) return rejectWhole(path, "is empty");
  return { kind: "text", document, expansion };
}

function unsetMessage(name: string | undefined): string {
  if (name === undefined)
    return 'has "${" without a name; take a text with a dollar sign from a variable';
  // The text between braces can be anything; only what looks like a name is worth repeating.
  const shown = /^\w{1,64}$/.test(name) ? `\${${name}}` : "${…}";
  return `the variable of ${shown} is not set in the environment`;
}

function rejectWhole(path: string, message: string): RejectedConfig {
  return { kind: "rejected", problems: [{ file: path, line: 1, column: 1, keyPath: "", message }] };
}

function inOrder(problems: Problem[]): Problem[] {
  return problems.sort((a, b) => a.line - b.line || a.column - b.column);
}
