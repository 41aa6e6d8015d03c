/**
 * The glob dialect of OpenShell policy files: `*` and `?` stop at a delimiter, `**` crosses it only as a whole segment, `[a-z]`, `[!a]`, `{x,y}` and `\` as usual. Every delimiter other than `/`
 * counts as a segment of its own, which is why `api.**.com` asks for a label in the middle where `/a/**` + `/b` does
 * not ask for a segment.
 */
import { compileNodes, type Matches } from "./automaton.ts";
import { GlobSyntaxError, parseGlobNodes } from "./glob-syntax.ts";

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

/** A compiled pattern. */
export class Glob {
  readonly pattern: string;
  readonly #delimiters: Delimiters;
  readonly #matches: Matches;
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
    this.#alsoExactly = selector && pattern.endsWith("/**") ? pattern.slice(0, -3) : undefined;
    this.#matches = compileNodes(parseGlobNodes(segmented(pattern, delimiters), selector));
  }

  /** True when the whole value matches. A value with NUL never does. */
  matches(value: string): boolean {
    if (value.includes(placeholder)) return false;
    if (this.#alsoExactly !== undefined && value === this.#alsoExactly) return true;
    return this.#matches(segmented(value, this.#delimiters));
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
