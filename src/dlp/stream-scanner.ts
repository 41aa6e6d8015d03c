/**
 * Looks through bytes that come in pieces, and keeps no more of them than a window.
 *
 * A coding that goes on behind a piece is undone as it comes, and what it holds is a stream of its own. Pieces are cut anew,
 * so that what is found does not depend on how the bytes came.
 */
import { DecodeBudget } from "./decode-budget.ts";
import type { Finding, Scan } from "./detectors.ts";
import { isZlib } from "./layers.ts";
import { type Coding, type Decoder, decoderOf, Marks, undecodedBytes } from "./open-coding.ts";
import { ScanRun } from "./scan-run.ts";
import type { Scanner } from "./scanner.ts";
import type { ScannerOptions, Wanted } from "./scanner-options.ts";

/** Nothing that is longer is sure to be found across a border of pieces, but for tokens, keys and known values. */
export const windowBytes = 4_096;
/** What a detector may look at before the place that it judges. */
const leadBytes = 1_024;
/** What a detector may look at behind what it found. */
const tailBytes = 16;
const blockBytes = 32_768;
/** Escapes are undone until there were none for so long. */
const escapeFreeBytes = 8_192;
/** Compressed streams in one stream, at one time. */
const maxInflaters = 8;
/** Findings below one coding that has not ended. */
const maxSpread = 64;
const noBytes = Buffer.alloc(0);

/** Something found in a stream. */
export interface StreamFinding extends Finding {
  /** It began before what is kept, or may have: it is below a coding that goes on. */
  readonly isSpread: boolean;
}

/** What a piece of a stream shows. */
export interface StreamScan extends Scan {
  readonly findings: readonly StreamFinding[];
}

interface Shared {
  readonly options: ScannerOptions;
  readonly wanted: Wanted;
  readonly budget: DecodeBudget;
  readonly window: number;
  readonly isEager: boolean;
  inflaters: number;
  steps: number;
  isCut: boolean;
}

/** One stream. */
export class StreamScanner {
  readonly #shared: Shared;
  readonly #layer: StreamLayer;

  /** `eager`: what stands at the end of a piece is judged with it, for messages that do not wait for the next one. */
  constructor(scanner: Scanner, wanted: Wanted, mode: "exact" | "eager" = "eager") {
    const { options } = scanner;
    const longest = Math.max(options.own.values.longest, options.lists?.longest ?? 0);
    this.#shared = {
      options,
      wanted,
      budget: new DecodeBudget(options.maxDecodedBytes),
      window: Math.max(windowBytes, longest),
      isEager: mode === "eager",
      inflaters: 0,
      steps: 0,
      isCut: false,
    };
    this.#layer = new StreamLayer(this.#shared, 0, []);
  }

  /** Of the stream so far. */
  get length(): number {
    return this.#layer.length;
  }

  /** Everything before this place is judged: no later byte makes a finding of it. */
  get settled(): number {
    return this.#layer.settled;
  }

  /** What the piece shows together with what came before; places are those in the whole stream. */
  push(piece: Buffer, isLast = false): StreamScan {
    const shared = this.#shared;
    shared.budget.grow(piece.length);
    const before = shared.steps;
    const findings = this.#layer.push(piece, isLast);
    const isCut = shared.isCut || shared.budget.isCut;
    return { findings, isCut, steps: shared.steps - before };
  }
}

/** A stream, or what a coding of one holds. */
class StreamLayer {
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
  #codings: OpenCoding[] = [];
  #base64From = 0;
  #hexFrom = 0;
  #escapesFrom = 0;
  #gzipFrom = -1;
  #isOver = false;

  constructor(shared: Shared, depth: number, via: readonly string[]) {
    this.#shared = shared;
    this.#depth = depth;
    this.#via = via;
  }

