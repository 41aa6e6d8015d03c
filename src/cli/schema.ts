/** `schema`: the JSON Schema of the file, for editors and for other programs that write it. */
import { buildJsonSchema } from "../config/json-schema.ts";
import { builtinPlugins } from "../plugins/index.ts";
import type { PluginDefinition } from "../pipeline/plugin.ts";

/** Plugins of other modules are not part of it: nobody knows them before a file names them. */
export function printSchema(): string {
  const plugins = builtinPlugins.map((definition) => {
    const { name, description, config } = definition as PluginDefinition;
    return { name, description, ...(config === undefined ? {} : { configSchema: config }) };
  });
  return `${JSON.stringify(buildJsonSchema(plugins), null, 2)}\n`;
}

/** Prints it. */
export function schema(): number {
  process.stdout.write(printSchema());
  return 0;
}
