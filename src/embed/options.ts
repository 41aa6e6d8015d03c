/** What the program gives: the keys of the file, plugins as objects, and a logger. */
import { createHash } from "node:crypto";
import type { z } from "zod";
import type { Loaded } from "../app/definitions.ts";
import { isDefinition } from "../app/definitions.ts";
import { checkOptions, type RejectedConfig } from "../config/load.ts";
import type { configSchema } from "../config/schema.ts";
import { surfaces } from "../config/surfaces.ts";
import type { AnyPluginDefinition, Plugin, PluginDeps } from "../pipeline/plugin.ts";
import { builtinNames } from "../plugins/by-name.ts";
import { formatKeyPath, type KeyPath, type Problem } from "../yaml/problem.ts";
import type { Remark } from "../yaml/schema-remarks.ts";
import { isMapping } from "../yaml/value-path.ts";
import type { ProxyLogger } from "./given-log.ts";
import { plainData } from "./plain-data.ts";

type FileOptions = z.input<typeof configSchema>;
type FilePipeline = NonNullable<NonNullable<FileOptions["pipeline"]>["outbound"]>;
type FileEntry = NonNullable<FilePipeline["plugins"]>[number];
type EntrySettings = Omit<Exclude<FileEntry, string>, "name">;

/** A plugin as an object: what `definePlugin` of `authbridge-proxy/plugin` returns. */
export interface GivenPlugin {
  readonly name: string;
  readonly description: string;
  create(config: never, deps: PluginDeps): Plugin;
}

/** One step of a pipeline: as in the file, a plugin itself, or a plugin with its settings. */
export type PipelineStep =
  FileEntry | GivenPlugin | (EntrySettings & { readonly plugin: GivenPlugin });

/** The plugins of one direction, in order. */
export interface PipelineOptions extends Omit<FilePipeline, "plugins"> {
  readonly plugins?: readonly PipelineStep[];
}

/** The keys of the file with the file's spelling, where an embedded proxy has them, and what only a program can give. */
export interface ProxyOptions extends Omit<FileOptions, "pipeline" | "workers" | "reload"> {
  readonly pipeline?: {
    readonly inbound?: PipelineOptions;
    readonly outbound?: PipelineOptions;
  };
  /** Plugins that steps may name. */
  readonly plugins?: readonly GivenPlugin[];
  readonly workers?: 1;
  readonly reload?: Omit<NonNullable<FileOptions["reload"]>, "enabled" | "debounce">;
  /** Absent: nothing is logged. */
  readonly logger?: ProxyLogger;
}

/** The name of the options in log lines. */
export const optionsName = "options";

/** Checks options. The revision makes each of them something new, as plugins have no contents to compare. */
export function readOptions(options: unknown, revision: number): Loaded | RejectedConfig {
  const problems: Remark[] = [];
  if (!isMapping(options)) return rejected([{ path: [], message: "must be an object" }]);
  const { logger, plugins = [], ...file } = options;
  checkLogger(logger, problems);
  const given = new GivenPlugins(problems);
  if (Array.isArray(plugins))
    plugins.forEach((plugin: unknown, at) => given.add(plugin, ["plugins", at]));
  else problems.push({ path: ["plugins"], message: "must be a list of plugins" });
  const data = plainData(given.named(file), [], problems) as Record<string, unknown>;
  refuseForFilesOnly(data, problems);
  const text = `${revision}\n${JSON.stringify(data)}`;
  const sha256 = createHash("sha256").update(text).digest("hex");
  const checked = checkOptions(withDefaults(data), optionsName, sha256);
  if (checked.kind === "loaded" && problems.length === 0)
    return { ...checked, given: given.definitions };
  const found = checked.kind === "loaded" ? [] : checked.problems;
  const rest = checked.kind === "loaded" ? checked : checked.rest;
  // What was left out of the data is missing in it, and nothing more needs to be said of that.
  const own = rejected(problems).problems;
  const isTold = ({ keyPath }: Problem): boolean => own.some((one) => one.keyPath === keyPath);
  const withGiven: (typeof rest & Pick<Loaded, "given">) | undefined = rest && {
    ...rest,
    given: given.definitions,
  };
  return {
    kind: "rejected",
    problems: [...own, ...found.filter((problem) => !isTold(problem))],
    rest: withGiven,
  };
}

