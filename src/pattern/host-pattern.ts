/**
 * Host patterns: the glob dialect of AuthBridge files.
 *
 * `*` is any run of characters within a label part, `**` also crosses dots, `?` is one character but the dot, `[abc]`,
 * `[a-z]` and `[!a]` are one character, `{a,b}` is either and may nest, and a backslash makes the next character plain.
 * Unlike the Go program, which compares bytes, case does not matter: names are canonical by the time they are matched.
 */
import { domainToASCII } from "node:url";
import { parseAddress } from "../net/address.ts";
import { compileNodes, type GlobNode, oneBut } from "./automaton.ts";

/** A compiled host pattern. */
export interface HostGlob {
  /** The pattern as the operator wrote it. */
  readonly source: string;
  matches(host: string): boolean;
}

/** What a pattern may be at most: the automaton has about one step per character. */
const longestPattern = 1024;

/** Compiles one pattern; throws an Error that says what is wrong with it. */
export function compileHostGlob(pattern: string): HostGlob {
  const exact = exactName(pattern);
  if (exact !== undefined) {
    return { source: pattern, matches: (host) => host.toLowerCase() === exact };
  }
  const matches = compileNodes(new HostParser(pattern).parse());
  return { source: pattern, matches: (host) => matches(host.toLowerCase()) };
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

class HostParser {
  readonly #pattern: string;
  readonly #text: string;
  #at = 0;
  #depth = 0;

  constructor(pattern: string) {
    this.#pattern = pattern;
    // The root dot is not part of a canonical name.
    this.#text = pattern.toLowerCase().replace(/(?<!\\)\.$/, "");
  }

  /** Reads up to the end, or inside braces up to the comma or brace that ends this alternative. */
  parse(): readonly GlobNode[] {
    const nodes: GlobNode[] = [];
    while (this.#at < this.#text.length) {
      const character = this.#text.charAt(this.#at);
      if (this.#depth > 0 && (character === "," || character === "}")) break;
      this.#at += 1;
      nodes.push(this.#node(character));
    }
    return nodes;
  }

  #node(character: string): GlobNode {
    if (character === "*") return this.#star();
    if (character === "?") return oneBut(".");
    if (character === "[") return this.#characterClass();
    if (character === "{") return this.#alternatives();
    if (character !== "\\") return character;
    if (this.#at >= this.#text.length) throw invalid(this.#pattern, "it ends in a backslash");
    this.#at += 1;
    return this.#text.charAt(this.#at - 1);
  }

  #star(): GlobNode {
    const isSuper = this.#text.charAt(this.#at) === "*";
    this.#at += isSuper ? 1 : 0;
    return { kind: "many", but: isSuper ? "" : "." };
  }

  #characterClass(): GlobNode {
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
    return { kind: "one", negated: isNegated, ranges };
  }

  #alternatives(): GlobNode {
    this.#depth += 1;
    const branches: (readonly GlobNode[])[] = [];
    do {
      branches.push(this.parse());
      if (this.#at >= this.#text.length) throw invalid(this.#pattern, "a brace is not closed");
      this.#at += 1;
    } while (this.#text.charAt(this.#at - 1) === ",");
    this.#depth -= 1;
    return { kind: "either", branches };
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
    // Most lists are empty, and some are asked about every message.
    if (this.#names.size === 0 && this.#globs.length === 0) return undefined;
    return (
      this.#names.get(host.toLowerCase()) ?? this.#globs.find((glob) => glob.matches(host))?.source
    );
  }
}

/**
 * Compiles `skip_hosts`, whose hosts get no pipeline at all: patterns that would skip everything, or that carry a port
 * and would therefore never match, are an Error.
 */
export function compileSkipHosts(patterns: readonly string[]): HostMatcher {
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
  return new HostMatcher(patterns.map((pattern) => pattern.trim()));
}
