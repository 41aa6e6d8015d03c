/** A response that the pipeline judges, by its head, its whole body, or frame by frame, before it is forwarded. */
import { ProxyError } from "../../errors.ts";
import { type BodyBudget, decodeBody } from "../../http/body.ts";
import { type FrameReader, frameReaderFor, shownOf, type StreamFrame } from "../../http/frames.ts";
import { Gathered } from "../../http/gathered.ts";
import { HeaderList } from "../../http/headers.ts";
import { digestFields, fixedBy, forgetDigests } from "../../http/signed-fields.ts";
import { SseReader } from "../../http/sse.ts";
import { StreamDecoder } from "../../http/stream-decoder.ts";
import { type RequestContext, ResponseHalf } from "../../pipeline/context.ts";
import type { Denial, ResponseVerdict } from "../../pipeline/decision.ts";
import { narrower, type ResponseNeeds } from "../../pipeline/message-needs.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import { refusalEvent, renderResponseRefusal, statusOf } from "../flow/reply.ts";
import { ResponseCopy } from "./response-copy.ts";
import { overBudget } from "./buffered-body.ts";
import type { Downstream } from "./downstream.ts";
import { BudgetReservation } from "../flow/budget-reservation.ts";
import { HeldFrames } from "./held-frames.ts";
import { codingOf, responseTooLarge, unreadable } from "./response-head.ts";
import {
  DirectSink,
  type FlowControl,
  type ReplacedResponse,
  type ResponseSink,
} from "./response-sink.ts";

/** What the judged path needs of its exchange. */
export interface JudgedSinkOptions {
  readonly pipeline: Pipeline;
  readonly needs: ResponseNeeds;
  readonly context: RequestContext;
  readonly downstream: Downstream;
  readonly control: FlowControl;
  readonly maxBodyBytes: number;
  readonly budget: BodyBudget;
  /** The response was refused by the pipeline or a limit, or replaced: the upstream is no longer needed. */
  onReplaced(this: void, replaced: ReplacedResponse): void;
  onFault(error: unknown): void;
}

type Mode = "head" | "body" | "frames";
type Trailers = readonly (readonly [string, string])[];

/** The upstream is paused while more than this waits to be judged. */
const maxPendingBytes = 65_536;

/** Never from a microtask: the client reads on inside resume(), and a chain of microtasks would starve the whole process. */
function resumeLater(control: FlowControl): void {
  setImmediate(() => control.resume());
}

/** Runs the response phase before anything of the response reaches the client. */
export class JudgedSink implements ResponseSink {
  readonly #options: JudgedSinkOptions;
  #needs: ResponseNeeds;
  #mode: Mode = "head";
  #half: ResponseHalf | undefined;
  #reason: string | undefined;
  #direct: DirectSink | undefined;
  #reader: FrameReader | undefined;
  #decoder: StreamDecoder | undefined;
  /** Bytes of chunks whose frames were not forwarded yet. */
  #pending = 0;
  #paused = false;
  #isClientSlow = false;
  /** Set where no plugin that reads the body can refuse it. */
  #copy: ResponseCopy | undefined;
  #onDrained: (() => void) | undefined;
  readonly #chunks = new Gathered();
  /** The collected body; in a stream the unfinished frame, and the frames that wait for the client. */
  readonly #held: BudgetReservation;
  readonly #kept: HeldFrames;
  #over = false;
  /** Work in order: a frame is judged and written before the next one is looked at. */
  #queue: Promise<void> = Promise.resolve();

  constructor(options: JudgedSinkOptions) {
    this.#options = options;
    this.#needs = options.needs;
    this.#held = new BudgetReservation(options.budget);
    this.#kept = new HeldFrames(options.maxBodyBytes, options.budget);
  }

