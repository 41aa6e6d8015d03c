/** The client's request body on its way upstream. */
import type { BodyBudget } from "../../http/body.ts";
import type { BodySink, BodySource } from "../../http/body-source.ts";
import type { StreamedBody } from "../../upstream/upstream.ts";
import { type HeldBody, overBudget } from "./buffered-body.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { StepJudge } from "../../pipeline/message-needs.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import { BudgetReservation } from "../flow/budget-reservation.ts";

/** Bytes of a body that are kept for a second try where the origin did not process it. */
const maxKeptBytes = 65_536;
/** A client that drips its body must not fill memory with small buffers. */
const maxKeptChunks = 64;

/**
 * Forwards a client's body and counts it.
 *
 * It stands between the client and its upstream because a request may be sent twice, and because the client's connection
 * has to outlive an upstream that fails: the response is still to be written on it.
 */
export class RequestBody implements StreamedBody, BodySink {
  readonly #source: BodySource;
  readonly #releaseBegun: (() => void) | undefined;
  /** What the present sink gets before anything that is kept later or comes from the source. */
  #waiting: Buffer[];
  readonly #held: BudgetReservation;
  /** The bytes given so far, while they are kept. */
  #kept: Buffer[] | undefined;
  /** How many of them the present sink has. */
  #repeated = 0;
  #isBegun = false;
  #isOpen = false;
  #sink: BodySink | undefined;
  /** The present sink takes nothing for now. */
  #isHeld = false;
  #isPumping = false;
  #bytes = 0;
  #isEnded = false;
  #error: Error | undefined;

