/** A response to a request with a credential: what it repeats of that is taken out before anybody reads it. */
import { ProxyError } from "../../errors.ts";
import type { Echo, EchoStream } from "../../http/echo.ts";
import { digestFields } from "../../http/signed-fields.ts";
import { HeaderList } from "../../http/headers.ts";
import { StreamDecoder } from "../../http/stream-decoder.ts";
import { codingOf, unreadable } from "./response-head.ts";
import type { FlowControl, ResponseSink } from "./response-sink.ts";

/** What a sink without echoes needs of its exchange. */
export interface EchoFreeOptions {
  readonly echo: Echo;
  readonly method: string;
  readonly control: FlowControl;
  readonly maxBodyBytes: number;
  makeInner(control: FlowControl): ResponseSink;
  onFault(error: unknown): void;
}

/** Cleans the body as it streams by; the fields were cleaned before. */
export class EchoFreeSink implements ResponseSink {
  readonly #options: EchoFreeOptions;
  readonly #inner: ResponseSink;
  readonly #body: EchoStream;
  /** Undoes a coding that came unasked. */
  #decoder: StreamDecoder | undefined;
  /** Chunks that are being decoded: the upstream is paused meanwhile. */
  #waiting = 0;
  #isInnerPaused = false;
  #isOver = false;
  /** What is concealed does not stand in the bodies of such responses. */
  #isUnread = false;
  #queue: Promise<void> = Promise.resolve();

  constructor(options: EchoFreeOptions) {
    this.#options = options;
    this.#body = options.echo.stream(true);
    const { control } = options;
    this.#inner = options.makeInner({
      ...(control.mayHaveTrailers === true && { mayHaveTrailers: true }),
      pause: () => {
        this.#isInnerPaused = true;
        control.pause();
      },
      resume: () => {
        this.#isInnerPaused = false;
        if (this.#waiting === 0) control.resume();
      },
    });
  }

  get isDrained(): boolean {
    return this.#decoder === undefined && this.#inner.isDrained === true;
  }

  start(status: number, headers: string[], reason: string | undefined): void {
    this.#isUnread = status < 300 && !this.#options.echo.isEverywhere;
    if (this.#isUnread) {
      this.#inner.start(status, headers, reason);
      return;
    }
    const fields = new HeaderList(headers);
    const isBodyless = this.#options.method === "HEAD" || status === 204 || status === 304;
    if (!isBodyless) {
      const coding = codingOf(fields);
      if (coding !== undefined) {
        this.#decoder = StreamDecoder.for(coding, this.#options.maxBodyBytes);
        if (this.#decoder === undefined)
          throw new ProxyError("upstream.bad-response", unreadable(coding).message);
        fields.delete("content-encoding");
      }
      // A stand-in is of another length than what it stands for.
      if (fields.get("content-length") !== "0") fields.delete("content-length");
      // What is streamed may have changed by its end.
      for (const name of digestFields) fields.delete(name);
    }
    this.#inner.start(status, [...fields.raw], reason);
  }

  data(chunk: Buffer): void {
    const decoder = this.#decoder;
    if (decoder === undefined) {
      this.#give(this.#isUnread ? chunk : this.#body.push(chunk));
      return;
    }
    const { control } = this.#options;
    this.#waiting += 1;
    control.pause();
    this.#enqueue(async () => {
      for (const piece of await decoder.push(chunk)) this.#give(this.#body.push(piece));
      this.#waiting -= 1;
      // Never from a microtask, in which the client would read on for ever.
      if (this.#waiting === 0 && !this.#isInnerPaused && !this.#isOver)
        setImmediate(() => control.resume());
    });
  }

  end(trailers: readonly (readonly [string, string])[]): void {
    const decoder = this.#decoder;
    if (decoder === undefined) {
      if (!this.#isUnread) this.#give(this.#body.end());
      this.#inner.end(trailers);
      return;
    }
    this.#enqueue(async () => {
      for (const piece of await decoder.end()) this.#give(this.#body.push(piece));
      if (this.#isOver) return;
      this.#give(this.#body.end());
      this.#inner.end(trailers);
    });
  }

  close(): void {
    this.#isOver = true;
    this.#decoder?.close();
  }

  #give(bytes: Buffer): void {
    if (bytes.length > 0 && !this.#isOver) this.#inner.data(bytes);
  }

  #enqueue(work: () => Promise<void>): void {
    this.#queue = this.#queue.then(work).catch((error: unknown) => {
      if (this.#isOver) return;
      this.#isOver = true;
      this.#options.onFault(error);
    });
  }
}
