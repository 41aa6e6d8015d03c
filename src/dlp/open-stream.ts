/** A coding that goes on in a stream, and the stream that it holds. */
import type { Finding } from "./detectors.ts";
import { type Coding, type Decoder, decoderOf, Marks, undecodedBytes } from "./open-coding.ts";
import type { StreamFinding } from "./piece.ts";

/** Findings below one coding that has not ended. */
const maxSpread = 64;
/** Twice the window of deflate (RFC 1951), and tables. */
const inflaterBytes = 69_632;
const noBytes = Buffer.alloc(0);

/** What looks through what is held. */
interface InnerStream {
  readonly length: number;
  readonly heldBytes: number;
  readonly settled: number;
  readonly isBusy: boolean;
  /** Where escapes were undone in what is pushed next. */
  touch(places: readonly number[] | undefined): void;
  push(piece: Buffer, isLast: boolean): StreamFinding[];
  flush(): StreamFinding[];
}

/** A coding that goes on, and what it holds. */
export class OpenStream {
  readonly coding: Coding;
  readonly start: number;
  readonly #layer: InnerStream;
  readonly #decoder: Decoder;
  /** In the layer around it. */
  end: number;
  isOver = false;
  isCut = false;
  readonly #marks = new Marks();
  readonly #seen = new Set<string>();

  constructor(coding: Coding, start: number, layer: InnerStream) {
    this.coding = coding;
    this.start = start;
    this.end = start;
    this.#layer = layer;
    this.#decoder = decoderOf(coding);
  }

  get isCompressed(): boolean {
    return this.coding === "gzip" || this.coding === "zlib";
  }

  get isBusy(): boolean {
    return this.#layer.isBusy;
  }

  get heldBytes(): number {
    return this.#layer.heldBytes + (this.isCompressed ? inflaterBytes : 0);
  }

  /** What it shows so far. */
  flush(): Finding[] {
    return this.#layer.flush().filter((one) => this.#isNew(one));
  }

  /** Everything around it before this place is judged. */
  get settled(): number {
    const from = this.#marks.before(this.#layer.settled) ?? this.start;
    return Math.max(this.start, from - undecodedBytes);
  }

  push(
    {
      from,
      bytes,
      isLast,
    }: { readonly from: number; readonly bytes: Buffer; readonly isLast: boolean },
    spend: (bytes: number) => boolean,
  ): Finding[] {
    this.#marks.add(from, this.#layer.length, this.#layer.settled);
    const found: StreamFinding[] = [];
    const used = this.#decoder.push(bytes, isLast, (clear, touched) => {
      if (!spend(clear.length)) return false;
      this.#layer.touch(touched);
      found.push(...this.#layer.push(clear, false));
      return true;
    });
    this.end = from + (this.isCompressed ? bytes.length : used);
    this.isOver = isLast || used < bytes.length;
    if (this.isOver) found.push(...this.#layer.push(noBytes, true));
    return found.filter((one) => this.#isNew(one));
  }

  #isNew({ detector, hash }: Finding): boolean {
    const key = `${detector} ${hash}`;
    if (this.#seen.has(key)) return false;
    if (this.#seen.size >= maxSpread) {
      this.isCut = true;
      return false;
    }
    this.#seen.add(key);
    return true;
  }
}
