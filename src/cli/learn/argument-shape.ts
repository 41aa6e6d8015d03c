/** From arguments that a tool was called with to a JSON Schema that lets these through and little else. */
import { isObject } from "../../http/json-access.ts";
import { isIdentifier } from "../../policy/identifier.ts";

/** A JSON Schema (2020-12). */
export type Schema = Readonly<Record<string, unknown>>;

/** More different texts than this are no list of choices. */
const maxChoices = 8;
/** A longer text, or one of several lines, is written by somebody and not chosen. */
const maxChoiceChars = 80;
const maxDepth = 12;
/** What the record hides, and where it was cut: the text itself is not known. */
const unknownText = /\[REDACTED\]|…\(truncated\)/;

const identifierPattern = "^[0-9A-Za-z][0-9A-Za-z:._-]{0,127}$";

/** The schema of values that were seen at one place; `isExact` lists them where they can be listed. */
export function shapeOf(values: readonly unknown[], isExact = false, depth = 0): Schema {
  if (depth > maxDepth) return {};
  const kinds = new Map<string, unknown[]>();
  for (const value of values) {
    const kind = kindOf(value);
    kinds.set(kind, [...(kinds.get(kind) ?? []), value]);
  }
  const shapes = [...kinds]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([kind, same]) => shapeOfKind(kind, same, isExact, depth));
  return shapes.length === 1 ? (shapes[0] ?? {}) : { anyOf: shapes };
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}

function shapeOfKind(
  kind: string,
  values: readonly unknown[],
  isExact: boolean,
  depth: number,
): Schema {
  switch (kind) {
    case "object":
      return shapeOfObjects(values.filter(isObject), isExact, depth);
    case "array": {
      const lists = values as readonly unknown[][];
      const items = lists.flat();
      const maxItems = Math.max(...lists.map(({ length }) => length));
      if (items.length === 0) return { type: "array", maxItems: 0 };
      return { type: "array", maxItems, items: shapeOf(items, isExact, depth + 1) };
    }
    case "string":
      return shapeOfTexts([...new Set(values as readonly string[])].sort(), isExact);
    case "number":
      return shapeOfNumbers([...new Set(values as readonly number[])], isExact);
    case "boolean":
      return { type: "boolean", enum: [true, false].filter((one) => values.includes(one)) };
    default:
      return { type: "null" };
  }
}

function shapeOfObjects(
  values: readonly Readonly<Record<string, unknown>>[],
  isExact: boolean,
  depth: number,
): Schema {
  const names = [...new Set(values.flatMap((value) => Object.keys(value)))].sort();
  const has = (value: object, name: string): boolean => Object.hasOwn(value, name);
  const required = names.filter((name) => values.every((value) => has(value, name)));
  const properties = names.map((name) => {
    const seen = values.filter((value) => has(value, name)).map((value) => value[name]);
    return [name, shapeOf(seen, isExact, depth + 1)] as const;
  });
  return {
    type: "object",
    properties: Object.fromEntries(properties),
    ...(required.length > 0 ? { required } : {}),
    additionalProperties: false,
  };
}

function shapeOfNumbers(values: readonly number[], isExact: boolean): Schema {
  if (isExact) return { enum: [...values].sort((one, other) => one - other) };
  const type = values.every((value) => Number.isInteger(value)) ? "integer" : "number";
  return { type, minimum: Math.min(...values), maximum: Math.max(...values) };
}

function shapeOfTexts(texts: readonly string[], isExact: boolean): Schema {
  if (texts.some((text) => unknownText.test(text))) return { type: "string" };
  if (isExact) return { type: "string", enum: texts };
  const origins = originsOf(texts);
  if (origins !== undefined) return { type: "string", pattern: originPattern(origins) };
  if (texts.every(isIdentifier)) return { type: "string", pattern: identifierPattern };
  const isChosen = texts.every((text) => text.length <= maxChoiceChars && !text.includes("\n"));
  if (isChosen && texts.length <= maxChoices) return { type: "string", enum: texts };
  const folder = folderOf(texts);
  if (folder !== undefined) return { type: "string", pattern: folderPattern(folder) };
  return { type: "string", maxLength: roundedUp(Math.max(...texts.map(({ length }) => length))) };
}

/** Scheme and host of every text; undefined where one of them is no plain URL. */
function originsOf(texts: readonly string[]): readonly string[] | undefined {
  const origins = texts.map((text) => {
    // Other spellings are read differently by different parsers: they stay a choice.
    const found = /^(https?:\/\/[a-z0-9.-]+(?::\d{1,5})?)(?:[/?#][!-~]*)?$/.exec(text)?.[1];
    return found !== undefined && !text.includes("\\") && URL.canParse(text) ? found : undefined;
  });
  if (origins.includes(undefined) || origins.length === 0) return undefined;
  const known = [...new Set(origins)].filter((origin) => origin !== undefined);
  return known.length > maxChoices ? undefined : known.sort();
}

function originPattern(origins: readonly string[]): string {
  const hosts = origins.map(quoteRegex).join("|");
  // No backslash: some parsers take it for a slash.
  return `^(?:${hosts})(?:[/?#][!-\\[\\]-~]*)?$`;
}

/** The folder that all of these absolute paths are in. */
function folderOf(texts: readonly string[]): string | undefined {
  if (!texts.every((text) => /^(?:\/[^/.\s%\\][^/\s%\\]*)+$/.test(text))) return undefined;
  const [first = [], ...others] = texts.map((text) => text.split("/").slice(0, -1));
  let common = first;
  for (const other of others) {
    const end = common.findIndex((name, index) => other[index] !== name);
    if (end !== -1) common = common.slice(0, end);
  }
  return common.length > 1 ? common.join("/") : undefined;
}

/** Names that begin with a dot are left out: two of them lead elsewhere. */
function folderPattern(folder: string): string {
  return `^${quoteRegex(folder)}(?:/[^/.\\s%\\\\][^/\\s%\\\\]*)+$`;
}

function quoteRegex(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|/]/g, (character) =>
    character === "/" ? character : `\\${character}`,
  );
}

function roundedUp(length: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(length, 64)));
}
