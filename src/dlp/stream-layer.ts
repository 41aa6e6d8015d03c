/** A stream of bytes, in which codings go on that hold such streams again. */
import { isOf, sixtyFour } from "./byte-classes.ts";
import type { DecodeBudget } from "./decode-budget.ts";
import type { Finding } from "./detectors.ts";
import { isZlib, touchBytes } from "./layers.ts";
import type { Coding } from "./open-coding.ts";
import { OpenStream } from "./open-stream.ts";
import type { StreamFinding } from "./piece.ts";
import { longRun } from "./runs.ts";
import { escapeGap, ScanRun } from "./scan-run.ts";
import type { ScannerOptions, Wanted } from "./scanner-options.ts";

/** What a detector may look at before the place that it judges. */
const leadBytes = 1_024;
/** What a detector may look at behind what it found. */
const tailBytes = 16;
/** What is looked through at one time. */
export const blockBytes = 32_768;
/** Compressed streams in one stream, at one time. */
const maxInflaters = 8;
const noBytes = Buffer.alloc(0);

/** What all layers of one stream have. */
export interface Shared {
  readonly options: ScannerOptions;
  readonly wanted: Wanted;
  readonly budget: DecodeBudget;
  readonly window: number;
  readonly isEager: boolean;
  inflaters: number;
  steps: number;
  isCut: boolean;
}

/** A stream, or what a coding of one holds. */
export class StreamLayer {
  readonly #shared: Shared;
  readonly #depth: number;
  readonly #via: readonly string[];
  #kept: Buffer = noBytes;
  /** In the stream, of the first byte that is kept. */
  #offset = 0;
  /** Bytes that wait until they are a block. */
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  /** What begins before this place was judged. */
  #judged = 0;
  readonly #reported = new Map<string, number>();
  #codings: OpenStream[] = [];
  #base64From = 0;
  #hexFrom = 0;
  #escapesFrom = 0;
  #gzipFrom = -1;
  #isOver = false;
  #escapeSeen = 0;
  /** Where escapes were undone, if this is what they hold. */
  #touched: number[] | undefined;

  constructor(shared: Shared, depth: number, via: readonly string[]) {
    this.#shared = shared;
    this.#depth = depth;
    this.#via = via;
  }

  touch(places: readonly number[] | undefined): void {
    if (places === undefined) return;
    this.#touched ??= [];
    for (const place of places) this.#touched.push(this.length + place);
  }

