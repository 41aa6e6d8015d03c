/** A response that plugins only record: it is forwarded as it arrives, and they get a copy while memory allows one. */
import { ProxyError } from "../../errors.ts";
import type { BodyBudget } from "../../http/body.ts";
import { type FrameReader, frameReaderFor, shownOf, type StreamFrame } from "../../http/frames.ts";
import { Gathered } from "../../http/gathered.ts";
import { StreamDecoder } from "../../http/stream-decoder.ts";
import type { RequestContext, ResponseHalf } from "../../pipeline/context.ts";
import { type Denial, passed, type ResponseVerdict } from "../../pipeline/decision.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import { overBudget } from "./buffered-body.ts";
import { BudgetReservation } from "../flow/budget-reservation.ts";
import { codingOf, contentLengthOf, responseTooLarge, unreadable } from "./response-head.ts";

/** Options of a copy. */
export interface ResponseCopyOptions {
  readonly pipeline: Pipeline;
  readonly context: RequestContext;
  readonly maxBodyBytes: number;
  readonly budget: BodyBudget;
}

const nothing = Buffer.alloc(0);

/** What observers see of one response. A refusal in what it returns is the fault of a plugin: the response ends there. */
export class ResponseCopy {
  /** The body is shown in one piece, at its end. */
  readonly isWhole: boolean;
  readonly #options: ResponseCopyOptions;
  readonly #half: ResponseHalf;
  readonly #reader: FrameReader | undefined;
  #decoder: StreamDecoder | undefined;
  readonly #held: BudgetReservation;
  readonly #chunks = new Gathered();
  /** Bytes until the end, where the head says how many come. */
  #awaited: number | undefined;
  #isGivenUp = false;
  #isEnded = false;

  constructor(half: ResponseHalf, options: ResponseCopyOptions) {
    const { maxBodyBytes, budget } = options;
    this.#options = options;
    this.#half = half;
    this.#held = new BudgetReservation(budget);
    this.#reader = frameReaderFor(half.headers.get("content-type"), maxBodyBytes);
    this.isWhole = this.#reader === undefined;
    this.#awaited = contentLengthOf(half.headers.raw);
    const encoding = codingOf(half.headers);
    if (this.isWhole && this.#awaited !== undefined && this.#awaited > maxBodyBytes) {
      this.#giveUp(responseTooLarge);
    } else if (encoding !== undefined) {
      this.#decoder = StreamDecoder.for(encoding, maxBodyBytes);
      if (this.#decoder === undefined) this.#giveUp(unreadable(encoding));
    }
  }

  /** Call it before the chunk goes on: the last one also shows the end, while that can still be kept from the client. */
  async push(chunk: Buffer): Promise<ResponseVerdict> {
    if (this.#awaited !== undefined) this.#awaited -= chunk.length;
    const verdict = await this.#show(() => this.#decoder?.push(chunk) ?? [chunk]);
    return verdict.kind === "pass" && this.#awaited === 0 ? this.end() : verdict;
  }

  async end(): Promise<ResponseVerdict> {
    if (this.#isEnded) return passed;
    this.#isEnded = true;
    const { pipeline, context } = this.#options;
    let verdict = await this.#show(() => this.#decoder?.end() ?? [], true);
    if (verdict.kind === "pass" && this.isWhole) {
      if (!this.#isGivenUp) this.#half.content.load(this.#chunks.takeAll());
      verdict = await pipeline.runResponse(context, "observers");
    }
    if (verdict.kind !== "pass") return verdict;
    return pipeline.runFrame(context, { data: this.#half.body ?? nothing, last: true });
  }

  close(): void {
    this.#chunks.clear();
    this.#decoder?.close();
    this.#held.close();
  }

  /** An unreadable response is no reason to refuse it: the record says so, and the copy ends. */
  #giveUp(why: Denial): void {
    this.#isGivenUp = true;
    this.#half.unread = why;
    this.close();
  }

  async #show(read: () => Buffer[] | Promise<Buffer[]>, isLast = false): Promise<ResponseVerdict> {
    if (this.#isGivenUp) return passed;
    try {
      const verdict = await this.#take(await read());
      if (!isLast || verdict.kind !== "pass") return verdict;
      return await this.#showFrames(this.#reader?.end() ?? []);
    } catch (error) {
      if (!(error instanceof ProxyError)) throw error;
      this.#giveUp({ code: error.code, message: error.message });
      return passed;
    }
  }

  async #take(pieces: readonly Buffer[]): Promise<ResponseVerdict> {
    const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (this.isWhole && this.#held.bytes + bytes > this.#options.maxBodyBytes) {
      this.#giveUp(responseTooLarge);
    } else if (!this.#held.take(bytes)) this.#giveUp(overBudget);
    if (this.#isGivenUp) return passed;
    if (this.#reader === undefined) {
      for (const piece of pieces) this.#chunks.push(piece);
      return passed;
    }
    for (const piece of pieces) {
      const frames = this.#reader.push(piece);
      const verdict = await this.#showFrames(frames);
      if (verdict.kind !== "pass") return verdict;
      // At most these pieces can remain of earlier bytes.
      if (frames.length > 0) this.#held.shrinkTo(bytes);
    }
    return passed;
  }

  async #showFrames(frames: readonly StreamFrame[]): Promise<ResponseVerdict> {
    const { pipeline, context } = this.#options;
    for (const fields of frames) {
      const frame = shownOf(fields);
      const verdict = frame === undefined ? passed : await pipeline.runFrame(context, frame);
      if (verdict.kind !== "pass") return verdict;
    }
    return passed;
  }
}