  start(status: number, headers: string[], reason: string | undefined): void {
    const { pipeline, context, control } = this.#options;
    this.#half = new ResponseHalf(status, new HeaderList(headers));
    this.#reason = reason;
    context.response = this.#half;
    const bodyless = context.method === "HEAD" || status === 204 || status === 304;
    const type = this.#half.headers.get("content-type");
    const reader = frameReaderFor(type, this.#options.maxBodyBytes);
    // Some steps know by the head that they have nothing to read.
    this.#needs = narrower(this.#needs, pipeline.responseNeeds(context));
    const { responseBody, rewritesResponse, frames, isGuarded } = this.#needs;
    const isRead = !bodyless && (frames || (responseBody && (!reader || rewritesResponse)));
    if (isRead && !isGuarded) this.#copy = new ResponseCopy(this.#half, this.#options);
    else if (isRead && (!reader || rewritesResponse)) {
      this.#mode = "body";
      return;
    } else if (isRead) {
      this.#mode = "frames";
      this.#reader = reader;
      // A frame that is replaced is of another length.
      for (const name of ["content-length", ...digestFields]) this.#half.headers.delete(name);
      if (!this.#openDecoder(this.#half.headers)) return;
    }
    control.pause();
    this.#enqueue(async () => {
      // Observers of a whole body get the head together with the body.
      const who = this.#copy?.isWhole === true ? "guards" : "all";
      if (!this.#passes(await pipeline.runResponse(context, who))) return;
      this.#writeHead();
      resumeLater(control);
    });
  }

  data(chunk: Buffer): void {
    if (this.#over) return;
    if (this.#mode === "body") {
      this.#collect(chunk);
      return;
    }
    if (this.#mode === "head" && this.#copy === undefined) {
      this.#enqueue(() => this.#direct?.data(chunk));
      return;
    }
    this.#pending += chunk.length;
    if (this.#pending > maxPendingBytes && !this.#paused) {
      this.#paused = true;
      this.#options.control.pause();
    }
    this.#enqueue(() => this.#pass(chunk));
  }

  end(trailers: Trailers): void {
    this.#enqueue(async () => {
      if (this.#over) return;
      if (this.#mode === "body") await this.#judgeBody(trailers);
      else if (this.#mode === "frames") {
        await this.#readFrames((await this.#decoder?.end()) ?? []);
        await this.#forwardFrames(this.#reader?.end() ?? []);
        const rest = await this.#judgeEnd();
        if (rest !== undefined) {
          this.#options.downstream.end(rest.length === 0 ? undefined : rest, trailers);
        }
      } else if (this.#copy === undefined || this.#passes(await this.#copy.end())) {
        this.#direct?.end(trailers);
      }
    });
  }

  /** Tells the pipeline that the stream is complete, while its end can still be kept from the client; what is left to send. */
  async #judgeEnd(): Promise<Buffer | undefined> {
    const { pipeline, context } = this.#options;
    if (this.#over) return undefined;
    const verdict = await pipeline.runFrame(context, { data: Buffer.alloc(0), last: true });
    return this.#passes(verdict) ? this.#kept.end(verdict) : undefined;
  }

  /** Judges and forwards the frames that this chunk completes, then resumes the upstream where it was paused. */
  async #pass(chunk: Buffer): Promise<void> {
    if (this.#copy === undefined) {
      await this.#readFrames((await this.#decoder?.push(chunk)) ?? [chunk]);
    } else {
      if (this.#over || !this.#passes(await this.#copy.push(chunk))) return;
      this.#direct?.data(chunk);
    }
    this.#pending -= chunk.length;
    if (!this.#paused || this.#over || this.#pending > 0) return;
    this.#paused = false;
    if (!this.#isClientSlow) resumeLater(this.#options.control);
  }

  /** Forwards the frames that the pieces complete; held bytes, and those of an unfinished frame, are counted. */
  async #readFrames(pieces: readonly Buffer[]): Promise<void> {
    const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (this.#over) return;
    if (!this.#held.take(bytes)) {
      this.#refuse(overBudget);
      return;
    }
    for (const clear of pieces) {
      const frames = this.#reader?.push(clear) ?? [];
      await this.#forwardFrames(frames);
      // At most these pieces can remain of earlier bytes.
      if (frames.length > 0) this.#held.shrinkTo(bytes);
    }
  }

  /** A response compressed unasked is decoded to be judged, or refused. False when it was refused. */
  #openDecoder(headers: HeaderList): boolean {
    const encoding = codingOf(headers);
    if (encoding === undefined) return true;
    this.#decoder = StreamDecoder.for(encoding, this.#options.maxBodyBytes);
    if (this.#decoder === undefined) {
      this.#refuse(unreadable(encoding));
      return false;
    }
    headers.delete("content-encoding");
    return true;
  }

  #enqueue(work: () => void | Promise<void>): void {
    this.#queue = this.#queue.then(work).catch((error: unknown) => {
      if (this.#over) return;
      this.#over = true;
      this.#options.onFault(error);
    });
  }

  #collect(chunk: Buffer): void {
    const isTooLong = this.#held.bytes + chunk.length > this.#options.maxBodyBytes;
    if (isTooLong || !this.#held.take(chunk.length)) {
      this.#release();
      this.#refuse(isTooLong ? responseTooLarge : overBudget);
      return;
    }
    this.#chunks.push(chunk);
  }

  /** Gives the held bytes back to the process-wide budget; the exchange calls it however it ends. */
  close(): void {
    this.#over = true;
    this.#onDrained?.();
    this.#decoder?.close();
    this.#copy?.close();
    this.#release();
  }

