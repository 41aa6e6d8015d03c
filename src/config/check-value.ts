/**
 * The parsed YAML against the schema: every problem at once, in words that quote no value.
 */
import type { z } from "zod";
import { wordIssue } from "../schema-words.ts";
import { parseDuration } from "../duration.ts";
import { knownKeys, type KnownKeys } from "./json-schema.ts";
import { nearestKey, type KeyPath } from "./problem.ts";
import { relationProblems, type Relation, type Remark } from "./relations.ts";
import { configSchema, type FileConfig } from "./schema.ts";
import { isMapping, removeAt, replaceAt, valueAt } from "./value-path.ts";

/** A remark that may name the key that was meant. */
export interface ValueRemark extends Remark {
  readonly suggestion?: string;
}

/** A value that fits the schema, or all the reasons why it does not. */
export type CheckedValue =
  | {
      readonly ok: true;
      readonly file: FileConfig;
      readonly warnings: readonly ValueRemark[];
      /** Whether the file gives this key itself, and not only its default. */
      readonly isWritten: (path: KeyPath) => boolean;
    }
  | {
      readonly ok: false;
      readonly problems: readonly ValueRemark[];
      /** What is left of the file without its faults, when none of them is in the pipelines. */
      readonly mended?: FileConfig;
    };

/** Each round mends what the one before it found; a file needs two or three. */
const maxRounds = 8;
/** A file with more problems than this is not the file that was meant. */
const maxProblems = 200;

/**
 * Checks a value. Faults are taken out of a copy, which is then checked again: so the rules between keys are heard
 * although some key has a wrong type, and unknown keys can be passed over.
 */
export function checkValue(value: unknown, isLenient: boolean): CheckedValue {
  const problems: ValueRemark[] = [];
  const warnings: ValueRemark[] = [];
  if (!isMapping(value))
    return { ok: false, problems: [{ path: [], message: "must be a mapping of keys" }] };
  const mended = withoutNulls(value);
  mendSessionTtl(mended, warnings);
  const suggest = keySuggester();
  for (let round = 0; round < maxRounds; round++) {
    const result = configSchema.safeParse(mended, { error: wordIssue });
    if (result.success) {
      problems.push(
        ...relationProblems(result.data).filter((remark) => isFounded(remark, problems)),
      );
      if (problems.length > 0) {
        const inPipelines = problems.some(({ path }) => path[0] === "pipeline");
        return { ok: false, problems, ...(inPipelines ? {} : { mended: result.data }) };
      }
      const isWritten = (path: KeyPath): boolean => valueAt(mended, path) !== undefined;
      return { ok: true, file: result.data, warnings, isWritten };
    }
    const issues = result.error.issues.flatMap((issue) => flatten(issue, mended, []));
    // Mending waits until all issues are told: each is about the value as it was checked.
    const mend: (() => void)[] = [];
    for (const { path, message, kind } of issues.slice(0, maxProblems)) {
      if (kind === "boolean-word") {
        const isTrue = trueWords.has(String(valueAt(mended, path)).toLowerCase());
        warnings.push({ path, message: `is read as ${isTrue}; write true or false` });
        mend.push(() => replaceAt(mended, path, isTrue));
        continue;
      }
      if (kind === "unknown-key") {
        const isPassedOver = path[0] === "mtls" || (isLenient && path[0] !== "pipeline");
        (isPassedOver ? warnings : problems).push(suggest(path, mended));
      } else if (!isCovered(path, problems)) {
        problems.push({ path, message });
      }
      const part = faultyPart(mended, path);
      mend.push(() => removeAt(mended, part));
    }
    if (issues.length > maxProblems) {
      problems.push({ path: [], message: `has ${issues.length - maxProblems} further problems` });
      break;
    }
    for (const apply of mend) apply();
  }
  return { ok: false, problems };
}

interface FlatIssue extends Remark {
  readonly kind: "fault" | "unknown-key" | "boolean-word";
}

