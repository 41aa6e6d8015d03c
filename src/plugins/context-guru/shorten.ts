/** Shortens one output of a tool by what it is: JSON, a diff, a page, or lines. The same text gives the same bytes. */
import { isDiff, shortenDiff } from "./diff.ts";
import { cutAt, type Draft, type Limits } from "./draft.ts";
import { isPage, pageText } from "./html.ts";
import { jsonIn, shortenValue } from "./json.ts";
import { Lines, shortenLines } from "./lines.ts";

/** Texts inside values of JSON inside texts. */
const maxNesting = 3;

/** The output within the limits, about. It may be longer than they say, and is never longer than it was. */
export function shorten(output: unknown, limits: Limits): Draft {
  return typeof output === "string" ? ofText(output, limits, 0) : ofValue(output, limits, 0);
}

function ofText(text: string, limits: Limits, nesting: number): Draft {
  const value = jsonIn(text);
  if (value !== undefined) return ofValue(value, limits, nesting);
  const { keepChars, isLossless } = limits;
  if (isLossless) return new Lines(text).draft("text");
  if (isDiff(text)) return shortenDiff(new Lines(text), keepChars);
  if (isPage(text)) {
    const draft = shortenLines(new Lines(pageText(text)), "page", keepChars);
    return { ...draft, isLossy: true };
  }
  return shortenLines(new Lines(text), "lines", keepChars);
}

function ofValue(value: unknown, { keepChars, isLossless }: Limits, nesting: number): Draft {
  const inner = (text: string, chars: number): string => {
    if (nesting >= maxNesting) return cutAt(text, chars);
    const draft = ofText(text, { keepChars: chars, isLossless }, nesting + 1);
    return draft.text.length < text.length ? draft.text : cutAt(text, chars);
  };
  const short = isLossless ? value : shortenValue(value, keepChars, inner);
  const text = JSON.stringify(short);
  return { kind: "json", text, isLossy: short !== value, isCut: false, value: short };
}
