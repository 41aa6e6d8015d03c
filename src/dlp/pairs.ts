/** Finds a set of short words in bytes, and what may be an escape or a number, with one look-up for two bytes. */
import { classes, digit, escape } from "./byte-classes.ts";

/** A word that stands here if all of it does: the pair is at `offset` in it. */
interface Candidate {
  readonly word: number;
  readonly offset: number;
  readonly folded: Buffer;
}

/** What a pair of bytes may be a part of. */
export interface PairKind {
  readonly words: readonly Candidate[];
  /** One of the two begins an escape. */
  readonly isEscape: boolean;
  /** The second of them is a digit. */
  readonly isDigit: boolean;
}

/** `kinds[of[first | (second << 8)]]`; 0 where the pair says nothing, as most pairs of prose do. */
export interface Pairs {
  readonly of: Uint8Array;
  readonly kinds: readonly PairKind[];
}

/** From the most frequent in texts on; what is not in it is rarer. */
const frequent = " etaoinsrhldcumpgfyw,.bv/k\"-:'xjqz=";

function frequencyOf(byte: number): number {
  const place = frequent.indexOf(String.fromCharCode(byte));
  return 1 / (place === -1 ? 64 : place + 6);
}

/** A byte that may be any. */
const anything = -1;

/**
 * A table for words of which each is looked for in any case, or only as it is. Texts are looked at by pairs that begin at even
 * places: each word has one pair for where it begins at such a place, and one for where it does not, that are rare in texts.
 */
export function pairsOf(words: readonly string[], isAsItIs: (word: number) => boolean): Pairs {
  const found = new Map<number, Candidate[]>();
  for (const [word, text] of words.entries()) {
    const bytes = Buffer.from(text, "latin1");
    const folded = Buffer.from(text.toLowerCase(), "latin1");
    for (const parity of [0, 1]) {
      const offset = rarest(folded, parity);
      const pair = [bytes[offset] ?? anything, bytes[offset + 1] ?? anything] as const;
      for (const place of placesOf(pair, isAsItIs(word)))
        found.set(place, [...(found.get(place) ?? []), { word, offset, folded }]);
    }
  }
  const none: Candidate[] = [];
  const kinds: PairKind[] = [{ words: none, isEscape: false, isDigit: false }];
  const numbers = new Map<string | number, number>([[0, 0]]);
  const of = Uint8Array.from({ length: 65_536 }, (_none, place) => {
    const [first, second] = [classes[place & 255] ?? 0, classes[place >>> 8] ?? 0];
    const here = found.get(place) ?? none;
    const isEscape = ((first | second) & escape) !== 0;
    const isDigit = (second & digit) !== 0;
    const flags = (isEscape ? 2 : 0) + (isDigit ? 1 : 0);
    const key = here === none ? flags : `${flags} ${here.map(keyOf).join()}`;
    let number = numbers.get(key);
    if (number === undefined) {
      number = kinds.push({ words: here, isEscape, isDigit }) - 1;
      numbers.set(key, number);
    }
    if (number > 255) throw new RangeError("more kinds of pairs than a byte can tell");
    return number;
  });
  return { of, kinds };
}

function keyOf({ word, offset }: Candidate): string {
  return `${word}/${offset}`;
}

/** Where in a word its rarest pair begins, of those at places of one parity; one byte of it may be outside. */
function rarest(folded: Buffer, parity: number): number {
  let [best, least] = [-1, Number.POSITIVE_INFINITY];
  for (let offset = -parity; offset < folded.length; offset += 2) {
    const [first, second] = [folded[offset], folded[offset + 1]];
    const frequency =
      (first === undefined ? 1 : frequencyOf(first)) *
      (second === undefined ? 1 : frequencyOf(second));
    if (frequency < least) [best, least] = [offset, frequency];
  }
  return best;
}

function placesOf([first, second]: readonly [number, number], isAsItIs: boolean): number[] {
  const [ones, others] = [bytesOf(first, isAsItIs), bytesOf(second, isAsItIs)];
  return others.flatMap((other) => ones.map((one) => one | (other << 8)));
}

function bytesOf(byte: number, isAsItIs: boolean): number[] {
  if (byte === anything) return [...Array(256).keys()];
  const text = String.fromCharCode(byte);
  const cases = isAsItIs ? [text] : [text.toLowerCase(), text.toUpperCase()];
  return [...new Set(cases)].map((one) => one.charCodeAt(0));
}

/** Whether all of a word is there, in any case. */
export function isWordAt(bytes: Uint8Array, start: number, folded: Buffer): boolean {
  for (let index = 0; index < folded.length; index += 1) {
    const byte = bytes[start + index] ?? 0;
    if ((byte >= 0x41 && byte <= 0x5a ? byte + 32 : byte) !== folded[index]) return false;
  }
  return true;
}