/** One issue per key. Of a union, the branch that the value was meant for. */
function flatten(issue: z.core.$ZodIssue, root: unknown, parent: KeyPath): FlatIssue[] {
  const path = [
    ...parent,
    ...issue.path.map((step) => (typeof step === "number" ? step : String(step))),
  ];
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({
      path: [...path, key],
      message: "unknown key",
      kind: "unknown-key",
    }));
  }
  if (issue.code === "invalid_union") {
    const branch = issue.errors.find((errors) => !errors.some(isWrongKind));
    // A complaint about the value as a whole is told in the words of the union.
    if (branch?.some((inner) => inner.path.length > 0 || inner.code === "unrecognized_keys")) {
      return branch.flatMap((inner) => flatten(inner, root, path));
    }
  }
  if (issue.code === "invalid_type" && issue.expected === "boolean") {
    const written = valueAt(root, path);
    if (typeof written === "string" && booleanWords.has(written.toLowerCase())) {
      return [{ path, message: issue.message, kind: "boolean-word" }];
    }
  }
  return [{ path, message: issue.message, kind: "fault" }];
}

/** A branch whose first complaint is about the type of the whole value was not meant. */
function isWrongKind(issue: z.core.$ZodIssue): boolean {
  return (
    issue.path.length === 0 && (issue.code === "invalid_type" || issue.code === "invalid_value")
  );
}

/** Go's YAML reads these as booleans where a boolean is expected; YAML 1.2 reads them as text. */
const trueWords = new Set(["y", "yes", "on"]);
const booleanWords = new Set([...trueWords, "n", "no", "off"]);

/** Makes remarks about unknown keys; the list of known ones is made at the first. */
function keySuggester(): (path: KeyPath, root: unknown) => ValueRemark {
  let known: KnownKeys | undefined;
  return (path, root) => {
    known ??= knownKeys();
    const key = String(path.at(-1));
    const parent = valueAt(root, path.slice(0, -1));
    const unused = known(path.slice(0, -1)).filter(
      (sibling) => !isMapping(parent) || !Object.hasOwn(parent, sibling),
    );
    const suggestion = nearestKey(key, unused);
    return { path, message: "unknown key", ...(suggestion === undefined ? {} : { suggestion }) };
  };
}

/**
 * A key without a value is the same as no key, as in Go. The settings of a plugin are left alone: there null may
 * have a meaning.
 */
function withoutNulls(
  value: Readonly<Record<string, unknown>>,
  path: KeyPath = [],
): Record<string, unknown> {
  const entries = Object.entries(value).filter(([, member]) => member !== null);
  return Object.fromEntries(
    entries.map(([key, member]) => {
      const at = [...path, key];
      if (isPluginConfig(at)) return [key, member];
      if (Array.isArray(member)) {
        return [
          key,
          member.map((item, index) =>
            isMapping(item) ? withoutNulls(item, [...at, index]) : item,
          ),
        ];
      }
      return [key, isMapping(member) ? withoutNulls(member, at) : member];
    }),
  );
}

function isPluginConfig(path: KeyPath): boolean {
  return (
    path.length === 5 && path[0] === "pipeline" && path[2] === "plugins" && path[4] === "config"
  );
}

/** A session.ttl that cannot be read is the one wrong value that does not stop the proxy: contract 1.1. */
function mendSessionTtl(root: Record<string, unknown>, warnings: ValueRemark[]): void {
  const session = root["session"];
  if (!isMapping(session) || !Object.hasOwn(session, "ttl")) return;
  const { ttl, ...rest } = session;
  if (ttl === "never" || (typeof ttl === "string" && (parseDuration(ttl) ?? 0) > 0)) return;
  warnings.push({ path: ["session", "ttl"], message: "is not a duration; 30m is used" });
  root["session"] = rest;
}

/** Whether a problem of this key, or of a block above it, has been told already. */
function isCovered(path: KeyPath, told: readonly ValueRemark[]): boolean {
  return told.some((problem) => problem.path.every((step, index) => step === path[index]));
}

/** A rule between keys is only broken when the keys that it speaks of are sound themselves. */
function isFounded({ path, because }: Relation, told: readonly ValueRemark[]): boolean {
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
