/**
 * HTTP/2 to one origin, for requests that HTTP/1.1 cannot carry whole.
 *
 * Not undici's: it drops what is still buffered of a body when the trailers arrive, so that a slow reader of a gRPC
 * answer loses its end without an error (docs/adr/0011).
 */
import http2, { type ClientHttp2Session, type ClientHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { Readable } from "node:stream";
import { TLSSocket } from "node:tls";
import type { Dispatcher } from "./undici.ts";
import { ProxyError } from "../errors.ts";
import type { OutgoingRequest } from "./upstream.ts";

/** Limits of the sessions with one origin. Milliseconds; 0 means none. */
export interface Http2OriginOptions {
  readonly authority: string;
  readonly responseTimeoutMs: number;
  readonly streamIdleTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** Opens a verified connection on which h2 was negotiated. */
  open(): Promise<Socket>;
}

/** Streams per session before another connection is opened. */
const maxStreams = 100;

interface Session {
  readonly session: ClientHttp2Session;
  streams: number;
}

/** The sessions with one origin; each request is a stream of its own. */
export class Http2Origin {
  readonly #options: Http2OriginOptions;
  readonly #sessions = new Set<Session>();
  #opening: Promise<Session> | undefined;

  constructor(options: Http2OriginOptions) {
    this.#options = options;
  }

  get connections(): number {
    return this.#sessions.size;
  }

  /** Speaks undici's handler interface, so that an exchange does not know the difference. */
  dispatch(request: OutgoingRequest, handler: Dispatcher.DispatchHandler): void {
    void this.#send(request, handler);
  }

  /** Lets running streams finish. */
  retire(): void {
    for (const { session } of this.#sessions) session.close();
  }

  destroy(): void {
    for (const { session } of this.#sessions) session.destroy();
  }

  async #send(request: OutgoingRequest, handler: Dispatcher.DispatchHandler): Promise<void> {
    const control = new StreamControl();
    handler.onRequestStart?.(control, undefined);
    let lent: Session;
    try {
      lent = await this.#lend();
    } catch (error) {
      handler.onResponseError?.(control, asError(error));
      return;
    }
    if (control.aborted) {
      handler.onResponseError?.(control, asError(control.reason));
      return;
    }
    lent.streams += 1;
    const stream = lent.session.request(fieldsOf(request, this.#options.authority), {
      endStream: request.body === null,
    });
    stream.once("close", () => {
      lent.streams -= 1;
    });
    control.attach(stream);
    new StreamRelay(stream, control, handler, this.#options).start(request.body);
  }

  async #lend(): Promise<Session> {
    for (const known of this.#sessions) {
      const { session } = known;
      if (known.streams < maxStreams && !session.closed && !session.destroyed) return known;
    }
    // One handshake at a time: the streams that wait for it share its connection.
    this.#opening ??= this.#openSession().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #openSession(): Promise<Session> {
    const { authority, idleTimeoutMs } = this.#options;
    const socket = await this.#options.open();
    if (!(socket instanceof TLSSocket) || socket.alpnProtocol !== "h2") {
      socket.destroy();
      throw new ProxyError(
        "upstream.bad-response",
        `${authority} does not speak HTTP/2, which this request needs`,
      );
    }
    const session = http2.connect(`https://${authority}`, {
      createConnection: () => socket,
      settings: { enablePush: false, initialWindowSize: 1_048_576 },
    });
    const opened: Session = { session, streams: 0 };
    this.#sessions.add(opened);
    session.on("error", () => session.destroy());
    session.once("close", () => this.#sessions.delete(opened));
    session.once("goaway", () => session.close());
    session.setTimeout(idleTimeoutMs, () => {
      if (opened.streams === 0) session.close();
    });
    return opened;
  }
}

/** undici's controller over one stream. */
class StreamControl implements Dispatcher.DispatchController {
  #stream: ClientHttp2Stream | undefined;
  #aborted = false;
  #reason: Error | null = null;
  #paused = false;
  readonly mayHaveTrailers = true;
  rawHeaders = null;
  rawTrailers = null;

  get aborted(): boolean {
    return this.#aborted;
  }

  get paused(): boolean {
    return this.#paused;
  }

  get reason(): Error | null {
    return this.#reason;
  }

  attach(stream: ClientHttp2Stream): void {
    this.#stream = stream;
  }

  pause(): void {
    this.#paused = true;
    this.#stream?.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#stream?.resume();
  }

  abort(reason: Error): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#reason = reason;
    this.#stream?.close(http2.constants.NGHTTP2_CANCEL);
  }
}

/** Tells a handler what happens on one stream, in order, and exactly one end. */
class StreamRelay {
  readonly #stream: ClientHttp2Stream;
  readonly #control: StreamControl;
  readonly #handler: Dispatcher.DispatchHandler;
  readonly #options: Http2OriginOptions;
  #trailers: Record<string, string | string[]> = {};
  #answered = false;
  #over = false;

  constructor(
    stream: ClientHttp2Stream,
    control: StreamControl,
    handler: Dispatcher.DispatchHandler,
    options: Http2OriginOptions,
  ) {
    this.#stream = stream;
    this.#control = control;
    this.#handler = handler;
    this.#options = options;
  }

  start(body: OutgoingRequest["body"]): void {
    const stream = this.#stream;
    const { responseTimeoutMs, authority } = this.#options;
    stream.setTimeout(responseTimeoutMs, () => {
      // A reader that we hold back is not an origin that stopped.
      if (this.#control.paused) return;
      const what = this.#answered ? "stopped sending its answer" : "did not answer in time";
      this.#fail(new ProxyError("upstream.timeout", `${authority} ${what}`));
    });
    stream.on("headers", (fields) => this.#head(fields));
    stream.on("response", (fields) => {
      this.#answered = true;
      stream.setTimeout(this.#options.streamIdleTimeoutMs);
      this.#head(fields);
      this.#read();
    });
    stream.on("trailers", (fields) => {
      this.#trailers = regularFields(fields);
    });
    stream.on("error", (error) => this.#fail(error));
    stream.on("close", () => {
      const message = `${authority} closed the stream before its answer was whole`;
      this.#fail(new ProxyError("upstream.reset", message));
    });
    if (body !== null) this.#send(body);
  }

  /**
   * Begins once the head is known: Node emits `response` a tick after it parsed it, and `data` of the same segment at
   * once where somebody listens. Until then the stream's window bounds what waits.
   */
  #read(): void {
    this.#stream.on("data", (chunk: Buffer) =>
      this.#guarded(() => this.#handler.onResponseData?.(this.#control, chunk)),
    );
    this.#stream.on("end", () => this.#end());
    // Whoever was told the head may have asked to wait.
    if (this.#control.paused) this.#stream.pause();
  }

  #send(body: Buffer | AsyncIterable<Buffer>): void {
    if (Buffer.isBuffer(body)) {
      this.#stream.end(body);
      return;
    }
    const source = Readable.from(body, { objectMode: false });
    source.on("error", () => this.#stream.close(http2.constants.NGHTTP2_CANCEL));
    this.#stream.once("close", () => source.destroy());
    source.pipe(this.#stream);
  }

  #head(fields: http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader): void {
    const status = fields[":status"] ?? 0;
    this.#guarded(() =>
      this.#handler.onResponseStart?.(this.#control, status, regularFields(fields)),
    );
  }

  #end(): void {
    if (this.#over) return;
    // A body that was cut ends as well; the code of the reset tells the difference.
    const { rstCode } = this.#stream;
    if (rstCode !== undefined && rstCode !== http2.constants.NGHTTP2_NO_ERROR) return;
    this.#over = true;
    this.#handler.onResponseEnd?.(this.#control, this.#trailers);
  }

  #guarded(tell: () => void): void {
    if (this.#over || this.#control.aborted) return;
    try {
      tell();
    } catch (error) {
      this.#fail(asError(error));
    }
  }

  #fail(error: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.#stream.close(http2.constants.NGHTTP2_CANCEL);
    this.#handler.onResponseError?.(this.#control, this.#control.reason ?? error);
  }
}

function fieldsOf(request: OutgoingRequest, authority: string): http2.OutgoingHttpHeaders {
  const fields: Record<string, string | string[]> = {};
  let host = authority;
  for (let i = 0; i + 1 < request.headers.length; i += 2) {
    const name = (request.headers[i] ?? "").toLowerCase();
    const value = request.headers[i + 1] ?? "";
    if (name === "host") host = value;
    else {
      const known = fields[name];
      fields[name] = known === undefined ? value : [known, value].flat();
    }
  }
  return {
    ...fields,
    ":method": request.method,
    ":scheme": "https",
    ":authority": host,
    ":path": request.path,
  };
}

function regularFields(fields: http2.IncomingHttpHeaders): Record<string, string | string[]> {
  const regular: Record<string, string | string[]> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && !name.startsWith(":")) regular[name] = value;
  }
  return regular;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new ProxyError("upstream.reset", String(error));
}
