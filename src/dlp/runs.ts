/** Where digits of a coding, numbers and escapes stand in some bytes. */
import {
  alphanumeric,
  classes,
  hexadecimal,
  isOf,
  runEnd,
  sixtyFour,
  word,
} from "./byte-classes.ts";
import type { Piece } from "./piece.ts";

/** A longer run that is open at the end of a piece is a stream of its own. */
export const longRun = 2_048;
/** A shorter run of digits of base64 or base16 has room for nothing that is looked for. */
export const leastRun = 16;
/** Of a line that goes on in the next one, as base64 is folded. */
const leastFolded = 40;
const backslash = 0x5c;

/** Hears where digits stand. */
interface RunListener {
  /** A run of digits of base64, with the classes that are in it. */
  run(start: number, end: number, bits: number): void;
  /** One that may go on behind the piece. */
  openRun(start: number): void;
}

/** Finds runs of digits of base64 by a look at every sixteenth byte, and at all of those that may be of one. */
export function lookForRuns(
  bytes: Uint8Array,
  piece: Piece | undefined,
  listener: RunListener,
): void {
  const { length } = bytes;
  const foldsFrom = isOpenEnd(piece) ? length - 2 : length;
  let done = 0;
  for (let probe = leastRun - 1; probe < length; probe += leastRun) {
    if (((classes[bytes[probe] as number] as number) & sixtyFour) === 0) continue;
    let start = probe;
    while (start > done && ((classes[bytes[start - 1] as number] as number) & sixtyFour) !== 0)
      start -= 1;
    if (start > 0 && isLetterOfEscape(bytes, start)) start += 1;
    let end = start;
    let bits = 0;
    for (; end < length; end += 1) {
      const of = classes[bytes[end] as number] as number;
      if ((of & sixtyFour) !== 0) bits |= of;
      else if (!goesOn(bytes, end, start, foldsFrom)) break;
      else if (bytes[end] === backslash) end += 1;
    }
    end = Math.min(end, length);
    if (end === length) endRun(listener, piece, { start, end, bits });
    else if (end - start >= leastRun) listener.run(start, end, bits);
    done = end;
    probe = Math.max(probe, end);
  }
}

/** Runs of digits of base16 in a run of digits of base64. */
export function eachHexRun(
  bytes: Uint8Array,
  start: number,
  end: number,
  hear: (start: number, end: number) => void,
): void {
  let done = start;
  for (let probe = start + leastRun - 1; probe < end; probe += leastRun) {
    if (!isOf(bytes, probe, hexadecimal)) continue;
    let from = probe;
    while (from > done && isOf(bytes, from - 1, hexadecimal)) from -= 1;
    done = runEnd(bytes, probe, hexadecimal, end - probe);
    if (done - from >= leastRun) hear(from, done);
    probe = done;
  }
}

/** Whether there is a run of digits of base64, or so long a part of one. */
export function hasRun(bytes: Uint8Array, length: number): boolean {
  for (let probe = leastRun - 1; probe < length; probe += leastRun) {
    let start = probe;
    while (start >= 0 && isOf(bytes, start, sixtyFour)) start -= 1;
    const end = runEnd(bytes, probe, sixtyFour, leastRun);
    if (end - start - 1 >= leastRun) return true;
  }
  return false;
}

/** What follows a line end there is in the next piece. */
function isOpenEnd(piece: Piece | undefined): boolean {
  return piece !== undefined && !piece.isLast && !piece.isEager;
}

function endRun(
  listener: RunListener,
  piece: Piece | undefined,
  { start, end, bits }: { readonly start: number; readonly end: number; readonly bits: number },
): void {
  const long = end - start;
  if (long < leastRun) return;
  const isWhole = piece === undefined || piece.isLast || (piece.isEager && long <= longRun);
  if (isWhole) listener.run(start, end, bits);
  else if (long > longRun) listener.openRun(start);
}

function goesOn(bytes: Uint8Array, at: number, start: number, foldsFrom: number): boolean {
  if (at - start < leastFolded) return false;
  return isFold(bytes, at) || (at >= foldsFrom && mayFold(bytes[at]));
}

const maxUnfinished = 36_864;

/** Three parts of a token, of which the last ones are not there yet. */
export function isUnfinished(bytes: Buffer, start: number): boolean {
  let at = start;
  for (let part = 0; part < 3; part += 1) {
    at = runEnd(bytes, at, word, maxUnfinished);
    if (at === bytes.length) return at - start < maxUnfinished;
    if (bytes[at] !== 0x2e) return false;
    at += 1;
  }
  return false;
}

/** Whether a line end may begin with this byte. */
export function mayFold(byte: number | undefined): boolean {
  return byte === 0x0d || byte === 0x0a || byte === backslash;
}

/** A line end inside a run that goes on behind it, also in the escape of JSON. */
export function isFold(bytes: Uint8Array, at: number): boolean {
  const byte = bytes[at];
  if (byte === 0x0d || byte === 0x0a)
    return isOf(bytes, at + 1, sixtyFour) || (byte === 0x0d && bytes[at + 1] === 0x0a);
  return byte === backslash && bytes[at + 1] === 0x6e && isOf(bytes, at + 2, sixtyFour);
}

/** Whether an escape may hide something: those of quotes and line ends are in every text, and hide nothing. */
export function isTelling(bytes: Uint8Array, at: number): boolean {
  const after = bytes[at + 1];
  if (bytes[at] === 0x25 || (bytes[at] === backslash && after === 0x78)) {
    const from = bytes[at] === 0x25 ? at + 1 : at + 2;
    return isOf(bytes, from, hexadecimal) && isOf(bytes, from + 1, hexadecimal);
  }
  if (bytes[at] !== backslash) return false;
  if (after === 0x75) return isOf(bytes, at + 2, hexadecimal) && isOf(bytes, at + 5, hexadecimal);
  return after === backslash || after === 0x2f;
}

/** Whether a letter is none of the text: it ends an escape that hides nothing. */
function isLetterOfEscape(bytes: Uint8Array, at: number): boolean {
  return bytes[at - 1] === backslash && !isTelling(bytes, at - 1);
}

/** Whether a number may begin here: no letter or digit of the text stands before it. */
export function isFree(bytes: Uint8Array, at: number): boolean {
  return !isOf(bytes, at - 1, alphanumeric) || isLetterOfEscape(bytes, at - 1);
}
