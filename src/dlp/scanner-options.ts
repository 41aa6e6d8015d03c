/** What a scan depends on. */
import type { Fingerprints } from "./fingerprints.ts";
import type { OwnSecrets } from "./own-secrets.ts";

/** A pattern of the file. */
export interface TextPattern {
  readonly name: string;
  /** Where it matches, at most `most` times. */
  spans(text: string, most: number): readonly (readonly [start: number, end: number])[];
}

/** What a scanner knows besides the built-in formats. */
export interface ScannerOptions {
  readonly own: OwnSecrets;
  readonly lists?: Fingerprints<ListWord> | undefined;
  readonly patterns?: readonly TextPattern[] | undefined;
  /** Codings in codings that are undone. */
  readonly maxDepth: number;
  /** Bytes that all codings of one text may come to. */
  readonly maxDecodedBytes: number;
}

/** A line of a list of the file. */
export interface ListWord {
  readonly list: string;
  readonly hash: string;
}

/** Detectors, lists and patterns by name. */
export type Wanted = ReadonlySet<string>;
