/**
 * Reads what one side of a WebSocket sends, without extensions (RFC 6455 section 5): whole messages and control frames.
 *
 * What a server might read in another way than this is a fault: whoever judges messages has to see those that arrive.
 */
import { isUtf8 } from "node:buffer";
import { maskInto, maxControlBytes, opcodes } from "./web-socket-frame.ts";

/** A whole message, its fragments joined and unmasked. */
export interface WebSocketMessage {
  readonly kind: "text" | "binary";
  readonly data: Buffer;
}

/** Something that came whole. */
export type WebSocketItem =
  WebSocketMessage | { readonly kind: "close" | "ping" | "pong"; readonly data: Buffer };

/** Why nothing more is read, with the status code that the connection is closed with (RFC 6455 section 7.4.1). */
export interface WebSocketFault {
  readonly kind: "fault";
  readonly closeCode: 1002 | 1007 | 1009 | 1013;
  readonly reason: string;
}

/** What bounds a reader. */
export interface WebSocketLimits {
  readonly maxMessageBytes: number;
  /** Memory that all readers share. */
  readonly budget: { acquire(bytes: number): boolean; release(bytes: number): void };
}

const maxFragments = 4_096;
const firstBufferBytes = 4_096;

interface FrameHead {
  readonly kind: "frame";
  readonly isLast: boolean;
  readonly opcode: number;
  readonly length: number;
  readonly mask: Uint8Array;
}

const noBytes = Buffer.alloc(0);

/** One direction of one connection. */
export class WebSocketReader {
  readonly #limits: WebSocketLimits;
  readonly #isMasked: boolean;
  /** What was pushed and not read yet. */
  #rest: Buffer = noBytes;
  #frame: FrameHead | undefined;
  /** Bytes of the present frame's payload that were read. */
  #read = 0;
  #control = noBytes;
  #kind: "text" | "binary" | undefined;
  #fragments = 0;
  #message = noBytes;
  #messageBytes = 0;
  #heldBytes = 0;
  #fault: WebSocketFault | undefined;

  constructor(limits: WebSocketLimits, side: "client" | "server" = "client") {
    this.#limits = limits;
    this.#isMasked = side === "client";
  }

