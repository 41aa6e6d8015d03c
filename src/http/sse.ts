/** Event streams (WHATWG HTML section 9.2) read and written one frame at a time. */
import { ProxyError } from "../errors.ts";
import { Gathered } from "./gathered.ts";

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
  readonly kind: "sse";
  readonly comments: readonly string[];
  /** The bytes of `data`, where they stand in `raw` in one piece. */
  readonly dataBytes?: Buffer;
  /** As it came, blank line included; a line feed that arrived apart from its carriage return may be missing. */
  readonly raw: Buffer;
}

const lf = 0x0a;
const cr = 0x0d;
/** What has come of a frame is joined with a chunk that is smaller by this at most: to join it with every byte costs its square. */
const joinFactor = 64;
const dataField = Buffer.from("data: ");
const noComments: readonly string[] = Object.freeze([]);

/** Reads an event stream that arrives in chunks of any size. */
export class SseReader {
  readonly #limitBytes: number;
  readonly #parts = new Gathered();
  /** One of the parts has a carriage return. */
  #hasCr = false;
  #isLineEmpty = true;
  #isAfterCr = false;
  #isFirst = true;

  /** A frame of more than `limitBytes` is ProxyError("upstream.response-too-large"). */
  constructor(options: { readonly limitBytes: number }) {
    this.#limitBytes = options.limitBytes;
  }

  /** The frames that this chunk completes. */
  push(chunk: Uint8Array): SseFrame[] {
    const given = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    const isPlain = !this.#isAfterCr && !this.#hasCr && !given.includes(cr);
    if (isPlain && this.#parts.length <= given.length * joinFactor) return this.#pushPlain(given);
    return this.#pushAny(given);
  }

  /** Streams whose lines end in line feeds alone, as nearly all do: the native search finds the frames. */
  #pushPlain(given: Buffer): SseFrame[] {
    const frames: SseFrame[] = [];
    let bytes = given;
    if (this.#parts.length > 0) {
      this.#parts.push(given);
      bytes = this.#parts.takeAll();
    }
    let start = 0;
    for (;;) {
      // An empty line where no frame has begun says nothing.
      while (bytes[start] === lf) {
        start += 1;
        this.#isFirst = false;
      }
      const end = bytes.indexOf("\n\n", start, "latin1");
      if (end === -1) break;
      this.#checkSize(end + 2 - start);
      const raw = bytes.subarray(start, end + 2);
      const frame = this.#isFirst ? undefined : singleLineFrame(raw);
      if (frame === undefined) frames.push(...this.#read(raw));
      else frames.push(frame);
      start = end + 2;
    }
    // A copy: the owner of the chunk may reuse its memory.
    this.#keep(Buffer.from(bytes.subarray(start)));
    this.#isLineEmpty = start === bytes.length || bytes.at(-1) === lf;
    return frames;
  }

  #pushAny(bytes: Buffer): SseFrame[] {
    const frames: SseFrame[] = [];
    let start = 0;
    for (let at = 0; at < bytes.length; at += 1) {
      const byte = bytes[at];
      if (byte === lf && this.#isAfterCr) {
        this.#isAfterCr = false;
        // The other half of a line end; outside a frame it belongs to the frame before.
        start = start === at && this.#parts.length === 0 ? at + 1 : start;
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
    this.#hasCr ||= bytes.includes(cr, start);
    // A copy: the owner of the chunk may reuse its memory.
    this.#keep(Buffer.from(bytes.subarray(start)));
    return frames;
  }

  /** The frame that the stream ended in without a blank line, if any. */
  end(): SseFrame[] {
    return this.#finish();
  }

  #keep(part: Buffer): void {
    this.#checkSize(this.#parts.length + part.length);
    this.#parts.push(part);
  }

  #checkSize(bytes: number): void {
    if (bytes <= this.#limitBytes) return;
    throw new ProxyError(
      "upstream.response-too-large",
      `an event is longer than ${this.#limitBytes} bytes`,
    );
  }

  #finish(): SseFrame[] {
    const raw = this.#parts.takeAll();
    this.#hasCr = false;
    this.#isLineEmpty = true;
    return this.#read(raw);
  }

  #read(raw: Buffer): SseFrame[] {
    const text = raw.toString("utf8");
    const frame = parseFrame(this.#isFirst ? text.replace(/^\uFEFF/, "") : text, raw);
    this.#isFirst &&= raw.length === 0;
    return frame === undefined ? [] : [frame];
  }
}

/** A frame of one data line, the shape of every event of a language model; undefined for any other. */
function singleLineFrame(raw: Buffer): SseFrame | undefined {
  const end = raw.length - 2;
  if (end < dataField.length) return undefined;
  if (raw.compare(dataField, 0, dataField.length, 0, dataField.length) !== 0) return undefined;
  if (raw.indexOf(lf) !== end) return undefined;
  const dataBytes = raw.subarray(dataField.length, end);
  return { kind: "sse", comments: noComments, raw, dataBytes, data: dataBytes.toString("utf8") };
}

function parseFrame(text: string, raw: Buffer): SseFrame | undefined {
  const lines = text.split(/\r\n|\n|\r/).filter((line) => line !== "");
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
      // An empty name is that of an event without one.
      event = value === "" ? undefined : value;
    } else if (name === "id" && !value.includes("\0")) {
      id = value;
    } else if (name === "retry" && /^[0-9]{1,9}$/.test(value)) {
      retry = Number(value);
    }
  }
  if (lines.length === 0) {
    return undefined;
  }
  const fields = {
    comments,
    ...(event !== undefined && { event }),
    ...(data.length > 0 && { data: data.join("\n") }),
    ...(id !== undefined && { id }),
    ...(retry !== undefined && { retry }),
  };
  const isPlain = !lines.some((line) => otherLineEnds.test(line) && !/^data(?:$|:)/.test(line));
  return { kind: "sse", ...fields, raw: isPlain ? raw : Buffer.from(writeSseFrame(fields)) };
}

/**
 * What ends a line to some readers (Python's `splitlines`) and not to the standard: to them a comment could hold an
 * event. In data it is the business of whoever judges the data.
 */
const otherLineEnds = /(?!\t)[\p{Cc}\u2028\u2029]/u;

/** A single line, also to those readers. */
function withoutLineEnds(text: string): string {
  return text.split(otherLineEnds).join(" ");
}

/** Spells a frame; an event or id that would break out of its line is left out. */
export function writeSseFrame(fields: SseFields): string {
  let text = "";
  for (const comment of fields.comments ?? []) {
    for (const line of comment.split(/\r\n|\n|\r/)) {
      text += `: ${withoutLineEnds(line)}\n`;
    }
  }
  if (fields.event !== undefined && !/[\r\n]/.test(fields.event)) {
    text += `event: ${withoutLineEnds(fields.event)}\n`;
  }
  if (fields.id !== undefined && !/[\r\n\0]/.test(fields.id)) {
    text += `id: ${withoutLineEnds(fields.id)}\n`;
  }
  if (fields.retry !== undefined && Number.isSafeInteger(fields.retry) && fields.retry >= 0) {
    text += `retry: ${fields.retry}\n`;
  }
  for (const line of fields.data?.split(/\r\n|\n|\r/) ?? []) {
    text += `data: ${line}\n`;
  }
  return `${text}\n`;
}
