/** What a schema finds wrong with a parsed value: one remark for each key, with the word that was probably meant. */
import type { z } from "zod";
import { type KeyPath, nearestKey } from "./problem.ts";
import { schemaKeys } from "./schema-keys.ts";
import { isMapping, valueAt } from "./value-path.ts";
import { wordIssue } from "./words.ts";

/** Something to say about the value at a path. It quotes no value. */
export interface Remark {
  readonly path: KeyPath;
  readonly message: string;
  readonly suggestion?: string | undefined;
}

/** What a schema says. */
export interface SchemaRemark extends Remark {
  /** The keys that stand where this one is not known. */
  readonly knownKeys?: readonly string[];
  /** The type that the schema wants, where it is the type that is wrong. */
  readonly expected?: string;
}

/** A file with more problems than this is not the file that was meant: words are not looked for any longer. */
const maxSuggestions = 200;

/** What a value is by a schema, or all that is wrong with it. */
export type Checked<T> =
  | { readonly kind: "valid"; readonly data: T }
  | { readonly kind: "invalid"; readonly remarks: readonly SchemaRemark[] };

/** Checks a value. */
export function check<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
): Checked<z.output<Schema>> {
  const { success, data, error } = schema.safeParse(value, { error: wordIssue });
  if (success) return { kind: "valid", data };
  const found = error.issues.flatMap((issue) => flatten(issue, value, []));
  const remarks = found.map((remark, index) => {
    if (remark.message !== unknownKey || index >= maxSuggestions) return remark;
    const above = remark.path.slice(0, -1);
    const knownKeys = schemaKeys(schema, above);
    const written = valueAt(value, above);
    const unused = knownKeys.filter((key) => !isMapping(written) || !Object.hasOwn(written, key));
    const key = remark.path.at(-1);
    return { ...remark, knownKeys, ...suggest(key, knownKeys), ...suggest(key, unused) };
  });
  return { kind: "invalid", remarks };
}

const unknownKey = "unknown key";

/** One remark for each key. Of a union, the branch that the value was meant for. */
function flatten(issue: z.core.$ZodIssue, root: unknown, parent: KeyPath): SchemaRemark[] {
  const path = [
    ...parent,
    ...issue.path.map((step) => (typeof step === "number" ? step : String(step))),
  ];
  const { message } = issue;
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => ({ path: [...path, key], message: unknownKey }));
  if (issue.code === "invalid_union") {
    const branch = issue.errors.find((errors) => !errors.some(isWrongKind));
    // A problem of the value as a whole is reported in the words of the union.
    if (branch?.some((inner) => inner.path.length > 0 || inner.code === "unrecognized_keys"))
      return branch.flatMap((inner) => flatten(inner, root, path));
  }
  if (issue.code === "invalid_type") return [{ path, message, expected: issue.expected }];
  if (issue.code !== "invalid_value") return [{ path, message }];
  return [{ path, message, ...suggest(valueAt(root, path), issue.values) }];
}

/** A branch whose first complaint is about the type of the whole value was not meant. */
function isWrongKind(issue: z.core.$ZodIssue): boolean {
  return (
    issue.path.length === 0 && (issue.code === "invalid_type" || issue.code === "invalid_value")
  );
}

/** The known word that is nearest to what is written. */
export function suggest(written: unknown, known: readonly unknown[]): Pick<Remark, "suggestion"> {
  if (typeof written !== "string") return {};
  const words = known.filter((word) => typeof word === "string");
  const suggestion = nearestKey(written, words);
  return suggestion === undefined ? {} : { suggestion };
}
