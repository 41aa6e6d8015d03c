/** Gathers the bytes of one head over as many packets as they take. */
import { MalformedMessage } from "./malformed.ts";

const headEnd = Buffer.from("\r\n\r\n");

/** The head that a connection is in. */
export class HeadReader {
  readonly #maxBytes: number;
  /** Grows by doubling, so that a head that comes byte by byte costs no copy for each of them. */
  #held: Buffer | undefined;
  #size = 0;
  /** The last byte was the first half of an empty line. */
  #isInEmptyLine = false;
  /** The head without its empty line, in Latin-1; valid after {@link read} was true. */
  text = "";
  /** What came behind the head. */
  rest: Buffer | undefined;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Bytes of an unfinished head. */
  get bytes(): number {
    return this.#size;
  }

  /** True when the head is whole; throws MalformedMessage when it is too large. Empty lines before it are skipped. */
  read(given: Buffer): boolean {
    const chunk = this.#size === 0 ? this.#withoutEmptyLines(given) : given;
    if (chunk.length === 0) return false;
    const bytes = this.#size === 0 ? chunk : this.#append(chunk);
    // The separator may have begun in what was held.
    const from = Math.max(0, bytes.length - chunk.length - 3);
    const at = bytes.indexOf(headEnd, from);
    if (at < 0) {
      if (bytes.length > this.#maxBytes) throw tooLarge();
      if (this.#size === 0) this.#append(chunk);
      return false;
    }
    if (at + 4 > this.#maxBytes) throw tooLarge();
    this.text = bytes.toString("latin1", 0, at + 2);
    this.rest = at + 4 < bytes.length ? bytes.subarray(at + 4) : undefined;
    this.#held = undefined;
    this.#size = 0;
    return true;
  }

  /** What has come of an unfinished head, from `start` on. */
  beginning(start = 0): string {
    return this.#held?.toString("latin1", start, this.#size) ?? "";
  }

  /** Forgets what came. */
  clear(): void {
    this.#held = undefined;
    this.#size = 0;
  }

  /** RFC 9112 section 2.2: a server should ignore at least one empty line before a request. */
  #withoutEmptyLines(chunk: Buffer): Buffer {
    let at = 0;
    if (this.#isInEmptyLine) {
      if (chunk[0] !== 10) throw new MalformedMessage("a line end that is not CRLF");
      this.#isInEmptyLine = false;
      at = 1;
    }
    while (chunk[at] === 13 && chunk[at + 1] === 10) at += 2;
    if (chunk[at] === 13 && at + 1 === chunk.length) {
      this.#isInEmptyLine = true;
      at += 1;
    }
    return at === 0 ? chunk : chunk.subarray(at);
  }

  #append(chunk: Buffer): Buffer {
    const size = this.#size + chunk.length;
    let held = this.#held;
    if (held === undefined || held.length < size) {
      const grown = Buffer.allocUnsafe(Math.max(256, size * 2));
      held?.copy(grown, 0, 0, this.#size);
      held = grown;
      this.#held = grown;
    }
    chunk.copy(held, this.#size);
    this.#size = size;
    return held.subarray(0, size);
  }
}

function tooLarge(): MalformedMessage {
  return new MalformedMessage(
    "the header section is larger than limits.max_header_bytes",
    "too-large",
  );
}
