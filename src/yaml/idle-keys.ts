/** Keys that nothing reads where others are not as they would have to be; whoever wrote one should hear of it. */
import { isDeepStrictEqual } from "node:util";
import type { z } from "zod";
import type { KeyPath } from "./problem.ts";
import type { SchemaDef } from "./schema-keys.ts";
import { SchemaMarks } from "./schema-marks.ts";
import type { Remark } from "./schema-remarks.ts";
import { isMapping } from "./value-path.ts";

type Schema = z.core.$ZodType;
type Beside = Readonly<Record<string, unknown>>;

interface Use {
  readonly missing: string;
  isRead(beside: Beside): boolean;
}

const uses = new SchemaMarks<Use>();

/** Marks a key that is read only where `isRead` says so of the keys beside it; `missing` has the words, such as "without nonce: true". */
export function readWhere<Marked extends z.ZodType>(
  schema: Marked,
  missing: string,
  isRead: (beside: Beside) => boolean,
): Marked {
  uses.set(schema, { missing, isRead });
  return schema;
}

/** The keys of a mapping that were written for nothing. One that says what is so anyway is none of them. */
export function idleKeys(
  schema: Schema,
  written: unknown,
  checked: unknown,
  path: KeyPath = [],
): Remark[] {
  const { innerType, in: input, options, element, shape, valueType } = schema._zod.def as SchemaDef;
  const inner = innerType ?? input ?? options?.find((one) => fits(one, written));
  if (inner !== undefined) return idleKeys(inner, written, checked, path);
  if (Array.isArray(written) && Array.isArray(checked) && element !== undefined)
    return written.flatMap((item, at) => idleKeys(element, item, checked[at], [...path, at]));
  if (!isMapping(written) || !isMapping(checked)) return [];
  return Object.entries(written).flatMap(([key, value]) => {
    const member = shape?.[key] ?? valueType;
    if (member === undefined) return [];
    const use = uses.get(member);
    if (use === undefined || use.isRead(checked) || isDefault(member, checked[key]))
      return idleKeys(member, value, checked[key], [...path, key]);
    return [{ path: [...path, key], message: `has no effect ${use.missing}` }];
  });
}

function fits(schema: Schema, value: unknown): boolean {
  return (schema as z.ZodType).safeParse(value).success;
}

function isDefault(schema: Schema, value: unknown): boolean {
  return isDeepStrictEqual((schema as z.ZodType).safeParse(undefined).data, value);
}
