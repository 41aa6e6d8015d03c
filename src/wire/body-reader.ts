/** Bodies of HTTP/1.1 as RFC 9112 sections 6 and 7 frame them. */
import { inChunks, readTrailers, untilClose } from "./head.ts";
import { MalformedMessage } from "./malformed.ts";

/** Bounds of what a body has besides content. */
export interface BodyLimits {
  /** Of a trailer section, in bytes; also of all chunk extensions together. */
  readonly maxHeaderBytes: number;
  readonly maxHeaders: number;
}

/** Takes a piece of content; false when no more is wanted for now. */
export type TakePiece = (piece: Buffer) => boolean;

type Phase = "data" | "size" | "after-data" | "trailers" | "done";

const token = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+";
const quoted =
  '"(?:[\\t\\x20\\x21\\x23-\\x5b\\x5d-\\x7e\\x80-\\xff]|\\\\[\\t\\x20-\\x7e\\x80-\\xff])*"';
/**
 * chunk-size [ chunk-ext ] (RFC 9112 section 7.1.1), without the white space that the grammar has for old senders only:
 * recipients have split messages at different bytes over it. 13 digits are more than any number here can count.
 */
const sizeLine = new RegExp(`^(0*[0-9a-fA-F]{1,13})((?:;${token}(?:=(?:${token}|${quoted}))?)*)$`);
/** Leading zeros included. */
const maxSizeLine = 4_096;
const none: readonly string[] = [];

/** Finds the content in the bytes of one body, and its end. */
export class BodyReader {
  readonly #limits: BodyLimits;
  readonly #isChunked: boolean;
  /** Bytes of content until the end of the body, or of the present chunk. */
  #left: number;
  #phase: Phase;
  /** The unfinished line of a size, or the trailer section so far. */
  #line = "";
  #overhead = 0;
  /** Flat; complete once {@link isDone}. */
  trailers: readonly string[] = none;

  /** `length` is a number of bytes, {@link inChunks} or {@link untilClose}. */
  constructor(length: number, limits: BodyLimits) {
    this.#limits = limits;
    this.#isChunked = length === inChunks;
    this.#left = length === untilClose ? Number.POSITIVE_INFINITY : length;
    this.#phase = this.#isChunked ? "size" : length === 0 ? "done" : "data";
  }

  get isDone(): boolean {
    return this.#phase === "done";
  }

  /** The body ends with its connection. */
  get endsWithConnection(): boolean {
    return this.#left === Number.POSITIVE_INFINITY;
  }

  /**
   * Reads until the end of the body, of the bytes, or until `take` is false; returns how many bytes that were.
   *
   * Throws MalformedMessage.
   */
  read(bytes: Buffer, take: TakePiece): number {
    let at = 0;
    while (at < bytes.length && this.#phase !== "done") {
      if (this.#phase === "data") {
        const size = Math.min(this.#left, bytes.length - at);
        const piece = size === bytes.length ? bytes : bytes.subarray(at, at + size);
        at += size;
        this.#left -= size;
        if (this.#left === 0) this.#phase = this.#isChunked ? "after-data" : "done";
        if (!take(piece)) return at;
        continue;
      }
      at = this.#readLine(bytes, at);
    }
    return at;
  }

  /** Returns where the line ends, or the bytes do. */
  #readLine(bytes: Buffer, at: number): number {
    const end = bytes.indexOf(10, at);
    const next = end < 0 ? bytes.length : end + 1;
    const limit = this.#phase === "trailers" ? this.#limits.maxHeaderBytes : maxSizeLine;
    if (this.#line.length + next - at > limit) {
      throw this.#phase === "trailers"
        ? new MalformedMessage(
            "the trailer section is larger than limits.max_header_bytes",
            "too-large",
          )
        : new MalformedMessage("the line of a chunk size is too long");
    }
    this.#line += bytes.toString("latin1", at, next);
    if (end < 0) return next;
    if (!this.#line.endsWith("\r\n"))
      throw new MalformedMessage("a chunk line does not end with CRLF");
    this.#takeLine();
    return next;
  }

  #takeLine(): void {
    const text = this.#line;
    switch (this.#phase) {
      case "after-data":
        if (text !== "\r\n") throw new MalformedMessage("a chunk is longer than its size");
        this.#line = "";
        this.#phase = "size";
        return;
      case "size":
        this.#takeSize(text.slice(0, -2));
        return;
      case "trailers": {
        if (text !== "\r\n" && !text.endsWith("\r\n\r\n")) return;
        this.#line = "";
        this.trailers = readTrailers(text.slice(0, -2), this.#limits.maxHeaders);
        this.#phase = "done";
        return;
      }
      case "data":
      case "done":
    }
  }

  #takeSize(line: string): void {
    const match = sizeLine.exec(line);
    if (match === null) throw new MalformedMessage("a chunk size is not a hexadecimal number");
    this.#overhead += match[2]?.length ?? 0;
    if (this.#overhead > this.#limits.maxHeaderBytes)
      throw new MalformedMessage("chunk extensions are longer than limits.max_header_bytes");
    this.#line = "";
    this.#left = Number.parseInt(match[1] ?? "", 16);
    this.#phase = this.#left === 0 ? "trailers" : "data";
  }
}
