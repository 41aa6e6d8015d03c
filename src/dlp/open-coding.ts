/** Codings that go on from one piece of a stream to the next: undone as far as the bytes are there. */
import { hexadecimal, runEnd, sixtyFour } from "./byte-classes.ts";
import { Inflater } from "./inflate.ts";
import { unescaped } from "./layers.ts";
import type { Opened } from "./piece.ts";
import { isFold, mayFold } from "./runs.ts";

/** Takes what was decoded, and where escapes were undone in it; false where nothing more is wanted. */
type Emit = (clear: Buffer, touched?: readonly number[]) => boolean;

/** Undoes one coding of one stream. */
export interface Decoder {
  /** How many of the bytes belong to the coding: fewer than all where it ends among them. */
  push(bytes: Buffer, isLast: boolean, emit: Emit): number;
}

const noBytes = Buffer.alloc(0);
const backslash = 0x5c;

/** A run of digits of base64, perhaps over several lines. */
class Base64Decoder implements Decoder {
  /** A line end of which it is not known whether the run goes on behind it. */
  #rest: Buffer = noBytes;
  #digits = "";

  push(bytes: Buffer, isLast: boolean, emit: Emit): number {
    const before = this.#rest.length;
    const all = before === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    let isFolded = false;
    let at = 0;
    for (;;) {
      at = runEnd(all, at, sixtyFour, all.length);
      if (at === all.length || (at + 3 > all.length && !isLast && mayFold(all[at]))) break;
      if (!isFold(all, at)) break;
      at += all[at] === backslash ? 2 : 1;
      isFolded = true;
    }
    const isOver = at < all.length && !(at + 3 > all.length && !isLast && mayFold(all[at]));
    this.#rest = isOver ? noBytes : Buffer.from(all.subarray(at));
    const digits = all.toString("latin1", 0, at);
    const text = this.#digits + (isFolded ? digits.replaceAll(/\\n|[\r\n]/g, "") : digits);
    const whole = isOver || isLast ? text.length : text.length & ~3;
    this.#digits = text.slice(whole);
    if (whole > 0) emit(Buffer.from(text.slice(0, whole), "base64"));
    return isOver ? Math.max(0, at - before) : bytes.length;
  }
}

/** A run of digits of base16. */
class HexDecoder implements Decoder {
  #digit = "";

  push(bytes: Buffer, _isLast: boolean, emit: Emit): number {
    const at = runEnd(bytes, 0, hexadecimal, bytes.length);
    const text = this.#digit + bytes.toString("latin1", 0, at);
    this.#digit = text.length % 2 === 0 ? "" : text.slice(-1);
    if (text.length > 1) emit(Buffer.from(text.slice(0, text.length & ~1), "hex"));
    return at;
  }
}

/** Escapes, and all that stands between them. */
class EscapesDecoder implements Decoder {
  #rest: Buffer = noBytes;

  push(bytes: Buffer, isLast: boolean, emit: Emit): number {
    const all = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const clear = unescaped(all, Number.POSITIVE_INFINITY, !isLast);
    this.#rest = Buffer.from(all.subarray(clear.read));
    if (clear.bytes.length > 0) emit(clear.bytes, clear.touched);
    return bytes.length;
  }
}

/** A compressed stream. */
class StreamInflater implements Decoder {
  readonly #inflater: Inflater;
  #emit: Emit = () => true;

  constructor(frame: "gzip" | "zlib") {
    this.#inflater = new Inflater(frame, (clear) => this.#emit(clear));
  }

  /** Where in the bytes it ends does not matter: what follows is looked through beside it. */
  push(bytes: Buffer, _isLast: boolean, emit: Emit): number {
    this.#emit = emit;
    return this.#inflater.push(bytes) === "more" ? bytes.length : 0;
  }
}

/** What {@link decoderOf} undoes. */
export type Coding = Opened["coding"] | "zlib";

/** A decoder for the beginning of a coding. */
export function decoderOf(coding: Coding): Decoder {
  if (coding === "base64") return new Base64Decoder();
  if (coding === "hex") return new HexDecoder();
  return coding === "escapes" ? new EscapesDecoder() : new StreamInflater(coding);
}

/** Bytes that a decoder may have taken and not undone. */
export const undecodedBytes = 512;

/** Where pieces of a coding began, and how much was decoded before each. */
export class Marks {
  #marks: { readonly from: number; readonly decoded: number }[] = [];

  add(from: number, decoded: number, settled: number): void {
    const first = this.#marks.findLastIndex((mark) => mark.decoded <= settled);
    this.#marks = this.#marks.slice(Math.max(0, first));
    this.#marks.push({ from, decoded });
  }

  /** The beginning of the piece that a place of what was decoded came from. */
  before(settled: number): number | undefined {
    return this.#marks.findLast(({ decoded }) => decoded <= settled)?.from;
  }
}
