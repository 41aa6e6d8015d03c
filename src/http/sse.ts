/** Event streams (WHATWG HTML section 9.2) read and written one frame at a time. */
import { ProxyError } from "../errors.ts";

/** What one frame of an event stream says. */
export interface SseFields {
  readonly event?: string;
  /** The data lines joined by "\n"; absent in a frame of comments or of a bare id. */
  readonly data?: string;
  readonly id?: string;
  readonly retry?: number;
  readonly comments?: readonly string[];
}

/** A frame that was read, with its bytes for passing it on unchanged. */
export interface SseFrame extends SseFields {
  readonly comments: readonly string[];
  /** As it came, blank line included; a line feed that arrived apart from its carriage return may be missing. */
  readonly raw: Buffer;
}

const lf = 0x0a;
const cr = 0x0d;

/** Reads an event stream that arrives in chunks of any size. */
export class SseReader {
  readonly #limitBytes: number;
  #parts: Buffer[] = [];
  #partBytes = 0;
  #isLineEmpty = true;
  #isAfterCr = false;
  #isFirst = true;

  /** A frame of more than `limitBytes` is ProxyError("upstream.response-too-large"). */
  constructor(options: { readonly limitBytes: number }) {
    this.#limitBytes = options.limitBytes;
  }

  /** The frames that this chunk completes. */
  push(chunk: Uint8Array): SseFrame[] {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    const hasLfOnly = !this.#isAfterCr && !bytes.includes(cr);
    return hasLfOnly ? this.#pushLf(bytes) : this.#pushAny(bytes);
  }

  /** Nearly every server ends its lines with a line feed alone: its frames are found without a look at each byte. */
  #pushLf(bytes: Buffer): SseFrame[] {
    const frames: SseFrame[] = [];
    let start = 0;
    while (start < bytes.length) {
      let end = start + 1;
      if (!this.#isLineEmpty || bytes[start] !== lf) {
        const blank = bytes.indexOf("\n\n", start, "latin1");
        if (blank === -1) break;
        end = blank + 2;
      }
      this.#keep(bytes.subarray(start, end));
      frames.push(...this.#finish());
      start = end;
    }
    if (start < bytes.length) {
      this.#isLineEmpty = bytes[bytes.length - 1] === lf;
      // A copy: the owner of the chunk may reuse its memory.
      this.#keep(Buffer.from(bytes.subarray(start)));
    }
    return frames;
  }

  #pushAny(bytes: Buffer): SseFrame[] {
    const frames: SseFrame[] = [];
    let start = 0;
    for (let at = 0; at < bytes.length; at += 1) {
      const byte = bytes[at];
      if (byte === lf && this.#isAfterCr) {
        this.#isAfterCr = false;
        // The other half of a line end; outside a frame it belongs to the frame that is gone.
        start = start === at && this.#partBytes === 0 ? at + 1 : start;
        continue;
      }
      this.#isAfterCr = byte === cr;
      if (byte !== lf && byte !== cr) {
        this.#isLineEmpty = false;
        continue;
      }
      if (this.#isLineEmpty) {
        const isPair = byte === cr && bytes[at + 1] === lf;
        at += isPair ? 1 : 0;
        this.#isAfterCr &&= !isPair;
        this.#keep(bytes.subarray(start, at + 1));
        frames.push(...this.#finish());
        start = at + 1;
      }
      this.#isLineEmpty = true;
    }
    // A copy: the owner of the chunk may reuse its memory.
    this.#keep(Buffer.from(bytes.subarray(start)));
    return frames;
  }

  /** The frame that the stream ended in without a blank line, if any. */
  end(): SseFrame[] {
    return this.#finish();
  }

  #keep(part: Buffer): void {
    if (part.length === 0) {
      return;
    }
    this.#partBytes += part.length;
    if (this.#partBytes > this.#limitBytes) {
      throw new ProxyError(
        "upstream.response-too-large",
        `an event is longer than ${this.#limitBytes} bytes`,
      );
    }
    this.#parts.push(part);
  }

  #finish(): SseFrame[] {
    const raw = Buffer.concat(this.#parts);
    this.#parts = [];
    this.#partBytes = 0;
    this.#isLineEmpty = true;
    const text = raw.toString("utf8");
    const frame = parseFrame(this.#isFirst ? text.replace(/^\uFEFF/, "") : text, raw);
    this.#isFirst &&= raw.length === 0;
    return frame === undefined ? [] : [frame];
  }
}

function parseFrame(text: string, raw: Buffer): SseFrame | undefined {
  const split = text.includes("\r") ? text.split(/\r\n|\n|\r/) : text.split("\n");
  const lines = split.filter((line) => line !== "");
  const comments: string[] = [];
  const data: string[] = [];
  let event: string | undefined;
  let id: string | undefined;
  let retry: number | undefined;
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = colon === -1 ? line : line.slice(0, colon);
    const value =
      colon === -1 ? "" : line.slice(line.charAt(colon + 1) === " " ? colon + 2 : colon + 1);
    if (name === "") {
      comments.push(value);
    } else if (name === "data") {
      data.push(value);
    } else if (name === "event") {
      event = value;
    } else if (name === "id" && !value.includes("\0")) {
      id = value;
    } else if (name === "retry" && /^[0-9]{1,9}$/.test(value)) {
      retry = Number(value);
    }
  }
  if (lines.length === 0) {
    return undefined;
  }
  return {
    comments,
    raw,
    ...(event !== undefined && { event }),
    ...(data.length > 0 && { data: data.join("\n") }),
    ...(id !== undefined && { id }),
    ...(retry !== undefined && { retry }),
  };
}

/** Spells a frame; an event or id that would break out of its line is left out. */
export function writeSseFrame(fields: SseFields): string {
  let text = "";
  for (const comment of fields.comments ?? []) {
    for (const line of comment.split(/\r\n|\n|\r/)) {
      text += `: ${line}\n`;
    }
  }
  if (fields.event !== undefined && !/[\r\n]/.test(fields.event)) {
    text += `event: ${fields.event}\n`;
  }
  if (fields.id !== undefined && !/[\r\n\0]/.test(fields.id)) {
    text += `id: ${fields.id}\n`;
  }
  if (fields.retry !== undefined && Number.isSafeInteger(fields.retry) && fields.retry >= 0) {
    text += `retry: ${fields.retry}\n`;
  }
  for (const line of fields.data?.split(/\r\n|\n|\r/) ?? []) {
    text += `data: ${line}\n`;
  }
  return `${text}\n`;
}
