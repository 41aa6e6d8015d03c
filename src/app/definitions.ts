/** The plugins that a file can name: the built-in ones and those of its `plugin_modules`. */
import { statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { LoadedConfig } from "../config/load.ts";
import type { Config } from "../config/presets.ts";
import { ProxyError, messageOf } from "../errors.ts";
import type { PluginEntry } from "../pipeline/assemble.ts";
import type { Direction } from "../pipeline/flow.ts";
import type { AnyPluginDefinition } from "../pipeline/plugin.ts";
import { builtinNames, loadPlugins } from "../plugins/by-name.ts";

/** What is run, with the plugins that came with it as objects. */
export interface Loaded extends LoadedConfig {
  readonly given?: readonly AnyPluginDefinition[];
}

type File = Pick<Loaded, "config" | "path" | "given">;

/** Those that the file names, or all of them where it names one that is not built in. Rejects with `config.invalid`. */
export async function definitionsFor(loaded: File): Promise<readonly AnyPluginDefinition[]> {
  const { inbound, outbound } = loaded.config.pipeline;
  const named = new Set([...inbound.plugins, ...outbound.plugins].map(({ name }) => name));
  const { given = [] } = loaded;
  const known = new Set([...builtinNames, ...given.map(({ name }) => name)]);
  // An unknown name is refused with the list of those that there are.
  const isKnown = [...named].every((name) => known.has(name));
  if (!isKnown || loaded.config.plugin_modules.length > 0) return allDefinitions(loaded);
  return [...(await loadPlugins(named)), ...given];
}

/** Every one of them. Modules are named relative to the file. Rejects with `config.invalid`. */
export async function allDefinitions(loaded: File): Promise<readonly AnyPluginDefinition[]> {
  const { plugin_modules: modules } = loaded.config;
  const builtin = [...(await loadPlugins(new Set(builtinNames))), ...(loaded.given ?? [])];
  if (modules.length === 0) return builtin;
  const added = await loadPluginModules(modules, dirname(resolve(loaded.path)));
  const all = [...builtin, ...added];
  for (const [index, { name }] of all.entries()) {
    if (all.findIndex((other) => other.name === name) === index) continue;
    throw new ProxyError(
      "config.invalid",
      `plugin_modules: the name "${name}" is taken by another plugin`,
    );
  }
  return all;
}

/** Loads the modules; each exports `plugins`, a list of definitions. Rejects with `config.invalid`. */
export async function loadPluginModules(
  paths: readonly string[],
  baseDirectory: string,
): Promise<AnyPluginDefinition[]> {
  const found: AnyPluginDefinition[] = [];
  for (const path of paths) {
    const file = resolve(baseDirectory, path);
    let module: unknown;
    try {
      // The loader would wait for the writer of a pipe, and nothing else would be done meanwhile.
      const isOther = statSync(file, { throwIfNoEntry: false })?.isFile() === false;
      if (isOther) throw new Error("it is not a regular file");
      module = await import(pathToFileURL(file).href);
    } catch (error) {
      throw new ProxyError(
        "config.invalid",
        `plugin_modules: ${path} cannot be loaded: ${messageOf(error)}`,
        { cause: error },
      );
    }
    const plugins =
      typeof module === "object" && module !== null && "plugins" in module
        ? module.plugins
        : undefined;
    if (!Array.isArray(plugins) || !plugins.every(isDefinition)) {
      throw new ProxyError(
        "config.invalid",
        `plugin_modules: ${path} does not export "plugins", a list of plugin definitions`,
      );
    }
    found.push(...plugins);
  }
  return found;
}

/** Whether a value has what every definition has. */
export function isDefinition(value: unknown): value is AnyPluginDefinition {
  return (
    typeof value === "object" &&
    value !== null &&
    "name" in value &&
    typeof value.name === "string" &&
    "create" in value &&
    typeof value.create === "function"
  );
}

/** Whether a plugin of the pipeline may ask whose a message is. */
export function readsSessions(
  config: Config,
  direction: Direction,
  definitions: readonly AnyPluginDefinition[],
): boolean {
  return config.pipeline[direction].plugins.some(({ name, on_error: onError }) => {
    const reads = definitions.find((one) => one.name === name)?.readsSessions;
    return onError !== "off" && (reads ?? !builtinNames.includes(name));
  });
}

/** The entries of one pipeline. Keys that are absent stay absent. */
export function entriesOf(config: Config, direction: Direction): PluginEntry[] {
  return config.pipeline[direction].plugins.map((entry) => ({
    name: entry.name,
    onError: entry.on_error,
    allowWeakenedAuth: entry.allow_weakened_auth || config.allow_weakened_auth,
    id: entry.id,
    config: entry.config,
  }));
}
