/**
 * The reference of all keys as a Markdown page, made from the JSON Schema.
 */
import type { JsonSchema } from "../src/config/json-schema.ts";
import { isRestartOnly } from "../src/config/restart-only.ts";

/** One key of the file. */
export interface ReferenceRow {
  readonly path: string;
  readonly type: string;
  readonly fallback: string;
  readonly isRestartOnly: boolean;
  readonly description: string;
}

const introduction = `# Configuration

This page is generated from the schema (\`npm run docs\`); edit the descriptions in \`src/config/\` instead.

One YAML file configures the process. Every key below may be left out unless its description says otherwise.

- A **duration** is a Go duration such as \`250ms\`, \`30s\` or \`1h30m\`. A **size** is a number of bytes, or a text such as \`64KiB\`, \`1MiB\`, \`2GiB\`.
- A **listen address** is \`:8080\` (every interface), \`127.0.0.1:8080\` or \`[::1]:8080\`; port 0 takes any free port.
- \`$NAME\` and \`\${NAME}\` are replaced by environment variables before the YAML is read, in comments and quotes too. A variable that is not set is an error outside comments, with its name, so that the text \`\${API_KEY}\` is never sent as a credential. There is no escape: a value with a \`$\` before a letter, digit or brace comes in through a variable, whose own text is not expanded again.
- A key without a value (\`key:\`) is the same as no key; an error for one whose absence lifts a check, such as \`two_person\` or \`allowed_spiffe_ids\`.
- An unknown key is an error. With \`--lenient\` it is a warning, except inside a pipeline. Unknown keys of \`mtls\` are always warnings.
- Most keys that have no effect as those beside them stand are named in a warning, at the start and by \`check\`, or refused.
- The file is YAML 1.2. \`yes\`, \`no\`, \`on\` and \`off\` are read as booleans where a boolean is expected, with a warning.
- A change of a key marked **restart** is refused on reload; everything else is applied.

## Keys
`;

/** The whole page. */
export function buildReference(schema: JsonSchema): string {
  const plugins = pluginSections(schema).map(({ name, rows }) => {
    const head = "| key | type | default | description |\n| --- | --- | --- | --- |";
    const lines = rows.map((row) => `| ${cells(row).join(" | ")} | ${cell(row.description)} |`);
    return `\n### ${name}\n\n${head}\n${lines.join("\n")}\n`;
  });
  const head = "| key | type | default | reload | description |\n| --- | --- | --- | --- | --- |";
  const lines = referenceRows(schema).map((row) => {
    const reload = row.isRestartOnly ? "restart" : "";
    return `| ${cells(row).join(" | ")} | ${reload} | ${cell(row.description)} |`;
  });
  const note = "The keys of `config` in an entry of a pipeline. All of them are applied on reload.";
  return `${introduction}\n${head}\n${lines.join("\n")}\n\n## Plugins\n\n${note}\n${plugins.join("")}`;
}

function cells(row: ReferenceRow): string[] {
  return [`\`${row.path}\``, cell(row.type), cell(row.fallback)];
}

interface PluginSection {
  readonly name: string;
  readonly rows: readonly ReferenceRow[];
}

/** The rules of the schema say which settings belong to which plugin. */
function pluginSections(schema: JsonSchema): PluginSection[] {
  const rules = memberOf(schema, ["$defs", "pluginEntry", "allOf"]);
  if (!Array.isArray(rules)) return [];
  return rules.flatMap((rule) => {
    const name = memberOf(rule, ["if", "properties", "name", "const"]);
    const settings = memberOf(rule, ["then", "properties", "config", "anyOf", "0"]);
    return isSchema(settings) ? [{ name: String(name), rows: rowsOf(settings, "", schema) }] : [];
  });
}

function memberOf(node: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((found, step) => (isSchema(found) ? found[step] : undefined), node);
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("*", "\\*").replaceAll("\n", " ");
}

/** Every key of the file, in the order of the schema. */
export function referenceRows(schema: JsonSchema): ReferenceRow[] {
  return rowsOf(schema, "", schema);
}

