/**
 * Path globs with the meaning of Go's path.Match, and the bypass lists that are written in them.
 *
 * `*` is any run of characters within a segment, `?` is one character but the slash, `[a-z]` and `[^a-z]` are one
 * character, and a backslash makes the next character plain. There is no `**`. Case matters.
 */
import { readPath } from "../http/path.ts";
import { compileNodes, type GlobNode, oneBut } from "./automaton.ts";

/** A compiled path glob. */
export interface PathGlob {
  /** The pattern as the operator wrote it. */
  readonly source: string;
  matches(path: string): boolean;
}

/** Compiles one pattern; throws an Error that says what is wrong with it. */
export function compilePathGlob(pattern: string): PathGlob {
  const nodes: GlobNode[] = [];
  for (let at = 0; at < pattern.length;) {
    const sign = pattern.charAt(at);
    if (sign === "*" || sign === "?") {
      nodes.push(sign === "*" ? { kind: "many", but: "/" } : oneBut("/"));
      at += 1;
    } else {
      const { node, end } =
        sign === "[" ? parseClass(pattern, at + 1) : parseCharacter(pattern, at);
      nodes.push(node);
      at = end;
    }
  }
  return { source: pattern, matches: compileNodes(nodes) };
}

function invalid(pattern: string, reason: string): Error {
  return new Error(`path pattern "${pattern.slice(0, 100)}" is invalid: ${reason}`);
}

interface Parsed<T> {
  readonly node: T;
  /** Where the pattern goes on. */
  readonly end: number;
}

function parseCharacter(pattern: string, at: number): Parsed<string> {
  const place = pattern.charAt(at) === "\\" ? at + 1 : at;
  if (place >= pattern.length) {
    throw invalid(pattern, place === at ? "a bracket is not closed" : "it ends in a backslash");
  }
  const node = String.fromCodePoint(pattern.codePointAt(place) ?? 0);
  return { node, end: place + node.length };
}

function parseClass(pattern: string, start: number): Parsed<GlobNode> {
  const isNegated = pattern.charAt(start) === "^";
  const ranges: (readonly [number, number])[] = [];
  let at = isNegated ? start + 1 : start;
  while (pattern.charAt(at) !== "]" || ranges.length === 0) {
    const low = parseBound(pattern, at);
    const high = pattern.charAt(low.end) === "-" ? parseBound(pattern, low.end + 1) : low;
    if (high.node < low.node) {
      throw invalid(pattern, "a character range runs backwards");
    }
    ranges.push([low.node, high.node]);
    at = high.end;
  }
  return { node: { kind: "one", negated: isNegated, ranges }, end: at + 1 };
}

/** One end of a range; "-" and "]" must be escaped there. */
function parseBound(pattern: string, at: number): Parsed<number> {
  const character = pattern.charAt(at);
  if (character === "-" || character === "]") {
    throw invalid(pattern, "a bracket is empty or has a range without an end");
  }
  const { node, end } = parseCharacter(pattern, at);
  return { node: node.codePointAt(0) ?? 0, end };
}

/** A list of paths that need no token. */
export interface BypassPaths {
  /**
   * Whether the path of a request target is on the list.
   *
   * A path that could be written plainer never is: `//healthz` is `/` of another host to a server that resolves it as a
   * reference (RFC 3986 section 5.2), and servers differ over dot segments, parameters and needless encoding. A slash at
   * the end does not count.
   */
  matches(target: string): boolean;
}

/** Compiles `bypass_paths`; a pattern that is malformed or would let everything by is an Error. */
export function compileBypassPaths(patterns: readonly string[]): BypassPaths {
  const globs = patterns.map((pattern) => {
    const text = pattern.trim();
    if (text === "") {
      throw new Error("bypass_paths has an empty pattern");
    }
    if (/^[/*]+$/.test(text) && text.includes("*")) {
      throw new Error(`bypass_paths pattern "${pattern}" would bypass too much`);
    }
    return compilePathGlob(text);
  });
  const isListed = (path: string): boolean => {
    const clean = path.length > 1 && path.endsWith("/") ? path.slice(0, -1) : path;
    return globs.some((glob) => glob.matches(clean));
  };
  return {
    matches: (target) => {
      const path = plainPath(target);
      return path !== undefined && isListed(path);
    },
  };
}

/** The path of a request target; undefined where it could be written plainer, so that servers may differ over it. */
export function plainPath(target: string): string | undefined {
  const { readings, remote, ambiguous } = readPath(target);
  const isPlain = ambiguous === undefined && readings.length === 1 && remote.length === 0;
  return isPlain && readings[0] === spelling(target) ? readings[0] : undefined;
}

/** The path of a target as it came; the case of a percent-encoding says nothing (RFC 3986 section 6.2.2.1). */
function spelling(target: string): string {
  const [path = ""] = target.split("?", 1);
  return path.includes("%") ? path.replace(/%[0-9a-f]{2}/gi, (code) => code.toUpperCase()) : path;
}
