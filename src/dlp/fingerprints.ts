/**
 * Known values by keyed hash: found wherever they stand in a text, without a copy of them being kept.
 *
 * Each value is anchored at its last windows, as many as there are places between two looks at a text: one of them is met
 * wherever the value begins. A digest over its whole length then says whether it is there. The keys are of this process, so
 * that nobody can prepare texts that are slow to look through.
 */
import { createHmac, randomBytes } from "node:crypto";

/** One value that is looked for. */
interface Known<Tag> {
  readonly length: number;
  readonly tag: Tag;
  /** Hashes of its last windows, from the last on. */
  readonly anchors: readonly number[];
}

/** A known value in a text. */
export interface KnownPlace<Tag> {
  readonly start: number;
  readonly end: number;
  readonly tag: Tag;
}

const key = randomBytes(32);

/** A keyed digest of bytes; equal within one process for equal bytes, and of no use outside it. */
export function keyedDigest(bytes: Uint8Array): string {
  return createHmac("sha256", key).update(bytes).digest("base64");
}

/** The same in eight hexadecimal digits, to be shown. */
export function shortHash(bytes: Uint8Array): string {
  return createHmac("sha256", key).update(bytes).digest("hex").slice(0, 8);
}

const leastBits = 16;
const mostBits = 22;
/** Of a text the windows are looked at that end at its multiples. */
const anchorStep = 4;

/** An index of known values; windows of eight bytes, or of four. */
export class Fingerprints<Tag> {
  readonly width: 4 | 8;
  readonly low = randomBytes(4).readInt32LE() | 1;
  /** Zero for a window of four bytes, which knows nothing of the four before. */
  readonly high: number;
  readonly anchors = new Anchors();
  /** Of values that are too short to be met by steps: each window is looked at where there are any. */
  readonly shortAnchors = new Anchors();
  /** By digest. */
  readonly #known = new Map<string, Known<Tag>>();
  /** Of the values that were ever added. */
  longest = 0;

  constructor(width: 4 | 8) {
    this.width = width;
    this.high = width === 8 ? randomBytes(4).readInt32LE() | 1 : 0;
  }

  get size(): number {
    return this.#known.size;
  }

  /** Values shorter than the window are not taken: false. */
  add(bytes: Uint8Array, tag: Tag): boolean {
    const { length } = bytes;
    if (length < this.width) return false;
    const digest = keyedDigest(bytes);
    if (this.#known.has(digest)) return true;
    const windows = length < this.width + anchorStep - 1 ? 1 : anchorStep;
    const anchors = Array.from({ length: windows }, (_none, behind) =>
      this.anchorAt(bytes, length - behind),
    );
    const known = { length, tag, anchors };
    this.#known.set(digest, known);
    this.longest = Math.max(this.longest, length);
    this.#anchor(known);
    return true;
  }

  /** Drops the values of the tags that `isGone` names. */
  prune(isGone: (tag: Tag) => boolean): void {
    for (const [digest, { tag }] of this.#known) if (isGone(tag)) this.#known.delete(digest);
    this.anchors.clear();
    this.shortAnchors.clear();
    for (const known of this.#known.values()) this.#anchor(known);
  }

  /** The longest known value of which a window ends before `end`. */
  matchAt(bytes: Uint8Array, end: number): KnownPlace<Tag> | undefined {
    let found: KnownPlace<Tag> | undefined;
    for (const { length, behind } of this.#endings(this.anchorAt(bytes, end))) {
      const last = end + behind;
      const start = last - length;
      if (start < 0 || last > bytes.length) continue;
      if (found !== undefined && length <= found.end - found.start) continue;
      const known = this.#known.get(keyedDigest(bytes.subarray(start, last)));
      if (known !== undefined) found = { start, end: last, tag: known.tag };
    }
    return found;
  }

  /** Whether a known value may end with, or just behind, the window that ends before `end`. */
  hasWindow(bytes: Uint8Array, end: number): boolean {
    return this.#endings(this.anchorAt(bytes, end)).length > 0;
  }

  /** Calls back for the windows that {@link hasWindow} may be true of; those of short values are many. */
  eachWindow(bytes: Uint8Array, hear: (end: number) => void): void {
    for (let end = anchorStep; end <= bytes.length; end += anchorStep)
      if (this.anchors.has(this.anchorAt(bytes, end))) hear(end);
  }

  /** The same for values that are too short to be met by steps. */
  eachShortWindow(bytes: Uint8Array, hear: (end: number) => void): void {
    if (this.shortAnchors.size === 0) return;
    for (let end = this.width; end <= bytes.length; end += 1)
      if (this.shortAnchors.has(this.anchorAt(bytes, end))) hear(end);
  }

  /** The hash of the window that ends before `end`. */
  anchorAt(bytes: Uint8Array, end: number): number {
    const high = this.high === 0 ? 0 : Math.imul(fourAt(bytes, end - 8), this.high);
    return Math.imul(fourAt(bytes, end - 4) ^ high, this.low);
  }

  #endings(anchor: number): readonly Ending[] {
    const [some, short] = [this.anchors.at(anchor), this.shortAnchors.at(anchor)];
    if (short.length === 0) return some;
    return some.length === 0 ? short : [...some, ...short];
  }

  #anchor({ length, anchors }: Known<Tag>): void {
    const index = anchors.length === 1 ? this.shortAnchors : this.anchors;
    for (const [behind, anchor] of anchors.entries()) index.add(anchor, { length, behind });
  }
}

/** What may end where a window does, or so many bytes behind it. */
interface Ending {
  readonly length: number;
  readonly behind: number;
}

const noEndings: readonly Ending[] = [];

/** Hashes of windows of known values. */
class Anchors {
  /** One bit for each beginning of a hash that a window may have: so small that it stays in the nearest cache. */
  bits = new Uint32Array(1 << (leastBits - 5));
  shift = 32 - leastBits;
  readonly #endings = new Map<number, Ending[]>();

  get size(): number {
    return this.#endings.size;
  }

  has(anchor: number): boolean {
    const place = anchor >>> this.shift;
    return (((this.bits[place >>> 5] as number) >>> (place & 31)) & 1) !== 0;
  }

  at(anchor: number): readonly Ending[] {
    return this.#endings.get(anchor) ?? noEndings;
  }

  add(anchor: number, ending: Ending): void {
    const endings = this.#endings.get(anchor);
    if (endings === undefined) this.#endings.set(anchor, [ending]);
    else if (!endings.some((one) => one.length === ending.length && one.behind === ending.behind))
      endings.push(ending);
    if (this.size <= this.bits.length || this.shift <= 32 - mostBits) this.#set(anchor);
    else {
      this.shift -= 1;
      this.bits = new Uint32Array(2 ** (27 - this.shift));
      for (const one of this.#endings.keys()) this.#set(one);
    }
  }

  clear(): void {
    this.#endings.clear();
    this.bits.fill(0);
  }

  #set(anchor: number): void {
    const place = anchor >>> this.shift;
    this.bits[place >>> 5] = (this.bits[place >>> 5] ?? 0) | (1 << (place & 31));
  }
}

/** Four bytes as one number, as a DataView has them in little-endian order. */
function fourAt(bytes: Uint8Array, at: number): number {
  const [first = 0, second = 0, third = 0, last = 0] = [
    bytes[at],
    bytes[at + 1],
    bytes[at + 2],
    bytes[at + 3],
  ];
  return first | (second << 8) | (third << 16) | (last << 24);
}