  /** `begun` is what was read of the source already. */
  constructor(source: BodySource, budget: BodyBudget, begun?: HeldBody) {
    this.#source = source;
    this.#held = new BudgetReservation(budget);
    this.#releaseBegun = begun?.release;
    this.#waiting = begun === undefined ? [] : [...begun.chunks];
    for (const chunk of this.#waiting) this.#bytes += chunk.length;
  }

  /** Bytes that the client has sent so far. */
  get bytes(): number {
    return this.#bytes;
  }

  get isDrained(): boolean {
    const isHere = this.#kept !== undefined || this.#waiting.length > 0;
    return !isHere && this.#sink?.isDrained === true;
  }

  get isWhole(): boolean {
    return !this.#isBegun || this.#kept !== undefined;
  }

  keep(): void {
    if (!this.#isBegun) this.#kept = [];
  }

  forget(): void {
    const kept = this.#kept;
    if (kept === undefined) return;
    this.#kept = undefined;
    // A sink that is being given them again still gets the rest.
    if (this.#repeated < kept.length) this.#waiting.unshift(...kept.slice(this.#repeated));
    this.#held.shrinkTo(0);
  }

  open(sink: BodySink): void {
    this.#sink = sink;
    this.#repeated = 0;
    this.#isHeld = false;
    this.#pump();
  }

  resume(): void {
    if (this.#sink === undefined || !this.#isHeld) return;
    this.#isHeld = false;
    this.#pump();
  }

  /** The source is not stopped: it waits with its next chunk, and may have another reader by now. */
  detach(sink: BodySink): void {
    if (this.#sink === sink) this.#sink = undefined;
  }

  /** No reader is left. */
  close(): void {
    this.#waiting = [];
    this.#kept = undefined;
    this.#held.close();
    this.#releaseBegun?.();
    this.#source.close?.();
    this.fail(new Error("the exchange is over"));
  }

  data(chunk: Buffer): boolean {
    if (this.#isEnded) return false;
    this.#bytes += chunk.length;
    const sink = this.#sink;
    if (sink === undefined || this.#isHeld || this.#isPumping) {
      this.#waiting.push(chunk);
      return false;
    }
    this.#given(chunk);
    this.#isHeld = !sink.data(chunk);
    return !this.#isHeld;
  }

  end(): void {
    this.#finish(undefined);
  }

  fail(error: Error): void {
    this.#finish(error);
  }

  /** Gives what waits, and then goes on reading. */
  #pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    while (this.#sink !== undefined && !this.#isHeld) {
      const chunk = this.#next();
      if (chunk === undefined) break;
      this.#isHeld = !this.#sink.data(chunk);
    }
    this.#isPumping = false;
    if (this.#sink === undefined || this.#isHeld) return;
    if (this.#isEnded) {
      this.#tellEnd();
      return;
    }
    this.#releaseBegun?.();
    if (this.#isOpen) {
      this.#source.resume();
      return;
    }
    this.#isOpen = true;
    this.#source.open(this);
  }

  #next(): Buffer | undefined {
    const again = this.#kept?.[this.#repeated];
    if (again !== undefined) {
      this.#repeated += 1;
      return again;
    }
    const chunk = this.#waiting.shift();
    if (chunk !== undefined) this.#given(chunk);
    return chunk;
  }

  #given(chunk: Buffer): void {
    this.#isBegun = true;
    const kept = this.#kept;
    if (kept === undefined) return;
    const isSmall = kept.length < maxKeptChunks && this.#held.bytes + chunk.length <= maxKeptBytes;
    if (isSmall && this.#held.take(chunk.length)) {
      kept.push(chunk);
      this.#repeated = kept.length;
    } else this.forget();
  }

  #finish(error: Error | undefined): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#error = error;
    if (error !== undefined) this.#tellEnd();
    else if (!this.#isHeld) this.#pump();
  }

  #tellEnd(): void {
    const sink = this.#sink;
    this.#sink = undefined;
    if (this.#error === undefined) sink?.end();
    else sink?.fail(this.#error);
  }
}

/** Who judges, and who hears of a refusal. */
export interface JudgedBodyOptions {
  readonly source: BodySource;
  readonly judges: readonly StepJudge[];
  readonly pipeline: Pipeline;
  readonly context: RequestContext;
  /** Of what the judges keep. */
  readonly budget: BodyBudget;
  onRefused(denial: Denial): void;
}

const nothing = Buffer.alloc(0);

/**
 * A body that is judged as it is streamed: what is not judged yet is kept, and a refusal ends it before its end.
 *
 * It stands between the client and everything that sends the body.
 */
export class JudgedBody implements BodySource, BodySink {
  readonly #options: JudgedBodyOptions;
  readonly #kept: BudgetReservation;
  #sink: BodySink | undefined;
  #isOpen = false;
  #isRefused = false;
  #isEnded = false;

  constructor(options: JudgedBodyOptions) {
    this.#options = options;
    this.#kept = new BudgetReservation(options.budget);
  }

  get isComplete(): boolean {
    return this.#isEnded;
  }

  open(sink: BodySink): void {
    this.#sink = sink;
    if (this.#isOpen) this.resume();
    else {
      this.#isOpen = true;
      this.#options.source.open(this);
    }
  }

  resume(): void {
    if (!this.#isRefused && !this.#isEnded) this.#options.source.resume();
  }

  detach(): void {
    this.#sink = undefined;
    this.#options.source.detach();
  }

  close(): void {
    this.#kept.close();
    this.#options.source.close?.();
  }

  data(chunk: Buffer): boolean {
    return this.#pass(chunk, false);
  }

  end(): void {
    this.#pass(nothing, true);
    if (this.#isRefused) return;
    this.#isEnded = true;
    this.#kept.close();
    this.#sink?.end();
  }

  fail(error: Error): void {
    if (this.#isRefused) return;
    this.#isEnded = true;
    this.#kept.close();
    this.#sink?.fail(error);
  }

  /** False where the sink takes nothing more for now, or nothing may go on. */
  #pass(chunk: Buffer, isLast: boolean): boolean {
    if (this.#isRefused) return false;
    const { judges, pipeline, context } = this.#options;
    let parts: readonly Buffer[] = chunk.length === 0 ? [] : [chunk];
    for (const judge of judges) {
      const passed: Buffer[] = [];
      const pieces = isLast && parts.length === 0 ? [nothing] : parts;
      for (const [at, piece] of pieces.entries()) {
        const isEnd = isLast && at === pieces.length - 1;
        const judged = pipeline.judgePart(context, judge, { piece, isLast: isEnd });
        if ("code" in judged) {
          this.#refuse(judged);
          return false;
        }
        passed.push(...judged);
      }
      parts = passed;
    }
    if (!isLast && !this.#hasRoomForKept()) return false;
    const [first] = parts;
    if (first === undefined) return true;
    // A sink that has no room takes no second part.
    return this.#sink?.data(parts.length === 1 ? first : Buffer.concat(parts)) ?? false;
  }

  #hasRoomForKept(): boolean {
    let bytes = 0;
    for (const { judge } of this.#options.judges) bytes += judge.keptBytes;
    this.#kept.shrinkTo(bytes);
    if (bytes === this.#kept.bytes || this.#kept.take(bytes - this.#kept.bytes)) return true;
    this.#refuse(overBudget);
    return false;
  }

  #refuse(denial: Denial): void {
    this.#isRefused = true;
    this.#kept.close();
    this.#options.onRefused(denial);
  }
}
