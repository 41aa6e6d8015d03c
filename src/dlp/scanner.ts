/** Looks through bytes for what must not leave, also below codings, in one pass a layer. */
import type { Scan } from "./detectors.ts";
import { Fingerprints, shortHash } from "./fingerprints.ts";
import { textSpellingsOf } from "./spellings.ts";
import { ScanRun } from "./scan-run.ts";
import type { ListWord, ScannerOptions, Wanted } from "./scanner-options.ts";

/** A shorter line of a list is not looked for. */
export const leastWordBytes = 4;

/** The lines of all lists, by the name of the list. */
export function listWords(
  lists: ReadonlyMap<string, readonly Buffer[]>,
): Fingerprints<ListWord> | undefined {
  const index = new Fingerprints<ListWord>(leastWordBytes);
  for (const [list, words] of lists) {
    for (const word of words) {
      const tag = { list, hash: shortHash(word) };
      for (const spelling of textSpellingsOf(word)) index.add(spelling, tag);
    }
  }
  return index.size === 0 ? undefined : index;
}

/** Has no state of its own: one is for every text. */
export class Scanner {
  readonly options: ScannerOptions;

  constructor(options: ScannerOptions) {
    this.options = options;
  }

  /** Looks through a whole text. */
  scan(bytes: Buffer, wanted: Wanted): Scan {
    return new ScanRun(this.options, wanted).scan(bytes);
  }

  /** Looks through the labels of a host name, in which case says nothing and dots may stand anywhere. */
  scanName(host: string, wanted: Wanted): Scan {
    return new ScanRun(this.options, wanted).scanName(host);
  }
}
