/**
 * Host patterns: the glob dialect of AuthBridge files, compiled to automata that match in linear time.
 *
 * `*` is any run of characters within a label part, `**` also crosses dots, `?` is one character but the dot, `[abc]`,
 * `[a-z]` and `[!a]` are one character, `{a,b}` is either and may nest, and a backslash makes the next character plain.
 * Unlike the Go program, which compares bytes, case does not matter: names are canonical by the time they are matched.
 */
import { domainToASCII } from "node:url";
import { parseAddress } from "../net/address.ts";

/** A compiled host pattern. */
export interface HostGlob {
  /** The pattern as the operator wrote it. */
  readonly source: string;
  matches(host: string): boolean;
}

type Test = (code: number) => boolean;

/** One step of the automaton; "many" stays where it is while its test holds. */
type Step =
  | { readonly kind: "one" | "many"; readonly test: Test }
  | { readonly kind: "fork"; readonly targets: number[] }
  | { readonly kind: "accept" };

const dot = 0x2e;
const notDot: Test = (code) => code !== dot;
const anything: Test = () => true;

/** What a pattern may be at most: the automaton has about one step per character. */
const longestPattern = 1024;

/** Compiles one pattern; throws an Error that says what is wrong with it. */
export function compileHostGlob(pattern: string): HostGlob {
  const exact = exactName(pattern);
  if (exact !== undefined) {
    return { source: pattern, matches: (host) => host.toLowerCase() === exact };
  }
  const program = new Compiler(pattern).run();
  const suffix = literalSuffix(pattern);
  return {
    source: pattern,
    matches: (host) => {
      const lower = host.toLowerCase();
      return lower.endsWith(suffix) && accepts(program, lower);
    },
  };
}

/** The canonical name that a pattern without wildcards stands for, or undefined for a real glob. */
function exactName(pattern: string): string | undefined {
  if (pattern === "" || pattern.length > longestPattern) {
    throw invalid(pattern, pattern === "" ? "it is empty" : "it is too long");
  }
  if (/[*?[\]{}\\]/.test(pattern)) {
    if (/[^\x20-\x7e]/.test(pattern)) {
      throw invalid(pattern, "a name outside ASCII is written in its xn-- form beside wildcards");
    }
    return undefined;
  }
  const plain = pattern.endsWith(".") ? pattern.slice(0, -1) : pattern;
  const address = parseAddress(plain);
  if (address !== undefined) {
    return address.unmapped().toString();
  }
  const name = /[^\x20-\x7e]/.test(plain) ? domainToASCII(plain) : plain.toLowerCase();
  if (name === "") {
    throw invalid(pattern, "it is not a host name");
  }
  return name;
}

function invalid(pattern: string, reason: string): Error {
  return new Error(`host pattern "${pattern.slice(0, 100)}" is invalid: ${reason}`);
}

/** What every match must end in: one cheap comparison refuses most hosts before the automaton runs. */
function literalSuffix(pattern: string): string {
  return (/[^*?[\]{},\\!]*$/.exec(pattern)?.[0] ?? "").toLowerCase().replace(/\.$/, "");
}

class Compiler {
  readonly #pattern: string;
  readonly #text: string;
  readonly #steps: Step[] = [];
  #at = 0;
  #depth = 0;

  constructor(pattern: string) {
    this.#pattern = pattern;
    // The root dot is not part of a canonical name.
    this.#text = pattern.toLowerCase().replace(/(?<!\\)\.$/, "");
  }

  run(): readonly Step[] {
    this.#sequence();
    this.#steps.push({ kind: "accept" });
    return this.#steps;
  }

