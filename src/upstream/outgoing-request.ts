/** One request on its way to an origin. */

/** One request for an origin; headers are a flat list of names and values. */
export interface OutgoingRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: string[];
  readonly body: Buffer | AsyncIterable<Buffer> | null;
  /** Protocol of an `Upgrade`, e.g. `websocket`. */
  readonly upgrade?: string;
  /** True for messages that HTTP/1.1 cannot carry whole, such as gRPC. */
  readonly needsHttp2: boolean;
}
