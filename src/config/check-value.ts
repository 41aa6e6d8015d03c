/**
 * The parsed YAML against the schema: every problem at once, in words that quote no value.
 */
import { parseDuration } from "../duration.ts";
import { withoutEmpty } from "../yaml/empty-values.ts";
import { idleKeys } from "../yaml/idle-keys.ts";
import type { KeyPath } from "../yaml/problem.ts";
import { check, type Remark, type SchemaRemark } from "../yaml/schema-remarks.ts";
import { isMapping, removeAt, replaceAt, valueAt } from "../yaml/value-path.ts";
import { relationProblems, type Relation } from "./relations.ts";
import { configSchema, type FileConfig } from "./schema.ts";

/** A value that fits the schema, or all the reasons why it does not. */
export type CheckedValue =
  | {
      readonly kind: "valid";
      readonly file: FileConfig;
      readonly warnings: readonly Remark[];
      /** Whether the file gives this key itself, and not only its default. */
      readonly isWritten: (path: KeyPath) => boolean;
    }
  | {
      readonly kind: "invalid";
      readonly problems: readonly Remark[];
      /** What is left of the file without its faults, when none of them is in the pipelines. */
      readonly mended?: FileConfig;
    };

/** Each round mends what the one before it found; a file needs two or three. */
const maxRounds = 8;
/** A file with more problems than this is not the file that was meant. */
const maxProblems = 200;

/**
 * Checks a value. Faults are taken out of a copy, which is then checked again: so the rules between keys are checked
 * although some key has a wrong type, and unknown keys can be passed over.
 */
export function checkValue(value: unknown, isLenient: boolean): CheckedValue {
  const problems: Remark[] = [];
  const warnings: Remark[] = [];
  if (!isMapping(value))
    return { kind: "invalid", problems: [{ path: [], message: "must be a mapping of keys" }] };
  const mended = withoutEmpty(configSchema, value) as Record<string, unknown>;
  mendSessionTtl(mended, warnings);
  for (let round = 0; round < maxRounds; round++) {
    const result = check(configSchema, mended);
    if (result.kind === "valid") {
      problems.push(
        ...relationProblems(result.data).filter((remark) => isFounded(remark, problems)),
      );
      if (problems.length > 0) {
        const inPipelines = problems.some(({ path }) => path[0] === "pipeline");
        return { kind: "invalid", problems, ...(inPipelines ? {} : { mended: result.data }) };
      }
      warnings.push(...idleKeys(configSchema, mended, result.data));
      const isWritten = (path: KeyPath): boolean => valueAt(mended, path) !== undefined;
      return { kind: "valid", file: result.data, warnings, isWritten };
    }
    const { remarks } = result;
    // The copy is changed after all issues are collected: each is about the value as it was checked.
    const mend: (() => void)[] = [];
    for (const remark of remarks.slice(0, maxProblems)) {
      const { path, message, suggestion } = remark;
      if (isBooleanWord(remark, mended)) {
        const isTrue = trueWords.has(String(valueAt(mended, path)).toLowerCase());
        warnings.push({ path, message: `is read as ${isTrue}; write true or false` });
        mend.push(() => replaceAt(mended, path, isTrue));
        continue;
      }
      const isUnknown = remark.knownKeys !== undefined;
      const isPassedOver =
        isUnknown && (path[0] === "mtls" || (isLenient && path[0] !== "pipeline"));
      if (isUnknown || !isCovered(path, problems)) {
        (isPassedOver ? warnings : problems).push({ path, message, suggestion });
      }
      const part = faultyPart(mended, path);
      mend.push(() => removeAt(mended, part));
    }
    if (remarks.length > maxProblems) {
      problems.push({ path: [], message: `has ${remarks.length - maxProblems} further problems` });
      break;
    }
    for (const apply of mend) apply();
  }
  return { kind: "invalid", problems };
}

/** Go's YAML reads these as booleans where a boolean is expected; YAML 1.2 reads them as text. */
const trueWords = new Set(["y", "yes", "on"]);
const booleanWords = new Set([...trueWords, "n", "no", "off"]);

function isBooleanWord({ path, expected }: SchemaRemark, root: unknown): boolean {
  const written = expected === "boolean" ? valueAt(root, path) : undefined;
  return typeof written === "string" && booleanWords.has(written.toLowerCase());
}

/** A session.ttl that cannot be read is the one wrong value that does not stop the proxy, as in the Go program. */
function mendSessionTtl(root: Record<string, unknown>, warnings: Remark[]): void {
  const session = root["session"];
  if (!isMapping(session) || !Object.hasOwn(session, "ttl")) return;
  const { ttl, ...rest } = session;
  if (ttl === "never" || (typeof ttl === "string" && (parseDuration(ttl) ?? 0) > 0)) return;
  warnings.push({ path: ["session", "ttl"], message: "is not a duration; 30m is used" });
  root["session"] = rest;
}

/** Whether a problem of this key, or of a block above it, has been reported already. */
function isCovered(path: KeyPath, told: readonly Remark[]): boolean {
  return told.some((problem) => problem.path.every((step, index) => step === path[index]));
}

/** A rule between keys is reported only when each of these keys is valid by itself. */
function isFounded({ path, because }: Relation, told: readonly Remark[]): boolean {
  const isShaken = (key: KeyPath): boolean =>
    isCovered(key, told) ||
    told.some((problem) => key.every((step, index) => step === problem.path[index]));
  return !isCovered(path, told) && !because.some(isShaken);
}

/**
 * What to take out for a fault at `path`. Instead of an element its whole list, so that the numbers of the others
 * stay true; instead of a missing key, the mapping that lacks it.
 */
function faultyPart(root: unknown, path: KeyPath): KeyPath {
  let end = valueAt(root, path) === undefined ? path.length - 1 : path.length;
  while (end > 0 && typeof path[end - 1] === "number") end--;
  return path.slice(0, end);
}