  get #end(): number {
    return this.#offset + this.#kept.length;
  }

  get length(): number {
    return this.#end + this.#waitingBytes;
  }

  /** Bytes in memory, of this stream and of those below its codings. */
  get heldBytes(): number {
    const below = this.#codings.reduce((sum, coding) => sum + coding.heldBytes, 0);
    return this.#kept.length + this.#waitingBytes + below;
  }

  get settled(): number {
    if (this.#isOver) return this.length;
    return Math.min(this.#judged, ...this.#codings.map(({ settled }) => settled));
  }

  push(piece: Buffer, isLast: boolean): StreamFinding[] {
    const found: StreamFinding[] = [];
    if (this.#shared.isEager) {
      this.#step(piece, isLast, found);
      return found;
    }
    let rest = piece;
    while (this.#waitingBytes + rest.length > blockBytes) {
      const taken = rest.subarray(0, blockBytes - this.#waitingBytes);
      rest = rest.subarray(taken.length);
      this.#step(this.#block(taken), false, found);
    }
    if (isLast) this.#step(this.#block(rest), isLast, found);
    else if (rest.length > 0) {
      this.#waiting.push(Buffer.from(rest));
      this.#waitingBytes += rest.length;
      if (this.#waiting.length > 64) this.#waiting = [Buffer.concat(this.#waiting)];
    }
    return found;
  }

  #block(last: Buffer): Buffer {
    if (this.#waitingBytes === 0) return last;
    const block = Buffer.concat([...this.#waiting, last]);
    this.#waiting = [];
    this.#waitingBytes = 0;
    return block;
  }

  #step(fresh: Buffer, isLast: boolean, found: StreamFinding[]): void {
    if (this.#isOver) return;
    const { options, wanted, budget, isEager } = this.#shared;
    const from = this.#end;
    const bytes = this.#kept.length === 0 ? fresh : Buffer.concat([this.#kept, fresh]);
    for (const coding of this.#codings) this.#feed(coding, { from, bytes: fresh, isLast }, found);
    const run = new ScanRun(options, wanted, budget);
    const local = (place: number): number => place - this.#offset;
    const scan = run.scanPiece(bytes, {
      depth: this.#depth,
      via: this.#via,
      isLast,
      isEager,
      base64From: local(this.#base64From),
      hexFrom: local(this.#hexFrom),
      escapesFrom: local(this.#escapesFrom),
      gzipFrom: local(this.#gzipFrom),
      touched: this.#touched?.map(local),
    });
    this.#shared.steps += scan.steps;
    this.#shared.isCut ||= scan.isCut;
    const end = this.#offset + bytes.length;
    const pending = isLast || isEager ? end : this.#take(scan.findings, end, found);
    if (isLast || isEager) this.#take(scan.findings, Number.POSITIVE_INFINITY, found);
    if (from === 0) this.#openZlib(bytes, isLast, found);
    for (const { coding, start } of scan.opened)
      this.#open({ coding, start: start + this.#offset }, bytes, found);
    if (scan.lastEscape >= 0) this.#escapeSeen = this.#offset + scan.lastEscape;
    if (!isLast) this.#closeEscapes(bytes, found);
    this.#codings = this.#codings.filter(({ isOver }) => !isOver);
    this.#isOver = isLast;
    this.#keep(bytes, Math.min(pending, this.#offset + scan.pending));
  }

  /** Reports what is sure; where the first finding begins that is not. */
  #take(findings: readonly Finding[], end: number, found: StreamFinding[]): number {
    let pending = end;
    for (const one of findings) {
      const [start, last] = [one.start + this.#offset, one.end + this.#offset];
      const isPlain = one.via.length === this.#via.length;
      // What is below a coding stands where its digits do, of which the first may have been judged.
      if (isPlain && start < this.#judged) continue;
      if (isPlain && last > end - tailBytes) {
        pending = Math.min(pending, start);
        continue;
      }
      const key = `${one.detector} ${isPlain ? start : `before ${last}`} ${one.hash}`;
      if (this.#reported.has(key)) continue;
      this.#reported.set(key, last);
      found.push({ ...one, start, end: last, isSpread: start < this.#judged });
    }
    return pending;
  }

  #openZlib(bytes: Buffer, isLast: boolean, found: StreamFinding[]): void {
    if (this.#depth === 0 || this.#depth >= this.#shared.options.maxDepth) return;
    if (!isZlib(bytes, 0)) return;
    this.#open({ coding: "zlib", start: 0 }, bytes, found);
    const open = this.#codings.at(-1);
    if (isLast && open !== undefined)
      this.#feed(open, { from: bytes.length, bytes: noBytes, isLast }, found);
  }

  #open(
    opened: { readonly coding: Coding; readonly start: number },
    bytes: Buffer,
    found: StreamFinding[],
  ): void {
    const { coding, start } = opened;
    const isCompressed = coding === "gzip" || coding === "zlib";
    if (coding === "gzip") this.#gzipFrom = start;
    if (coding === "base64") this.#base64From = Number.POSITIVE_INFINITY;
    if (coding === "hex") this.#hexFrom = Number.POSITIVE_INFINITY;
    if (coding === "escapes") {
      this.#escapesFrom = Number.POSITIVE_INFINITY;
      this.#escapeSeen = start;
    }
    if (isCompressed && this.#shared.inflaters >= maxInflaters) {
      this.#shared.isCut = true;
      return;
    }
    if (isCompressed) this.#shared.inflaters += 1;
    const via = [...this.#via, coding === "zlib" ? "deflate" : coding];
    const open = new OpenStream(coding, start, new StreamLayer(this.#shared, this.#depth + 1, via));
    this.#codings.push(open);
    const piece = { from: start, bytes: bytes.subarray(start - this.#offset), isLast: false };
    this.#feed(open, piece, found);
  }

  #feed(
    coding: OpenStream,
    piece: { readonly from: number; readonly bytes: Buffer; readonly isLast: boolean },
    found: StreamFinding[],
  ): void {
    const { budget } = this.#shared;
    const inner = coding.push(piece, (bytes) => budget.spend(bytes));
    this.#spread(coding, inner, found);
    if (!coding.isOver) return;
    if (coding.coding === "base64") this.#base64From = coding.end;
    if (coding.coding === "hex") this.#hexFrom = coding.end;
    if (coding.coding === "escapes") this.#escapesFrom = coding.end;
    if (coding.isCompressed) this.#shared.inflaters -= 1;
  }

  #spread(coding: OpenStream, inner: readonly Finding[], found: StreamFinding[]): void {
    for (const one of inner)
      found.push({ ...one, start: coding.start, end: coding.end, isSpread: true });
    if (coding.isCut) this.#shared.isCut = true;
  }

  /** Escapes are looked for anew where there were none for long, and nothing goes on below them. */
  #closeEscapes(bytes: Buffer, found: StreamFinding[]): void {
    const end = this.#offset + bytes.length;
    if (end - this.#escapeSeen <= escapeGap) return;
    if (!this.#codings.some(({ coding, isOver }) => coding === "escapes" && !isOver)) return;
    // A run of digits is not cut.
    let run = bytes.length;
    while (run > 0 && isOf(bytes, run - 1, sixtyFour)) run -= 1;
    if (run === 0 || run + this.#offset <= this.#escapeSeen + longRun) return;
    for (const coding of this.#codings) {
      if (coding.coding !== "escapes" || coding.isOver) continue;
      if (!coding.isBusy) this.#spread(coding, coding.flush(), found);
      if (!coding.isBusy) this.#feed(coding, { from: end, bytes: noBytes, isLast: true }, found);
    }
  }

  #keep(bytes: Buffer, pending: number): void {
    const end = this.#offset + bytes.length;
    this.#judged = Math.max(this.#judged, Math.min(end - this.#shared.window, pending));
    const from = Math.max(0, this.#judged - leadBytes - this.#offset);
    this.#kept = this.#isOver ? noBytes : Buffer.from(bytes.subarray(from));
    this.#offset = this.#isOver ? end : this.#offset + from;
    this.#touched = this.#touched?.filter((place) => place >= this.#offset - touchBytes);
    for (const [key, last] of this.#reported) if (last <= this.#offset) this.#reported.delete(key);
  }

  /** What waits is looked through, though it is no block; below codings, too. */
  flush(): StreamFinding[] {
    const found: StreamFinding[] = [];
    if (this.#waitingBytes > 0) this.#step(this.#block(noBytes), false, found);
    for (const coding of this.#codings) this.#spread(coding, coding.flush(), found);
    return found;
  }

  /** Nothing that is open goes on. */
  giveUp(): void {
    for (const coding of this.#codings) if (coding.isCompressed) this.#shared.inflaters -= 1;
    this.#codings = [];
    this.#base64From = this.#hexFrom = this.#escapesFrom = this.#end;
  }

  /** A coding below is not at its end. */
  get isBusy(): boolean {
    return this.#codings.length > 0;
  }
}
