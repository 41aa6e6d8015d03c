/** One value of a document that a schema has judged, together with its place, and the questions a reader asks of it. */
import type { z } from "zod";
import type { KeyPath } from "../../yaml/problem.ts";
import { check, type SchemaRemark } from "../../yaml/schema-remarks.ts";
import { isMapping, valueAt } from "../../yaml/value-path.ts";
import type { Problems } from "./problem.ts";

type Key<T> = T extends Readonly<Record<string, unknown>> ? keyof T & string : never;
type Member<T, K> =
  T extends Readonly<Record<string, unknown>>
    ? K extends keyof T
      ? Exclude<T[K], undefined>
      : never
    : never;
type Item<T> = T extends readonly (infer Element)[] ? Element : never;

/** Judges a value. Problems of the schema are reported when a reader reaches the value. */
export function judge<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  problems: Problems,
): Node<z.output<Schema>> {
  const checked = check(schema, value);
  const faults = new Faults();
  for (const remark of checked.kind === "valid" ? [] : checked.remarks) {
    let place = faults;
    for (const step of remark.path) place = place.enter(step);
    place.messages.push(wordsFor(remark, valueAt(value, remark.path)));
  }
  return new Node(value, [], problems, checked.kind === "valid" ? undefined : faults);
}

/** A value at a key path. Nothing here throws. */
export class Node<T = unknown> {
  readonly path: KeyPath;
  readonly #written: unknown;
  readonly #problems: Problems;
  readonly #faults: Faults | undefined;
  readonly #isSound: boolean;

  constructor(written: unknown, path: KeyPath, problems: Problems, faults: Faults | undefined) {
    this.path = path;
    this.#written = written;
    this.#problems = problems;
    this.#faults = faults;
    this.#isSound = faults === undefined || faults.messages.length === 0;
  }

  /** Undefined where the schema has something against it; of a list or a mapping that is not said of its members. */
  get value(): T | undefined {
    // The schema has judged it.
    return this.#isSound ? (this.#written as T) : undefined;
  }

  /** The value, where the schema has nothing against it nor against anything in it. */
  get whole(): T | undefined {
    return this.#faults === undefined ? (this.#written as T) : undefined;
  }

  error(message: string): undefined {
    this.#problems.error(this.path, message);
    return undefined;
  }

  warning(message: string): void {
    this.#problems.warning(this.path, message);
  }

  /** Tells what the schema has against this value and what is in it. */
  tellFaults(): void {
    this.#faults?.tell(this.path, this.#problems);
  }

  /** A member that is written, whatever its value. */
  at<K extends Key<T>>(key: K): Node<Member<T, K>> | undefined {
    if (!isMapping(this.#written) || !Object.hasOwn(this.#written, key)) return undefined;
    return this.#child(key, this.#written[key]);
  }

  /** The value of a member that is written and sound. */
  get<K extends Key<T>>(key: K): Member<T, K> | undefined {
    return this.at(key)?.value;
  }

  /** The members of a mapping with any keys. */
  entries(): readonly (readonly [string, Node<Member<T, Key<T>>>])[] {
    if (!isMapping(this.#written)) return [];
    return Object.entries(this.#written).flatMap(([key, value]) => {
      // A schema passes over this one.
      if (key === "__proto__") return this.error("'__proto__' cannot be a key") ?? [];
      return [[key, this.#child<Member<T, Key<T>>>(key, value)] as const];
    });
  }

  /** The elements of a list. */
  items(): readonly Node<Item<T>>[] {
    if (!Array.isArray(this.#written)) return [];
    return this.#written.map((value: unknown, index) => this.#child(index, value));
  }

  /** The elements of a list that are sound. */
  values(): readonly Item<T>[] {
    return this.items().flatMap(({ value }) => (value === undefined ? [] : [value]));
  }

  #child<Value>(key: string | number, value: unknown): Node<Value> {
    return new Node(value, [...this.path, key], this.#problems, this.#faults?.below.get(key));
  }
}

/** What a schema has against a value and its members. */
class Faults {
  readonly messages: string[] = [];
  readonly below = new Map<string | number, Faults>();
  #isTold = false;

  enter(step: string | number): Faults {
    const known = this.below.get(step);
    if (known !== undefined) return known;
    const made = new Faults();
    this.below.set(step, made);
    return made;
  }

  tell(path: KeyPath, problems: Problems): void {
    if (this.#isTold) return;
    this.#isTold = true;
    for (const message of this.messages) problems.error(path, message);
    for (const [key, faults] of this.below) faults.tell([...path, key], problems);
  }
}

function wordsFor({ path, message, expected, ...remark }: SchemaRemark, written: unknown): string {
  const { knownKeys, suggestion } = remark;
  const hint = suggestion === undefined ? "" : `; did you mean '${suggestion}'?`;
  if (knownKeys !== undefined) {
    const key = `unknown key '${String(path.at(-1)).slice(0, 64)}'`;
    return suggestion === undefined ? `${key}; known keys are ${knownKeys.join(", ")}` : key + hint;
  }
  const [must = ""] = message.split(", not ");
  if (written === null) return `is empty, but ${must}`;
  const isKindWrong = expected !== undefined && expected !== "never" && written !== undefined;
  return isKindWrong ? `is ${kindOf(written)}, but ${must}` : `${message}${hint}`;
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (typeof value === "number" && !Number.isInteger(value)) return "a fraction";
  return typeof value === "object" ? "a mapping" : `a ${typeof value}`;
}
