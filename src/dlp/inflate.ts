/**
 * Unpacks deflate (RFC 1951) from pieces, with or without the frame of gzip or zlib, and keeps no more than its window.
 *
 * zlib in Node unpacks a piece at a time only in another thread, and a scan cannot wait. Checksums are not compared: they
 * must not decide whether somebody looks.
 */

/** What became of a stream with the bytes that it was given. */
type Inflating = "more" | "end" | "broken";

const windowBytes = 32_768;
const outBytes = 2 * windowBytes;
/** Most streams are short. */
const firstBytes = 1_024;
const longestCopy = 258;
const quickBits = 9;
const quickMask = (1 << quickBits) - 1;
const mostBits = 15;

/** A code by the lengths of its words: short ones in one look-up, the others bit by bit. */
interface Code {
  readonly quick: Uint16Array;
  readonly counts: Uint16Array;
  readonly symbols: Uint16Array;
}

/** The bytes that are there do not suffice. */
const starved = new Error("starved");
const broken = new Error("broken");

function codeOf(lengths: Uint8Array): Code {
  const counts = new Uint16Array(mostBits + 1);
  for (const length of lengths) counts[length] = (counts[length] as number) + 1;
  counts[0] = 0;
  const offsets = new Uint16Array(mostBits + 2);
  const first = new Uint16Array(mostBits + 2);
  let left = 1;
  for (let length = 1; length <= mostBits; length += 1) {
    const count = counts[length] as number;
    left = left * 2 - count;
    if (left < 0) throw broken;
    offsets[length + 1] = (offsets[length] as number) + count;
    first[length + 1] = ((first[length] as number) + count) << 1;
  }
  const symbols = new Uint16Array(lengths.length);
  const quick = new Uint16Array(1 << quickBits);
  for (let symbol = 0; symbol < lengths.length; symbol += 1) {
    const length = lengths[symbol] as number;
    if (length === 0) continue;
    symbols[offsets[length] as number] = symbol;
    offsets[length] = (offsets[length] as number) + 1;
    const word = first[length] as number;
    first[length] = word + 1;
    if (length > quickBits) continue;
    let turned = 0;
    for (let bit = 0; bit < length; bit += 1) turned |= ((word >> bit) & 1) << (length - 1 - bit);
    for (let at = turned; at <= quickMask; at += 1 << length) quick[at] = (symbol << 4) | length;
  }
  return { quick, counts, symbols };
}

const lengthBase = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
  163, 195, 227, 258,
];
const distanceBase = [
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049,
  3073, 4097, 6145, 8193, 12289, 16385, 24577,
];
const lengthExtra = lengthBase.map((_base, at) => (at < 4 || at === 28 ? 0 : (at >> 2) - 1));
const distanceExtra = distanceBase.map((_base, at) => (at < 2 ? 0 : (at >> 1) - 1));
const lengthOrder = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

const fixedLengths = codeOf(
  Uint8Array.from({ length: 288 }, (_none, at) => (at < 144 ? 8 : at < 256 ? 9 : at < 280 ? 7 : 8)),
);
const fixedDistances = codeOf(new Uint8Array(30).fill(5));

type Step = "gzip" | "extra" | "name" | "comment" | "check" | "zlib" | "block" | "stored" | "codes";

/** One stream. */
export class Inflater {
  readonly #emit: (bytes: Buffer) => boolean;
  #step: Step;
  #flags = 0;
  #in: Buffer = Buffer.alloc(0);
  #at = 0;
  #bits = 0;
  #count = 0;
  #isLastBlock = false;
  /** Of a stored block, or of a field of gzip. */
  #left = 0;
  #lengths = fixedLengths;
  #distances = fixedDistances;
  /** The last bytes of what was given on, and what was not given on yet. */
  #out = Buffer.allocUnsafe(firstBytes + longestCopy);
  #size = 0;
  #given = 0;
  #isStopped = false;