  get #end(): number {
    return this.#offset + this.#kept.length;
  }

  get length(): number {
    return this.#end + this.#waitingBytes;
  }

  get settled(): number {
    if (this.#isOver) return this.length;
    return Math.min(this.#judged, ...this.#codings.map(({ settled }) => settled));
  }

  push(piece: Buffer, isLast: boolean): StreamFinding[] {
    const found: StreamFinding[] = [];
    let rest = piece;
    const { isEager } = this.#shared;
    while (this.#waitingBytes + rest.length > blockBytes && !this.#shared.isEager) {
      const taken = rest.subarray(0, blockBytes - this.#waitingBytes);
      rest = rest.subarray(taken.length);
      this.#step(this.#block(taken), false, found);
    }
    if (isLast || isEager) this.#step(this.#block(rest), isLast, found);
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
    if (!isLast) this.#closeEscapes(end, found);
    this.#codings = this.#codings.filter(({ isOver }) => !isOver);
    this.#isOver = isLast;
    this.#keep(bytes, Math.min(pending, this.#offset + scan.pending));
  }

  #escapeSeen = 0;

  /** Reports what is sure; where the first finding begins that is not. */
  #take(findings: readonly Finding[], end: number, found: StreamFinding[]): number {
    let pending = end;
    for (const one of findings) {
      const start = one.start + this.#offset;
      if (start < this.#judged) continue;
      const isAtEnd = one.end + this.#offset > end - tailBytes;
      if (isAtEnd && one.via.length === this.#via.length) {
        pending = Math.min(pending, start);
        continue;
      }
      const key = `${one.detector} ${start} ${one.hash}`;
      if (this.#reported.has(key)) continue;
      this.#reported.set(key, start);
      found.push({ ...one, start, end: one.end + this.#offset, isSpread: false });
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
    const open = new OpenCoding(coding, start, new StreamLayer(this.#shared, this.#depth + 1, via));
    this.#codings.push(open);
    const piece = { from: start, bytes: bytes.subarray(start - this.#offset), isLast: false };
    this.#feed(open, piece, found);
  }

  #feed(
    coding: OpenCoding,
    piece: { readonly from: number; readonly bytes: Buffer; readonly isLast: boolean },
    found: StreamFinding[],
  ): void {
    const { budget } = this.#shared;
    const inner = coding.push(piece, (bytes) => budget.spend(bytes));
    for (const one of inner)
      found.push({ ...one, start: coding.start, end: coding.end, isSpread: true });
    if (coding.isCut) this.#shared.isCut = true;
    if (!coding.isOver) return;
    if (coding.coding === "base64") this.#base64From = coding.end;
    if (coding.coding === "hex") this.#hexFrom = coding.end;
    if (coding.coding === "escapes") this.#escapesFrom = coding.end;
    if (coding.isCompressed) this.#shared.inflaters -= 1;
  }

  /** Escapes are looked for anew where there were none for long, and nothing goes on below them. */
  #closeEscapes(end: number, found: StreamFinding[]): void {
    if (end - this.#escapeSeen <= escapeFreeBytes) return;
    for (const coding of this.#codings)
      if (coding.coding === "escapes" && !coding.isOver && !coding.isBusy)
        this.#feed(coding, { from: end, bytes: noBytes, isLast: true }, found);
  }

  #keep(bytes: Buffer, pending: number): void {
    const end = this.#offset + bytes.length;
    this.#judged = Math.max(this.#judged, Math.min(end - this.#shared.window, pending));
    for (const [key, start] of this.#reported) if (start < this.#judged) this.#reported.delete(key);
    const from = Math.max(0, this.#judged - leadBytes - this.#offset);
    this.#kept = this.#isOver ? noBytes : Buffer.from(bytes.subarray(from));
    this.#offset = this.#isOver ? end : this.#offset + from;
  }

  /** A coding below is not at its end. */
  get isBusy(): boolean {
    return this.#codings.length > 0;
  }
}

/** A coding that goes on, and what it holds. */
class OpenCoding {
  readonly coding: Coding;
  readonly start: number;
  readonly #layer: StreamLayer;
  readonly #decoder: Decoder;
  /** In the layer around it. */
  end: number;
  isOver = false;
  isCut = false;
  readonly #marks = new Marks();
  readonly #seen = new Set<string>();

  constructor(coding: Coding, start: number, layer: StreamLayer) {
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
    const used = this.#decoder.push(bytes, isLast, (clear) => {
      if (!spend(clear.length)) return false;
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
