/**
 * HTTP/2 to one origin, for requests that HTTP/1.1 cannot carry whole.
 *
 * Not undici's: it drops what is still buffered of a body when the trailers arrive, so that a slow reader of a gRPC
 * answer loses its end without an error (docs/adr/0011).
 */
import type { ClientHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { asError, ProxyError } from "../errors.ts";
import type { ResponseHandler } from "../http/response-handler.ts";
import { overloaded } from "../net/places.ts";
import type { StallWatch } from "../net/stall-watch.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import { type Http2SessionOptions, OriginSession } from "./http2-session.ts";
import { fieldsOf, isWhole, StreamControl, StreamRelay } from "./http2-stream.ts";
import { ClientFault } from "../wire/client-fault.ts";
import type { OutgoingRequest } from "./upstream.ts";

/** Limits of the sessions with one origin. Milliseconds; 0 means none. */
export interface Http2OriginOptions extends Http2SessionOptions {
  readonly responseTimeoutMs: number;
  readonly streamIdleTimeoutMs: number;
  /** The timer of all streams. */
  readonly watch: Pick<StallWatch, "add" | "delete">;
  /** Opens a connection: for https a verified one on which h2 was negotiated, in the name of the request that waits longest. */
  open(permit: Permit, signal: AbortSignal): Promise<Socket>;
}

/** Requests that may wait for a place on a session. */
const maxWaiting = 1_000;

/** One request on its way to a stream. */
interface Sending {
  readonly permit: Permit;
  readonly request: OutgoingRequest;
  readonly handler: ResponseHandler;
  readonly control: StreamControl;
  /** The session that did not process it the first time. */
  readonly refusedBy?: OriginSession;
  timer?: NodeJS.Timeout;
}

/** The sessions with one origin; each request is a stream of its own. */
export class Http2Origin {
  readonly #options: Http2OriginOptions;
  readonly #sessions = new Set<OriginSession>();
  /** In the order in which they came. */
  readonly #waiting = new Set<Sending>();
  /** The handshake that waiting requests depend on. */
  #opening: AbortController | undefined;
  #isDestroyed = false;

  constructor(options: Http2OriginOptions) {
    this.#options = options;
  }

  get connections(): number {
    return this.#sessions.size;
  }

  /** Sessions without streams. */
  get idle(): number {
    return [...this.#sessions].filter(({ isIdle }) => isIdle).length;
  }

  dispatch(permit: Permit, request: OutgoingRequest, handler: ResponseHandler): void {
    const control = new StreamControl();
    handler.onRequestStart(control);
    this.#send({ permit, request, handler, control });
  }

  /** Lets running streams finish. */
  retire(): void {
    for (const { session } of this.#sessions) session.close();
  }

  destroy(): void {
    this.#isDestroyed = true;
    const gone = new ProxyError("upstream.reset", `${this.#options.authority} is let go`);
    for (const sending of this.#waiting) this.#fail(sending, gone);
    for (const { session } of this.#sessions) session.destroy();
  }

  #send(sending: Sending): void {
    const { authority, responseTimeoutMs } = this.#options;
    const { control } = sending;
    if (control.aborted) {
      this.#fail(sending, asError(control.reason));
      return;
    }
    if (this.#waiting.size >= maxWaiting) {
      const message = `${maxWaiting} requests wait for a stream to ${authority} already`;
      this.#fail(sending, overloaded(message));
      return;
    }
    if (responseTimeoutMs > 0) {
      const message = `${authority} took no further request in time (limits.response_timeout)`;
      sending.timer = setTimeout(
        () => this.#fail(sending, new ProxyError("upstream.timeout", message)),
        responseTimeoutMs,
      );
    }
    control.onAbort = (reason) => {
      this.#fail(sending, reason);
      if (this.#waiting.size === 0) this.#opening?.abort();
    };
    this.#waiting.add(sending);
    this.#serve();
    this.#openAnother();
  }

  #fail(sending: Sending, error: Error): void {
    clearTimeout(sending.timer);
    this.#waiting.delete(sending);
    sending.handler.onResponseError(sending.control, error);
  }

  /** Assigns free places to waiting requests. */
  #serve(): void {
    for (const sending of this.#waiting) {
      const free = [...this.#sessions].filter(({ hasRoom }) => hasRoom);
      if (free.length === 0) return;
      const lent = free.find((session) => session !== sending.refusedBy);
      if (lent !== undefined) this.#start(sending, lent);
    }
  }

  #start(sending: Sending, lent: OriginSession): void {
    const { permit, request, handler, control, refusedBy } = sending;
    const { authority } = this.#options;
    const { body } = request;
    clearTimeout(sending.timer);
    this.#waiting.delete(sending);
    let stream: ClientHttp2Stream;
    try {
      stream = lent.request(fieldsOf(request, { authority, scheme: lent.scheme }), body === null);
    } catch (error) {
      const what = "the request has fields that HTTP/2 cannot carry";
      this.#fail(sending, new ClientFault("unsendable", what, error));
      return;
    }
    control.attach(stream);
    const resend = (): boolean => {
      if (refusedBy !== undefined || !lent.didNotProcess(stream) || !isWhole(body)) return false;
      this.#send({ permit, request, handler, control, refusedBy: lent });
      return true;
    };
    new StreamRelay(stream, control, handler, { ...this.#options, resend }).start(body);
  }

  /** One handshake at a time: the streams that wait for it share its connection. */
  #openAnother(): void {
    const [first] = this.#waiting;
    if (this.#opening !== undefined || first === undefined) return;
    if ([...this.#sessions].some(({ isShut }) => isShut)) return;
    this.#opening = new AbortController();
    this.#open(first.permit, this.#opening.signal).then(
      () => {
        this.#opening = undefined;
        this.#serve();
        this.#openAnother();
      },
      (error: unknown) => {
        const isGivenUp = this.#opening?.signal.aborted === true;
        this.#opening = undefined;
        // A request that came after all others were cancelled needs a handshake of its own.
        if (isGivenUp) this.#openAnother();
        else this.#giveUp(asError(error));
      },
    );
  }

  /** No further session can be opened. Requests that an existing session may still take continue to wait. */
  #giveUp(error: Error): void {
    for (const sending of this.#waiting) {
      const isHopeless = [...this.#sessions].every(
        (session) => !session.isOpen || session === sending.refusedBy,
      );
      if (isHopeless) this.#fail(sending, error);
    }
  }

  async #open(permit: Permit, signal: AbortSignal): Promise<void> {
    const { authority } = this.#options;
    const socket = await this.#options.open(permit, signal);
    const isNegotiated = socket instanceof TLSSocket && socket.alpnProtocol === "h2";
    // Without negotiation, the origin is known to speak it.
    if (!isNegotiated && this.#options.scheme !== "http") {
      socket.destroy();
      throw new ProxyError(
        "upstream.bad-response",
        `${authority} does not speak HTTP/2, which this request needs`,
      );
    }
    const scheme = isNegotiated ? "https" : "http";
    const opened = await OriginSession.open(socket, { ...this.#options, scheme });
    if (this.#isDestroyed) {
      opened.session.destroy();
      return;
    }
    this.#sessions.add(opened);
    opened.onRoom = () => this.#serve();
    opened.session.once("close", () => {
      this.#sessions.delete(opened);
      // A session that took no stream is no reason to open the next: that would loop for ever.
      if (opened.isUsed) this.#openAnother();
      else this.#giveUp(new ProxyError("upstream.reset", `${authority} took no request`));
    });
  }
}
