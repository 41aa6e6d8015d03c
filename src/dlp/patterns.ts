/** Patterns of the file, in texts of any length. */
import type { TextPattern } from "./scanner-options.ts";
import type { Place } from "./words.ts";

/** Of a text at one time: the engine is slower than the rest by far. */
const patternWindow = 61_440;
const patternOverlap = 4_096;

/** Where the patterns match, at most so often each in one window. */
export function* placesOfPatterns(
  bytes: Buffer,
  patterns: readonly TextPattern[],
  most: number,
): Generator<Place> {
  for (let from = 0; from < bytes.length; from += patternWindow - patternOverlap) {
    const text = bytes.toString("utf8", from, from + patternWindow);
    for (const pattern of patterns) {
      for (const [first, last] of pattern.spans(text, most)) {
        const start = from + Buffer.byteLength(text.slice(0, first));
        const end = start + Buffer.byteLength(text.slice(first, last));
        yield { detector: pattern.name, start, end };
      }
    }
    if (from + patternWindow >= bytes.length) break;
  }
}