/** Whether the options themselves say where an operator's surface listens: an embedded proxy opens no other one. */
export function isOpened(options: unknown, surface: "health" | "stats" | "sessions"): boolean {
  const [block, key] = surfaces[surface].key;
  const written = isMapping(options) ? options[block] : undefined;
  return isMapping(written) && Boolean(written[key]);
}

class GivenPlugins {
  readonly definitions: AnyPluginDefinition[] = [];
  readonly #problems: Remark[];

  constructor(problems: Remark[]) {
    this.#problems = problems;
  }

  /** Takes the plugin, whose name is then known. */
  add(plugin: unknown, path: KeyPath): string {
    const { definitions } = this;
    const problem = (message: string): void => void this.#problems.push({ path, message });
    if (!isDefinition(plugin)) {
      problem("must be a plugin, as definePlugin returns it");
      return "";
    }
    const isThere = definitions.includes(plugin);
    const isTaken = !isThere && definitions.some(({ name }) => name === plugin.name);
    if (isTaken || builtinNames.includes(plugin.name))
      problem(`the name "${plugin.name}" is taken by another plugin`);
    else if (!isThere) definitions.push(plugin);
    return plugin.name;
  }

  /** The keys of the file, where steps name every plugin. */
  named(file: Record<string, unknown>): Record<string, unknown> {
    const { pipeline } = file;
    if (!isMapping(pipeline)) return file;
    const directions = Object.entries(pipeline).map(([direction, block]) => {
      if (!isMapping(block) || !Array.isArray(block["plugins"])) return [direction, block];
      const path = ["pipeline", direction, "plugins"];
      const plugins = block["plugins"].map((step: unknown, at) => this.#step(step, [...path, at]));
      return [direction, { ...block, plugins }];
    });
    return { ...file, pipeline: Object.fromEntries(directions) as unknown };
  }

  #step(step: unknown, path: KeyPath): unknown {
    if (isDefinition(step)) return this.add(step, path);
    if (!isMapping(step) || !Object.hasOwn(step, "plugin")) return step;
    const { plugin, name, ...settings } = step;
    const own = this.add(plugin, [...path, "plugin"]);
    if (name !== undefined && name !== own) {
      const message = `the plugin has a name of its own ("${own}"): leave this one out`;
      this.#problems.push({ path: [...path, "name"], message });
    }
    return { name: own, ...settings };
  }
}

function checkLogger(logger: unknown, problems: Remark[]): void {
  if (logger === undefined || (typeof logger === "object" && logger !== null)) return;
  problems.push({ path: ["logger"], message: "must be an object with debug, info, warn, error" });
}

/** Keys that mean something to a process of its own alone. */
function refuseForFilesOnly(data: Record<string, unknown>, problems: Remark[]): void {
  const { workers, reload } = data;
  if (workers !== undefined && workers !== 1)
    problems.push({
      path: ["workers"],
      message: "must be 1: an embedded proxy serves in the thread that made it",
    });
  for (const key of ["enabled", "debounce"])
    if (isMapping(reload) && reload[key] !== undefined)
      problems.push({
        path: ["reload", key],
        message: "is for files, which are followed: call reload() with other options",
      });
}

/** What a file leaves to fixed ports is left to the system, so that several proxies have room in one process. */
function withDefaults(data: Record<string, unknown>): Record<string, unknown> {
  const { listener = {}, stats = {} } = data;
  if (!isMapping(listener) || !isMapping(stats)) return data;
  const anywhere = "127.0.0.1:0";
  const roles = listener["reverse_proxy_backend"] ? ["forward", "reverse"] : ["forward"];
  const isEmpty = (value: unknown): boolean =>
    value === undefined || value === null || value === "";
  const filled = (over: Record<string, unknown>, from: Record<string, unknown>): object => ({
    ...over,
    ...Object.fromEntries(Object.entries(from).filter(([, value]) => !isEmpty(value))),
  });
  return {
    acknowledge_cooperative_mode: true,
    ...data,
    listener: filled(
      {
        roles,
        reverse_proxy_addr: anywhere,
        forward_proxy_addr: anywhere,
        transparent_proxy_addr: "off",
        session_api_addr: anywhere,
        health_addr: anywhere,
      },
      listener,
    ),
    stats: filled({ address: anywhere }, stats),
  };
}

function rejected(remarks: readonly Remark[]): RejectedConfig {
  const problems = remarks.map(({ path, message, suggestion }) => ({
    file: optionsName,
    line: 1,
    column: 1,
    keyPath: formatKeyPath(path),
    message,
    suggestion,
  }));
  return { kind: "rejected", problems };
}
