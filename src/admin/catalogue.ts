/** Plugins as operators see them: what is configured, what could be, and which keys each one takes. */
import type { BodyAccess, PluginDefinition } from "../pipeline/plugin.ts";
import { redact } from "./redact.ts";

/** One configured plugin in `/v1/pipeline`. */
export interface PipelinePluginView {
  readonly name: string;
  readonly direction: "inbound" | "outbound";
  /** From 1, in the order of the pipeline. */
  readonly position: number;
  readonly readsBody: boolean;
  readonly requires: readonly string[];
  readonly requiresAny: readonly string[];
  readonly description: string;
  readonly onError: string;
  readonly config?: unknown;
}

/** Both pipelines of the current generation. */
export interface PipelineView {
  readonly inbound: readonly PipelinePluginView[];
  readonly outbound: readonly PipelinePluginView[];
}

/** The type words that clients of the Go program draw forms from. */
export type FieldType = "string" | "int" | "bool" | "[]string" | "object" | "unknown";

/** One key of a plugin's configuration. `default` and `enum` are text, as in the Go program. */
export interface FieldView {
  readonly name: string;
  readonly type: FieldType;
  readonly required: boolean;
  readonly description?: string;
  readonly default?: string;
  readonly enum?: readonly string[];
  readonly fields?: readonly FieldView[];
}

/** One plugin of `/v1/plugins`. */
export interface PluginView {
  readonly name: string;
  readonly readsBody: boolean;
  readonly requires: readonly string[];
  readonly requiresAny: readonly string[];
  readonly description: string;
  readonly fields: readonly FieldView[];
}

/** The part of a definition that does not depend on its configuration. */
export type PluginFacts = Pick<
  PluginDefinition,
  "name" | "description" | "requires" | "requiresAny" | "body"
>;

/** One entry of a pipeline as it was configured. */
export interface ConfiguredPlugin {
  readonly definition: PluginFacts;
  readonly onError: string;
  readonly config?: unknown;
}

const maxDepth = 8;

/** The view of one pipeline; configurations are redacted. */
export function describePipeline(
  direction: "inbound" | "outbound",
  plugins: readonly ConfiguredPlugin[],
): readonly PipelinePluginView[] {
  return plugins.map(({ definition, onError, config }, index) => ({
    ...described(definition),
    direction,
    position: index + 1,
    onError,
    ...(config === undefined ? {} : { config: redact(config) }),
  }));
}

/** The view of one definition; `schema` is the JSON Schema of its configuration (input side), if it takes any. */
export function describePlugin(definition: PluginFacts, schema?: unknown): PluginView {
  return { ...described(definition), fields: fieldsOf(schema, schema, 0) };
}

function described(definition: PluginFacts): Omit<PluginView, "fields"> {
  const { name, description, requires = [], requiresAny = [], body = {} } = definition;
  return { name, description, requires, requiresAny, readsBody: readsBody(body) };
}

function readsBody(body: BodyAccess): boolean {
  return body.request !== undefined || body.response !== undefined;
}

type Schema = Readonly<Record<string, unknown>>;

function isSchema(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function fieldsOf(root: unknown, given: unknown, depth: number): readonly FieldView[] {
  if (!isSchema(given) || depth >= maxDepth) return [];
  const schema = resolved(root, given);
  const properties = schema["properties"];
  if (!isSchema(properties))
    return alternatives(schema).flatMap((one) => fieldsOf(root, one, depth + 1));
  const required = Array.isArray(schema["required"]) ? schema["required"] : [];
  return Object.entries(properties)
    .filter((entry): entry is [string, Schema] => isSchema(entry[1]))
    .map((entry) => fieldOf(root, entry, required.includes(entry[0]), depth));
}

function fieldOf(
  root: unknown,
  [name, given]: readonly [string, Schema],
  required: boolean,
  depth: number,
): FieldView {
  const schema = resolved(root, given);
  const type = typeOf(root, schema, depth);
  const description = given["description"] ?? schema["description"];
  const preset = given["default"] ?? schema["default"];
  const words = enumOf(schema);
  return {
    name,
    type,
    required,
    ...(typeof description === "string" ? { description } : {}),
    ...(preset === undefined ? {} : { default: textOf(preset) }),
    ...(words.length === 0 ? {} : { enum: words }),
    ...(type === "object" ? { fields: fieldsOf(root, schema, depth + 1) } : {}),
  };
}

function typeOf(root: unknown, schema: Schema, depth: number): FieldType {
  const given = schema["type"];
  const types: unknown[] = Array.isArray(given) ? given.filter((one) => one !== "null") : [given];
  switch (types.length === 1 ? types[0] : undefined) {
    case "string":
      return "string";
    case "integer":
    case "number":
      return "int";
    case "boolean":
      return "bool";
    case "array": {
      const items = schema["items"];
      const isText = isSchema(items) && typeOf(root, resolved(root, items), depth) === "string";
      return isText ? "[]string" : "unknown";
    }
    case "object":
      // A map with free keys has nothing that a form could ask for.
      return isSchema(schema["properties"]) ? "object" : "unknown";
    default:
      return typeOfAlternatives(root, schema, depth);
  }
}

/** `anyOf` of one kind is that kind; enums and constants without a type are words. */
function typeOfAlternatives(root: unknown, schema: Schema, depth: number): FieldType {
  if (enumOf(schema).length > 0 && alternatives(schema).length === 0) return "string";
  if (depth >= maxDepth) return "unknown";
  const types = new Set(
    alternatives(schema)
      .filter((one) => one["type"] !== "null")
      .map((one) => typeOf(root, resolved(root, one), depth + 1)),
  );
  const [only] = types;
  return types.size === 1 && only !== undefined ? only : "unknown";
}

function alternatives(schema: Schema): readonly Schema[] {
  for (const key of ["anyOf", "oneOf", "allOf"]) {
    const list = schema[key];
    if (Array.isArray(list)) return list.filter(isSchema);
  }
  return [];
}

function enumOf(schema: Schema): readonly string[] {
  if (Array.isArray(schema["enum"])) return schema["enum"].map(textOf);
  if (schema["const"] !== undefined) return [textOf(schema["const"])];
  const words = alternatives(schema).map(enumOf);
  return words.length > 0 && words.every((list) => list.length > 0) ? words.flat() : [];
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Follows one local `$ref`; the schemas are our own, so a chain of them does not occur. */
function resolved(root: unknown, schema: Schema): Schema {
  const reference = schema["$ref"];
  if (typeof reference !== "string" || !reference.startsWith("#/")) return schema;
  let found: unknown = root;
  for (const key of reference.slice(2).split("/")) found = isSchema(found) ? found[key] : undefined;
  return isSchema(found) ? found : schema;
}
