/** Frames of WebSocket (RFC 6455 section 5.2) as this proxy writes them, and where those of others begin and end. */
import { randomBytes } from "node:crypto";

/** Opcodes (RFC 6455 section 11.8). */
export const opcodes = {
  continuation: 0x0,
  text: 0x1,
  binary: 0x2,
  close: 0x8,
  ping: 0x9,
  pong: 0xa,
} as const;

/** A control frame holds no more (RFC 6455 section 5.5). */
export const maxControlBytes = 125;

/** A whole message in one frame, masked with a fresh key as a client has to (RFC 6455 section 5.3). */
export function clientFrame(opcode: number, data: Uint8Array): Buffer {
  const head = headOf(opcode, data.length, 0x80);
  const mask = randomBytes(4);
  const frame = Buffer.allocUnsafe(head.length + 4 + data.length);
  head.copy(frame);
  mask.copy(frame, head.length);
  maskInto(frame.subarray(head.length + 4), data, mask, 0);
  return frame;
}

/** A whole message in one frame, as a server sends it. */
export function serverFrame(opcode: number, data: Uint8Array): Buffer {
  return Buffer.concat([headOf(opcode, data.length, 0), data]);
}

/** The Close frame of a server or of a client; a reason that is too long is cut. */
export function closeFrame(by: "client" | "server", code: number, reason = ""): Buffer {
  const payload = Buffer.concat([Buffer.of(code >> 8, code & 0xff), shortened(reason)]);
  if (by === "client") return clientFrame(opcodes.close, payload);
  return serverFrame(opcodes.close, payload);
}

/** Masks or unmasks: `from` is the place of the first byte within its frame's payload. */
export function maskInto(
  target: Uint8Array,
  source: Uint8Array,
  mask: Uint8Array,
  from: number,
): void {
  for (let at = 0; at < source.length; at += 1) {
    target[at] = (source[at] ?? 0) ^ (mask[(from + at) & 3] ?? 0);
  }
}

function headOf(opcode: number, length: number, maskBit: number): Buffer {
  const first = 0x80 | opcode;
  if (length < 126) return Buffer.of(first, maskBit | length);
  if (length < 0x1_0000) return Buffer.of(first, maskBit | 126, length >> 8, length & 0xff);
  const head = Buffer.alloc(10);
  head[0] = first;
  head[1] = maskBit | 127;
  head.writeBigUInt64BE(BigInt(length), 2);
  return head;
}

/** At most what a Close frame holds besides its code, cut between characters. */
function shortened(reason: string): Buffer {
  const bytes = Buffer.from(reason, "utf8");
  let end = Math.min(bytes.length, maxControlBytes - 2);
  while (end < bytes.length && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end);
}

/** Follows frames that go by untouched, so that one of our own can be put between two of them. */
export class FrameBoundary {
  /** Bytes of the present frame's head that came so far; never more than 14. */
  readonly #head: number[] = [];
  #payloadLeft = 0;
  #messages = 0;

  /** Messages that have ended or are in their last frame; control frames are none (RFC 6455 section 5.5). */
  get messages(): number {
    return this.#messages;
  }

  /** Bytes until the present frame ends, once its head is complete. */
  get payloadLeft(): number {
    return this.#payloadLeft;
  }

  /** True where the last frame is complete. */
  get isBetweenFrames(): boolean {
    return this.#payloadLeft === 0 && this.#head.length === 0;
  }

  /** Takes bytes that go by; with `untilBoundary` only those up to the end of the present frame. Returns how many. */
  pass(chunk: Uint8Array, untilBoundary = false): number {
    let at = 0;
    while (at < chunk.length) {
      if (untilBoundary && this.isBetweenFrames) return at;
      if (this.#payloadLeft > 0) {
        const passed = Math.min(this.#payloadLeft, chunk.length - at);
        this.#payloadLeft -= passed;
        at += passed;
      } else {
        this.#head.push(chunk[at] ?? 0);
        at += 1;
        this.#endHead();
      }
    }
    return at;
  }

  #endHead(): void {
    const [first = 0, second] = this.#head;
    if (second === undefined) return;
    const length = second & 0x7f;
    const extended = length === 127 ? 8 : length === 126 ? 2 : 0;
    const masked = second >= 0x80 ? 4 : 0;
    if (this.#head.length < 2 + extended + masked) return;
    const isFinal = first >= 0x80;
    if (isFinal && (first & 0x0f) <= opcodes.binary) this.#messages += 1;
    this.#payloadLeft =
      extended === 0
        ? length
        : this.#head.slice(2, 2 + extended).reduce((sum, byte) => sum * 256 + byte, 0);
    this.#head.length = 0;
  }
}

/** How many messages went by in either direction. */
export class MessageCounts {
  readonly #up = new FrameBoundary();
  readonly #down = new FrameBoundary();

  /** From the client. */
  get received(): number {
    return this.#up.messages;
  }

  /** To the client. */
  get sent(): number {
    return this.#down.messages;
  }

  up(chunk: Uint8Array): void {
    this.#up.pass(chunk);
  }

  down(chunk: Uint8Array): void {
    this.#down.pass(chunk);
  }
}
