/** The client's half of one HTTP exchange, whatever protocol it speaks. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import { acceptsTrailers } from "../../http/headers.ts";
import { Backlog, type Backlogs, type SlowPeer } from "../../net/backlogs.ts";
import { cutOff } from "../../net/cut.ts";
import type { Denial, Reply } from "../../pipeline/decision.ts";
import { hasBody } from "./request-head.ts";
import { lingerMs } from "./final-response.ts";
import { renderDenial } from "../flow/reply.ts";
import type { LastSeen, Stallable } from "./stall-watch.ts";

/** How the code of an exchange writes to a client. Header lists are flat: name, value, name, value. */
export interface Downstream extends Stallable {
  readonly method: string;
  readonly rawHeaders: readonly string[];
  /** As in the Via field: `1.0`, `1.1` or `2.0`. */
  readonly httpVersion: string;
  readonly hasBody: boolean;
  /** The request body, unread. */
  readonly body: Readable;
  readonly expectsContinue: boolean;
  /** Asks for trailers, and has them only where the body is sent in chunks, without a length (RFC 9112 section 7.1). */
  readonly wantsChunkedTrailers: boolean;
  /** True once the final response head was written. */
  readonly headSent: boolean;
  readonly bytesSent: number;
  /** Why the client was answered or cut on account of its slowness, once it was. */
  readonly stalled: Denial | undefined;
  /** Tells the client to send its body (RFC 9110 section 10.1.1). */
  sendContinue(): void;
  sendInformational(status: number, headers: readonly string[]): void;
  writeHead(status: number, headers: string[], reason?: string): void;
  /** Sends the head now, because nobody knows when the first byte of the body comes. */
  flushHead(): void;
  /** False when the client reads slower than we write: wait for `onDrain`. */
  write(chunk: Buffer): boolean;
  end(chunk?: Buffer, trailers?: readonly (readonly [string, string])[]): void;
  /** Sends a whole response of our own and makes sure that an unread body cannot hold the connection. */
  reply(reply: Reply): void;
  /** Cuts the connection so that the client sees that the response is not whole. */
  destroy(): void;
  /** The same after everything that was written has left: what was permitted arrives, and the cut is still seen. */
  cut(): void;
  onDrain(listener: () => void): void;
  /** Called once when the response is sent or the client is gone. */
  onClose(listener: (complete: boolean) => void): void;
}

/** How long a client may stall before its connection is closed, and the counter of bytes buffered for it. */
export interface DownstreamLimits {
  readonly bodyTimeoutMs: number;
  readonly readerTimeoutMs: number;
  readonly backlogs: Backlogs;
}

/** At most this much of an unwanted body is read and dropped, so that the client can read the response. */
const lingerBytes = 16_777_216;
/** HTAB, SP, VCHAR and obs-text: what Node writes as a reason phrase. */
const writableReason = /^[\t\x20-\x7e\x80-\xff]+$/;

/** The response to a client that stopped sending in the middle of a body. */
export const bodyStalled: Denial = {
  code: "request.timeout",
  message: "the request body did not arrive in time (limits.body_timeout)",
};

/** Why the connection of a client that does not read its response is cut. */
export const readerStalled: Denial = {
  code: "request.timeout",
  message: "the client did not read its answer in time (limits.stream_idle_timeout)",
};

/** Why the connection of a client is cut when the memory it holds is needed for others. */
export const readerCrowded: Denial = {
  code: "proxy.overloaded",
  message: "the client did not read its answer while memory was short (limits.max_buffered)",
};

/** A client on HTTP/1.0 or 1.1. */
export class Http1Downstream implements Downstream, SlowPeer {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #limits: DownstreamLimits;
  readonly #socket: Socket;
  readonly lastSeen: LastSeen = { progress: -1, sinceMs: 0 };
  readonly hasBody: boolean;
  stalled: Denial | undefined;
  #sentInBody = 0;
  #onDrain: (() => void) | undefined;
  #hearsDrain = false;
  /** Set once bytes had to wait for the client. */
  #backlog: Backlog | undefined;

  constructor(request: IncomingMessage, response: ServerResponse, limits: DownstreamLimits) {
    this.#request = request;
    this.#response = response;
    this.#limits = limits;
    this.#socket = request.socket;
    this.hasBody = hasBody(request);
    // An aborted upload is an `error` on the request; the reader of the body gets it as well.
    if (this.hasBody) request.on("error", ignore);
    response.on("error", ignore);
  }

  get method(): string {
    return this.#request.method ?? "";
  }

  get rawHeaders(): readonly string[] {
    return this.#request.rawHeaders;
  }

  get httpVersion(): string {
    return this.#request.httpVersion;
  }

  get body(): Readable {
    return this.#request;
  }

  get expectsContinue(): boolean {
    // RFC 9110 section 10.1.1: an HTTP/1.0 client would take the interim response for the final one.
    return this.#request.headers.expect !== undefined && this.httpVersion !== "1.0";
  }

  get wantsChunkedTrailers(): boolean {
    const { te } = this.#request.headers;
    const hasBody = this.httpVersion === "1.1" && this.method !== "HEAD";
    return hasBody && te !== undefined && acceptsTrailers(String(te));
  }

  get headSent(): boolean {
    return this.#response.headersSent;
  }

  get bytesSent(): number {
    return this.#sentInBody;
  }