  /** `emit` says whether it wants more. What it gets is its own only during the call. */
  constructor(frame: "gzip" | "zlib", emit: (bytes: Buffer) => boolean) {
    this.#step = frame;
    this.#emit = emit;
  }

  push(piece: Buffer): Inflating {
    const rest = this.#in.subarray(this.#at);
    this.#in = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    this.#at = 0;
    let [at, bits, count] = [0, 0, 0];
    let outcome: Inflating = "more";
    try {
      while (!this.#isStopped) {
        [at, bits, count] = [this.#at, this.#bits, this.#count];
        if (this.#next()) {
          outcome = "end";
          break;
        }
      }
      if (this.#isStopped) outcome = "broken";
    } catch (error) {
      if (error !== starved) outcome = "broken";
      else [this.#at, this.#bits, this.#count] = [at, bits, count];
    }
    this.#give();
    return outcome;
  }

  /** One step, for which all bytes are there, or it is taken back; true at the end. */
  #next(): boolean {
    const step = this.#step;
    if (step === "codes") this.#symbols();
    else if (step === "stored") this.#copy();
    else if (step === "block") this.#block();
    else if (step === "zlib") {
      this.#take(16);
      this.#step = "block";
    } else {
      this.#header();
      return false;
    }
    return this.#step === "block" && this.#isLastBlock;
  }

  /** RFC 1952 section 2.3; a name has any length. */
  #header(): void {
    if (this.#step === "gzip") {
      if (this.#in.length < this.#at + 10) throw starved;
      this.#flags = this.#in[this.#at + 3] as number;
      this.#at += 10;
      this.#step = "extra";
      if ((this.#flags & 4) !== 0) {
        if (this.#in.length < this.#at + 2) {
          this.#step = "gzip";
          this.#at -= 10;
          throw starved;
        }
        this.#left = this.#in.readUInt16LE(this.#at);
        this.#at += 2;
      }
    } else if (this.#step === "extra") {
      const some = Math.min(this.#left, this.#in.length - this.#at);
      this.#at += some;
      this.#left -= some;
      if (this.#left === 0) this.#step = "name";
      else if (some === 0) throw starved;
    } else if (this.#step === "name" || this.#step === "comment") {
      const isThere = (this.#flags & (this.#step === "name" ? 8 : 16)) !== 0;
      const end = isThere ? this.#in.indexOf(0, this.#at) : this.#at - 1;
      if (end === -1 && isThere && this.#at < this.#in.length) this.#at = this.#in.length;
      else if (end === -1 && isThere) throw starved;
      else {
        this.#at = end + 1;
        this.#step = this.#step === "name" ? "comment" : "check";
      }
    } else {
      if ((this.#flags & 2) !== 0) this.#take(16);
      this.#step = "block";
    }
  }

  #block(): void {
    const head = this.#take(3);
    const kind = head >> 1;
    if (kind === 0) {
      this.#bits = 0;
      // Whole bytes that were read ahead are given back.
      this.#at -= this.#count >> 3;
      this.#count = 0;
      const length = this.#take(16);
      if ((this.#take(16) ^ length) !== 0xffff) throw broken;
      this.#left = length;
    } else if (kind === 1) [this.#lengths, this.#distances] = [fixedLengths, fixedDistances];
    else if (kind === 2) this.#readCodes();
    else throw broken;
    this.#isLastBlock = (head & 1) === 1;
    this.#step = kind === 0 ? "stored" : "codes";
  }

  #readCodes(): void {
    const [many, far, order] = [this.#take(5) + 257, this.#take(5) + 1, this.#take(4) + 4];
    const lengths = new Uint8Array(320);
    for (let at = 0; at < order; at += 1) lengths[lengthOrder[at] as number] = this.#take(3);
    const code = codeOf(lengths.subarray(0, 19));
    const said = new Uint8Array(320);
    let at = 0;
    while (at < many + far) {
      const symbol = this.#symbol(code);
      if (symbol < 16) said[at++] = symbol;
      else {
        if (symbol === 16 && at === 0) throw broken;
        const value = symbol === 16 ? (said[at - 1] as number) : 0;
        const times =
          symbol === 16
            ? 3 + this.#take(2)
            : symbol === 17
              ? 3 + this.#take(3)
              : 11 + this.#take(7);
        if (at + times > many + far) throw broken;
        said.fill(value, at, at + times);
        at += times;
      }
    }
    this.#lengths = codeOf(said.slice(0, many));
    this.#distances = codeOf(said.slice(many, many + far));
  }

  #copy(): void {
    if (this.#left > 0 && this.#at >= this.#in.length) throw starved;
    this.#makeRoom();
    const room = this.#out.length - longestCopy - this.#size;
    const some = Math.min(this.#left, this.#in.length - this.#at, room);
    this.#in.copy(this.#out, this.#size, this.#at, this.#at + some);
    this.#at += some;
    this.#size += some;
    this.#left -= some;
    if (this.#left === 0) this.#step = "block";
  }

  /** A word, and what it stands for. */
  #symbols(): void {
    this.#makeRoom();
    const symbol = this.#symbol(this.#lengths);
    if (symbol < 256) {
      this.#out[this.#size++] = symbol;
      return;
    }
    if (symbol === 256) {
      this.#step = "block";
      return;
    }
    const length = lengthBase[symbol - 257];
    if (length === undefined) throw broken;
    const long = length + this.#take(lengthExtra[symbol - 257] as number);
    const place = this.#symbol(this.#distances);
    const base = distanceBase[place];
    if (base === undefined) throw broken;
    const back = base + this.#take(distanceExtra[place] as number);
    if (back > this.#size) throw broken;
    const out = this.#out;
    let size = this.#size;
    for (const end = size + long; size < end; size += 1) out[size] = out[size - back] as number;
    this.#size = size;
  }

  #symbol(code: Code): number {
    while (this.#count < mostBits && this.#at < this.#in.length) this.#fill();
    const entry = code.quick[this.#bits & quickMask] as number;
    if (entry !== 0) {
      this.#drop(entry & 15);
      return entry >> 4;
    }
    let [word, first, index] = [0, 0, 0];
    for (let length = 1; length <= mostBits; length += 1) {
      if (length > this.#count) throw starved;
      word |= (this.#bits >>> (length - 1)) & 1;
      const count = code.counts[length] as number;
      if (word - count < first) {
        this.#drop(length);
        return code.symbols[index + word - first] as number;
      }
      index += count;
      first = (first + count) << 1;
      word <<= 1;
    }
    throw broken;
  }

  #take(many: number): number {
    while (this.#count < many) {
      if (this.#at >= this.#in.length) throw starved;
      this.#fill();
    }
    const value = this.#bits & ((1 << many) - 1);
    this.#drop(many);
    return value;
  }

  #fill(): void {
    this.#bits |= (this.#in[this.#at] as number) << this.#count;
    this.#at += 1;
    this.#count += 8;
  }

  #drop(many: number): void {
    if (many > this.#count) throw starved;
    this.#bits >>>= many;
    this.#count -= many;
  }

  #makeRoom(): void {
    const room = this.#out.length - longestCopy;
    if (this.#size < room) return;
    if (room < outBytes) {
      const more = Buffer.allocUnsafe(Math.min(outBytes, room * 4) + longestCopy);
      this.#out.copy(more, 0, 0, this.#size);
      this.#out = more;
      return;
    }
    this.#give();
    this.#out.copyWithin(0, this.#size - windowBytes, this.#size);
    this.#size = windowBytes;
    this.#given = windowBytes;
  }

  #give(): void {
    if (this.#given === this.#size) return;
    const bytes = this.#out.subarray(this.#given, this.#size);
    this.#given = this.#size;
    if (!this.#emit(bytes)) this.#isStopped = true;
  }
}