  #release(): void {
    this.#held.close();
    this.#kept.close();
    this.#chunks.clear();
  }

  async #judgeBody(trailers: Trailers): Promise<void> {
    const { pipeline, context, downstream } = this.#options;
    const half = this.#half;
    if (half === undefined)
      throw new ProxyError("internal.fault", "an answer ended before it began");
    const clear = await this.#clearBody(half);
    if (clear === undefined) return;
    half.content.load(clear);
    if (!this.#passes(await pipeline.runResponse(context))) return;
    if (this.#needs.frames) {
      const frame = { data: half.body ?? Buffer.alloc(0), last: true };
      const verdict = await pipeline.runFrame(context, frame);
      if (!this.#passes(verdict)) return;
      if (verdict.frame !== undefined) half.setBody(verdict.frame.data ?? Buffer.alloc(0));
    }
    const body = half.body ?? Buffer.alloc(0);
    if (half.content.replaced && !this.#mayReplace(half)) return;
    if (trailers.length > 0 && downstream.wantsChunkedTrailers)
      half.headers.delete("content-length");
    else half.headers.set("Content-Length", String(body.length));
    // From here on it is counted until the client has read it.
    this.#release();
    downstream.writeHead(half.status, [...half.headers.raw], this.#reason);
    downstream.end(body, trailers);
  }

  /** The head says nothing of the bytes that came; false where it has to, and the response was refused. */
  #mayReplace({ status, headers }: ResponseHalf): boolean {
    const why = fixedBy(status, headers);
    if (why !== undefined) {
      const message = `the response was to be changed, and ${why}`;
      this.#refuse({ code: "upstream.bad-response", message });
      return false;
    }
    headers.delete("content-encoding");
    forgetDigests(headers);
    return true;
  }

  /** Resolves when the client has read what is buffered, or has disconnected. */
  #drained(): Promise<void> {
    return new Promise((resolve) => {
      this.#onDrained = resolve;
    });
  }

  /** The collected body without its Content-Encoding; undefined when it was refused. */
  async #clearBody(half: ResponseHalf): Promise<Buffer | undefined> {
    const bytes = this.#chunks.takeAll();
    const encoding = codingOf(half.headers);
    if (encoding === undefined) return bytes;
    const { maxBodyBytes } = this.#options;
    // The decoded size is not known in advance: the maximum is reserved first.
    if (!this.#held.take(maxBodyBytes)) {
      this.#refuse(overBudget);
      return undefined;
    }
    const decoded = await decodeBody(bytes, encoding, maxBodyBytes);
    if (decoded.kind !== "body") {
      this.#refuse(unreadable(encoding));
      return undefined;
    }
    this.#held.shrinkTo(bytes.length + decoded.bytes.length);
    half.headers.delete("content-encoding");
    return decoded.bytes;
  }

  async #forwardFrames(frames: readonly StreamFrame[]): Promise<void> {
    const { pipeline, context } = this.#options;
    /** Frames that arrived together and passed are written together; none waits for the verdict on another. */
    let passed: Buffer[] = [];
    const forward = async (): Promise<void> => {
      const bytes = passed;
      passed = [];
      if (bytes.length === 0 || this.#over) return;
      if (!this.#options.downstream.write(Buffer.concat(bytes))) await this.#drained();
    };
    for (const fields of frames) {
      if (this.#over) return;
      const frame = shownOf(fields);
      // Keep-alives must get through.
      if (frame === undefined) passed.push(fields.raw);
      else {
        const said = pipeline.runFrame(context, frame);
        // A rejection has its listener before the first await.
        const verdict = said instanceof Promise ? (await Promise.all([said, forward()]))[0] : said;
        if (verdict.kind !== "pass") await forward();
        if (!this.#passes(verdict)) return;
        const settled = this.#kept.settle(fields, verdict);
        if ("denial" in settled) {
          await forward();
          this.#refuse(settled.denial);
          return;
        }
        passed.push(settled.bytes);
      }
    }
    await forward();
  }

  #writeHead(): void {
    const { downstream, control } = this.#options;
    const half = this.#half;
    if (half === undefined) return;
    if (this.#mode === "frames") {
      downstream.onDrain(() => this.#onDrained?.());
      downstream.writeHead(half.status, [...half.headers.raw], this.#reason);
      downstream.flushHead();
      return;
    }
    this.#direct = new DirectSink(downstream, {
      pause: () => {
        this.#isClientSlow = true;
        control.pause();
      },
      resume: () => {
        this.#isClientSlow = false;
        if (!this.#paused) control.resume();
      },
    });
    this.#direct.start(half.status, [...half.headers.raw], this.#reason);
  }

  #passes(verdict: ResponseVerdict): verdict is Extract<ResponseVerdict, { kind: "pass" }> {
    if (this.#over) return false;
    if (verdict.kind === "pass") return true;
    if (verdict.kind === "reply") {
      const { reply } = verdict;
      this.#over = true;
      this.#options.onReplaced({ status: reply.status, reply });
      return false;
    }
    this.#refuse(verdict.denial);
    return false;
  }

  /** Before the head the client gets an error; after it, an event that it understands, or a visible cut. */
  #refuse(denial: Denial): void {
    if (this.#over) return;
    this.#over = true;
    const { downstream, context, onReplaced } = this.#options;
    const status = statusOf(denial);
    if (!downstream.headSent) {
      onReplaced({ status, denial, reply: renderResponseRefusal(denial, context) });
      return;
    }
    const event = this.#reader instanceof SseReader ? refusalEvent(denial) : undefined;
    if (event === undefined) downstream.cut();
    else downstream.end(event);
    onReplaced({ status, denial });
  }
}