  /** Reads up to the end, or inside braces up to the comma or brace that ends this alternative. */
  #sequence(): void {
    while (this.#at < this.#text.length) {
      const character = this.#text.charAt(this.#at);
      if (this.#depth > 0 && (character === "," || character === "}")) {
        return;
      }
      this.#at += 1;
      switch (character) {
        case "*":
          this.#star();
          break;
        case "?":
          this.#steps.push({ kind: "one", test: notDot });
          break;
        case "[":
          this.#characterClass();
          break;
        case "{":
          this.#alternatives();
          break;
        case "\\":
          this.#escaped();
          break;
        default:
          this.#literal(character);
      }
    }
  }

  #literal(character: string): void {
    const wanted = character.charCodeAt(0);
    this.#steps.push({ kind: "one", test: (code) => code === wanted });
  }

  #star(): void {
    const isSuper = this.#text.charAt(this.#at) === "*";
    this.#at += isSuper ? 1 : 0;
    this.#steps.push({ kind: "many", test: isSuper ? anything : notDot });
  }

  #escaped(): void {
    if (this.#at >= this.#text.length) {
      throw invalid(this.#pattern, "it ends in a backslash");
    }
    this.#literal(this.#text.charAt(this.#at));
    this.#at += 1;
  }

  #characterClass(): void {
    const close = this.#text.indexOf("]", this.#at);
    if (close === -1) {
      throw invalid(this.#pattern, "a bracket is not closed");
    }
    let body = this.#text.slice(this.#at, close);
    const isNegated = body.startsWith("!");
    body = isNegated ? body.slice(1) : body;
    if (body === "") {
      throw invalid(this.#pattern, "a bracket is empty");
    }
    this.#at = close + 1;
    const ranges: (readonly [number, number])[] = [];
    for (let at = 0; at < body.length; at += 1) {
      const low = body.charCodeAt(at);
      const isRange = body.charAt(at + 1) === "-" && at + 2 < body.length;
      const high = isRange ? body.charCodeAt(at + 2) : low;
      if (high < low) {
        throw invalid(this.#pattern, "a character range runs backwards");
      }
      ranges.push([low, high]);
      at += isRange ? 2 : 0;
    }
    const isListed: Test = (code) => ranges.some(([low, high]) => code >= low && code <= high);
    this.#steps.push({
      kind: "one",
      test: isNegated ? (code) => !isListed(code) : isListed,
    });
  }

  #alternatives(): void {
    this.#depth += 1;
    const starts: number[] = [];
    const ends: number[][] = [];
    this.#steps.push({ kind: "fork", targets: starts });
    for (;;) {
      starts.push(this.#steps.length);
      this.#sequence();
      if (this.#at >= this.#text.length) {
        throw invalid(this.#pattern, "a brace is not closed");
      }
      const leave: number[] = [];
      this.#steps.push({ kind: "fork", targets: leave });
      ends.push(leave);
      this.#at += 1;
      if (this.#text.charAt(this.#at - 1) === "}") {
        break;
      }
    }
    for (const leave of ends) {
      leave.push(this.#steps.length);
    }
    this.#depth -= 1;
  }
}

/** Runs all alternatives at once, so the time is the product of the lengths whatever the pattern. */
function accepts(program: readonly Step[], text: string): boolean {
  let current: number[] = [];
  let next: number[] = [];
  const run: Run = { program, enteredAt: new Int32Array(program.length).fill(-1) };
  enter(run, 0, 0, current);
  for (let at = 0; at < text.length && current.length > 0; at += 1) {
    const code = text.charCodeAt(at);
    next.length = 0;
    for (const place of current) {
      const step = program[place];
      if ((step?.kind === "one" || step?.kind === "many") && step.test(code)) {
        enter(run, step.kind === "one" ? place + 1 : place, at + 1, next);
      }
    }
    [current, next] = [next, current];
  }
  return current.some((place) => program[place]?.kind === "accept");
}

interface Run {
  readonly program: readonly Step[];
  /** For each step the place in the text at which it was entered last. */
  readonly enteredAt: Int32Array;
}

function enter({ program, enteredAt }: Run, place: number, at: number, into: number[]): void {
  const pending = [place];
  for (let here = pending.pop(); here !== undefined; here = pending.pop()) {
    if (enteredAt[here] === at) {
      continue;
    }
    enteredAt[here] = at;
    const step = program[here];
    if (step?.kind === "fork") {
      pending.push(...step.targets);
      continue;
    }
    into.push(here);
    if (step?.kind === "many") {
      pending.push(here + 1);
    }
  }
}

/** Many patterns asked as one: plain names are one look-up in a set, only globs are tried in turn. */
export class HostMatcher {
  readonly #names = new Map<string, string>();
  readonly #globs: HostGlob[] = [];

  /** Throws an Error for the first pattern that is malformed. */
  constructor(patterns: Iterable<string>) {
    for (const pattern of patterns) {
      const exact = exactName(pattern);
      if (exact === undefined) {
        this.#globs.push(compileHostGlob(pattern));
      } else {
        this.#names.set(exact, pattern);
      }
    }
  }

  matches(host: string): boolean {
    return this.find(host) !== undefined;
  }

  /** The pattern that matches, as the operator wrote it: a plain name before any glob. */
  find(host: string): string | undefined {
    return (
      this.#names.get(host.toLowerCase()) ?? this.#globs.find((glob) => glob.matches(host))?.source
    );
  }
}

/**
 * Compiles `skip_hosts`, whose hosts get no pipeline at all: patterns that would skip everything, or that carry a port
 * and would therefore never match, are an Error. A port on the host that is asked about is ignored.
 */
export function compileSkipHosts(
  patterns: readonly string[],
): Pick<HostMatcher, "find" | "matches"> {
  for (const pattern of patterns) {
    const text = pattern.trim();
    if (text === "") {
      throw new Error("skip_hosts has an empty pattern");
    }
    if (/^[*.?]+$/.test(text)) {
      throw new Error(`skip_hosts pattern "${pattern}" would skip every host`);
    }
    if (text.includes(":")) {
      throw new Error(`skip_hosts pattern "${pattern}" has a colon: leave the port out`);
    }
  }
  const matcher = new HostMatcher(patterns.map((pattern) => pattern.trim()));
  const find = (host: string): string | undefined =>
    matcher.find(host.replace(/^([^:]+):[0-9]+$/, "$1"));
  return { find, matches: (host) => find(host) !== undefined };
}
