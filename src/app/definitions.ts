/** The plugins that a file can name: the built-in ones and those of its `plugin_modules`. */
import { dirname, resolve } from "node:path";
import type { LoadedConfig } from "../config/load.ts";
import { ProxyError } from "../errors.ts";
import type { AnyPluginDefinition } from "../pipeline/plugin.ts";
import { builtinNames, loadPlugins } from "../plugins/by-name.ts";
import { loadPluginModules } from "./plugin-modules.ts";

type File = Pick<LoadedConfig, "config" | "path">;

/** Those that the file names, or all of them where it names one that is not built in. Rejects with `config.invalid`. */
export async function definitionsFor(loaded: File): Promise<readonly AnyPluginDefinition[]> {
  const { inbound, outbound } = loaded.config.pipeline;
  const named = new Set([...inbound.plugins, ...outbound.plugins].map(({ name }) => name));
  // An unknown name is refused with the list of those that there are.
  const isKnown = [...named].every((name) => builtinNames.includes(name));
  if (isKnown && loaded.config.plugin_modules.length === 0) return loadPlugins(named);
  return allDefinitions(loaded);
}

/** Every one of them. Modules are named relative to the file. Rejects with `config.invalid`. */
export async function allDefinitions(loaded: File): Promise<readonly AnyPluginDefinition[]> {
  const { plugin_modules: modules } = loaded.config;
  const builtin = await loadPlugins(new Set(builtinNames));
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
