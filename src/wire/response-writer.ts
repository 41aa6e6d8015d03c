/** Writes one response on a connection: framed as its client can read it, in as few writes as possible. */
import type { Socket } from "node:net";
import { isFieldValue, isSameName, isToken } from "../http/headers.ts";
import { cutOff } from "../net/cut.ts";
import { http } from "../net/node-http.ts";

/** Pieces up to this size are copied into one buffer with what frames them; larger ones are written beside it. */
const copyBelow = 16_384;
/** HTAB, SP, VCHAR and obs-text. */
const writableReason = /^[\t\x20-\x7e\x80-\xff]+$/;
const nothing = Buffer.alloc(0);

/** What a response needs to know of its request. */
export interface AnsweredRequest {
  readonly method: string;
  readonly httpVersion: "1.0" | "1.1";
}

/** The response to one request. Header lists are flat. */
export class ResponseWriter {
  readonly #socket: Socket;
  readonly #request: AnsweredRequest;
  /** The head, until it is written. */
  #head = "";
  #isChunked = false;
  /** A response to HEAD, a 204 or a 304 (RFC 9112 section 6.3). */
  #isBodiless = false;
  /** Content that may still be written: as much as the head announced, if it did. */
  #left = Number.POSITIVE_INFINITY;
  headSent = false;
  isEnded = false;
  /** Content so far. */
  bytes = 0;
  /** No further request is served on the connection. */
  closes: boolean;

  constructor(socket: Socket, request: AnsweredRequest, closes: boolean) {
    this.#socket = socket;
    this.#request = request;
    this.closes = closes;
  }

