/**
 * The JSON Schema of the file, for editors and for `authbridge-proxy schema`.
 */
import { z } from "zod";
import { configSchema } from "./schema.ts";

/** A JSON Schema, as plain data. */
export type JsonSchema = Readonly<Record<string, unknown>>;

/** What the schema of the file needs to know about a plugin. */
export interface PluginDescription {
  readonly name: string;
  readonly description: string;
  /** Absent for a plugin that takes no settings. */
  readonly configSchema?: z.ZodType | undefined;
}

/** The schema of what may be written in the file. Each plugin checks the `config` of entries with its name. */
export function buildJsonSchema(plugins: readonly PluginDescription[] = []): JsonSchema {
  const schema = titledSchema("authbridge-proxy configuration", configSchema);
  const shared: Record<string, unknown> = {};
  const pluginEntry = entriesOf(schema, plugins, shared);
  return { ...withPluginEntries(schema), $defs: { pluginEntry, ...shared } };
}

/** The schema of a kind of file. */
export function titledSchema(title: string, file: z.ZodType): JsonSchema {
  const { $schema, ...rest } = toPlain(z.toJSONSchema(file, { io: "input" }));
  return { $schema, title, ...rest };
}

function toPlain(schema: object): JsonSchema {
  return Object.fromEntries(Object.entries(schema).filter(([key]) => !key.startsWith("~")));
}

const entryPlaces = ["inbound", "outbound"] as const;

/** One definition serves both directions. What several plugins refer to goes to `shared`. */
function entriesOf(
  schema: JsonSchema,
  plugins: readonly PluginDescription[],
  shared: Record<string, unknown>,
): JsonSchema {
  const entry = at(schema, [
    "properties",
    "pipeline",
    "properties",
    "inbound",
    "properties",
    "plugins",
    "items",
  ]);
  if (plugins.length === 0) return entry;
  const rules = plugins.map(({ name, configSchema: settings }) => ({
    if: { type: "object", properties: { name: { const: name } }, required: ["name"] },
    // oxlint-disable-next-line unicorn/no-thenable -- the keyword of JSON Schema is called then
    then: {
      properties: {
        config: settings === undefined ? { type: "null" } : settingsSchema(settings, shared),
      },
    },
  }));
  const names = plugins.map(({ name, description }) => ({ const: name, description }));
  return {
    ...entry,
    allOf: rules,
    examples: names.map((name) => name.const),
    $comment: describeNames(names),
  };
}

function describeNames(names: readonly { const: string; description: string }[]): string {
  return names.map((name) => `${name.const}: ${name.description}`).join("\n");
}

/** null is the same as no settings. */
function settingsSchema(settings: z.ZodType, shared: Record<string, unknown>): JsonSchema {
  const {
    $schema: _,
    $defs,
    ...schema
  } = toPlain(z.toJSONSchema(settings, { io: "input", unrepresentable: "any" }));
  Object.assign(shared, $defs);
  return { anyOf: [schema, { type: "null" }] };
}

/** Both lists of plugins refer to the one definition of an entry. */
function withPluginEntries(schema: JsonSchema): JsonSchema {
  return entryPlaces.reduce(
    (changed, direction) =>
      replace(
        changed,
        ["properties", "pipeline", "properties", direction, "properties", "plugins", "items"],
        {
          $ref: "#/$defs/pluginEntry",
        },
      ),
    schema,
  );
}

function replace(schema: JsonSchema, path: readonly string[], next: JsonSchema): JsonSchema {
  const [first, ...rest] = path;
  return first === undefined
    ? next
    : { ...schema, [first]: replace(at(schema, [first]), rest, next) };
}

function at(schema: JsonSchema, path: readonly string[]): JsonSchema {
  return path.reduce<JsonSchema>((node, step) => {
    const member = node[step];
    return isSchema(member) ? member : {};
  }, schema);
}

function isSchema(value: unknown): value is JsonSchema {
  return typeof value === "object" && value !== null;
}
