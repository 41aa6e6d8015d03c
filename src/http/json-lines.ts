/** Streams of JSON values, one a line (application/x-ndjson), read one line at a time. */
import { ProxyError } from "../errors.ts";
import { Gathered } from "./gathered.ts";

/** A line that was read, with its bytes for passing it on unchanged. */
export interface JsonLine {
  readonly kind: "line";
  /** Lines have no names. */
  readonly event?: undefined;
  /** The line without what ends it; absent where it is blank. */
  readonly data?: Buffer;
  readonly raw: Buffer;
}

const lf = 0x0a;

/** Reads a stream that arrives in chunks of any size. */
export class JsonLineReader {
  readonly #limitBytes: number;
  readonly #parts = new Gathered();

  /** A line of more than `limitBytes` is ProxyError("upstream.response-too-large"). */
  constructor(options: { readonly limitBytes: number }) {
    this.#limitBytes = options.limitBytes;
  }

  /** The lines that this chunk completes. */
  push(chunk: Uint8Array): JsonLine[] {
    const lines: JsonLine[] = [];
    let rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    for (let end = rest.indexOf(lf); end !== -1; end = rest.indexOf(lf)) {
      this.#keep(rest.subarray(0, end + 1));
      lines.push(this.#finish());
      rest = rest.subarray(end + 1);
    }
    // A copy: the owner of the chunk may reuse its memory.
    if (rest.length > 0) this.#keep(Buffer.from(rest));
    return lines;
  }

  /** The line that the stream ended in without a line feed, if any. */
  end(): JsonLine[] {
    return this.#parts.length === 0 ? [] : [this.#finish()];
  }

  #keep(part: Buffer): void {
    if (this.#parts.length + part.length > this.#limitBytes) {
      const why = `a line is longer than ${this.#limitBytes} bytes`;
      throw new ProxyError("upstream.response-too-large", why);
    }
    this.#parts.push(part);
  }

  #finish(): JsonLine {
    const raw = this.#parts.takeAll();
    const text = raw.toString("latin1");
    const data = raw.subarray(0, text.trimEnd().length);
    return { kind: "line", raw, ...(data.length === 0 ? {} : { data }) };
  }
}
