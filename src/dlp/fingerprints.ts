/**
 * Known values by keyed hash: found wherever they stand in a text, without a copy of them being kept.
 *
 * Each value is anchored at its last bytes, which a hash over a sliding window finds; a digest over its whole length then
 * says whether it is there. The keys are of this process, so that nobody can prepare texts that are slow to look through.
 */
import { createHmac, randomBytes } from "node:crypto";

/** One value that is looked for. */
export interface Known<Tag> {
  readonly length: number;
  readonly digest: string;
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

/** An index of known values; windows of eight bytes, or of four. */
export class Fingerprints<Tag> {
  readonly width: 4 | 8;
  readonly low = randomBytes(4).readInt32LE() | 1;
  /** Zero for a window of four bytes, which knows nothing of the four before. */
  readonly high: number;
  /** One bit for each beginning of a hash that a known value may end with: so small that it stays in the nearest cache. */
  bits = new Uint32Array(1 << (leastBits - 5));
  shift = 32 - leastBits;
  readonly #known = new Map<number, Known<Tag>[]>();
  #size = 0;
  /** Of the values that were ever added. */
  longest = 0;

  constructor(width: 4 | 8) {
    this.width = width;
    this.high = width === 8 ? randomBytes(4).readInt32LE() | 1 : 0;
  }

  get size(): number {
    return this.#size;
  }

  /** Values shorter than the window are not taken: false. */
  add(bytes: Uint8Array, tag: Tag): boolean {
    if (bytes.length < this.width) return false;
    const anchor = this.#anchorOf(bytes);
    const list = this.#known.get(anchor) ?? [];
    const digest = keyedDigest(bytes);
    if (list.some((known) => known.digest === digest)) return true;
    list.push({ length: bytes.length, digest, tag });
    this.longest = Math.max(this.longest, bytes.length);
    this.#known.set(anchor, list);
    this.#size += 1;
    if (this.#size > this.bits.length && this.shift > 32 - mostBits) this.#grow();
    else this.#set(anchor >>> this.shift);
    return true;
  }

  /** Drops the values of the tags that `isGone` names. */
  prune(isGone: (tag: Tag) => boolean): void {
    for (const [anchor, list] of this.#known) {
      const rest = list.filter(({ tag }) => !isGone(tag));
      this.#size -= list.length - rest.length;
      if (rest.length === 0) this.#known.delete(anchor);
      else this.#known.set(anchor, rest);
    }
    this.#fill();
  }

  /** The longest known value that ends before `end`, where the window there has this hash. */
  matchAt(bytes: Uint8Array, end: number, anchor: number): Known<Tag> | undefined {
    let found: Known<Tag> | undefined;
    for (const known of this.#known.get(anchor | 0) ?? []) {
      if (known.length > end || known.length <= (found?.length ?? 0)) continue;
      if (keyedDigest(bytes.subarray(end - known.length, end)) === known.digest) found = known;
    }
    return found;
  }

  #anchorOf(bytes: Uint8Array): number {
    let [low, high] = [0, 0];
    for (let at = bytes.length - this.width; at < bytes.length; at += 1) {
      high = (high << 8) | (low >>> 24);
      low = (low << 8) | (bytes[at] ?? 0);
    }
    return Math.imul(low ^ Math.imul(high, this.high), this.low);
  }

  #grow(): void {
    this.shift -= 1;
    this.#fill();
  }

  #fill(): void {
    this.bits = new Uint32Array(2 ** (27 - this.shift));
    for (const anchor of this.#known.keys()) this.#set(anchor >>> this.shift);
  }

  #set(place: number): void {
    this.bits[place >>> 5] = (this.bits[place >>> 5] ?? 0) | (1 << (place & 31));
  }
}