  /** Adds bytes as they came; call {@link next} until it has nothing more. Behind a fault nothing is kept. */
  push(chunk: Buffer): void {
    if (this.#fault !== undefined) return;
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
  }

  /** The next whole message or control frame; undefined where more bytes are needed. A fault stays. */
  next(): WebSocketItem | WebSocketFault | undefined {
    for (;;) {
      if (this.#fault !== undefined) return this.#fault;
      if (this.#frame === undefined) {
        const head = this.#readHead();
        if (head === undefined) return undefined;
        if (head.kind === "fault") return this.#fail(head);
        this.#frame = head;
        this.#read = 0;
        if (head.opcode >= opcodes.close) this.#control = Buffer.allocUnsafe(head.length);
      }
      const ended = this.#readPayload(this.#frame);
      if (ended === undefined) return undefined;
      if (ended !== "fragment") return ended.kind === "fault" ? this.#fail(ended) : ended;
    }
  }

  /** Gives back what the message that was returned last held of the shared memory, or everything at the end. */
  release(): void {
    this.#limits.budget.release(this.#heldBytes);
    this.#heldBytes = 0;
  }

  #fail(fault: WebSocketFault): WebSocketFault {
    this.#fault = fault;
    this.#rest = noBytes;
    this.#message = noBytes;
    return fault;
  }

  #readHead(): FrameHead | WebSocketFault | undefined {
    const [first, second] = this.#rest;
    if (first === undefined) return undefined;
    const opcode = first & 0x0f;
    const isLast = first >= 0x80;
    const wrong = this.#opcodeFault(first, opcode, isLast);
    if (wrong !== undefined) return protocolFault(wrong);
    if (second === undefined) return undefined;
    if (second >= 0x80 !== this.#isMasked)
      return protocolFault(
        this.#isMasked ? "a frame of the client is not masked" : "a frame of the server is masked",
      );
    const short = second & 0x7f;
    if (opcode >= opcodes.close && short > maxControlBytes) {
      return protocolFault(`a control frame is longer than ${maxControlBytes} bytes`);
    }
    const extended = short === 127 ? 8 : short === 126 ? 2 : 0;
    if (this.#rest.length < 2 + extended) return undefined;
    const length = this.#lengthOf(short);
    if (typeof length !== "number") return length;
    const end = 2 + extended + (this.#isMasked ? 4 : 0);
    if (this.#rest.length < end) return undefined;
    const mask = Uint8Array.from(this.#rest.subarray(2 + extended, end));
    this.#rest = this.#rest.subarray(end);
    return { kind: "frame", isLast, opcode, length, mask };
  }

  #opcodeFault(first: number, opcode: number, isLast: boolean): string | undefined {
    if ((first & 0x70) !== 0) return "a reserved bit is set, and no extension was agreed on";
    if (opcode >= opcodes.close) {
      if (opcode > opcodes.pong) return `opcode ${opcode} is reserved`;
      return isLast ? undefined : "a control frame is fragmented";
    }
    if (opcode > opcodes.binary) return `opcode ${opcode} is reserved`;
    if (opcode === opcodes.continuation) {
      return this.#kind === undefined ? "there is no message to continue" : undefined;
    }
    return this.#kind === undefined ? undefined : "a message begins within another";
  }

  /** The payload length in its shortest form (RFC 6455 section 5.2), within the limit of a message. */
  #lengthOf(short: number): number | WebSocketFault {
    if (short < 126) return this.#bounded(short);
    if (short === 126) {
      const length = this.#rest.readUInt16BE(2);
      return length < 126
        ? protocolFault("a length is not in its shortest form")
        : this.#bounded(length);
    }
    const length = Number(this.#rest.readBigUInt64BE(2));
    return length < 0x1_0000
      ? protocolFault("a length is not in its shortest form")
      : this.#bounded(length);
  }

  #bounded(length: number): number | WebSocketFault {
    const { maxMessageBytes } = this.#limits;
    if (this.#messageBytes + length <= maxMessageBytes || length <= maxControlBytes) return length;
    return tooLong(maxMessageBytes);
  }

  #readPayload(frame: FrameHead): WebSocketItem | WebSocketFault | "fragment" | undefined {
    const part = this.#rest.subarray(0, frame.length - this.#read);
    const isControl = frame.opcode >= opcodes.close;
    if (isControl) maskInto(this.#control.subarray(this.#read), part, frame.mask, this.#read);
    else {
      const fault = this.#append(frame, part);
      if (fault !== undefined) return fault;
    }
    this.#read += part.length;
    this.#rest = this.#rest.subarray(part.length);
    if (this.#read < frame.length) return undefined;
    this.#frame = undefined;
    return isControl ? this.#endControl(frame.opcode) : this.#endFragment(frame);
  }

  #append(frame: FrameHead, part: Buffer): WebSocketFault | undefined {
    const needed = this.#messageBytes + part.length;
    if (needed > this.#limits.maxMessageBytes) return tooLong(this.#limits.maxMessageBytes);
    if (needed > this.#message.length) {
      // A length that was only announced costs nothing.
      const announced = this.#messageBytes + frame.length - this.#read;
      const room = Math.max(
        needed,
        Math.min(announced, this.#message.length * 2, this.#limits.maxMessageBytes),
        Math.min(announced, firstBufferBytes),
      );
      if (!this.#limits.budget.acquire(room - this.#message.length)) {
        const reason = "the proxy holds too many messages at once";
        return { kind: "fault", closeCode: 1013, reason };
      }
      this.#heldBytes += room - this.#message.length;
      const grown = Buffer.allocUnsafe(room);
      this.#message.copy(grown, 0, 0, this.#messageBytes);
      this.#message = grown;
    }
    maskInto(this.#message.subarray(this.#messageBytes), part, frame.mask, this.#read);
    this.#messageBytes = needed;
    return undefined;
  }

  #endFragment({ opcode, isLast }: FrameHead): WebSocketItem | WebSocketFault | "fragment" {
    this.#kind ??= opcode === opcodes.text ? "text" : "binary";
    this.#fragments += 1;
    if (!isLast) {
      return this.#fragments < maxFragments
        ? "fragment"
        : {
            kind: "fault",
            closeCode: 1009,
            reason: `a message of more than ${maxFragments} frames`,
          };
    }
    const message = { kind: this.#kind, data: this.#message.subarray(0, this.#messageBytes) };
    this.#kind = undefined;
    this.#fragments = 0;
    this.#message = noBytes;
    this.#messageBytes = 0;
    if (message.kind === "text" && !isUtf8(message.data)) {
      return { kind: "fault", closeCode: 1007, reason: "a text message is not UTF-8" };
    }
    return message;
  }

  #endControl(opcode: number): WebSocketItem | WebSocketFault {
    const data = this.#control;
    this.#control = noBytes;
    if (opcode === opcodes.ping) return { kind: "ping", data };
    if (opcode === opcodes.pong) return { kind: "pong", data };
    if (data.length === 0) return { kind: "close", data };
    if (data.length === 1 || !isCloseCode(data.readUInt16BE(0))) {
      return protocolFault("a Close frame has no valid status code");
    }
    if (!isUtf8(data.subarray(2))) {
      return { kind: "fault", closeCode: 1007, reason: "the reason of a Close frame is not UTF-8" };
    }
    return { kind: "close", data };
  }
}

/** Codes that may be sent (RFC 6455 section 7.4 and the registry of IANA). */
function isCloseCode(code: number): boolean {
  if (code >= 3_000) return code < 5_000;
  return code >= 1_000 && code <= 1_014 && (code < 1_004 || code > 1_006);
}

function protocolFault(reason: string): WebSocketFault {
  return { kind: "fault", closeCode: 1002, reason };
}

function tooLong(maxMessageBytes: number): WebSocketFault {
  return {
    kind: "fault",
    closeCode: 1009,
    reason: `a message is longer than ${maxMessageBytes} bytes`,
  };
}