  sendContinue(): void {
    if (!this.#response.headersSent) this.#response.writeContinue();
  }

  sendInformational(status: number, headers: readonly string[]): void {
    if (this.#response.headersSent || this.httpVersion === "1.0") return;
    if (status === 102) this.#response.writeProcessing();
    if (status !== 103) return;
    const hints: Record<string, string | string[]> = {};
    for (let i = 0; i + 1 < headers.length; i += 2) {
      const name = (headers[i] ?? "").toLowerCase();
      const value = headers[i + 1] ?? "";
      const known = hints[name];
      hints[name] = known === undefined ? value : [known, value].flat();
    }
    if (hints["link"] !== undefined) this.#response.writeEarlyHints(hints);
  }

  writeHead(status: number, headers: string[], reason?: string): void {
    // RFC 9112 section 4: a client ignores the phrase, so that one which cannot be written is left out.
    if (reason === undefined || !writableReason.test(reason)) {
      this.#response.writeHead(status, headers);
    } else this.#response.writeHead(status, reason, headers);
  }

  /** Sends the head now, because nobody knows when the first byte of the body comes. */
  flushHead(): void {
    // flushHeaders() and an empty buffer write the head as UTF-8, which would change the bytes of its fields.
    this.#response.write("", "latin1");
  }

  write(chunk: Buffer): boolean {
    this.#sentInBody += chunk.length;
    // Before the write: what is written in pieces leaves the process a moment later even where the client reads.
    this.#countBacklog();
    const hasRoom = this.#response.write(chunk);
    if (hasRoom) return true;
    this.#countBacklog();
    if (!this.#hearsDrain) {
      this.#hearsDrain = true;
      this.#response.on("drain", () => {
        this.#backlog?.note();
        this.#onDrain?.();
      });
    }
    return false;
  }

  end(chunk?: Buffer, trailers?: readonly (readonly [string, string])[]): void {
    if (this.#isUnread) this.#linger();
    // Node leaves them out of a body that is not sent in chunks.
    if (trailers !== undefined) this.#response.addTrailers(trailers as [string, string][]);
    if (chunk === undefined) {
      this.#response.end();
    } else {
      this.#sentInBody += chunk.length;
      this.#response.end(chunk);
    }
    this.#countBacklog();
  }

  reply(reply: Reply): void {
    if (this.#response.headersSent) {
      this.destroy();
      return;
    }
    const headers = Object.entries(reply.headers).flat();
    headers.push("Content-Length", String(reply.body.length));
    if (this.#isUnread && !("Connection" in reply.headers)) headers.push("Connection", "close");
    this.#response.writeHead(reply.status, headers);
    this.end(this.method === "HEAD" ? undefined : reply.body);
  }

  cut(): void {
    this.#socket.destroySoon();
  }

  destroy(): void {
    cutOff(this.#socket);
    this.#response.destroy();
    this.#request.destroy();
  }

  onDrain(listener: () => void): void {
    this.#onDrain = listener;
  }

  onClose(listener: (complete: boolean) => void): void {
    this.#response.on("close", () => listener(this.#response.writableFinished));
  }

  stallLimitMs(): number {
    const response = this.#response;
    if (response.headersSent && (response.writableNeedDrain || response.writableEnded)) {
      return this.#limits.readerTimeoutMs;
    }
    // A full read buffer means that the proxy is slower than the client; an empty one the opposite.
    const waitsForBody =
      this.hasBody && !this.#request.complete && this.#request.readableLength === 0;
    return waitsForBody && !response.headersSent ? this.#limits.bodyTimeoutMs : 0;
  }

  progress(): number {
    return this.#socket.bytesRead + this.takenBytes();
  }

  heldBytes(): number {
    return this.#socket.destroyed ? 0 : this.#response.writableLength;
  }

  takenBytes(): number {
    // libuv counts a write when it is handed over, so what the kernel has not taken yet is subtracted.
    return this.#socket.bytesWritten - this.#socket.writableLength;
  }

  letGo(): void {
    this.stalled ??= readerCrowded;
    this.destroy();
  }

  onStall(): void {
    if (this.#response.headersSent) {
      this.stalled ??= readerStalled;
      this.destroy();
      return;
    }
    this.stalled ??= bodyStalled;
    this.reply(renderDenial(bodyStalled));
    this.#request.destroy(new Error("request body timed out"));
  }

  get #isUnread(): boolean {
    return this.hasBody && !this.#request.complete;
  }

  #countBacklog(): void {
    if (this.#backlog === undefined) {
      if (this.heldBytes() === 0) return;
      this.#backlog = new Backlog(this.#limits.backlogs, this);
      this.#response.once("close", () => this.#backlog?.close());
    }
    this.#backlog.note();
  }

  /** Closing with unread bytes makes the kernel reset the connection and the client lose the response. */
  #linger(): void {
    const request = this.#request;
    const socket = this.#socket;
    // The reader of the body no longer needs it, and would keep it paused.
    request.removeAllListeners("data");
    let swallowed = 0;
    request.on("data", (chunk: Buffer) => {
      swallowed += chunk.length;
      if (swallowed > lingerBytes) socket.destroy();
    });
    request.resume();
    const timer = setTimeout(() => socket.destroy(), lingerMs);
    timer.unref();
    // Node calls this when the last response of a connection has been sent; it would not wait for the body.
    const destroySoon = socket.destroySoon.bind(socket);
    let isLast = false;
    socket.destroySoon = () => {
      isLast = true;
      socket.end();
    };
    request.once("close", () => {
      clearTimeout(timer);
      socket.destroySoon = destroySoon;
      if (isLast) socket.destroySoon();
    });
  }
}

function ignore(): void {
  // `close` follows and is what ends the exchange.
}
