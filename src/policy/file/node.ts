/** One value of a parsed document together with its place, and the questions a reader asks of it. */
import { type KeyPath, nearestWord, type Problems } from "./problem.ts";

/** What the keys of a mapping may be. */
export interface Keys {
  readonly known: readonly string[];
  /** Keys of the file format that this proxy does not enforce, with the reason that the author is told. */
  readonly refused?: Readonly<Record<string, string>>;
}

/** A value at a key path. Every question that fails is recorded as a problem, and nothing here throws. */
export class Node {
  readonly path: KeyPath;
  readonly value: unknown;
  readonly problems: Problems;

  constructor(value: unknown, path: KeyPath, problems: Problems) {
    this.value = value;
    this.path = path;
    this.problems = problems;
  }

  error(message: string): undefined {
    this.problems.error(this.path, message);
    return undefined;
  }

  warning(message: string): void {
    this.problems.warning(this.path, message);
  }

  child(key: string | number, value: unknown): Node {
    return new Node(value, [...this.path, key], this.problems);
  }

  /** The entries of a mapping with any keys. */
  entries(): readonly (readonly [string, Node])[] {
    if (!isMapping(this.value)) return this.#wrong("a mapping") ?? [];
    return Object.entries(this.value).map(([key, value]) => [key, this.child(key, value)]);
  }

  /** The entries of a mapping whose keys are known; the others are problems. */
  fields(keys: Keys): ReadonlyMap<string, Node> {
    const fields = new Map<string, Node>();
    for (const [key, node] of this.entries()) {
      const reason =
        keys.refused !== undefined && Object.hasOwn(keys.refused, key)
          ? keys.refused[key]
          : undefined;
      if (keys.known.includes(key)) fields.set(key, node);
      else if (reason !== undefined)
        node.error(`'${key}' is not enforced by this proxy: ${reason}`);
      else node.error(unknownKey(key, keys.known));
    }
    return fields;
  }

  items(): readonly Node[] {
    if (!Array.isArray(this.value)) return this.#wrong("a list") ?? [];
    return this.value.map((value: unknown, index) => this.child(index, value));
  }

  string(): string | undefined {
    return typeof this.value === "string" ? this.value : this.#wrong("a string");
  }

  boolean(): boolean | undefined {
    return typeof this.value === "boolean" ? this.value : this.#wrong("true or false");
  }

  integer(low: number, high: number): number | undefined {
    const { value } = this;
    if (typeof value !== "number" || !Number.isSafeInteger(value))
      return this.#wrong("a whole number");
    if (value < low || value > high) return this.error(`must be between ${low} and ${high}`);
    return value;
  }

  /** One of a closed set of words. */
  oneOf<Word extends string>(words: readonly Word[]): Word | undefined {
    const written = this.string();
    if (written === undefined) return undefined;
    const word = words.find((candidate) => candidate === written);
    if (word !== undefined) return word;
    const near = nearestWord(written, words);
    const hint = near === undefined ? "" : `; did you mean '${near}'?`;
    return this.error(`must be one of ${words.join(", ")}${hint}`);
  }

  #wrong(expected: string): undefined {
    const written = this.value === null ? "is empty" : `is ${kindOf(this.value)}`;
    return this.error(`${written}, but must be ${expected}`);
  }
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a mapping";
  return `a ${typeof value}`;
}

function unknownKey(key: string, known: readonly string[]): string {
  const shown = key.length > 64 ? `${key.slice(0, 64)}…` : key;
  const near = nearestWord(key, known);
  return near === undefined
    ? `unknown key '${shown}'; known keys are ${known.join(", ")}`
    : `unknown key '${shown}'; did you mean '${near}'?`;
}
