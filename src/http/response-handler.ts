/** Callbacks for the response to a request, in order, whatever protocol carried it. */
import type { Duplex } from "node:stream";

/** Holds the response to one request back, or gives it up. */
export interface RequestControl {
  /** Trailers may follow a body of a known length, as in HTTP/2. */
  readonly mayHaveTrailers?: boolean;
  pause(): void;
  resume(): void;
  /** Ends the request at once; the handler gets the reason as its error. */
  abort(reason: Error): void;
}

/**
 * Takes one response: interim heads, a head, data, and exactly one end or error. What it throws ends the request, and
 * is its error.
 *
 * Lists of fields are flat (name, value, name, value), in the order and spelling in which they came.
 */
export interface ResponseHandler {
  /** The request is about to be sent; with a second control where the first one only stood for a wait. */
  onRequestStart(control: RequestControl): void;
  /** The first byte of a response has come: the request was read. */
  onResponseStarted(): void;
  onInformational(control: RequestControl, status: number, headers: string[]): void;
  onResponseStart(
    control: RequestControl,
    status: number,
    headers: string[],
    reason: string | undefined,
  ): void;
  /** The connection is the handler's from here on; `head` is what came behind the response. */
  onUpgrade(status: number, headers: string[], socket: Duplex, head: Buffer): void;
  onResponseData(control: RequestControl, chunk: Buffer): void;
  /** True where nothing refers any longer to the chunk that came last: its memory may be given back. */
  readonly isDrained?: boolean;
  onResponseEnd(control: RequestControl, trailers: readonly string[]): void;
  onResponseError(control: RequestControl, error: Error): void;
}
