/** What is behind the words that begin what has a format. */
import { digit, isOf, upper } from "./byte-classes.ts";
import type { DetectorName } from "./detectors.ts";
import { beginsAt, keyFormats } from "./key-formats.ts";
import { secretWords, valueBeside } from "./named-secrets.ts";
import { cardAt, emailAround, ibanAt, phoneAt, ssnAt } from "./numbers.ts";
import { pairsOf } from "./pairs.ts";
import { isFree, isUnfinished } from "./runs.ts";
import type { Wanted } from "./scanner-options.ts";

/** Where something is, in the bytes that were looked at. */
export interface Place {
  readonly detector: string;
  readonly kind?: string | undefined;
  readonly start: number;
  readonly end: number;
}

const gzipMagic = "\x1f\x8b\x08";
const words = [...keyFormats.map(({ begins }) => begins), ...secretWords, "@", gzipMagic];
const firstName = keyFormats.length;
const mailSign = firstName + secretWords.length;

/** The table of all words; keys begin with theirs in its own case. */
export const wordPairs = pairsOf(words, (word) => word < firstName);

/** What a word that ends before `end` begins: where it is, where a stream of gzip may begin, or a token that goes on behind the bytes. */
export function behindWord(
  bytes: Buffer,
  end: number,
  word: number,
  wanted: Wanted,
): Place | { readonly gzip: number } | { readonly unfinished: number } | undefined {
  const format = keyFormats[word];
  if (format !== undefined) {
    const { detector, kind, begins } = format;
    const start = end - begins.length;
    if (!wanted.has(detector) || !beginsAt(bytes, start, format)) return undefined;
    const last = format.end(bytes, end);
    if (last !== -1) return { detector, kind, start, end: last };
    return kind === "jwt" && isUnfinished(bytes, start) ? { unfinished: start } : undefined;
  }
  if (word < mailSign) {
    const value = wanted.has("named_secrets") ? valueBeside(bytes, end) : undefined;
    return value && { detector: "named_secrets", ...value };
  }
  if (word > mailSign) return { gzip: end - gzipMagic.length };
  const address = wanted.has("email") ? emailAround(bytes, end - 1) : undefined;
  return address && { detector: "email", ...address };
}

const numberDetectors: readonly DetectorName[] = ["cards", "us_ssn", "phone", "iban"];

/** Whether digits are looked at. */
export function isNumberWanted(wanted: Wanted): boolean {
  return numberDetectors.some((name) => wanted.has(name));
}

/** Whether two digits are here, the first of their group: every number has them, perhaps behind the letters of a country. */
export function isNumberLike(bytes: Uint8Array, at: number): boolean {
  return isOf(bytes, at, digit) && isOf(bytes, at + 1, digit) && !isOf(bytes, at - 1, digit);
}

/** Hears of the numbers of which `at` is the first digit. */
export function numbersAt(
  bytes: Buffer,
  at: number,
  wanted: Wanted,
  hear: (number: Place) => void,
): void {
  if (isFree(bytes, at)) {
    const card = wanted.has("cards") ? cardAt(bytes, at) : undefined;
    if (card !== undefined) hear({ ...card, start: at });
    const ssn = wanted.has("us_ssn") ? ssnAt(bytes, at) : undefined;
    if (ssn !== undefined) hear({ ...ssn, start: at });
    const phone = wanted.has("phone") ? phoneAt(bytes, at) : undefined;
    if (phone !== undefined) hear({ ...phone, start: at });
  } else if (wanted.has("iban") && isOf(bytes, at - 1, upper) && isOf(bytes, at - 2, upper)) {
    const account = isFree(bytes, at - 2) ? ibanAt(bytes, at - 2) : undefined;
    if (account !== undefined) hear({ ...account, start: at - 2 });
  }
}
