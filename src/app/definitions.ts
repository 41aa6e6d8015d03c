/** The plugins that a file can name: the built-in ones and those of its `plugin_modules`. */
import { dirname, resolve } from "node:path";
import type { LoadedConfig } from "../config/load.ts";
import type { AnyPluginDefinition } from "../pipeline/plugin.ts";
import { builtinPlugins } from "../plugins/index.ts";
import { loadPluginModules } from "./plugin-modules.ts";

/** Modules are named relative to the file. Rejects with `config.invalid`. */
export async function definitionsFor(
  loaded: Pick<LoadedConfig, "config" | "path">,
): Promise<readonly AnyPluginDefinition[]> {
  const { plugin_modules: modules } = loaded.config;
  if (modules.length === 0) return builtinPlugins;
  return [...builtinPlugins, ...(await loadPluginModules(modules, dirname(resolve(loaded.path))))];
}
