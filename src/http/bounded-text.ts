/** Texts of strangers that are kept: up to a length, and marked where they were cut. */

/** Ends a text that was cut, as in the Go program. */
export const truncated = "…(truncated)";

/** The text, or its beginning. */
export function bounded(text: string, maxChars: number): string {
  return text.length <= maxChars ? text : text.slice(0, maxChars) + truncated;
}