  /** An interim response; not to HTTP/1.0, which knows none (RFC 9110 section 15.2). */
  writeInformational(status: number, headers: readonly string[]): void {
    if (this.headSent || this.#request.httpVersion === "1.0") return;
    this.#socket.write(`${statusLine(status)}${fieldLines(headers)}\r\n`, "latin1");
  }

  /** Makes the head; it leaves with the first piece of content, or with flushHead(). Throws TypeError for bad fields. */
  writeHead(status: number, headers: readonly string[], reason?: string): void {
    if (this.headSent) throw new TypeError("the head has been written");
    // Left by a head that could not be written.
    this.#left = Number.POSITIVE_INFINITY;
    this.#isChunked = false;
    this.#isBodiless = status === 204 || status === 304 || this.#request.method === "HEAD";
    const text = statusLine(status, reason) + this.#fields(status, headers);
    const isFramed = this.#isBodiless || this.#left !== Number.POSITIVE_INFINITY;
    this.#head = `${text}${isFramed ? "" : this.#framing()}${this.#persistence()}\r\n`;
    this.headSent = true;
  }

  #fields(status: number, headers: readonly string[]): string {
    let text = "";
    let hasDate = false;
    for (let at = 0; at + 1 < headers.length; at += 2) {
      const name = headers[at] ?? "";
      const value = headers[at + 1] ?? "";
      switch (name.length) {
        case 4:
          hasDate ||= isSameName(name, "date");
          break;
        case 10:
          if (isSameName(name, "connection")) {
            if (isSameName(value, "close")) this.closes = true;
            continue;
          }
          break;
        case 14:
          if (isSameName(name, "content-length")) {
            // RFC 9110 section 8.6: a 204 has none.
            if (status === 204 || this.#left !== Number.POSITIVE_INFINITY) continue;
            this.#left = Number(value);
          }
          break;
        case 17:
          if (isSameName(name, "transfer-encoding")) continue;
          break;
        default:
      }
      text += line(name, value);
    }
    return hasDate ? text : text + dateLine();
  }

  /** Sends the head now, because nobody knows when content comes. */
  flushHead(): void {
    if (this.#head === "") return;
    const head = this.#head;
    this.#head = "";
    this.#socket.write(head, "latin1");
  }

  /** False when the client reads more slowly than we write. */
  write(chunk: Buffer): boolean {
    if (this.isEnded || chunk.length === 0) return !this.#socket.writableNeedDrain;
    this.bytes += chunk.length;
    if (this.#isBodiless) return true;
    if (chunk.length > this.#left) {
      this.#cut();
      return true;
    }
    this.#left -= chunk.length;
    return this.#send(chunk, this.#isChunked ? "\r\n" : "");
  }

  /** The response is whole; one that is not as long as its head said is cut, so that its client can tell. */
  end(chunk: Buffer = nothing, trailers: readonly (readonly [string, string])[] = []): void {
    if (this.isEnded) return;
    this.bytes += chunk.length;
    const body = this.#isBodiless ? nothing : chunk;
    const left = this.#isBodiless ? 0 : this.#left - body.length;
    if (left !== 0 && left !== Number.POSITIVE_INFINITY) {
      this.#cut();
      return;
    }
    this.isEnded = true;
    if (!this.#isChunked) this.#send(body, "");
    else {
      const fields = trailers.map(([name, value]) => line(name, value)).join("");
      this.#send(body, `${body.length > 0 ? "\r\n" : ""}0\r\n${fields}\r\n`);
    }
  }

  /** What is behind the announced end would be read as the next response, and what is missing as part of it. */
  #cut(): void {
    this.isEnded = true;
    cutOff(this.#socket);
  }

  #send(chunk: Buffer, tail: string): boolean {
    const size = this.#isChunked && chunk.length > 0 ? `${chunk.length.toString(16)}\r\n` : "";
    const before = this.#head + size;
    this.#head = "";
    const socket = this.#socket;
    if (chunk.length === 0) {
      return before.length + tail.length === 0 || socket.write(before + tail, "latin1");
    }
    if (before.length + tail.length === 0) return socket.write(chunk);
    if (chunk.length <= copyBelow) {
      const one = Buffer.allocUnsafe(before.length + chunk.length + tail.length);
      one.write(before, 0, "latin1");
      chunk.copy(one, before.length);
      if (tail !== "") one.write(tail, before.length + chunk.length, "latin1");
      return socket.write(one);
    }
    socket.cork();
    if (before !== "") socket.write(before, "latin1");
    const hasRoom = socket.write(chunk);
    const hasMore = tail === "" ? hasRoom : socket.write(tail, "latin1");
    socket.uncork();
    return hasMore;
  }

  /** RFC 9112 section 7: HTTP/1.0 knows no chunks, so that its responses end with their connection. */
  #framing(): string {
    if (this.#request.httpVersion === "1.0") {
      this.closes = true;
      return "";
    }
    this.#isChunked = true;
    return "Transfer-Encoding: chunked\r\n";
  }

  #persistence(): string {
    if (this.closes) return "Connection: close\r\n";
    return this.#request.httpVersion === "1.0" ? "Connection: keep-alive\r\n" : "";
  }
}

function line(name: string, value: string): string {
  // What an HTTP/2 origin or a plugin gives is not of this grammar by birth.
  if (!isToken(name)) throw new TypeError("a field name is not a token");
  if (!isFieldValue(value)) throw new TypeError(`the value of ${name} cannot be written`);
  return `${name}: ${value}\r\n`;
}

function fieldLines(headers: readonly string[]): string {
  let text = "";
  for (let at = 0; at + 1 < headers.length; at += 2)
    text += line(headers[at] ?? "", headers[at + 1] ?? "");
  return text;
}

/** RFC 9112 section 4: a client ignores the phrase, so that one which cannot be written is left out. */
export function statusLine(status: number, reason?: string): string {
  const phrase =
    reason !== undefined && writableReason.test(reason)
      ? reason
      : (http.STATUS_CODES[status] ?? "Unknown");
  return `HTTP/1.1 ${status} ${phrase}\r\n`;
}

let dateSecond = 0;
let dateText = "";

/** RFC 9110 section 6.6.1: whoever forwards a response without a date adds one. */
function dateLine(): string {
  const second = Math.floor(Date.now() / 1_000);
  if (second !== dateSecond) {
    dateSecond = second;
    dateText = `Date: ${new Date(second * 1_000).toUTCString()}\r\n`;
  }
  return dateText;
}
