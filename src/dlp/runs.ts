/** Where digits of a coding, numbers and escapes stand in some bytes. */
import {
  alphanumeric,
  classes,
  escape,
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

/** Hears what stands where. */
export interface RunListener {
  /** Set where the bytes are a part of a stream. */
  readonly piece: Piece | undefined;
  /** The classes of bytes that a number may begin with; 0 where nobody looks for numbers. */
  readonly numberStart: number;
  number(at: number, bits: number): void;
  /** A run of digits of base64, with the classes that are in it. */
  run(start: number, end: number, bits: number): void;
  /** One that may go on behind the piece. */
  openRun(start: number): void;
  /** The first and the last escape that may hide something. */
  escapes(first: number, last: number): void;
}

/** One pass over the bytes. */
export function lookForRuns(bytes: Buffer, listener: RunListener): void {
  const { length } = bytes;
  const { piece, numberStart } = listener;
  const escapesFrom = piece?.escapesFrom ?? 0;
  const foldsFrom = isOpenEnd(piece) ? length - 2 : length;
  let before = 0;
  let runStart = -1;
  let runBits = 0;
  let firstEscape = -1;
  let lastEscape = -1;
  for (let at = 0; at < length; at += 1) {
    const byte = bytes[at] as number;
    const bits = classes[byte] as number;
    if ((bits & sixtyFour) !== 0) {
      if (runStart === -1) {
        runStart = at;
        runBits = 0;
      }
      runBits |= bits;
      if ((bits & numberStart) !== 0 && (before & alphanumeric) === 0) listener.number(at, bits);
      before = bits;
      continue;
    }
    before = 0;
    if (runStart !== -1 && !goesOn(bytes, at, runStart, foldsFrom)) {
      if (at - runStart >= leastRun) listener.run(runStart, at, runBits);
      runStart = -1;
    }
    if ((bits & escape) === 0) continue;
    if (at >= escapesFrom && isTelling(bytes, at)) {
      if (firstEscape === -1) firstEscape = at;
      lastEscape = at;
      // The letter of a line end is no letter of the text.
    } else if (byte === backslash && !isTelling(bytes, at)) at += 1;
  }
  if (runStart !== -1) endRun(listener, runStart, length, runBits);
  if (firstEscape !== -1) listener.escapes(firstEscape, lastEscape);
}

/** What follows a line end there is in the next piece. */
function isOpenEnd(piece: Piece | undefined): boolean {
  return piece !== undefined && !piece.isLast && !piece.isEager;
}

function endRun(listener: RunListener, start: number, end: number, bits: number): void {
  const { piece } = listener;
  const long = end - start;
  if (long < leastRun) return;
  const isWhole = piece === undefined || piece.isLast || (piece.isEager && long <= longRun);
  if (isWhole) listener.run(start, end, bits);
  else if (long > longRun) listener.openRun(start);
}

function goesOn(bytes: Buffer, at: number, start: number, foldsFrom: number): boolean {
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
export function isFold(bytes: Buffer, at: number): boolean {
  const byte = bytes[at];
  if (byte === 0x0d || byte === 0x0a)
    return isOf(bytes, at + 1, sixtyFour) || (byte === 0x0d && bytes[at + 1] === 0x0a);
  return byte === backslash && bytes[at + 1] === 0x6e && isOf(bytes, at + 2, sixtyFour);
}

/** Whether an escape may hide something: those of quotes and line ends are in every text, and hide nothing. */
function isTelling(bytes: Buffer, at: number): boolean {
  const after = bytes[at + 1];
  if (bytes[at] === 0x25 || after === 0x78) {
    const from = bytes[at] === 0x25 ? at + 1 : at + 2;
    return isOf(bytes, from, hexadecimal) && isOf(bytes, from + 1, hexadecimal);
  }
  if (after === 0x75) return isOf(bytes, at + 2, hexadecimal) && isOf(bytes, at + 5, hexadecimal);
  return after === backslash || after === 0x2f;
}
