/** Text as lines of which some are left out: logs, traces, and whatever has no other structure. */
import { charsOf, cutAt, type Draft, left } from "./draft.ts";

/** Lines in a row that are shorter together than the note about them stay. */
const noteChars = 32;
/** Shorter lines (closing brackets) are alike without saying the same. */
const minPatternChars = 24;
const shownOfPattern = 3;
/** The share of lines that repeat others in what is a log. */
const mostlyAlike = 0.6;
/** Lines from the middle that tell whether it is one. */
const sampled = 200;
/** Characters of words: 1 for digits, 2 for letters. */
const kinds = new Uint8Array(65_536);
for (let code = 0x30; code <= 0x39; code += 1) kinds[code] = 1;
for (let code = 0x41; code <= 0x5a; code += 1) kinds[code] = kinds[code + 0x20] = 2;
const shownFrames = 5;
const lastFrames = 2;
/** What a reader looks for in a long output. */
const salient =
  /error|fatal|panic|exception|traceback|fail(?:ed|ure)|denied|refused|critical|caused by/i;
// oxlint-disable-next-line no-control-regex -- the sequences of terminals begin with one
const terminal = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\))/g;

/** Lines, and which of them are kept. */
export class Lines {
  readonly all: readonly string[];
  readonly #kept: Uint8Array;
  #chars: number;
  #isLossy = false;

  /** Takes off what terminals do with a text: colours, lines that were written over, spaces at the end, blank runs. */
  constructor(text: string) {
    this.all = plain(text);
    this.#kept = new Uint8Array(this.all.length).fill(1);
    this.#chars = charsOf(this.all);
  }

  /** Of what is kept. */
  get chars(): number {
    return this.#chars;
  }

  isKept(at: number): boolean {
    return this.#kept[at] === 1;
  }

