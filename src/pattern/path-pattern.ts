/**
 * Path globs with the meaning of Go's path.Match, and the bypass lists that are written in them.
 *
 * `*` is any run of characters within a segment, `?` is one character but the slash, `[a-z]` and `[^a-z]` are one
 * character, and a backslash makes the next character plain. There is no `**`. Case matters.
 */
import { readPath } from "../http/path.ts";

/** A compiled path glob. */
export interface PathGlob {
  /** The pattern as the operator wrote it. */
  readonly source: string;
  matches(path: string): boolean;
}

interface Step {
  readonly isStar: boolean;
  readonly test: (code: number) => boolean;
}

const slash = 0x2f;
const notSlash = (code: number): boolean => code !== slash;

/** Compiles one pattern; throws an Error that says what is wrong with it. */
export function compilePathGlob(pattern: string): PathGlob {
  const special = pattern.search(/[*?[\\]/);
  if (special === -1) return { source: pattern, matches: (path) => path === pattern };
  const prefix = pattern.slice(0, special);
  const steps: Step[] = [];
  for (let at = 0; at < pattern.length;) {
    const character = pattern.charAt(at);
    if (character === "*") {
      steps.push({ isStar: true, test: notSlash });
      at += 1;
    } else if (character === "?") {
      steps.push({ isStar: false, test: notSlash });
      at += 1;
    } else if (character === "[") {
      const parsed = parseClass(pattern, at + 1);
      steps.push({ isStar: false, test: parsed.test });
      at = parsed.end;
    } else {
      const { code, end } = parseCharacter(pattern, at);
      steps.push({ isStar: false, test: (other) => other === code });
      at = end;
    }
  }
  return { source: pattern, matches: (path) => path.startsWith(prefix) && accepts(steps, path) };
}

function invalid(pattern: string, reason: string): Error {
  return new Error(`path pattern "${pattern.slice(0, 100)}" is invalid: ${reason}`);
}

function parseCharacter(pattern: string, at: number): { code: number; end: number } {
  const place = pattern.charAt(at) === "\\" ? at + 1 : at;
  if (place >= pattern.length) {
    throw invalid(pattern, place === at ? "a bracket is not closed" : "it ends in a backslash");
  }
  return { code: pattern.charCodeAt(place), end: place + 1 };
}

function parseClass(pattern: string, start: number): { test: Step["test"]; end: number } {
  const isNegated = pattern.charAt(start) === "^";
  const ranges: (readonly [number, number])[] = [];
  let at = isNegated ? start + 1 : start;
  while (pattern.charAt(at) !== "]" || ranges.length === 0) {
    const low = parseBound(pattern, at);
    at = low.end;
    let high = low;
    if (pattern.charAt(at) === "-") {
      high = parseBound(pattern, at + 1);
      at = high.end;
    }
    if (high.code < low.code) {
      throw invalid(pattern, "a character range runs backwards");
    }
    ranges.push([low.code, high.code]);
  }
  const isListed = (code: number): boolean =>
    ranges.some(([low, high]) => code >= low && code <= high);
  return { test: isNegated ? (code) => !isListed(code) : isListed, end: at + 1 };
}

/** One end of a range; "-" and "]" must be escaped there. */
function parseBound(pattern: string, at: number): { code: number; end: number } {
  const character = pattern.charAt(at);
  if (character === "-" || character === "]") {
    throw invalid(pattern, "a bracket is empty or has a range without an end");
  }
  return parseCharacter(pattern, at);
}

/** Follows every way through the pattern at once, so the time is the product of the lengths. */
function accepts(steps: readonly Step[], path: string): boolean {
  let current = new Uint8Array(steps.length + 1);
  let next = new Uint8Array(steps.length + 1);
  current[0] = 1;
  skipStars(steps, current);
  for (let at = 0; at < path.length; at += 1) {
    const code = path.charCodeAt(at);
    next.fill(0);
    let isAlive = false;
    for (const [place, step] of steps.entries()) {
      if (current[place] === 1 && step.test(code)) {
        next[step.isStar ? place : place + 1] = 1;
        isAlive = true;
      }
    }
    if (!isAlive) {
      return false;
    }
    skipStars(steps, next);
    [current, next] = [next, current];
  }
  return current[steps.length] === 1;
}

/** A star may stand for nothing. */
function skipStars(steps: readonly Step[], places: Uint8Array): void {
  for (const [place, step] of steps.entries()) {
    if (step.isStar && places[place] === 1) {
      places[place + 1] = 1;
    }
  }
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
      const { readings, remote, ambiguous } = readPath(target);
      const isPlain = ambiguous === undefined && readings.length === 1 && remote.length === 0;
      return isPlain && readings[0] === spelling(target) && isListed(readings[0]);
    },
  };
}

/** The path of a target as it came; the case of a percent-encoding says nothing (RFC 3986 section 6.2.2.1). */
function spelling(target: string): string {
  const [path = ""] = target.split("?", 1);
  return path.includes("%") ? path.replace(/%[0-9a-f]{2}/gi, (code) => code.toUpperCase()) : path;
}
