/** Plugins from outside this package: `plugin_modules` names files that export definitions. */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { messageOf, ProxyError } from "../errors.ts";
import type { AnyPluginDefinition } from "../pipeline/plugin.ts";

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

function isDefinition(value: unknown): value is AnyPluginDefinition {
  return (
    typeof value === "object" &&
    value !== null &&
    "name" in value &&
    typeof value.name === "string" &&
    "create" in value &&
    typeof value.create === "function"
  );
}
