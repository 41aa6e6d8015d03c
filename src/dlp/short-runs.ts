/** Short runs of digits, undone in one place that all share: most of them hold nothing, and need no bytes of their own. */
import { classes, sixtyFour } from "./byte-classes.ts";
import { isZlib } from "./layers.ts";
import { isWordAt, type PairKind } from "./pairs.ts";
import { hasRun, isTelling } from "./runs.ts";
import { hitMask, hitsIn, hitsOf, placeShift, type Sought, windowHit } from "./sweep.ts";
import { isNumberLike } from "./words.ts";

/** Digits of a run that is undone here; a longer one is left to the codings of the platform. */
export const shortRun = 512;
/** Behind what was undone there are zeros, as many as a look may go too far. */
const margin = 16;

const undone = Buffer.alloc(shortRun + margin);
const view = new DataView(undone.buffer, undone.byteOffset, undone.length);
const hits = hitsOf();
const values = new Uint8Array(256).map((_none, byte) => digitOf(String.fromCharCode(byte)));
const nibbles = new Uint8Array(256).map((_none, byte) =>
  Math.max(0, "0123456789abcdef".indexOf(String.fromCharCode(byte).toLowerCase())),
);

function digitOf(character: string): number {
  const place = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".indexOf(
    character,
  );
  if (place !== -1) return place;
  return character === "-" ? 62 : character === "_" ? 63 : 0;
}

/** Undoes base64 behind the first `skipped` digits; how many bytes it comes to. Line ends, also in the escape of JSON, are no digits. */
export function undoBase64(bytes: Uint8Array, start: number, end: number, skipped: number): number {
  let [held, bits, size] = [0, 0, 0];
  let left = skipped;
  for (let at = start; at < end; at += 1) {
    const byte = bytes[at] as number;
    if (((classes[byte] as number) & sixtyFour) === 0) {
      // The letter behind a backslash is of a line end.
      if (byte === 0x5c) at += 1;
      continue;
    }
    if (left > 0) {
      left -= 1;
      continue;
    }
    held = ((held << 6) | (values[byte] as number)) & 0xffff;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    undone[size++] = held >>> bits;
  }
  return ended(size);
}

/** Undoes whole pairs of digits of base16. */
export function undoHex(bytes: Uint8Array, start: number, end: number): number {
  let size = 0;
  for (let at = start; at + 1 < end; at += 2)
    undone[size++] =
      ((nibbles[bytes[at] as number] as number) << 4) |
      (nibbles[bytes[at + 1] as number] as number);
  return ended(size);
}

function ended(size: number): number {
  for (let at = size; at < size + margin; at += 1) undone[at] = 0;
  return size;
}

/** A copy of what was undone. */
export function undoneBytes(size: number): Buffer {
  return Buffer.from(undone.subarray(0, size));
}

/** Whether what was undone has nothing that anybody would look at. */
export function isBland(size: number, sought: Sought): boolean {
  if (sought.index.shortAnchors.size > 0 || isZlib(undone, 0)) return false;
  const { kinds } = sought.pairs;
  const count = hitsIn(view, [0, (size + 3) & ~3], sought, hits);
  for (let turn = 0; turn < count; turn += 1) {
    const hit = hits[turn] as number;
    const at = hit >>> placeShift;
    const number = hit & hitMask;
    if (number === windowHit ? sought.index.hasWindow(undone, at) : says(kinds[number], at))
      return false;
  }
  return !hasRun(undone, size);
}

function says(kind: PairKind | undefined, at: number): boolean {
  if (kind === undefined) return false;
  if (kind.isEscape && (isTelling(undone, at) || isTelling(undone, at + 1))) return true;
  if (kind.isDigit && (isNumberLike(undone, at) || isNumberLike(undone, at + 1))) return true;
  return kind.words.some(({ offset, folded }) => isWordAt(undone, at - offset, folded));
}
