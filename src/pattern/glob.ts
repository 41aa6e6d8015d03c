/**
 * The glob dialect of OpenShell policy files, matched in time linear in the length of the value.
 *
 * A pattern becomes a small non-deterministic automaton whose states are walked side by side, so that no pattern can
 * make the matcher try the same position twice, whatever the value. The dialect: `*` and `?` stop at a delimiter,
 * `**` crosses it only as a whole segment, `[a-z]`, `[!a]`, `{x,y}` and `\` as usual. Every delimiter other than `/`
 * counts as a segment of its own, which is why `api.**.com` asks for a label in the middle where `/a/**` + `/b` does
 * not ask for a segment.
 */
import { type GlobNode, GlobSyntaxError, parseGlobNodes } from "./glob-syntax.ts";

/** Longer patterns are refused: the automaton grows with the pattern. */
export const maxPatternLength = 1024;

/** What separates segments: `/` for paths and executables, `.` for hosts, names and values. `null`: nothing does. */
export type Delimiters = readonly string[] | null;

/** How a pattern is read. */
export interface GlobOptions {
  /**
   * Reads the pattern as an endpoint selector: `*` crosses `/`, braces and backslashes are literal, and a trailing
   * `/**` also takes the directory itself. Selectors choose an endpoint, they never grant.
   */
  readonly selector?: boolean;
}

const separator = "/";
/** Stands for a `/` that is no delimiter; it cannot come from a value, because values with NUL are refused. */
const placeholder = "\0";

/** Step kinds of the automaton. */
const char = 0;
const notSeparator = 1;
const anything = 2;
const set = 3;
const split = 4;
const accept = 5;

interface Step {
  readonly kind: number;
  /** Code point of a `char`, index of a `set`. */
  readonly operand: number;
  next: number;
  /** Second way out of a `split`. */
  other: number;
}

interface CharacterSet {
  readonly negated: boolean;
  readonly ranges: readonly (readonly [number, number])[];
}

/** A compiled pattern. */
export class Glob {
  readonly pattern: string;
  readonly #delimiters: Delimiters;
  readonly #shortcut: ((value: string) => boolean) | undefined;
  readonly #automaton: Automaton | undefined;
  readonly #alsoExactly: string | undefined;

  /** Throws {@link GlobSyntaxError} for a pattern that cannot be read. */
  constructor(pattern: string, delimiters: Delimiters, options: GlobOptions = {}) {
    if (pattern.length > maxPatternLength) {
      throw new GlobSyntaxError(`pattern is longer than ${maxPatternLength} characters`);
    }
    if (pattern.includes(placeholder)) throw new GlobSyntaxError("pattern contains NUL");
    this.pattern = pattern;
    this.#delimiters = delimiters;
    const selector = options.selector === true;
    const nodes = parseGlobNodes(segmented(pattern, delimiters), { literalBraces: selector });
    this.#alsoExactly = selector && pattern.endsWith("/**") ? pattern.slice(0, -3) : undefined;
    this.#shortcut = shortcutFor(nodes, selector);
    this.#automaton = this.#shortcut === undefined ? new Automaton(nodes, selector) : undefined;
  }

