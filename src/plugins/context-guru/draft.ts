/** A text that was shortened, and how what is left out is said in it. */

/** What came of one output. */
export interface Draft {
  /** What kind of text it was found to be; one of a closed set. */
  readonly kind: string;
  readonly text: string;
  /** Something is left out that the text said. */
  readonly isLossy: boolean;
  /** Structure did not suffice: the middle was cut out. */
  readonly isCut: boolean;
  /** The same as a value, where the text is JSON. */
  readonly value?: unknown;
}

/** How much is kept. */
export interface Limits {
  /** About how many characters are kept of an output. */
  readonly keepChars: number;
  /** Only what says nothing is taken out: white space, colours. */
  readonly isLossless: boolean;
}

/** The note in place of what is left out. */
export function left(count: number, what: "lines" | "items" | "members" | "characters"): string {
  return `[… ${count} ${count === 1 ? what.slice(0, -1) : what} left out]`;
}

/** The text without its middle, where it is longer. A pair of surrogates stays together. */
export function cutAt(text: string, chars: number): string {
  if (text.length <= chars) return text;
  const head = wholeAt(text, Math.floor(chars * 0.7));
  const tail = wholeAt(text, text.length - Math.floor(chars * 0.3));
  const out = tail - head;
  const note = left(out, "characters");
  return out <= note.length ? text : text.slice(0, head) + note + text.slice(tail);
}

/** Of lines, with their ends. */
export function charsOf(lines: readonly string[]): number {
  let chars = lines.length;
  for (const line of lines) chars += line.length;
  return chars;
}

function wholeAt(text: string, at: number): number {
  const code = text.charCodeAt(at);
  return code >= 0xdc00 && code <= 0xdfff ? at - 1 : at;
}