  leaveOut(from: number, to: number): void {
    for (let at = from; at < to; at += 1) {
      if (this.#kept[at] === 0) continue;
      this.#kept[at] = 0;
      this.#chars -= this.#lengthOf(at);
      this.#isLossy = true;
    }
  }

  /** The same line again and again, once. */
  leaveOutRepeats(): void {
    for (let at = 1, from = 1; at <= this.all.length; at += 1) {
      if (at < this.all.length && this.all[at] === this.all[at - 1]) continue;
      if (at - from > 1) this.leaveOut(from, at);
      from = at + 1;
    }
  }

  /** Frames in the middle of a stack. */
  leaveOutFrames(): void {
    let from = -1;
    for (let at = 0; at <= this.all.length; at += 1) {
      const isIn = at < this.all.length && isFrame(this.all[at] ?? "", from !== -1);
      if (isIn && from === -1) from = at;
      if (isIn || from === -1) continue;
      // A frame of Python has two lines.
      const size = /^\s*File "/.test(this.all[from] ?? "") ? 2 : 1;
      this.leaveOut(from + shownFrames * size, at - lastFrames * size);
      from = -1;
    }
  }

  /** Lines that differ in numbers and ids only, but for the first ones and the last. */
  leaveOutPatterns(): void {
    // In source code and tables lines look alike, and none of them is the other.
    const middle = Math.max(0, Math.floor((this.all.length - sampled) / 2));
    const sample = this.#repeated(middle, Math.min(this.all.length, middle + sampled));
    if (sample.length < Math.min(this.all.length, sampled) * mostlyAlike) return;
    for (const at of this.#repeated(0, this.all.length)) this.leaveOut(at, at + 1);
  }

  #repeated(from: number, to: number): number[] {
    const seen = new Map<number, { times: number; last: number }>();
    const repeated: number[] = [];
    for (let at = from; at < to; at += 1) {
      const line = this.all[at] ?? "";
      if (this.#kept[at] === 0 || line.length < minPatternChars) continue;
      const pattern = patternOf(line);
      const known = seen.get(pattern);
      if (known === undefined) {
        seen.set(pattern, { times: 1, last: -1 });
        continue;
      }
      known.times += 1;
      if (known.times <= shownOfPattern) continue;
      if (known.last !== -1) repeated.push(known.last);
      known.last = at;
    }
    return repeated;
  }

  /** Keeps the beginning, the end, and what looks like trouble in between; true where that was more than there may be. */
  cutTo(chars: number): boolean {
    if (this.#chars <= chars) return false;
    const chosen = new Uint8Array(this.all.length);
    const longest = this.#longest(chars);
    const last = this.all.length - 1;
    const head = this.#choose(chosen, { from: 0, to: last, step: 1 }, chars * 0.55);
    const tail = this.#choose(chosen, { from: last, to: head, step: -1 }, chars * 0.3);
    this.#chooseSalient(chosen, { from: head, to: tail }, chars * 0.15);
    for (let at = 0; at <= last; at += 1) {
      if (chosen[at] === 0) this.leaveOut(at, at + 1);
      else if ((this.all[at]?.length ?? 0) > longest) this.#isLossy = true;
    }
    return true;
  }

  /** The text, with a note wherever something is left out. Lines are cut in the middle where `chars` is given. */
  draft(kind: string, chars?: number): Draft {
    const longest = chars === undefined ? Infinity : this.#longest(chars);
    const parts: string[] = [];
    for (let at = 0; at < this.all.length; at += 1) {
      if (this.#kept[at] === 1) {
        parts.push(cutAt(this.all[at] ?? "", longest));
        continue;
      }
      const from = at;
      while (at + 1 < this.all.length && this.#kept[at + 1] === 0) at += 1;
      const out = this.all.slice(from, at + 1);
      if (charsOf(out) <= noteChars) parts.push(...out);
      else parts.push(left(out.length, "lines"));
    }
    return { kind, text: parts.join("\n"), isLossy: this.#isLossy, isCut: chars !== undefined };
  }

  #longest(chars: number): number {
    return this.all.length === 1 ? chars : Math.max(400, Math.floor(chars / 8));
  }

  #lengthOf(at: number): number {
    return (this.all[at]?.length ?? 0) + 1;
  }

  /** Marks kept lines from one side while they fit; where it stopped. */
  #choose(
    chosen: Uint8Array,
    { from, to, step }: { readonly from: number; readonly to: number; readonly step: 1 | -1 },
    chars: number,
  ): number {
    const longest = this.#longest(chars);
    let left = chars;
    for (let at = from; at !== to + step; at += step) {
      if (this.#kept[at] === 0) continue;
      left -= Math.min(this.#lengthOf(at), longest);
      if (left < 0 && at !== from) return at;
      chosen[at] = 1;
    }
    return to;
  }

  #chooseSalient(
    chosen: Uint8Array,
    { from, to }: { readonly from: number; readonly to: number },
    chars: number,
  ): void {
    let left = chars;
    for (let at = from; at <= to; at += 1) {
      if (this.#kept[at] === 0 || chosen[at] === 1) continue;
      if (!isSalient(this.all[at] ?? "")) continue;
      left -= this.#lengthOf(at);
      if (left < 0) return;
      chosen[at] = 1;
    }
  }
}

/** Logs, stack traces and plain text. */
export function shortenLines(lines: Lines, kind: string, keepChars: number): Draft {
  lines.leaveOutRepeats();
  if (lines.chars > keepChars) {
    lines.leaveOutFrames();
    lines.leaveOutPatterns();
  }
  return lines.cutTo(keepChars) ? lines.draft(kind, keepChars) : lines.draft(kind);
}

/** Whether a text reports trouble, by its beginning. */
export function isSalient(text: string): boolean {
  return salient.test(text.length > 400 ? text.slice(0, 400) : text);
}

function plain(text: string): string[] {
  const bare = text.includes("\u001b") ? text.replaceAll(terminal, "") : text;
  const isWritten = bare.includes("\r");
  const lines: string[] = [];
  let isBlank = false;
  for (const raw of bare.split("\n")) {
    const shown = isWritten ? lastWritten(raw) : raw;
    // Most lines end in something; asking is cheaper than trimming.
    const line = isSpace(shown.charCodeAt(shown.length - 1)) ? shown.trimEnd() : shown;
    if (line === "" && isBlank) continue;
    isBlank = line === "";
    lines.push(line);
  }
  return lines;
}

/** Of an empty line there is no code. */
function isSpace(code: number): boolean {
  return code <= 0x20 || code >= 0xa0;
}

/** What a terminal shows in the end of a line that was written several times. */
function lastWritten(line: string): string {
  const shown = line.endsWith("\r") ? line.slice(0, -1) : line;
  return shown.slice(shown.lastIndexOf("\r") + 1);
}

function isFrame(line: string, isWithin: boolean): boolean {
  let at = 0;
  while (line.charCodeAt(at) === 0x20 || line.charCodeAt(at) === 0x09) at += 1;
  if (at === 0) return false;
  if (line.startsWith("at ", at) || line.startsWith('File "', at)) return true;
  // The source line of a frame of Python.
  return isWithin && at >= 4 && !line.startsWith("...", at);
}

/** Words that hold a digit count as one word. Two lines with one pattern are the same but for those. */
function patternOf(line: string): number {
  let low = 17;
  let high = 31;
  let word = 0;
  let seen = 0;
  const end = Math.min(line.length, 400);
  for (let at = 0; at < end; at += 1) {
    const code = line.charCodeAt(at);
    const kind = kinds[code] ?? 0;
    if (kind !== 0) {
      seen |= kind;
      word = (Math.imul(word, 31) + code) | 0;
      continue;
    }
    const mark = (seen & 1) === 1 ? 1 : word;
    low = Math.imul(low ^ mark, 0x01000193) ^ code;
    high = (Math.imul(high, 0x85ebca6b) + mark + code) | 0;
    word = 0;
    seen = 0;
  }
  const mark = (seen & 1) === 1 ? 1 : word;
  low = Math.imul(low ^ mark, 0x01000193);
  high = (Math.imul(high, 0x85ebca6b) + mark) | 0;
  return (high >>> 0) * 0x200000 + (low & 0x1fffff);
}
