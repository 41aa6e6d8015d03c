/** One request and its response on a stream of an HTTP/2 session, as calls of a handler. */
import http2, { type ClientHttp2Stream } from "node:http2";
import { asError, ProxyError } from "../errors.ts";
import type { BodySink } from "../http/body-source.ts";
import { HeaderList } from "../http/headers.ts";
import type { RequestControl, ResponseHandler } from "../http/response-handler.ts";
import type { LastSeen, Stallable, StallWatch } from "../net/stall-watch.ts";
import type { Http2SessionOptions } from "./http2-session.ts";
import type { OutgoingRequest, StreamedBody } from "./upstream.ts";

/** The control of one request, whichever stream it is on. */
export class StreamControl implements RequestControl {
  #stream: ClientHttp2Stream | undefined;
  /** Cancels the request's stream, or its wait for one. */
  onAbort: (reason: Error) => void = () => undefined;
  #aborted = false;
  #reason: Error | null = null;
  #paused = false;
  readonly mayHaveTrailers = true;

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
    this.onAbort = () => stream.close(http2.constants.NGHTTP2_CANCEL);
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
    this.onAbort(reason);
  }
}

type Fields = http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader;

/** Options of a stream. Milliseconds; 0 means none. */
export interface StreamOptions {
  readonly authority: string;
  readonly responseTimeoutMs: number;
  readonly streamIdleTimeoutMs: number;
  /** The timer of all streams. */
  readonly watch: Pick<StallWatch, "add" | "delete">;
  /** Takes the request over when the stream broke before its response, or says that it cannot. */
  readonly resend: () => boolean;
}

/** Reports the events of one stream to a handler in order, and exactly one end. */
export class StreamRelay implements Stallable {
  /** No number, which a body of one byte could be at. */
  readonly lastSeen: LastSeen = { progress: Number.NaN, sinceMs: 0 };
  readonly #stream: ClientHttp2Stream;
  readonly #control: StreamControl;
  readonly #handler: ResponseHandler;
  readonly #options: StreamOptions;
  #trailers: readonly string[] = [];
  #answered = false;
  /** The origin has sent something: it did process the request. */
  #heard = false;
  #over = false;
  #upload: StreamUpload | undefined;
  /** Counts what has come. */
  #moves = 0;

  constructor(
    stream: ClientHttp2Stream,
    control: StreamControl,
    handler: ResponseHandler,
    options: StreamOptions,
  ) {
    this.#stream = stream;
    this.#control = control;
    this.#handler = handler;
    this.#options = options;
  }

  start(body: OutgoingRequest["body"]): void {
    const stream = this.#stream;
    const { watch, authority } = this.#options;
    const slot = watch.add(this);
    stream.on("headers", (fields) => this.#interim(fields));
    stream.on("response", (fields) => {
      this.#answered = true;
      this.#head(fields);
      this.#read();
    });
    stream.on("trailers", (fields) => {
      this.#moves += 1;
      this.#trailers = regularFields(fields);
    });
    stream.on("error", (error) => this.#broke(error));
    stream.on("close", () => {
      watch.delete(slot);
      const message = `${authority} closed the stream before its answer was whole`;
      this.#broke(new ProxyError("upstream.reset", message));
    });
    if (body !== null) this.#send(body);
  }

  stallLimitMs(): number {
    const { responseTimeoutMs, streamIdleTimeoutMs } = this.#options;
    // While nobody reads, and while the client sends nothing, the origin has not stalled.
    if (this.#control.paused) return 0;
    if (this.#answered) return streamIdleTimeoutMs;
    const waitsForClient = this.#upload?.isRunning === true && !this.#stream.writableNeedDrain;
    return waitsForClient ? 0 : responseTimeoutMs;
  }

  progress(): number {
    return this.#moves + (this.#upload?.bytes ?? 0) - this.#stream.writableLength;
  }

  onStall(): void {
    const what = this.#answered
      ? "stopped sending its answer (limits.stream_idle_timeout)"
      : "did not answer in time (limits.response_timeout)";
    this.#fail(new ProxyError("upstream.timeout", `${this.#options.authority} ${what}`));
  }

  /**
   * Begins once the head is known: Node emits `response` a tick after it parsed it, and `data` of the same segment at
   * once where somebody listens. Until then the stream's window bounds what waits.
   */
  #read(): void {
    this.#stream.on("data", (chunk: Buffer) => {
      this.#moves += 1;
      this.#guarded(() => this.#handler.onResponseData(this.#control, chunk));
    });
    this.#stream.on("end", () => this.#end());
    // The handler may have paused the stream when it got the head.
    if (this.#control.paused) this.#stream.pause();
  }

  #send(body: Buffer | StreamedBody): void {
    if (!isStreamed(body)) {
      this.#stream.end(body);
      return;
    }
    body.keep();
    this.#upload = new StreamUpload(this.#stream, body, (error) => this.#fail(error));
    body.open(this.#upload);
  }

  #interim(fields: Fields): void {
    this.#heard = true;
    this.#moves += 1;
    const headers = regularFields(fields);
    const status = fields[":status"] ?? 0;
    this.#guarded(() => this.#handler.onInformational(this.#control, status, headers));
  }

  #head(fields: Fields): void {
    this.#heard = true;
    this.#moves += 1;
    const headers = regularFields(fields);
    const status = fields[":status"] ?? 0;
    this.#guarded(() => this.#handler.onResponseStart(this.#control, status, headers, undefined));
  }

