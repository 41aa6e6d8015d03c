/** One look through one text. */
import {
  alphanumeric,
  classes,
  digit,
  escape,
  hexadecimal,
  isOf,
  lower,
  sixtyFour,
  upper,
} from "./byte-classes.ts";
import type { Finding, Scan } from "./detectors.ts";
import { Fingerprints, shortHash } from "./fingerprints.ts";
import { beginsAt, keyFormats } from "./key-formats.ts";
import { type Layer, outermost } from "./layer.ts";
import { inflated, unescaped } from "./layers.ts";
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

/** A shorter run of digits of base64 or base16 has room for nothing that is looked for. */
const leastRun = 16;
/** Of a line that goes on in the next one, as base64 is folded. */
const leastFolded = 40;
const maxShiftedRun = 1_024;
const escapeMargin = 512;
const maxFindings = 64;
/** Of a text for patterns, whose engine is slower than the rest by far. */
const patternWindow = 61_440;
const patternOverlap = 4_096;
const backslash = 0x5c;

/** Each byte of a text may be decoded so often without being counted. */
const decodedShare = 8;
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
  #decodedBytes = 0;
  #budget: number;
  #steps = 0;
  #isCut = false;

  constructor(options: ScannerOptions, wanted: Wanted) {
    this.#options = options;
    this.#budget = options.maxDecodedBytes;
    this.#wanted = wanted;
    this.#isNumberWanted = ["cards", "iban", "phone", "us_ssn"].some((name) => wanted.has(name));
  }

  scan(bytes: Buffer): Scan {
    this.#budget += bytes.length * decodedShare;
    this.#look({ bytes, depth: 0, via: [] });
    return this.#result();
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
    return { findings, isCut: this.#isCut, steps: this.#steps };
  }

  /** Everything that is called here looks at a bounded number of bytes, or goes on. */
  #look(layer: Layer): void {
    const { own, lists } = this.#options;
    this.#steps += layer.bytes.length;
    if (layer.depth > 0) this.#compressed(layer, 0);
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
    const { bytes } = layer;
    const { length } = bytes;
    const wordStart = this.#isNumberWanted ? alphanumeric : 0;
    let before = 0;
    let runStart = -1;
    let runBits = 0;
    let firstEscape = -1;
    let lastEscape = -1;
    for (let at = 0; at < length; at += 1) {
      const bits = classes[bytes[at] as number] as number;
      if ((bits & sixtyFour) !== 0) {
        if (runStart === -1) {
          runStart = at;
          runBits = 0;
        }
        runBits |= bits;
        if ((bits & ~before & wordStart) !== 0) this.#number(layer, at, bits);
        before = bits;
        continue;
      }
      before = 0;
      if (runStart !== -1 && !(at - runStart >= leastFolded && isFold(bytes, at))) {
        if (at - runStart >= leastRun) this.#run(layer, runStart, at, runBits);
        runStart = -1;
      }
      if ((bits & escape) === 0) continue;
      if (isTelling(bytes, at)) {
        if (firstEscape === -1) firstEscape = at;
        lastEscape = at;
        // The letter of a line end is no letter of the text.
      } else if (bytes[at] === backslash) at += 1;
    }
    if (runStart !== -1 && length - runStart >= leastRun)
      this.#run(layer, runStart, length, runBits);
    if (firstEscape !== -1) this.#unescape(layer, firstEscape, lastEscape);
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
    } else if (index < mailSign) {
      const value = this.#wanted.has("named_secrets") ? valueBeside(bytes, end) : undefined;
      if (value !== undefined) this.#found(layer, { detector: "named_secrets", ...value });
    } else if (index === mailSign) {
      const address = this.#wanted.has("email") ? emailAround(bytes, end - 1) : undefined;
      if (address !== undefined) this.#found(layer, { detector: "email", ...address });
    } else if (layer.depth === 0 || end > gzipMagic.length) {
      this.#compressed(layer, end - gzipMagic.length);
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
    const text = bytes.toString("latin1", start, end).replaceAll("\\n", "");
    let isHex = false;
    for (let at = start; at < end; at += 1) {
      let last = at;
      while (last < end && isOf(bytes, last, hexadecimal)) last += 1;
      const length = (last - at) & ~1;
      if (length >= leastRun) {
        isHex = last - at >= end - start - 2;
        const clear = Buffer.from(bytes.toString("latin1", at, at + length), "hex");
        const span = [at, last] as const;
        this.#below(layer, clear, "hex", () => span);
      }
      at = last;
    }
    // Words in one case, such as paths, are no random digits.
    if (isHex || (bits & upper) === 0 || (bits & lower) === 0) return;
    // What stands before the digits may look like some of them: a longer run is no path.
    const shifts = text.length <= maxShiftedRun ? 4 : 1;
    for (let shift = 0; shift < shifts; shift += 1)
      this.#below(layer, Buffer.from(text.slice(shift), "base64"), "base64", () => [start, end]);
  }

  #unescape(layer: Layer, first: number, last: number): void {
    const from = Math.max(0, first - escapeMargin);
    const region = layer.bytes.subarray(from, last + escapeMargin);
    const { bytes } = unescaped(region);
    this.#below(layer, bytes, "escapes", (start, end) => [
      from + unescaped(region, start).read,
      from + unescaped(region, end).read,
    ]);
  }

  #compressed(layer: Layer, at: number): void {
    if (layer.depth >= this.#options.maxDepth) return;
    const left = this.#budget - this.#decodedBytes;
    const found = left <= 0 ? undefined : inflated(layer.bytes, at, left);
    if (found === undefined) return;
    if (found.kind === "too-large") this.#isCut = true;
    // Nobody counts what a stream gives before it breaks, and there may be many.
    else if (found.kind === "broken")
      this.#spend(Math.min(found.spent, this.#budget / brokenShare));
    else this.#below(layer, found.bytes, found.coding, () => [at, layer.bytes.length]);
  }

  /** Whether so many more bytes may be decoded. */
  #spend(bytes: number): boolean {
    this.#decodedBytes += bytes;
    if (this.#decodedBytes > this.#budget) this.#isCut = true;
    return this.#decodedBytes <= this.#budget;
  }

  #below(layer: Layer, bytes: Buffer, coding: string, within: NonNullable<Layer["within"]>): void {
    if (layer.depth >= this.#options.maxDepth || bytes.length < 8) return;
    if (!this.#spend(bytes.length)) return;
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

  #found(
    layer: Layer,
    found: {
      readonly detector: string;
      readonly kind?: string;
      readonly start: number;
      readonly end: number;
      readonly hash?: string;
    },
  ): void {
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

/** A line end inside a run that goes on behind it, also in the escape of JSON. */
function isFold(bytes: Buffer, at: number): boolean {
  const byte = bytes[at];
  if (byte === 0x0d || byte === 0x0a)
    return isOf(bytes, at + 1, sixtyFour) || (byte === 0x0d && bytes[at + 1] === 0x0a);
  return byte === backslash && bytes[at + 1] === 0x6e && isOf(bytes, at + 2, sixtyFour);
}

/** Whether an escape may hide something: those of quotes and line ends are in every text, and hide nothing. */
function isTelling(bytes: Buffer, at: number): boolean {
  const after = bytes[at + 1];
  if (bytes[at] === 0x25 || after === 0x78) {
    const from = bytes[at] === 0x25 ? at + 1 : at + 2;
    return isOf(bytes, from, hexadecimal) && isOf(bytes, from + 1, hexadecimal);
  }
  if (after === 0x75) return isOf(bytes, at + 2, hexadecimal) && isOf(bytes, at + 5, hexadecimal);
  return after === backslash || after === 0x2f;
}
