/** The client's request body on its way upstream. */
import { Readable } from "node:stream";

/**
 * Forwards a client's body and counts it.
 *
 * It stands between the client's stream and the HTTP client because the latter destroys the body that it was given
 * when the upstream fails, and destroying the client's own stream would take the connection, and with it our answer.
 */
export class RequestBody extends Readable {
  readonly #source: Readable;
  #bytes = 0;

  constructor(source: Readable) {
    super({ highWaterMark: 65_536 });
    this.#source = source;
    source.on("data", (chunk: Buffer) => {
      this.#bytes += chunk.length;
      if (!this.push(chunk)) source.pause();
    });
    source.once("end", () => this.push(null));
    source.once("error", (error) => this.destroy(error));
    source.once("close", () => {
      if (!source.readableEnded) this.destroy(new Error("the request body was cut short"));
    });
    source.pause();
    // Whoever reads this stream hears of the failure; without a reader it must not become an uncaught exception.
    this.on("error", ignore);
  }

  /** Bytes that the client has sent so far. */
  get bytes(): number {
    return this.#bytes;
  }

  override _read(): void {
    this.#source.resume();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#source.removeAllListeners("data");
    done(error);
  }
}

function ignore(): void {
  // See the constructor.
}
