/**
 * Regular expressions whose time is linear in the text, whoever wrote the text (docs/adr: RE2 in JavaScript).
 *
 * Node's own engine backtracks: a pattern such as `(a+)+$` and forty characters stop the process for hours.
 */
import { createRequire } from "node:module";
import type { RE2JS } from "re2js";

/** A compiled pattern. */
export interface LinearPattern {
  readonly source: string;
  /** Whether the whole text matches. */
  matchesWhole(text: string): boolean;
  /** Whether some part of the text matches. */
  finds(text: string): boolean;
  /** Where it matches, at most `most` times; an empty match is none. */
  spans(text: string, most: number): readonly (readonly [start: number, end: number])[];
}

/** A longer text is not tried: linear time of ten megabytes is a long time, too. */
export const maxPatternText = 65_536;

const maxPatternLength = 1024;

/** How a pattern is read. */
interface PatternOptions {
  /** Letters match those of the other case. */
  readonly ignoresCase?: boolean;
}

/** Compiles one pattern in the syntax of RE2; throws an Error that says what is wrong with it. */
export function compileLinearPattern(
  source: string,
  { ignoresCase = false }: PatternOptions = {},
): LinearPattern {
  if (source.length > maxPatternLength) {
    throw new Error(`a pattern has at most ${maxPatternLength} characters`);
  }
  const { RE2JS: engine } = loadEngine();
  let pattern: RE2JS;
  try {
    const flags = ignoresCase ? engine.CASE_INSENSITIVE : 0;
    pattern = engine.compile(engine.translateRegExp(source), flags);
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n", 1)[0] : String(error);
    throw new Error(
      `"${source.slice(0, 80)}" is no pattern that runs in linear time: ${reason} (look-around and back-references do not)`,
      { cause: error },
    );
  }
  return {
    source,
    matchesWhole: (text) => pattern.testExact(bounded(text)),
    finds: (text) => pattern.test(bounded(text)),
    spans: (text, most) => {
      const matcher = pattern.matcher(bounded(text));
      const found: (readonly [number, number])[] = [];
      while (found.length < most && matcher.find())
        if (matcher.end() > matcher.start()) found.push([matcher.start(), matcher.end()]);
      return found;
    },
  };
}

/** Loaded by whoever has a pattern: most configurations have none. */
function loadEngine(): { readonly RE2JS: typeof RE2JS } {
  return createRequire(import.meta.url)("re2js") as { readonly RE2JS: typeof RE2JS };
}

function bounded(text: string): string {
  if (text.length > maxPatternText) {
    throw new RangeError(`a text for a pattern has at most ${maxPatternText} characters`);
  }
  return text;
}