  /** True when the whole value matches. A value with NUL never does. */
  matches(value: string): boolean {
    if (value.includes(placeholder)) return false;
    if (this.#alsoExactly !== undefined && value === this.#alsoExactly) return true;
    const subject = segmented(value, this.#delimiters);
    return this.#shortcut?.(subject) ?? this.#automaton?.matches(subject) ?? false;
  }
}

/** Compiles patterns once each: a policy file repeats few patterns many times. */
export class GlobTable {
  readonly #globs = new Map<string, Glob>();

  compile(pattern: string, delimiters: Delimiters, options: GlobOptions = {}): Glob {
    const key = `${delimiters?.join("") ?? ""}${options.selector === true ? "s" : ""}\0${pattern}`;
    let glob = this.#globs.get(key);
    if (glob === undefined) {
      glob = new Glob(pattern, delimiters, options);
      this.#globs.set(key, glob);
    }
    return glob;
  }
}

/** Rewrites delimiters so that `/` separates segments and nothing else does. */
function segmented(text: string, delimiters: Delimiters): string {
  if (delimiters?.length === 1 && delimiters[0] === separator) return text;
  const list = delimiters?.length === 0 ? ["."] : (delimiters ?? []);
  let result = list.includes(separator) ? text : text.replaceAll(separator, placeholder);
  for (const delimiter of list) {
    if (delimiter !== separator) result = result.replaceAll(delimiter, `/${delimiter}/`);
  }
  return result;
}

/** The plain string that a run of literals stands for, or undefined. */
function literalOf(nodes: readonly GlobNode[]): string | undefined {
  let text = "";
  for (const node of nodes) {
    if (node.kind !== "literal") return undefined;
    text += node.char;
  }
  return text;
}

/** A direct test for the shapes that most patterns have; undefined for the others. */
function shortcutFor(
  nodes: readonly GlobNode[],
  crossing: boolean,
): ((value: string) => boolean) | undefined {
  const last = nodes.at(-1);
  if (nodes.length === 1 && last?.kind === "recursive-prefix") return () => true;
  const whole = literalOf(nodes);
  if (whole !== undefined) return (value) => value === whole;
  const head = literalOf(nodes.slice(0, -1));
  if (head === undefined) return undefined;
  if (last?.kind === "recursive-suffix") {
    const prefix = head + separator;
    return (value) => value.startsWith(prefix);
  }
  if (last?.kind === "star") {
    if (crossing) return (value) => value.startsWith(head);
    return (value) => value.startsWith(head) && !value.includes(separator, head.length);
  }
  return undefined;
}

/** A pattern as states that are walked side by side (Thompson's construction). */
class Automaton {
  readonly #steps: Step[] = [];
  readonly #sets: CharacterSet[] = [];
  readonly #start: number;
  readonly #crossing: boolean;
  /** Scratch space: matching is synchronous, so that one set per pattern is enough. */
  readonly #seen: Uint32Array;
  #current: number[] = [];
  #following: number[] = [];
  readonly #pending: number[] = [];
  #generation = 0;

  constructor(nodes: readonly GlobNode[], crossing: boolean) {
    this.#crossing = crossing;
    const end = this.#add(accept, 0, -1);
    this.#start = this.#sequence(nodes, end);
    this.#seen = new Uint32Array(this.#steps.length);
  }

  matches(value: string): boolean {
    this.#current.length = 0;
    this.#advance();
    this.#enter(this.#current, this.#start);
    for (let index = 0; index < value.length;) {
      const code = value.codePointAt(index) ?? 0;
      index += code > 0xff_ff ? 2 : 1;
      this.#following.length = 0;
      this.#advance();
      for (const state of this.#current) {
        const step = this.#steps[state];
        if (step !== undefined && this.#takes(step, code)) this.#enter(this.#following, step.next);
      }
      [this.#current, this.#following] = [this.#following, this.#current];
      if (this.#current.length === 0) return false;
    }
    return this.#current.some((state) => this.#steps[state]?.kind === accept);
  }

  #advance(): void {
    this.#generation = (this.#generation + 1) >>> 0;
    if (this.#generation === 0) {
      this.#seen.fill(0);
      this.#generation = 1;
    }
  }

  /** Adds a state and all that it reaches without reading; each state at most once per position. */
  #enter(into: number[], first: number): void {
    this.#pending.push(first);
    for (let state = this.#pending.pop(); state !== undefined; state = this.#pending.pop()) {
      if (this.#seen[state] === this.#generation) continue;
      this.#seen[state] = this.#generation;
      const step = this.#steps[state];
      if (step?.kind === split) this.#pending.push(step.next, step.other);
      else into.push(state);
    }
  }

  #takes(step: Step, code: number): boolean {
    if (step.kind === char) return step.operand === code;
    if (step.kind === notSeparator) return code !== 0x2f;
    if (step.kind === anything) return true;
    const members = this.#sets[step.operand];
    if (step.kind !== set || members === undefined) return false;
    return members.ranges.some(([low, high]) => code >= low && code <= high) !== members.negated;
  }

  #add(kind: number, operand: number, next: number, other = -1): number {
    return this.#steps.push({ kind, operand, next, other }) - 1;
  }

  #sequence(nodes: readonly GlobNode[], end: number): number {
    return nodes.reduceRight((next, node) => this.#node(node, next), end);
  }

  /** Zero or more characters of a kind. */
  #repeat(kind: number, next: number): number {
    const loop = this.#add(split, 0, -1, next);
    const body = this.#add(kind, 0, loop);
    const step = this.#steps[loop];
    if (step !== undefined) step.next = body;
    return loop;
  }

  #node(node: GlobNode, next: number): number {
    const single = this.#crossing ? anything : notSeparator;
    const slash = (to: number): number => this.#add(char, 0x2f, to);
    if (node.kind === "literal") return this.#add(char, node.char.codePointAt(0) ?? 0, next);
    if (node.kind === "any") return this.#add(single, 0, next);
    if (node.kind === "star") return this.#repeat(single, next);
    if (node.kind === "class") {
      this.#sets.push({ negated: node.negated, ranges: node.ranges });
      return this.#add(set, this.#sets.length - 1, next);
    }
    if (node.kind === "alternatives") return this.#alternatives(node.branches, next);
    if (node.kind === "recursive-suffix") return slash(this.#repeat(anything, next));
    // Nothing, or any run that ends with a separator.
    const run = this.#add(split, 0, next, this.#repeat(anything, slash(next)));
    return node.kind === "recursive-prefix" ? run : slash(run);
  }

  #alternatives(branches: readonly (readonly GlobNode[])[], next: number): number {
    // An empty alternative is dropped, as the dialect does: `{,a}` is `a`.
    const [first, ...rest] = branches.filter((branch) => branch.length > 0);
    if (first === undefined) return next;
    return rest.reduce(
      (entry, branch) => this.#add(split, 0, entry, this.#sequence(branch, next)),
      this.#sequence(first, next),
    );
  }
}

/** Quotes a text so that as a pattern it matches itself only. */
export function quoteGlob(text: string): string {
  return text.replaceAll(/[\\*?[\]{},]/g, String.raw`\$&`);
}

/** A pattern of paths with the percent-encodings that canonical paths have; what would be a sign of patterns keeps its own. */
export function canonicalGlob(pattern: string): string {
  return pattern.replaceAll(/%[0-9a-f]{2}/gi, (code) => {
    const meant = String.fromCharCode(Number.parseInt(code.slice(1), 16));
    const isSign =
      (meant === "," && pattern.includes("{")) || (/[-!]/.test(meant) && pattern.includes("["));
    return /[\w\-.~!$&'()+,=:@]/.test(meant) && !isSign ? meant : code.toUpperCase();
  });
}
