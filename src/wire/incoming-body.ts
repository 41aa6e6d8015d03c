/** The body of one request, from the bytes of its connection to whoever takes it. */
import { type BodySink, type BodySource, cutShort } from "../http/body-source.ts";
import { type BodyLimits, BodyReader } from "./body-reader.ts";

/** Where the bytes come from. */
export interface ByteSupply {
  /** Gives what is held, and reads on. */
  supply(): void;
}

/** Push source over a connection. */
export class IncomingBody implements BodySource {
  readonly #supply: ByteSupply;
  readonly #reader: BodyReader;
  #sink: BodySink | undefined;
  #isPaused = false;
  #isComplete = false;
  #error: Error | undefined;
  /** Bytes of content so far. */
  bytes = 0;
  /** Nothing refers any longer to the content of what {@link take} was given last. */
  isUsedUp = true;

  constructor(supply: ByteSupply, length: number, limits: BodyLimits) {
    this.#supply = supply;
    this.#reader = new BodyReader(length, limits);
  }

  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** Somebody takes bytes now. */
  get isWanted(): boolean {
    return this.#sink !== undefined && !this.#isPaused;
  }

  /** No further bytes can come. */
  get isOver(): boolean {
    return this.#isComplete || this.#error !== undefined;
  }

  open(sink: BodySink): void {
    if (this.#isComplete) {
      sink.end();
      return;
    }
    if (this.#error !== undefined) {
      sink.fail(this.#error);
      return;
    }
    this.#sink = sink;
    this.#isPaused = false;
    this.#supply.supply();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#supply.supply();
  }

  detach(): void {
    this.#sink = undefined;
  }

  /** Gives what belongs to the body; returns how many bytes that were. Throws MalformedMessage. */
  take(bytes: Buffer): number {
    this.isUsedUp = true;
    return this.#reader.read(bytes, this.#give);
  }

  /** Call it after {@link take}: true once, when the body is whole. */
  finish(): boolean {
    if (!this.#reader.isDone || this.#isComplete) return false;
    this.#isComplete = true;
    const sink = this.#sink;
    this.#sink = undefined;
    sink?.end();
    return true;
  }

  /** No more comes. */
  fail(error: Error = cutShort()): void {
    if (this.#isComplete || this.#error !== undefined) return;
    this.#error = error;
    const sink = this.#sink;
    this.#sink = undefined;
    sink?.fail(error);
  }

  readonly #give = (piece: Buffer): boolean => {
    this.bytes += piece.length;
    const sink = this.#sink;
    if (sink === undefined) return true;
    if (!sink.data(piece)) this.#isPaused = true;
    if (sink.isDrained !== true) this.isUsedUp = false;
    return this.isWanted;
  };
}
