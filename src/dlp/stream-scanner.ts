/**
 * Looks through bytes that come in pieces, and keeps no more of them than a window.
 *
 * A coding that goes on behind a piece is undone as it comes, and what it holds is a stream of its own. Pieces are cut anew,
 * so that what is found does not depend on how the bytes came.
 */
import { DecodeBudget } from "./decode-budget.ts";
import type { Scan } from "./detectors.ts";
import type { StreamFinding } from "./piece.ts";
import type { Scanner } from "./scanner.ts";
import type { Wanted } from "./scanner-options.ts";
import { blockBytes, type Shared, StreamLayer } from "./stream-layer.ts";

/** Nothing that is longer is sure to be found across a border of pieces, but for tokens, keys and known values. */
export const windowBytes = 4_096;
/** Bytes of a stream that may wait for what is below their codings, which may be many times shorter. */
const maxUnsettled = 2 ** 20;

/** What a piece of a stream shows. */
export interface StreamScan extends Scan {
  readonly findings: readonly StreamFinding[];
}

/** One stream. */
export class StreamScanner {
  readonly #shared: Shared;
  readonly #layer: StreamLayer;
  /** The length at which it was last tried to hold less back. */
  #relieved = 0;

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

  /** Bytes in memory: those that wait or may be looked at again, and what codings hold of theirs. */
  get heldBytes(): number {
    return this.#layer.heldBytes;
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
    if (this.length - this.settled > maxUnsettled) findings.push(...this.#relieve());
    const isCut = shared.isCut || shared.budget.isCut;
    return { findings, isCut, steps: shared.steps - before };
  }

  /** Codings that hold too much back are looked through as far as they are, or given up. */
  #relieve(): readonly StreamFinding[] {
    if (this.length < this.#relieved + blockBytes) return [];
    this.#relieved = this.length;
    const findings = this.#layer.flush();
    if (this.length - this.settled <= maxUnsettled) return findings;
    this.#layer.giveUp();
    this.#shared.isCut = true;
    return findings;
  }
}
