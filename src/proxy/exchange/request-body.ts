/** The client's request body on its way upstream. */
import type { Readable } from "node:stream";
import type { BodyBudget } from "../../http/body.ts";
import type { StreamedBody } from "../../upstream/upstream.ts";
import type { HeldBody } from "./buffered-body.ts";
import { BudgetReservation } from "./budget-reservation.ts";

/** Chunks that may wait for the upstream before the client is made to wait. */
const maxWaiting = 2;
/** Bytes of a body that are kept for a second try where the origin did not process it. */
const maxKeptBytes = 65_536;
/** A client that drips its body must not fill memory with small buffers. */
const maxKeptChunks = 64;

/**
 * Forwards a client's body and counts it.
 *
 * It stands between the client's stream and the HTTP client because the latter destroys a stream that it was given when
 * the upstream fails, and that would take the connection, and with it our response. An iterable costs a promise a chunk;
 * a second Readable cost twice as much as the whole exchange.
 */
export class RequestBody implements StreamedBody {
  readonly #source: Readable;
  readonly #begun: HeldBody | undefined;
  readonly #waiting: Buffer[] = [];
  readonly #held: BudgetReservation;
  /** The bytes read so far, while they are kept. */
  #kept: Buffer[] | undefined;
  #isBegun = false;
  /** Counts iterations: an earlier one yields nothing any more. */
  #turn = 0;
  #bytes = 0;
  #ended = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  /** `begun` is what was read of the source already. */
  constructor(source: Readable, budget: BodyBudget, begun?: HeldBody) {
    this.#source = source;
    this.#held = new BudgetReservation(budget);
    this.#begun = begun;
    for (const chunk of begun?.chunks ?? []) {
      this.#bytes += chunk.length;
      this.#waiting.push(chunk);
    }
    source.on("data", (chunk: Buffer) => {
      this.#bytes += chunk.length;
      this.#waiting.push(chunk);
      if (this.#waiting.length >= maxWaiting) source.pause();
      this.#wake?.();
    });
    source.once("end", () => this.#finish(undefined));
    source.once("error", (error) => this.#finish(error));
    source.once("close", () => {
      this.#finish(source.readableEnded ? undefined : new Error("the request body was cut short"));
    });
    if (source.readableEnded) this.#finish(undefined);
    else if (source.destroyed) this.#finish(new Error("the request body was cut short"));
    // A listener alone does not start a stream that was paused on purpose, as one of HTTP/2 is.
    else if (this.#waiting.length < maxWaiting) source.resume();
  }

  /** Bytes that the client has sent so far. */
  get bytes(): number {
    return this.#bytes;
  }

  get isWhole(): boolean {
    return !this.#isBegun || this.#kept !== undefined;
  }

  keep(): void {
    if (!this.#isBegun) this.#kept = [];
  }

  forget(): void {
    this.#kept = undefined;
    this.#held.shrinkTo(0);
  }

  /** No reader is left: a pending wait for a chunk ends. */
  close(): void {
    this.#waiting.length = 0;
    this.forget();
    this.#held.close();
    this.#begun?.release();
    this.#finish(new Error("the exchange is over"));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, undefined> {
    this.#turn += 1;
    const turn = this.#turn;
    yield* this.#kept?.slice() ?? [];
    while (turn === this.#turn) {
      const chunk = this.#waiting.shift();
      if (chunk !== undefined) {
        if (this.#waiting.length === 0) {
          this.#begun?.release();
          if (!this.#ended) this.#source.resume();
        }
        this.#given(chunk);
        yield chunk;
      } else if (this.#error !== undefined) {
        throw this.#error;
      } else if (this.#ended) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  #given(chunk: Buffer): void {
    this.#isBegun = true;
    if (this.#kept === undefined) return;
    const isSmall =
      this.#kept.length < maxKeptChunks && this.#held.bytes + chunk.length <= maxKeptBytes;
    if (isSmall && this.#held.take(chunk.length)) this.#kept.push(chunk);
    else this.forget();
  }

  #finish(error: Error | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#wake?.();
  }
}
