/** The keys that a schema knows at one place, for suggestions. */
import type { z } from "zod";

/** What is known of every kind of schema. */
export interface SchemaDef {
  readonly type: string;
  readonly shape?: Readonly<Record<string, z.core.$ZodType>>;
  readonly innerType?: z.core.$ZodType;
  readonly element?: z.core.$ZodType;
  readonly valueType?: z.core.$ZodType;
  readonly in?: z.core.$ZodType;
  readonly options?: readonly z.core.$ZodType[];
  readonly discriminator?: string;
}

/** The keys of the object at `path`, without those that are there to be refused; empty where the schema has none. */
export function schemaKeys(
  schema: z.core.$ZodType,
  path: readonly PropertyKey[],
): readonly string[] {
  const def = schema._zod.def as SchemaDef;
  const wrapped = def.innerType ?? def.in;
  if (wrapped !== undefined) return schemaKeys(wrapped, path);
  if (def.options !== undefined) return def.options.flatMap((option) => schemaKeys(option, path));
  const [key, ...rest] = path;
  if (key === undefined)
    return Object.entries(def.shape ?? {}).flatMap(([name, member]) =>
      isNever(member) ? [] : [name],
    );
  const next = def.shape?.[String(key)] ?? def.element ?? def.valueType;
  return next === undefined ? [] : schemaKeys(next, rest);
}

function isNever(schema: z.core.$ZodType): boolean {
  const { type, innerType } = schema._zod.def as SchemaDef;
  return innerType === undefined ? type === "never" : isNever(innerType);
}
