/** Keys that a file writes without a value: `key:` and `key: ""` are the same as no key, as for the Go program. */
import { z } from "zod";
import type { SchemaDef } from "./schema-keys.ts";
import { SchemaMarks } from "./schema-marks.ts";
import { isMapping } from "./value-path.ts";

type Schema = z.core.$ZodType;

/** How far {@link guarded} reaches: the key alone, or everything below it as well. */
export type Reach = "key" | "all";

const guards = new SchemaMarks<Reach>();

/** Marks a key whose absence lifts a check: written empty, such as by a variable that is empty, it stays an error. */
export function guarded<Marked extends z.ZodType>(schema: Marked, reach: Reach = "key"): Marked {
  guards.set(schema, reach);
  return schema;
}

/** A list that narrows where something holds. Left out it narrows nothing; written it names something, lest an empty variable open it. */
export function narrowing<Item extends z.ZodType>(item: Item, max: number) {
  const list = z.array(item).min(1, { error: narrowsNothing }).max(max);
  return guarded(list.optional().transform((items) => items ?? []));
}

/** What is said of a list or a mapping that would narrow, and is empty. */
export const narrowsNothing = "must not be empty; leave it out to mean any";

/** The value without the optional keys that are empty. Of a required key, emptiness stays for the schema to name. */
export function withoutEmpty(schema: Schema, value: unknown): unknown {
  if (guards.get(schema) === "all") return value;
  const def = schema._zod.def as SchemaDef;
  const wrapped = def.innerType ?? def.in;
  if (wrapped !== undefined) return withoutEmpty(wrapped, value);
  if (def.options !== undefined)
    return optionsFor(schema, value).reduce((rest, option) => withoutEmpty(option, rest), value);
  if (Array.isArray(value)) {
    const { element } = def;
    return element === undefined ? value : value.map((item) => withoutEmpty(element, item));
  }
  if (!isMapping(value)) return value;
  const members = Object.entries(value).flatMap(([key, member]) => {
    const isOwn = def.shape !== undefined && Object.hasOwn(def.shape, key);
    const inner = isOwn ? def.shape[key] : def.valueType;
    if (inner === undefined) return [[key, member]];
    return isOwn && isUnset(inner, member) ? [] : [[key, withoutEmpty(inner, member)]];
  });
  return Object.fromEntries(members);
}

/** What a value of a union may be: where a key says which option it is, no other one has a say. */
function optionsFor(schema: Schema, value: unknown): readonly Schema[] {
  const { options = [], discriminator: key } = schema._zod.def as SchemaDef;
  if (key === undefined || !isMapping(value)) return options;
  const kind = value[key] as z.core.util.Primitive;
  return options.filter((option) => option._zod.propValues?.[key]?.has(kind) === true);
}

/** An empty text that the schema takes has a meaning of its own where leaving the key out means something else. */
function isUnset(schema: Schema, value: unknown): boolean {
  if ((value !== null && value !== "") || guards.get(schema) !== undefined) return false;
  const member = schema as z.ZodType;
  const absent = member.safeParse(undefined);
  if (!absent.success) return false;
  if (value === null) return !member.safeParse(null).success;
  return takesText(schema) && (absent.data === undefined || !member.safeParse("").success);
}

/** `count: ""` is a mistake for the Go program too: only a text can be an empty one. */
function takesText(schema: Schema): boolean {
  const { type, innerType, in: input, options } = schema._zod.def as SchemaDef;
  const wrapped = innerType ?? input;
  if (wrapped !== undefined) return takesText(wrapped);
  return options?.some(takesText) ?? ["string", "enum", "literal"].includes(type);
}
