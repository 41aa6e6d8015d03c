/** Amazon's binary event streams (application/vnd.amazon.eventstream), read one message at a time. */
import { crc32 } from "node:zlib";
import { ProxyError } from "../errors.ts";
import { Gathered } from "./gathered.ts";

/** A message that was read, with its bytes for passing it on unchanged. */
export interface AwsEvent {
  readonly kind: "aws";
  /** The name of the event, or of the exception that takes its place. */
  readonly event?: string | undefined;
  readonly data: Buffer;
  readonly raw: Buffer;
}

const preludeBytes = 12;
const checksumBytes = 4;
const textType = 7;
const headersLimitBytes = 128 * 1_024;
/** Bytes of a value by its type; types 6 and 7 have a length of their own in front. */
const valueBytes: ReadonlyMap<number, number> = new Map([
  [0, 0],
  [1, 0],
  [2, 1],
  [3, 2],
  [4, 4],
  [5, 8],
  [8, 8],
  [9, 16],
]);

/**
 * Reads a stream that arrives in chunks of any size.
 *
 * A message is a prelude (length of the whole, length of its headers, checksum), headers, payload, checksum; numbers
 * are big-endian. A checksum that is wrong is a fault: what could be read in two ways is not passed on.
 */
export class AwsEventStreamReader {
  readonly #limitBytes: number;
  readonly #held = new Gathered();
  /** Of the message that has begun, or of its prelude. */
  #awaitedBytes = preludeBytes;

  /** A message of more than `limitBytes` is ProxyError("upstream.response-too-large"). */
  constructor(options: { readonly limitBytes: number }) {
    this.#limitBytes = options.limitBytes;
  }

  /** The messages that this chunk completes. */
  push(chunk: Uint8Array): AwsEvent[] {
    const events: AwsEvent[] = [];
    // A copy: the owner of the chunk may reuse its memory.
    this.#held.push(Buffer.from(chunk));
    if (this.#held.length < this.#awaitedBytes) return events;
    let held = this.#held.takeAll();
    for (;;) {
      const length = this.#lengthOf(held);
      this.#awaitedBytes = length ?? preludeBytes;
      if (held.length < this.#awaitedBytes) break;
      events.push(parseMessage(held.subarray(0, length)));
      held = held.subarray(length);
    }
    // Another one, so that a small rest does not keep a large chunk.
    this.#held.push(Buffer.from(held));
    return events;
  }

  /** Half a message at the end is a fault: nobody could tell what it was going to say. */
  end(): AwsEvent[] {
    if (this.#held.length > 0) throw corrupt("it ends inside a message");
    return [];
  }

  #lengthOf(held: Buffer): number | undefined {
    if (held.length < preludeBytes) return undefined;
    if (crc32(held.subarray(0, 8)) !== held.readUInt32BE(8)) throw corrupt("a prelude is damaged");
    const length = held.readUInt32BE(0);
    const headers = held.readUInt32BE(4);
    if (length > this.#limitBytes) {
      throw new ProxyError(
        "upstream.response-too-large",
        `an event is longer than ${this.#limitBytes} bytes`,
      );
    }
    if (headers > headersLimitBytes || length < preludeBytes + headers + checksumBytes) {
      throw corrupt("the lengths of a message disagree");
    }
    return length;
  }
}

function corrupt(why: string): ProxyError {
  return new ProxyError("upstream.bad-response", `the event stream cannot be read: ${why}`);
}

function parseMessage(raw: Buffer): AwsEvent {
  const end = raw.length - checksumBytes;
  if (crc32(raw.subarray(0, end)) !== raw.readUInt32BE(end)) throw corrupt("a message is damaged");
  const payloadAt = preludeBytes + raw.readUInt32BE(4);
  const headers = headersOf(raw.subarray(preludeBytes, payloadAt));
  const event = headers.get(":event-type") ?? headers.get(":exception-type");
  return { kind: "aws", raw, data: raw.subarray(payloadAt, end), event };
}

/** The headers whose values are texts; others are passed over. */
function headersOf(bytes: Buffer): Map<string, string> {
  const headers = new Map<string, string>();
  let at = 0;
  while (at < bytes.length) {
    const nameEnd = at + 1 + (bytes[at] ?? 0);
    const kind = bytes[nameEnd];
    if (kind === undefined) throw corrupt("a header is cut off");
    const name = bytes.toString("utf8", at + 1, nameEnd);
    at = nameEnd + 1;
    if (kind === 6 || kind === 7) {
      if (at + 2 > bytes.length) throw corrupt("a header is cut off");
      const valueEnd = at + 2 + bytes.readUInt16BE(at);
      if (kind === 7) headers.set(name, bytes.toString("utf8", at + 2, valueEnd));
      at = valueEnd;
    } else {
      const size = valueBytes.get(kind);
      if (size === undefined) throw corrupt("a header has an unknown type");
      at += size;
    }
    if (at > bytes.length) throw corrupt("a header is cut off");
  }
  return headers;
}

/** An event with the three headers that clients read. */
export function writeAwsEvent(event: string, data: Buffer): Buffer {
  const headers = Buffer.concat([
    textHeader(":event-type", event),
    textHeader(":content-type", "application/json"),
    textHeader(":message-type", "event"),
  ]);
  const prelude = Buffer.alloc(8);
  prelude.writeUInt32BE(preludeBytes + headers.length + data.length + checksumBytes, 0);
  prelude.writeUInt32BE(headers.length, 4);
  const head = Buffer.concat([prelude, checksum(prelude), headers, data]);
  return Buffer.concat([head, checksum(head)]);
}

function textHeader(name: string, value: string): Buffer {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(bytes.length, 0);
  return Buffer.concat([
    Buffer.from([Buffer.byteLength(name)]),
    Buffer.from(name),
    Buffer.from([textType]),
    length,
    bytes,
  ]);
}

function checksum(bytes: Buffer): Buffer {
  const sum = Buffer.alloc(checksumBytes);
  sum.writeUInt32BE(crc32(bytes), 0);
  return sum;
}
