/** The client's half of one HTTP exchange, whatever protocol it speaks. */
import type { BodySource } from "../../http/body-source.ts";
import type { Backlogs } from "../../net/backlogs.ts";
import type { Denial, Reply, ReplyFields } from "../../pipeline/decision.ts";
import type { Stallable } from "../../net/stall-watch.ts";

/** How the code of an exchange writes to a client. Header lists are flat: name, value, name, value. */
export interface Downstream extends Stallable {
  readonly method: string;
  readonly rawHeaders: readonly string[];
  /** As in the Via field: `1.0`, `1.1` or `2.0`. */
  readonly httpVersion: string;
  readonly hasBody: boolean;
  /** The request body, unread. */
  readonly body: BodySource;
  readonly expectsContinue: boolean;
  /** Asks for trailers, and has them only where the body is sent in chunks, without a length (RFC 9112 section 7.1). */
  readonly wantsChunkedTrailers: boolean;
  /** True once the final response head was written. */
  readonly headSent: boolean;
  readonly bytesSent: number;
  /** The kernel has all that was written, as far as that is known. */
  readonly isDrained: boolean;
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
  /** What {@link reply} adds to the fields that a response of our own has. */
  replyFields: ReplyFields | undefined;
  /** Sends a whole response of our own and makes sure that an unread body cannot hold the connection. */
  reply(reply: Reply): void;
  /** Cuts the connection so that the client sees that the response is not whole. */
  destroy(): void;
  /** The same after everything that was written has left: what was permitted arrives, and the cut is still seen. */
  cut(): void;
  onDrain(listener: () => void): void;
  /** Called before the end of the response is written. */
  onEnding(listener: () => void): void;
  /** Called once when the response is sent or the client is gone. */
  onClose(listener: (complete: boolean) => void): void;
}

/** How long a client may stall before its connection is closed, and the counter of bytes buffered for it. */
export interface DownstreamLimits {
  readonly bodyTimeoutMs: number;
  readonly readerTimeoutMs: number;
  readonly backlogs: Backlogs;
}

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
