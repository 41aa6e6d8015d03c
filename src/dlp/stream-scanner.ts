/** Looks through bytes that come in pieces, and keeps no more of them than a window. */
import { isOf, sixtyFour } from "./byte-classes.ts";
import type { Scan } from "./detectors.ts";
import type { Scanner } from "./scanner.ts";
import type { Wanted } from "./scanner-options.ts";

/** Nothing that is longer, with its coding, is sure to be found across a border of pieces. */
export const windowBytes = 4_096;
/** As much again, to find a place where no coding is cut. */
const slackBytes = 2_048;

/** The end of what was looked at is looked at again with what follows. */
export class StreamScanner {
  readonly #scanner: Scanner;
  readonly #wanted: Wanted;
  #kept: Buffer = Buffer.alloc(0);
  /** In the whole stream, of the first byte that is kept. */
  #offset = 0;
  /** Where the last finding ended: what is kept may hold it still. */
  #reported = 0;
  /** Where the run of digits began that reaches into what is kept, for its alignment. */
  #runStart = 0;

  constructor(scanner: Scanner, wanted: Wanted) {
    this.#scanner = scanner;
    this.#wanted = wanted;
  }

  /** Of the stream so far. */
  get length(): number {
    return this.#offset + this.#kept.length;
  }

  /** What the piece shows together with what came before; places are those in the whole stream. */
  push(piece: Buffer): Scan {
    const bytes = this.#kept.length === 0 ? piece : Buffer.concat([this.#kept, piece]);
    const { findings, ...rest } = this.#scanner.scan(bytes, this.#wanted);
    const fresh = findings
      .map((one) => ({ ...one, start: one.start + this.#offset, end: one.end + this.#offset }))
      .filter(({ end }) => end > this.#reported);
    for (const { end } of fresh) this.#reported = Math.max(this.#reported, end);
    this.#keep(bytes);
    return { findings: fresh, ...rest };
  }

  #keep(bytes: Buffer): void {
    const latest = Math.max(0, bytes.length - windowBytes);
    const earliest = Math.max(0, latest - slackBytes);
    let from = latest;
    while (from > earliest && isOf(bytes, from - 1, sixtyFour)) from -= 1;
    if (from > 0 && isOf(bytes, from - 1, sixtyFour)) {
      // One run of digits and nothing else: a whole number of groups of four is left out.
      const begins = this.#runBefore(bytes, from);
      from = Math.max(0, latest - ((this.#offset + latest - begins) % 4));
      this.#runStart = begins;
    }
    this.#kept = Buffer.from(bytes.subarray(from));
    this.#offset += from;
  }

  #runBefore(bytes: Buffer, at: number): number {
    let start = at;
    while (start > 0 && isOf(bytes, start - 1, sixtyFour)) start -= 1;
    return start === 0 && this.#offset > 0 ? this.#runStart : this.#offset + start;
  }
}
