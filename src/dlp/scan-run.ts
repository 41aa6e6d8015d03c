/** One look through one text. */
import { digit, hexadecimal, isOf, lower, runEnd, sixtyFour, upper } from "./byte-classes.ts";
import { DecodeBudget } from "./decode-budget.ts";
import type { Finding, Scan } from "./detectors.ts";
import { Fingerprints, shortHash } from "./fingerprints.ts";
import { beginsAt, keyFormats } from "./key-formats.ts";
import { type Layer, outermost } from "./layer.ts";
import { inflated, unescaped } from "./layers.ts";
import type { Opened, Piece, PieceScan } from "./piece.ts";
import { isUnfinished, leastRun, longRun, lookForRuns } from "./runs.ts";
import { secretWords, valueBeside } from "./named-secrets.ts";
import { cardAt, emailAround, ibanAt, type Numbered, phoneAt, ssnAt } from "./numbers.ts";
import type { OwnSecret } from "./own-secrets.ts";
import type { ListWord, ScannerOptions, Wanted } from "./scanner-options.ts";
import { fromBase32 } from "./spellings.ts";
import { triggersOf } from "./triggers.ts";

const gzipMagic = "\x1f\x8b\x08";
const triggerWords = [...keyFormats.map(({ begins }) => begins), ...secretWords, "@", gzipMagic];
const firstName = keyFormats.length;
const mailSign = firstName + secretWords.length;
const triggers = triggersOf(triggerWords);

/** What stands before the digits of a coding may look like some of them: nobody knows with which of them it begins. */
const base64Shifts = [0, 1, 2, 3] as const;
const hexShifts = [0, 1] as const;
const escapeMargin = 512;
const maxFindings = 64;
/** Of a text for patterns, whose engine is slower than the rest by far. */
const patternWindow = 61_440;
const patternOverlap = 4_096;

/** A broken stream costs at most this part of what may be decoded. */
const brokenShare = 16;
const nothing = new Fingerprints<OwnSecret>(8);

type Index = Fingerprints<OwnSecret> | Fingerprints<ListWord>;

