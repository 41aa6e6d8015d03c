/** A part of a stream, and what a look through it comes to. */
import type { Finding, Scan } from "./detectors.ts";

/** A coding that may go on behind the end of a piece. */
export interface Opened {
  readonly coding: "base64" | "hex" | "escapes" | "gzip";
  readonly start: number;
}

/** A part of a stream, and what of it others look through already. */
export interface Piece {
  readonly depth: number;
  readonly via: readonly string[];
  readonly isLast: boolean;
  /** What ends with the piece is judged as if nothing followed, though more may. */
  readonly isEager: boolean;
  /** Runs of digits, and escapes, that begin before these places belong to a coding that was opened earlier. */
  readonly base64From: number;
  readonly hexFrom: number;
  readonly escapesFrom: number;
  /** Where escapes were undone, if it came from those. */
  readonly touched: readonly number[] | undefined;
  /** Streams of gzip are opened that begin behind this place. */
  readonly gzipFrom: number;
}

/** What a look through a piece came to. */
export interface PieceScan extends Scan {
  readonly opened: readonly Opened[];
  /** Where something begins of which the end is not there; the length where nothing does. */
  readonly pending: number;
  readonly lastEscape: number;
}

/** Something found in a stream. */
export interface StreamFinding extends Finding {
  /** It began before what is kept, or may have: it is below a coding that goes on. */
  readonly isSpread: boolean;
}
