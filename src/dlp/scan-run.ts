/** One look through one text. */
import { fromBase32 } from "../base32.ts";
import { digit, isOf, lower, runEnd, sixtyFour, upper } from "./byte-classes.ts";
import { DecodeBudget } from "./decode-budget.ts";
import type { Finding, Scan } from "./detectors.ts";
import { Fingerprints, shortHash } from "./fingerprints.ts";
import { type Layer, outermost, rootLayer } from "./layer.ts";
import { inflated, inflatedSoFar, isTouched, unescaped } from "./layers.ts";
import type { OwnSecret } from "./own-secrets.ts";
import type { PairKind } from "./pairs.ts";
import { isWordAt } from "./pairs.ts";
import { placesOfPatterns } from "./patterns.ts";
import type { Opened, Piece, PieceScan } from "./piece.ts";
import { eachHexRun, isTelling, leastRun, longRun, lookForRuns } from "./runs.ts";
import type { ListWord, ScannerOptions, TextPattern, Wanted } from "./scanner-options.ts";
import { isBland, shortRun, undoBase64, undoHex, undoneBytes } from "./short-runs.ts";
import { hitsOf, type Sought, sweep, type SweepListener } from "./sweep.ts";
import { behindWord, isNumberLike, isNumberWanted, numbersAt, wordPairs } from "./words.ts";

/** What stands before the digits of a coding may look like some of them: nobody knows with which of them it begins. */
const base64Shifts = [0, 1, 2, 3] as const;
const hexShifts = [0, 1] as const;
const escapeMargin = 512;
/** Escapes that are further apart have nothing to do with each other, but for a run of digits that is between them. */
export const escapeGap = 4_096;
const maxFindings = 64;
/** A broken stream costs at most this part of what may be decoded. */
const brokenShare = 16;
const nothing = new Fingerprints<OwnSecret>(8);

type Index = Fingerprints<OwnSecret> | Fingerprints<ListWord>;

/** By depth: a layer is looked through while those above it are. */
const hits: Int32Array[] = [];

/** A run of digits is not cut: what it holds may be one stream. */
function beforeEscape(bytes: Buffer, first: number): number {
  let from = Math.max(0, first - escapeMargin);
  while (from > 0 && isOf(bytes, from - 1, sixtyFour)) from -= 1;
  return from;
}

function behindEscape(bytes: Buffer, last: number): number {
  const end = last + escapeMargin;
  return Math.min(bytes.length, runEnd(bytes, end, sixtyFour, bytes.length));
}

/** State of one scan; it is used once. */
export class ScanRun {
  readonly #options: ScannerOptions;
  readonly #wanted: Wanted;
  readonly #own: Fingerprints<OwnSecret>;
  readonly #patterns: readonly TextPattern[];
  readonly #sought: Sought;
  readonly #listener: SweepListener<Layer>;
  readonly #findings: Finding[] = [];
  readonly #budget: DecodeBudget;
  /** Set for a part of a stream that goes on. */
  #piece: Piece | undefined;
  readonly #opened: Opened[] = [];
  #pending = Number.POSITIVE_INFINITY;
  #lastEscape = -1;
  #steps = 0;
  #isCut = false;

