/** `schema` and `policy schema`: the JSON Schema of the file and of policy files, for editors and for other programs that write it. */
import { buildJsonSchema, titledSchema } from "../config/json-schema.ts";
import { builtinPlugins } from "../plugins/index.ts";
import type { PluginDefinition } from "../pipeline/plugin.ts";
import { policySchema } from "../policy/file/schema.ts";

/** Plugins of other modules are not part of it: nobody knows them before a file names them. */
export function printSchema(isPolicy = false): string {
  const plugins = builtinPlugins.map((definition) => {
    const { name, description, config } = definition as PluginDefinition;
    return { name, description, ...(config === undefined ? {} : { configSchema: config }) };
  });
  const schema = isPolicy
    ? titledSchema("authbridge-proxy policy file", policySchema)
    : buildJsonSchema(plugins);
  return `${JSON.stringify(schema, null, 2)}\n`;
}

/** Prints it. */
export function schema(): number {
  process.stdout.write(printSchema());
  return 0;
}

/** Prints that of policy files. */
export function schemaOfPolicies(): number {
  process.stdout.write(printSchema(true));
  return 0;
}
