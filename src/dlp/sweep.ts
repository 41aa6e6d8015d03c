/** The one look that all bytes get, four at a time: at two pairs, and at the window of known values that ends with them. */
import type { Fingerprints } from "./fingerprints.ts";
import type { PairKind, Pairs } from "./pairs.ts";

/** What is looked for. */
export interface Sought {
  readonly pairs: Pairs;
  readonly index: Fingerprints<unknown>;
}

/** Of a text at one time: what is seen in it has room in the list of hits. */
const stretchBytes = 1_024;
/** Each is `(place << placeShift) | number of the kind of pair`, or {@link windowHit} instead. */
export const windowHit = 256;
export const placeShift = 9;
export const hitMask = (1 << placeShift) - 1;

/** Room for the hits of one stretch. */
export const hitsOf = (): Int32Array => new Int32Array((stretchBytes / 4) * 3);

/** Hears of pairs that say something, and of windows that may be of a known value. */
export interface SweepListener<Text> {
  pair(text: Text, at: number, kind: PairKind): void;
  window(text: Text, end: number): void;
}

/** How many hits there are in a stretch of whole fours; their places are counted from `from`. */
export function hitsIn(
  view: DataView,
  [from, until]: readonly [number, number],
  { pairs, index }: Sought,
  hits: Int32Array,
): number {
  const { of } = pairs;
  const { low, high } = index;
  const { bits, shift } = index.anchors;
  let before = from === 0 ? 0 : view.getInt32(from - 4, true);
  let count = 0;
  for (let at = from; at < until; at += 4) {
    const four = view.getInt32(at, true);
    const first = of[four & 0xffff] as number;
    const second = of[four >>> 16] as number;
    if (first !== 0) hits[count++] = ((at - from) << placeShift) | first;
    if (second !== 0) hits[count++] = ((at - from + 2) << placeShift) | second;
    const place = Math.imul(four ^ Math.imul(before, high), low) >>> shift;
    if ((((bits[place >>> 5] as number) >>> (place & 31)) & 1) !== 0)
      hits[count++] = ((at - from + 4) << placeShift) | windowHit;
    before = four;
  }
  return count;
}

/** Looks at all of some bytes; nobody else may use `hits` meanwhile. */
export function sweep<Text extends { readonly bytes: Buffer }>(
  text: Text,
  sought: Sought,
  hits: Int32Array,
  listener: SweepListener<Text>,
): void {
  const { bytes } = text;
  const { length } = bytes;
  const { of, kinds } = sought.pairs;
  const view = new DataView(bytes.buffer, bytes.byteOffset, length);
  for (let from = 0; from < length; from += stretchBytes) {
    const until = Math.min(from + stretchBytes, length & ~3);
    const count = hitsIn(view, [from, until], sought, hits);
    for (let turn = 0; turn < count; turn += 1) {
      const hit = hits[turn] as number;
      const at = from + (hit >>> placeShift);
      const number = hit & hitMask;
      if (number === windowHit) listener.window(text, at);
      else listener.pair(text, at, kinds[number] as PairKind);
    }
  }
  for (let at = length & ~3; at < length; at += 2) {
    const number = of[(bytes[at] as number) | ((bytes[at + 1] ?? 0) << 8)] as number;
    if (number !== 0) listener.pair(text, at, kinds[number] as PairKind);
  }
}