  #end(): void {
    if (this.#over) return;
    // A body that was cut ends as well; the code of the reset tells the difference.
    const { rstCode } = this.#stream;
    if (rstCode !== undefined && rstCode !== http2.constants.NGHTTP2_NO_ERROR) return;
    this.#over = true;
    try {
      this.#handler.onResponseEnd(this.#control, this.#trailers);
    } catch (error) {
      this.#handler.onResponseError(this.#control, asError(error));
    }
  }

  #guarded(tell: () => void): void {
    if (this.#over || this.#control.aborted) return;
    try {
      tell();
    } catch (error) {
      this.#fail(asError(error));
    }
  }

  /** The stream is gone, and with it the request unless it can be sent again. */
  #broke(error: Error): void {
    this.#upload?.stop();
    if (this.#over) return;
    if (this.#heard || this.#control.aborted || !this.#options.resend()) this.#fail(error);
    else this.#over = true;
  }

  #fail(error: Error): void {
    // Also behind a whole response: what is left of the request would keep its stream open.
    this.#stream.close(http2.constants.NGHTTP2_CANCEL);
    if (this.#over) return;
    this.#over = true;
    this.#handler.onResponseError(this.#control, this.#control.reason ?? error);
  }
}

/** Sends a body on a stream as fast as that takes it. */
class StreamUpload implements BodySink {
  readonly #stream: ClientHttp2Stream;
  readonly #body: StreamedBody;
  readonly #onFailed: (error: Error) => void;
  /** False once all of it was given, or is wanted no more. */
  isRunning = true;
  /** Given so far. */
  bytes = 0;

  constructor(stream: ClientHttp2Stream, body: StreamedBody, onFailed: (error: Error) => void) {
    this.#stream = stream;
    this.#body = body;
    this.#onFailed = onFailed;
    stream.on("drain", () => {
      if (this.isRunning) body.resume();
    });
  }

  data(chunk: Buffer): boolean {
    this.bytes += chunk.length;
    return this.#stream.write(chunk);
  }

  end(): void {
    this.isRunning = false;
    this.#stream.end();
  }

  /** The client's body broke off: that is no fault of the origin. */
  fail(error: Error): void {
    this.isRunning = false;
    this.#onFailed(error);
  }

  /** The stream is gone; another one may be given the body. */
  stop(): void {
    this.isRunning = false;
    this.#body.detach(this);
  }
}

/** Whether the body comes as the client sends it. */
export function isStreamed(body: OutgoingRequest["body"]): body is StreamedBody {
  return body !== null && !Buffer.isBuffer(body);
}

/** Whether the body can still be sent from its beginning. */
export function isWhole(body: OutgoingRequest["body"]): boolean {
  return !isStreamed(body) || body.isWhole;
}

/** The fields of a request, pseudo-fields included. */
export function fieldsOf(
  request: OutgoingRequest,
  { authority, scheme }: Required<Pick<Http2SessionOptions, "authority" | "scheme">>,
): http2.OutgoingHttpHeaders {
  const fields = new HeaderList([...request.headers]);
  const host = fields.get("host");
  fields.delete("host");
  return {
    ...fields.toRecord(),
    ":method": request.method,
    ":scheme": scheme,
    ":authority": host ?? authority,
    ":path": request.path,
  };
}

/** Flat, without pseudo-fields. */
function regularFields(fields: Fields): string[] {
  const regular: string[] = [];
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined || name.startsWith(":")) continue;
    if (Array.isArray(value)) for (const one of value) regular.push(name, one);
    else regular.push(name, value);
  }
  return regular;
}