/** State of one scan; it is used once. */
export class ScanRun {
  readonly #options: ScannerOptions;
  readonly #wanted: Wanted;
  readonly #isNumberWanted: boolean;
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
    this.#isNumberWanted = ["cards", "iban", "phone", "us_ssn"].some((name) => wanted.has(name));
  }

  scan(bytes: Buffer): Scan {
    this.#budget.grow(bytes.length);
    this.#look({ bytes, depth: 0, via: [] });
    return this.#result();
  }

  /** Looks through a part of a stream that goes on: what is open at its end is left to the caller. */
  scanPiece(bytes: Buffer, piece: Piece): PieceScan {
    this.#piece = piece;
    this.#look({ bytes, depth: piece.depth, via: piece.via });
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
    const root: Layer = { bytes, depth: 0, via: [] };
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
    const { own, lists } = this.#options;
    this.#steps += layer.bytes.length;
    if (layer.parent !== undefined) this.#compressed(layer, 0);
    this.#lookForWords(layer, this.#wanted.has("own_secrets") ? own.values : nothing);
    if (lists !== undefined) this.#lookForKnown(layer, lists);
    this.#lookForRuns(layer);
    this.#lookForPatterns(layer);
  }

  #lookForKnown(layer: Layer, index: Index): void {
    const { bytes } = layer;
    const { bits, shift, low: lowKey, high: highKey } = index;
    let low = 0;
    let high = 0;
    for (let at = 0; at < bytes.length; at += 1) {
      high = (high << 8) | (low >>> 24);
      low = (low << 8) | (bytes[at] as number);
      const anchor = Math.imul(low ^ Math.imul(high, highKey), lowKey);
      const place = anchor >>> shift;
      if ((((bits[place >>> 5] as number) >>> (place & 31)) & 1) !== 0)
        this.#known(layer, at + 1, anchor, index);
    }
  }

  /** The words that begin what has a format, and in the same pass what {@link #lookForKnown} looks for. */
  #lookForWords(layer: Layer, index: Index): void {
    const { bytes } = layer;
    const { next, firstEnd, word } = triggers;
    const { bits, shift, low: lowKey, high: highKey } = index;
    let state = 0;
    let low = 0;
    let high = 0;
    for (let at = 0; at < bytes.length; at += 1) {
      const byte = bytes[at] as number;
      high = (high << 8) | (low >>> 24);
      low = (low << 8) | byte;
      const anchor = Math.imul(low ^ Math.imul(high, highKey), lowKey);
      const place = anchor >>> shift;
      if ((((bits[place >>> 5] as number) >>> (place & 31)) & 1) !== 0)
        this.#known(layer, at + 1, anchor, index);
      state = next[(state << 8) | byte] as number;
      if (state >= firstEnd) this.#trigger(layer, at + 1, word[state - firstEnd] as number);
    }
  }

  /** Runs of digits of a coding, the beginnings of words, and escapes. */
  #lookForRuns(layer: Layer): void {
    const piece = this.#pieceOf(layer);
    lookForRuns(layer.bytes, {
      piece,
      numberStart: this.#isNumberWanted ? digit | upper : 0,
      number: (at, bits) => this.#number(layer, at, bits),
      run: (start, end, bits) => this.#run(layer, start, end, bits),
      openRun: (start) => {
        // What it holds of base16 may have ended.
        this.#hexRuns(layer, start, layer.bytes.length);
        if (start < (piece?.base64From ?? 0)) return;
        for (const shift of base64Shifts) this.#open("base64", start + shift);
      },
      escapes: (first, last) => {
        if (piece === undefined || piece.isLast || piece.isEager)
          this.#unescape(layer, first, last);
        else {
          this.#lastEscape = last;
          this.#open("escapes", Math.max(0, first - escapeMargin));
        }
      },
    });
  }

  #pieceOf({ parent }: Layer): Piece | undefined {
    return parent === undefined ? this.#piece : undefined;
  }

  #open(coding: Opened["coding"], start: number): void {
    if (this.#piece !== undefined && this.#piece.depth < this.#options.maxDepth)
      this.#opened.push({ coding, start });
  }

  #known(layer: Layer, end: number, anchor: number, index: Index): void {
    const known = index.matchAt(layer.bytes, end, anchor);
    if (known === undefined) return;
    const { tag, length } = known;
    const detector = "list" in tag ? tag.list : "own_secrets";
    if (this.#wanted.has(detector))
      this.#found(layer, { detector, start: end - length, end, hash: tag.hash });
  }

  #trigger(layer: Layer, end: number, index: number): void {
    const { bytes } = layer;
    const format = keyFormats[index];
    if (format !== undefined) {
      const { detector, kind, begins } = format;
      const start = end - begins.length;
      if (!this.#wanted.has(detector) || !beginsAt(bytes, start, format)) return;
      const last = format.end(bytes, end);
      if (last !== -1) this.#found(layer, { detector, kind, start, end: last });
      else if (kind === "jwt" && layer.parent === undefined && isUnfinished(bytes, start))
        this.#pending = Math.min(this.#pending, start);
    } else if (index < mailSign) {
      const value = this.#wanted.has("named_secrets") ? valueBeside(bytes, end) : undefined;
      if (value !== undefined) this.#found(layer, { detector: "named_secrets", ...value });
    } else if (index === mailSign) {
      const address = this.#wanted.has("email") ? emailAround(bytes, end - 1) : undefined;
      if (address !== undefined) this.#found(layer, { detector: "email", ...address });
    } else if (layer.parent === undefined || end > gzipMagic.length) {
      this.#gzip(layer, end - gzipMagic.length);
    }
  }

  #number(layer: Layer, start: number, bits: number): void {
    const { bytes } = layer;
    const tried: (Numbered | undefined)[] = [];
    if ((bits & digit) !== 0) {
      if (!isOf(bytes, start + 1, digit)) return;
      if (this.#wanted.has("cards")) tried.push(cardAt(bytes, start));
      if (this.#wanted.has("us_ssn")) tried.push(ssnAt(bytes, start));
      if (this.#wanted.has("phone")) tried.push(phoneAt(bytes, start));
    } else if ((bits & upper) !== 0 && this.#wanted.has("iban")) tried.push(ibanAt(bytes, start));
    for (const one of tried) if (one !== undefined) this.#found(layer, { ...one, start });
  }

  /** A run of digits of base64, of which some may be of base16. */
  #run(layer: Layer, start: number, end: number, bits: number): void {
    const { bytes } = layer;
    const isHex = this.#hexRuns(layer, start, end);
    // Words in one case, such as paths, are no random digits.
    if (isHex || (bits & upper) === 0 || (bits & lower) === 0) return;
    if (start < (this.#pieceOf(layer)?.base64From ?? 0)) return;
    const text = bytes.toString("latin1", start, end).replaceAll("\\n", "");
    for (const shift of base64Shifts)
      this.#below(layer, Buffer.from(text.slice(shift), "base64"), "base64", () => [start, end]);
  }

  /** Whether the whole run is one of base16. */
  #hexRuns(layer: Layer, start: number, end: number): boolean {
    const { bytes } = layer;
    const piece = this.#pieceOf(layer);
    let isHex = false;
    for (let at = start; at < end; at += 1) {
      let last = at;
      while (last < end && isOf(bytes, last, hexadecimal)) last += 1;
      const length = (last - at) & ~1;
      const isOpen = piece?.isLast === false && last === bytes.length;
      if (at < (piece?.hexFrom ?? 0)) isHex = false;
      else if (isOpen && last - at > longRun)
        for (const shift of hexShifts) this.#open("hex", at + shift);
      else if (length >= leastRun && (!isOpen || piece.isEager)) {
        isHex = last - at >= end - start - 2;
        const span = [at, last] as const;
        for (const shift of hexShifts) {
          const end = at + shift + ((last - at - shift) & ~1);
          const clear = Buffer.from(bytes.toString("latin1", at + shift, end), "hex");
          this.#below(layer, clear, "hex", () => span);
        }
      }
      at = last;
    }
    return isHex;
  }

  #unescape(layer: Layer, first: number, last: number): void {
    let from = Math.max(0, first - escapeMargin);
    // A run of digits is not cut: what it holds may be one stream.
    while (from > 0 && isOf(layer.bytes, from - 1, sixtyFour)) from -= 1;
    const end = runEnd(layer.bytes, last + escapeMargin, sixtyFour, layer.bytes.length);
    const region = layer.bytes.subarray(from, end);
    const { bytes } = unescaped(region);
    this.#below(layer, bytes, "escapes", (start, end) => [
      from + unescaped(region, start).read,
      from + unescaped(region, end).read,
    ]);
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
    // Nobody counts what a stream gives before it breaks, and there may be many.
    else if (found.kind === "broken")
      this.#budget.spend(Math.min(found.spent, this.#budget.limit / brokenShare));
    else this.#below(layer, found.bytes, found.coding, () => [at, layer.bytes.length]);
  }

  #below(layer: Layer, bytes: Buffer, coding: string, within: NonNullable<Layer["within"]>): void {
    if (layer.depth >= this.#options.maxDepth || bytes.length < 8) return;
    if (!this.#budget.spend(bytes.length)) return;
    this.#look({
      bytes,
      depth: layer.depth + 1,
      via: [...layer.via, coding],
      parent: layer,
      within,
    });
  }

  #lookForPatterns(layer: Layer): void {
    const wanted = (this.#options.patterns ?? []).filter(({ name }) => this.#wanted.has(name));
    if (wanted.length === 0) return;
    const { bytes } = layer;
    for (let from = 0; from < bytes.length; from += patternWindow - patternOverlap) {
      const text = bytes.toString("utf8", from, from + patternWindow);
      for (const pattern of wanted) {
        for (const [first, last] of pattern.spans(text, maxFindings)) {
          const start = from + Buffer.byteLength(text.slice(0, first));
          const end = start + Buffer.byteLength(text.slice(first, last));
          this.#found(layer, { detector: pattern.name, start, end });
        }
      }
      if (from + patternWindow >= bytes.length) break;
    }
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
