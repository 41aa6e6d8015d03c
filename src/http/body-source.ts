/** Bodies that are pushed to whoever takes them: a Readable between costs more than the rest of an exchange. */
import type { Readable } from "node:stream";

/** Takes a body in order, and exactly one end. */
export interface BodySink {
  /** False: nothing more may come until {@link BodySource.resume}. */
  data(chunk: Buffer): boolean;
  /** True where nothing refers any longer to what {@link data} was given last: its memory may be given back. */
  readonly isDrained?: boolean;
  end(): void;
  /** The body broke off. */
  fail(error: Error): void;
}

/** A body that has not been read to its end. */
export interface BodySource {
  /** Every byte has been given to a sink. */
  readonly isComplete: boolean;
  /** Gives the rest to this sink from now on, perhaps during the call; one that was open before gets nothing more. */
  open(sink: BodySink): void;
  /** Goes on after {@link BodySink.data} was false; does nothing otherwise. */
  resume(): void;
  /** Gives nothing to anybody until the next open(); the bytes that come wait under back-pressure. */
  detach(): void;
  /** Nobody is going to read on: what is held is let go. */
  close?(): void;
}

/** The error of a body that ended before it was whole. */
export function cutShort(): Error {
  return new Error("the body was cut short");
}

/** What was read of a body already, and then the rest of it. */
export class BegunSource implements BodySource {
  readonly #begun: Buffer[];
  readonly #rest: BodySource;
  readonly #onPassed: () => void;
  #sink: BodySink | undefined;
  #isOpen = false;

  /** `onPassed` hears that nothing of what was read is held any more. */
  constructor(begun: readonly Buffer[], rest: BodySource, onPassed: () => void) {
    this.#begun = [...begun];
    this.#rest = rest;
    this.#onPassed = onPassed;
  }

  get isComplete(): boolean {
    return this.#begun.length === 0 && this.#rest.isComplete;
  }

  open(sink: BodySink): void {
    this.#sink = sink;
    this.resume();
  }

  resume(): void {
    if (this.#isOpen) {
      this.#rest.resume();
      return;
    }
    while (this.#sink !== undefined) {
      const chunk = this.#begun.shift();
      if (chunk === undefined) {
        this.#onPassed();
        this.#isOpen = true;
        this.#rest.open(this.#sink);
        return;
      }
      if (!this.#sink.data(chunk)) return;
    }
  }

  detach(): void {
    this.#sink = undefined;
    if (this.#isOpen) this.#rest.detach();
    this.#isOpen = false;
  }
}

/** A Readable as a source. It is left paused, not destroyed, where nobody takes it. */
export class ReadableSource implements BodySource {
  readonly #stream: Readable;
  #sink: BodySink | undefined;
  #isListening = false;

  constructor(stream: Readable) {
    this.#stream = stream;
  }

  get isComplete(): boolean {
    return this.#stream.readableEnded;
  }

  open(sink: BodySink): void {
    const stream = this.#stream;
    this.#sink = sink;
    if (stream.readableEnded) this.#end();
    else if (stream.destroyed) this.#fail(stream.errored ?? cutShort());
    else {
      this.#listen();
      // A listener alone does not start a stream that its owner paused.
      stream.resume();
    }
  }

  resume(): void {
    if (this.#sink !== undefined) this.#stream.resume();
  }

  detach(): void {
    this.#sink = undefined;
    this.#stream.pause();
  }

  #listen(): void {
    if (this.#isListening) return;
    this.#isListening = true;
    const stream = this.#stream;
    stream.on("data", (chunk: Buffer) => {
      if (this.#sink?.data(chunk) === false) stream.pause();
    });
    stream.once("end", () => this.#end());
    stream.on("error", (error: Error) => this.#fail(error));
    stream.once("close", () => this.#fail(cutShort()));
  }

  #end(): void {
    const sink = this.#sink;
    this.#sink = undefined;
    sink?.end();
  }

  #fail(error: Error): void {
    const sink = this.#sink;
    this.#sink = undefined;
    sink?.fail(error);
  }
}