function rowsOf(node: JsonSchema, path: string, root: JsonSchema): ReferenceRow[] {
  const { properties } = node;
  if (!isSchema(properties)) return [];
  return Object.entries(properties).flatMap(([key, member]) => {
    if (!isSchema(member)) return [];
    const at = path === "" ? key : `${path}.${key}`;
    const below = isSchema(member["properties"])
      ? rowsOf(member, at, root)
      : elementRows(member, at, root);
    return isSchema(member["properties"]) ? below : [rowOf(member, at), ...below];
  });
}

/** The keys of the mappings that a list may hold, of those in pipelines; and of kinds that a key of theirs tells apart. */
function elementRows(member: JsonSchema, path: string, root: JsonSchema): ReferenceRow[] {
  const items = resolve(member["items"], root);
  const branches = items === undefined ? [] : branchesOf(items, "anyOf");
  return [
    ...branches.flatMap((branch) => rowsOf(branch, `${path}[]`, root)),
    ...kindRows(member, path, root),
  ];
}

/** Each kind by the key that names it, such as `type: vault`. */
function kindRows(member: JsonSchema, path: string, root: JsonSchema): ReferenceRow[] {
  const values = resolve(member["additionalProperties"], root);
  const below = values === undefined ? [] : branchesOf(values, "anyOf");
  const inKind = (branch: JsonSchema): JsonSchema => resolve(branch, root) ?? branch;
  const kinds = (node: JsonSchema, at: string): ReferenceRow[] =>
    branchesOf(node, "oneOf").flatMap((kind) =>
      kind === node ? [] : rowsOf(kind, `${at} (${kindOf(kind)})`, root),
    );
  return [...kinds(member, path), ...below.flatMap((branch) => kinds(inKind(branch), `${path}.*`))];
}

function branchesOf(node: JsonSchema, word: "anyOf" | "oneOf"): readonly JsonSchema[] {
  const branches = node[word];
  return Array.isArray(branches) ? branches.filter(isSchema) : [node];
}

function kindOf({ properties }: JsonSchema): string {
  const keys = Object.entries(isSchema(properties) ? properties : {});
  const [key, value] = keys.find(([, member]) => memberOf(member, ["const"]) !== undefined) ?? [];
  return `${key}: ${String(memberOf(value, ["const"]))}`;
}

function resolve(node: unknown, root: JsonSchema): JsonSchema | undefined {
  if (!isSchema(node)) return undefined;
  const { $ref } = node;
  if (typeof $ref !== "string") return node;
  const found = memberOf(root, $ref.split("/").slice(1));
  return isSchema(found) ? found : undefined;
}

function rowOf(member: JsonSchema, path: string): ReferenceRow {
  const { default: fallback, description } = member;
  return {
    path,
    type: typeOf(member),
    fallback: fallback === undefined ? "" : `\`${JSON.stringify(fallback)}\``,
    isRestartOnly: isRestartOnly(path),
    description: typeof description === "string" ? description : "",
  };
}

function typeOf(node: JsonSchema): string {
  const { type, enum: values, const: only, anyOf, oneOf, items } = node;
  if (Array.isArray(values))
    return values.map((value) => `\`${JSON.stringify(value)}\``).join(" or ");
  if (only !== undefined) return `\`${JSON.stringify(only)}\``;
  if (Array.isArray(oneOf) || node["$ref"] !== undefined) return "mapping";
  if (Array.isArray(anyOf)) return [...new Set(anyOf.filter(isSchema).map(typeOf))].join(" or ");
  if (type === "array")
    return isSchema(items) && items["$ref"] === undefined ? `list of ${typeOf(items)}` : "list";
  const types: unknown[] = Array.isArray(type) ? type : [type];
  return types.map((one) => (typeof one === "string" ? (typeNames[one] ?? one) : "")).join(" or ");
}

const typeNames: Readonly<Record<string, string>> = {
  string: "text",
  integer: "whole number",
  object: "mapping",
};

function isSchema(value: unknown): value is JsonSchema {
  return typeof value === "object" && value !== null;
}