  constructor(
    options: ScannerOptions,
    wanted: Wanted,
    budget = new DecodeBudget(options.maxDecodedBytes),
  ) {
    this.#options = options;
    this.#budget = budget;
    this.#wanted = wanted;
    this.#own = wanted.has("own_secrets") ? options.own.values : nothing;
    this.#patterns = (options.patterns ?? []).filter(({ name }) => wanted.has(name));
    this.#sought = { pairs: wordPairs, index: this.#own };
    const areNumbersWanted = isNumberWanted(wanted);
    this.#listener = {
      pair: (layer, at, kind) => {
        this.#words(layer, at, kind);
        if (kind.isEscape) this.#escape(layer, at);
        if (kind.isDigit && areNumbersWanted) this.#digits(layer, at);
      },
      window: (layer, end) => this.#known(layer, end, this.#own),
    };
  }

  scan(bytes: Buffer): Scan {
    this.#budget.grow(bytes.length);
    this.#look(rootLayer(bytes));
    return this.#result();
  }

  /** Looks through a part of a stream that goes on: what is open at its end is left to the caller. */
  scanPiece(bytes: Buffer, piece: Piece): PieceScan {
    this.#piece = piece;
    this.#look(rootLayer(bytes, piece));
    return {
      ...this.#result(),
      opened: this.#opened,
      pending: Math.min(this.#pending, bytes.length),
      lastEscape: this.#lastEscape,
    };
  }

  scanName(host: string): Scan {
    const labels = host.toLowerCase().split(".");
    const bytes = Buffer.from(labels.join(""), "latin1");
    const root = rootLayer(bytes);
    if (this.#wanted.has("own_secrets")) this.#lookForKnown(root, this.#options.own.names);
    this.#look(root);
    // The last two labels are somebody's name; what carries data stands before them.
    const front = labels.slice(0, -2).join("");
    if (front.length >= leastRun)
      this.#below(root, fromBase32(front), "base32", () => [0, front.length]);
    return this.#result();
  }

  #result(): Scan {
    const findings = this.#findings.toSorted((a, b) => a.start - b.start);
    return { findings, isCut: this.#isCut || this.#budget.isCut, steps: this.#steps };
  }

  /** Everything that is called here looks at a bounded number of bytes, or goes on. */
  #look(layer: Layer): void {
    const { bytes, depth } = layer;
    const { lists } = this.#options;
    this.#steps += bytes.length;
    if (layer.parent !== undefined) this.#compressed(layer, 0);
    this.#own.eachShortWindow(bytes, (end) => this.#known(layer, end, this.#own));
    sweep(layer, this.#sought, (hits[depth] ??= hitsOf()), this.#listener);
    if (lists !== undefined) this.#lookForKnown(layer, lists);
    this.#lookForRuns(layer);
    if (layer.escapes.length > 0) this.#escapes(layer);
    if (this.#patterns.length === 0) return;
    for (const place of placesOfPatterns(bytes, this.#patterns, maxFindings))
      this.#found(layer, place);
  }

  #lookForKnown(layer: Layer, index: Index): void {
    const hear = (end: number): void => this.#known(layer, end, index);
    index.eachShortWindow(layer.bytes, hear);
    index.eachWindow(layer.bytes, hear);
  }

  #words(layer: Layer, at: number, { words }: PairKind): void {
    const { bytes, parent } = layer;
    for (const { word, offset, folded } of words) {
      if (!isWordAt(bytes, at - offset, folded)) continue;
      const place = behindWord(bytes, at - offset + folded.length, word, this.#wanted);
      if (place === undefined) continue;
      if ("detector" in place) this.#found(layer, place);
      // What a layer begins with is undone already.
      else if ("gzip" in place && (parent === undefined || place.gzip > 0))
        this.#gzip(layer, place.gzip);
      else if ("unfinished" in place && parent === undefined)
        this.#pending = Math.min(this.#pending, place.unfinished);
    }
  }

  #digits(layer: Layer, at: number): void {
    const { bytes } = layer;
    const first = isOf(bytes, at, digit) ? at : at + 1;
    if (!isNumberLike(bytes, first)) return;
    numbersAt(bytes, first, this.#wanted, (place) => this.#found(layer, place));
  }

  #escape({ bytes, escapes, parent }: Layer, at: number): void {
    for (const place of [at, at + 1]) {
      if (!isTelling(bytes, place)) continue;
      if (parent === undefined && this.#piece !== undefined) {
        this.#lastEscape = place;
        if (place < this.#piece.escapesFrom) continue;
      }
      const last = escapes.length - 1;
      if (last >= 0 && place - (escapes[last] as number) <= escapeGap) escapes[last] = place;
      else escapes.push(place, place);
    }
  }

  #lookForRuns(layer: Layer): void {
    const piece = this.#pieceOf(layer);
    const { bytes, touched } = layer;
    const isSeen = (start: number, end: number): boolean =>
      touched !== undefined && !isTouched(touched, start, end);
    lookForRuns(bytes, piece, {
      run: (start, end, bits) => {
        if (!isSeen(start, end)) this.#run(layer, start, end, bits);
      },
      openRun: (start) => {
        if (isSeen(start, bytes.length)) return;
        // What it holds of base16 may have ended.
        this.#hexRuns(layer, start, bytes.length);
        if (start < (piece?.base64From ?? 0)) return;
        for (const shift of base64Shifts) this.#open("base64", start + shift);
      },
    });
  }

  #escapes(layer: Layer): void {
    const { bytes, escapes } = layer;
    const piece = this.#pieceOf(layer);
    if (piece !== undefined && !piece.isLast && !piece.isEager) {
      this.#open("escapes", beforeEscape(bytes, escapes[0] as number));
      return;
    }
    for (let at = 0; at < escapes.length; at += 2) {
      const from = beforeEscape(bytes, escapes[at] as number);
      let until = behindEscape(bytes, escapes[at + 1] as number);
      while (at + 2 < escapes.length && (escapes[at + 2] as number) - escapeMargin <= until) {
        at += 2;
        until = behindEscape(bytes, escapes[at + 1] as number);
      }
      this.#unescape(layer, from, until);
    }
  }

  #pieceOf({ parent }: Layer): Piece | undefined {
    return parent === undefined ? this.#piece : undefined;
  }

  #open(coding: Opened["coding"], start: number): void {
    if (this.#piece !== undefined && this.#piece.depth < this.#options.maxDepth)
      this.#opened.push({ coding, start });
  }

  #known(layer: Layer, at: number, index: Index): void {
    const known = index.matchAt(layer.bytes, at);
    if (known === undefined) return;
    const { tag, start, end } = known;
    const detector = "list" in tag ? tag.list : "own_secrets";
    if (this.#wanted.has(detector)) this.#found(layer, { detector, start, end, hash: tag.hash });
  }

  /** A run of digits of base64, of which some may be of base16. */
  #run(layer: Layer, start: number, end: number, bits: number): void {
    const { bytes } = layer;
    const isHex = this.#hexRuns(layer, start, end);
    // Words in one case, such as paths, are no random digits.
    if (isHex || (bits & upper) === 0 || (bits & lower) === 0) return;
    if (start < (this.#pieceOf(layer)?.base64From ?? 0)) return;
    const span = [start, end] as const;
    if (end - start <= shortRun) {
      for (const shift of base64Shifts)
        this.#belowShort(layer, undoBase64(bytes, start, end, shift), "base64", span);
      return;
    }
    const text = bytes.toString("latin1", start, end).replaceAll("\\n", "");
    for (const shift of base64Shifts)
      this.#below(layer, Buffer.from(text.slice(shift), "base64"), "base64", () => span);
  }

  /** Whether the whole run is one of base16. */
  #hexRuns(layer: Layer, start: number, end: number): boolean {
    const { bytes } = layer;
    const piece = this.#pieceOf(layer);
    let isHex = false;
    eachHexRun(bytes, start, end, (from, last) => {
      const isOpen = piece?.isLast === false && last === bytes.length;
      if (from < (piece?.hexFrom ?? 0)) return;
      if (isOpen && last - from > longRun)
        for (const shift of hexShifts) this.#open("hex", from + shift);
      else if (!isOpen || piece.isEager) {
        isHex = last - from >= end - start - 2;
        for (const shift of hexShifts) this.#hex(layer, [from, last], shift);
      }
    });
    return isHex;
  }

  #hex(layer: Layer, span: readonly [number, number], shift: number): void {
    const { bytes } = layer;
    const [start, end] = [span[0] + shift, span[1]];
    if (end - start <= shortRun) this.#belowShort(layer, undoHex(bytes, start, end), "hex", span);
    else {
      const whole = start + ((end - start) & ~1);
      const clear = Buffer.from(bytes.toString("latin1", start, whole), "hex");
      this.#below(layer, clear, "hex", () => span);
    }
  }

  #belowShort(layer: Layer, size: number, coding: string, span: readonly [number, number]): void {
    const isPlain = this.#options.lists === undefined && this.#patterns.length === 0;
    if (!isPlain || !isBland(size, this.#sought))
      this.#below(layer, undoneBytes(size), coding, () => span);
    else if (layer.depth < this.#options.maxDepth && this.#budget.spend(size)) this.#steps += size;
  }

  #unescape(layer: Layer, from: number, until: number): void {
    const region = layer.bytes.subarray(from, until);
    const { bytes: clear, touched } = unescaped(region);
    const within = (start: number, end: number): [number, number] => [
      from + unescaped(region, start).read,
      from + unescaped(region, end).read,
    ];
    this.#below(layer, clear, "escapes", within, touched);
  }

  #gzip(layer: Layer, at: number): void {
    const piece = this.#pieceOf(layer);
    if (at <= (piece?.gzipFrom ?? -1)) return;
    if (piece === undefined || piece.isLast) this.#compressed(layer, at);
    else this.#open("gzip", at);
  }

  #compressed(layer: Layer, at: number): void {
    if (layer.depth >= this.#options.maxDepth) return;
    const { left } = this.#budget;
    const found = left <= 0 ? undefined : inflated(layer.bytes, at, left);
    if (found === undefined) return;
    if (found.kind === "too-large") this.#isCut = true;
    else if (found.kind === "broken") {
      // Nobody counts what the platform made of it before it broke, and there may be many.
      const most = Math.floor(Math.min(found.spent, this.#budget.limit / brokenShare));
      if (!this.#budget.spend(most)) return;
      const clear = inflatedSoFar(layer.bytes, at, found.coding, most);
      this.#below(layer, clear, found.coding, () => [at, layer.bytes.length]);
    } else this.#below(layer, found.bytes, found.coding, () => [at, layer.bytes.length]);
  }

  #below(
    layer: Layer,
    bytes: Buffer,
    coding: string,
    ...[within, touched]: [NonNullable<Layer["within"]>, Layer["touched"]?]
  ): void {
    const depth = layer.depth + 1;
    if (depth > this.#options.maxDepth || bytes.length < 8) return;
    if (!this.#budget.spend(bytes.length)) return;
    const via = [...layer.via, coding];
    this.#look({ ...rootLayer(bytes, { depth, via, touched }), parent: layer, within });
  }

  #found(layer: Layer, found: Omit<Finding, "via" | "hash"> & { readonly hash?: string }): void {
    const [start, end] = outermost(layer, found.start, found.end);
    const { detector, kind } = found;
    const isSame = (one: Finding): boolean =>
      one.detector === detector && one.start < end && start < one.end;
    if (this.#findings.some(isSame)) return;
    if (this.#findings.length >= maxFindings) {
      this.#isCut = true;
      return;
    }
    const hash = found.hash ?? shortHash(layer.bytes.subarray(found.start, found.end));
    this.#findings.push({ detector, kind, start, end, via: layer.via, hash });
  }
}
