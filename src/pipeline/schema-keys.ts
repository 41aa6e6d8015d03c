/** The keys that a schema knows at one place, for suggestions. */
import type { z } from "zod";

interface SchemaDef {
  readonly shape?: Readonly<Record<string, z.core.$ZodType>>;
  readonly innerType?: z.core.$ZodType;
  readonly element?: z.core.$ZodType;
  readonly valueType?: z.core.$ZodType;
  readonly in?: z.core.$ZodType;
  readonly options?: readonly z.core.$ZodType[];
}

/** The keys of the object at `path`; empty where the schema has none. */
export function schemaKeys(
  schema: z.core.$ZodType,
  path: readonly PropertyKey[],
): readonly string[] {
  const def = schema._zod.def as SchemaDef;
  const wrapped = def.innerType ?? def.in;
  if (wrapped !== undefined) return schemaKeys(wrapped, path);
  if (def.options !== undefined) return def.options.flatMap((option) => schemaKeys(option, path));
  const [key, ...rest] = path;
  if (key === undefined) return Object.keys(def.shape ?? {});
  const next = def.shape?.[String(key)] ?? def.element ?? def.valueType;
  return next === undefined ? [] : schemaKeys(next, rest);
}
