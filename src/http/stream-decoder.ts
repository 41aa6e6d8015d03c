/** Undoes the Content-Encoding of a body that arrives in pieces, giving out each piece as soon as it can be read. */
import type { Transform } from "node:stream";
import {
  constants,
  createBrotliDecompress,
  createGunzip,
  createInflate,
  createZstdDecompress,
} from "node:zlib";
import { messageOf, ProxyError } from "../errors.ts";
import { contentCodings, mostCodings } from "./body.ts";

const decoders: ReadonlyMap<string, () => Transform> = new Map<string, () => Transform>([
  ["gzip", () => createGunzip({ finishFlush: constants.Z_SYNC_FLUSH })],
  ["x-gzip", () => createGunzip({ finishFlush: constants.Z_SYNC_FLUSH })],
  ["deflate", () => createInflate({ finishFlush: constants.Z_SYNC_FLUSH })],
  ["br", () => createBrotliDecompress()],
  ["zstd", () => createZstdDecompress()],
]);

/** One body's decoder: each coding of its Content-Encoding is undone, the last one first. */
export class StreamDecoder {
  readonly #steps: readonly CodingDecoder[];

  private constructor(steps: readonly CodingDecoder[]) {
    this.#steps = steps;
  }

  /** Undefined for a coding that is not known, and for more codings than one body may carry. */
  static for(contentEncoding: string, limitBytes: number): StreamDecoder | undefined {
    const makers = contentCodings(contentEncoding).map((coding) => decoders.get(coding));
    if (makers.length > mostCodings) return undefined;
    const steps: CodingDecoder[] = [];
    for (const make of makers.toReversed()) {
      if (make === undefined) return undefined;
      steps.push(new CodingDecoder(make(), limitBytes));
    }
    return new StreamDecoder(steps);
  }

  /** What this piece of input makes readable. Rejects with `upstream.bad-response` when it is corrupt or too much. */
  async push(chunk: Buffer): Promise<Buffer[]> {
    return this.#through([chunk], false);
  }

  /** What the end of the input makes readable. */
  end(): Promise<Buffer[]> {
    return this.#through([], true);
  }

  close(): void {
    for (const step of this.#steps) step.close();
  }

  async #through(input: Buffer[], isEnd: boolean): Promise<Buffer[]> {
    let pieces = input;
    for (const step of this.#steps) {
      const clear: Buffer[] = [];
      for (const piece of pieces) clear.push(...(await step.push(piece)));
      if (isEnd) clear.push(...(await step.end()));
      pieces = clear;
    }
    return pieces;
  }
}

/** Undoes one coding. */
class CodingDecoder {
  readonly #stream: Transform;
  #pieces: Buffer[] = [];
  #bytes = 0;
  #error: Error | undefined;
  #onDone: (() => void) | undefined;

  constructor(stream: Transform, limitBytes: number) {
    this.#stream = stream;
    stream.on("data", (piece: Buffer) => {
      this.#bytes += piece.length;
      // What one piece of input may become is bounded, or a few bytes would fill the memory.
      if (this.#bytes > limitBytes)
        stream.destroy(new Error(`it unpacks to more than ${limitBytes} bytes at once`));
      else this.#pieces.push(piece);
    });
    stream.on("error", (error) => {
      this.#error = error;
    });
    // One for all pieces: a stream of events has thousands.
    stream.on("close", () => this.#onDone?.());
  }

  push(chunk: Buffer): Promise<Buffer[]> {
    return this.#run((done) => this.#stream.write(chunk, done));
  }

  end(): Promise<Buffer[]> {
    // It closes when all has been read.
    return this.#run(() => this.#stream.end());
  }

  close(): void {
    this.#stream.destroy();
  }

  async #run(work: (done: () => void) => void): Promise<Buffer[]> {
    this.#bytes = 0;
    this.#pieces = [];
    await new Promise<void>((resolve) => {
      this.#onDone = resolve;
      if (this.#stream.closed) resolve();
      else work(resolve);
    });
    if (this.#error !== undefined) {
      const message = `the body could not be decoded: ${messageOf(this.#error)}`;
      throw new ProxyError("upstream.bad-response", message, { cause: this.#error });
    }
    return this.#pieces;
  }
}
