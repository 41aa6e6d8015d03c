/** A connection of HTTP/1.1 to an origin or a parent: one request at a time (RFC 9112 section 9). */
import type { Socket } from "node:net";
import { asError } from "../errors.ts";
import { giveBack } from "../net/give-back.ts";
import type { LastSeen, Stallable } from "../net/stall-watch.ts";
import type { ClientExchange, ExchangeCarrier } from "./client-exchange.ts";
import { ClientFault } from "./client-fault.ts";
import { OutgoingHead } from "./client-request.ts";
import { ClientUpload, type UploadOwner, writeWhole } from "./client-upload.ts";
import type { ResponseHead } from "./head.ts";
import { isReset, readBeforeReset } from "./read-before-reset.ts";
import { type ReaderLimits, type ReaderOwner, ResponseReader } from "./response-reader.ts";

/** Limits of connections to one destination. Bytes and milliseconds; 0 means no limit of time. */
export interface ClientLimits extends ReaderLimits {
  readonly responseTimeoutMs: number;
  readonly streamIdleTimeoutMs: number;
  /** How long an idle connection is kept where its origin says nothing. */
  readonly idleTimeoutMs: number;
  /** The longest time that an origin can ask for. */
  readonly maxIdleTimeoutMs: number;
}

/** The pool of a connection. */
export interface ConnectionOwner {
  /** May carry another request. */
  freed(connection: ClientConnection): void;
  /** Carries nothing any more: closed, or another protocol's. */
  gone(connection: ClientConnection): void;
  /** Has lost its connection before it was sent. */
  displaced(exchange: ClientExchange): void;
}

/** An idle connection is let go so much earlier than its origin would, which may hear of a request too late. */
const idleMarginMs = 2_000;
const none: readonly string[] = [];
const owned = Symbol("connection");
type Owned = Socket & { [owned]?: ClientConnection | undefined };

/** Sends requests and reads their responses. */
export class ClientConnection implements ExchangeCarrier, UploadOwner, ReaderOwner, Stallable {
  readonly #socket: Socket;
  readonly #owner: ConnectionOwner;
  readonly #limits: ClientLimits;
  readonly #responses: ResponseReader;
  readonly lastSeen: LastSeen = { progress: -1, sinceMs: 0 };
  /** Closed, or another protocol's. */
  #isOver = false;
  #reserved: ClientExchange | undefined;
  /** The turn of the event loop in which it became idle; the pool's. */
  freedIn = -1;
  #exchange: ClientExchange | undefined;
  #isSent = false;
  #upload: ClientUpload | undefined;
  /** The origin has closed its side. */
  #isEnded = false;
  /** Carries no further request. */
  #closes = false;
  /** Counts what moves, apart from what the socket counts. */
  #moves = 0;
  #idleLimitMs: number;
  #idleSinceMs = 0;
  #writeFailure: (() => Error | undefined) | undefined;

  constructor(socket: Socket, owner: ConnectionOwner, limits: ClientLimits) {
    this.#socket = socket;
    this.#owner = owner;
    this.#limits = limits;
    this.#responses = new ResponseReader(this, limits);
    this.#idleLimitMs = limits.idleTimeoutMs;
    (socket as Owned)[owned] = this;
    // Functions that all connections share.
    socket.on("error", ignore);
    socket.on("drain", onDrain);
    socket.on("end", onEnd);
    socket.on("close", onClose);
    socket.on("data", onData);
  }

  /** Whether a request can be sent now, or could be once what has arrived is read. */
  isUsable(now: number): boolean {
    return this.#isIdle && now - this.#idleSinceMs < this.#idleLimitMs;
  }

  /** The connection is kept for this request, which is sent with {@link sendReserved}. */
  reserve(exchange: ClientExchange): void {
    this.#reserved = exchange;
  }

  sendReserved(): void {
    const exchange = this.#reserved;
    this.#reserved = undefined;
    if (exchange === undefined) return;
    if (this.#isIdle) this.send(exchange);
    else this.#owner.displaced(exchange);
  }

  /** Sends a request on an idle connection. */
  send(exchange: ClientExchange): void {
    const { request, handler } = exchange;
    this.#exchange = exchange;
    this.#responses.expect(exchange);
    this.#isSent = false;
    exchange.carrier = this;
    this.#moves += 1;
    let head: OutgoingHead;
    try {
      handler.onRequestStart(exchange);
      if (this.#exchange !== exchange) return;
      head = new OutgoingHead(request);
    } catch (error) {
      this.#refuse(exchange, asError(error));
      return;
    }
    this.#isSent = true;
    if (head.closes) this.#closes = true;
    const socket = this.#socket;
    const { body } = request;
    if (body === null) socket.write(`${head.text}\r\n`, "latin1");
    else {
      this.#writeFailure ??= readBeforeReset(socket);
      if (Buffer.isBuffer(body)) {
        const length = head.length === undefined ? `content-length: ${body.length}\r\n` : "";
        writeWhole(socket, `${head.text}${length}\r\n`, body);
      } else {
        const sent = { body, method: request.method };
        this.#upload = new ClientUpload(socket, sent, head, this);
        this.#upload.start();
      }
    }
  }

  /** Closes at once where nothing is carried, else after the response. */
  retire(): void {
    this.#closes = true;
    if (this.#isIdle) this.#close();
  }

  /** Ends whatever is carried. */
  destroy(error: Error): void {
    if (this.#exchange === undefined) this.#close();
    else this.#fail(this.#exchange, error);
  }

  aborted(exchange: ClientExchange, reason: Error): void {
    if (this.#exchange !== exchange) return;
    if (this.#isSent) this.#fail(exchange, reason);
    else this.#refuse(exchange, reason);
  }

  resumed(exchange: ClientExchange): void {
    if (this.#exchange !== exchange || !this.#responses.goOn() || this.#exchange !== exchange)
      return;
    if (this.#isEnded) this.ended();
    else this.#socket.resume();
  }

  uploaded(): void {
    this.#moves += 1;
  }

  uploadFailed(error: Error): void {
    if (this.#exchange !== undefined) this.#fail(this.#exchange, error);
  }

  stallLimitMs(): number {
    const exchange = this.#exchange;
    if (exchange === undefined) return this.#idleLimitMs;
    const { responseTimeoutMs, streamIdleTimeoutMs } = this.#limits;
    if (this.#responses.isInBody)
      return exchange.isPaused || this.#responses.isHeld ? 0 : streamIdleTimeoutMs;
    // What the client does not send is not the origin's fault.
    const waitsForClient = this.#upload?.isRunning === true && !this.#socket.writableNeedDrain;
    return waitsForClient ? 0 : responseTimeoutMs;
  }

  progress(): number {
    // What the kernel has not taken is subtracted: libuv counts a write when it is handed over.
    return this.#moves + this.#socket.bytesWritten - this.#socket.writableLength;
  }

  onStall(): void {
    const exchange = this.#exchange;
    if (exchange === undefined) this.#close();
    else if (!this.#responses.isInBody)
      this.#fail(exchange, new ClientFault("response-timeout", "no response came in time"));
    else this.#fail(exchange, new ClientFault("idle-timeout", "a response went on no further"));
  }

  received(chunk: Buffer): void {
    // Nobody asked: what comes unasked must not become the response to the next request.
    if (this.#exchange === undefined) this.#close();
    else {
      if (this.#responses.isInBody) this.#moves += 1;
      if (!this.#responses.read(chunk)) this.#socket.pause();
      else if (this.#responses.isUsedUp) giveBack(chunk);
    }
  }

  drained(): void {
    this.#upload?.resume();
  }

  /** The origin closed its side; what it sent before has been read. */
  ended(): void {
    const exchange = this.#exchange;
    if (exchange === undefined) {
      this.#close();
      return;
    }
    this.#isEnded = true;
    if (this.#responses.isHeld) return;
    const isWhole = this.#responses.endsWithConnection && this.#writeFailure?.() === undefined;
    if (isWhole) this.whole(exchange, none, false);
    else this.#fail(exchange, this.#lost());
  }

  closed(): void {
    if (this.#isOver) return;
    const exchange = this.#exchange;
    if (exchange === undefined) this.#close();
    else this.#fail(exchange, this.#lost());
  }

  /** Whether another request may follow, and for how long the connection is kept then. */
  #isKept(head: ResponseHead, length: number): boolean {
    if (!head.isPersistent) return false;
    // Some servers send the body that they announce, although there is none in such a response.
    const { contentLength, transferEncoding, keepAlive } = head;
    if (length === 0 && (transferEncoding !== undefined || Number(contentLength ?? 0) > 0))
      return false;
    const { idleTimeoutMs, maxIdleTimeoutMs } = this.#limits;
    const asked = keepAlive === undefined ? null : /timeout=(\d+)/i.exec(keepAlive);
    this.#idleLimitMs =
      asked === null
        ? idleTimeoutMs
        : Math.min(Number(asked[1]) * 1_000 - idleMarginMs, maxIdleTimeoutMs);
    return this.#idleLimitMs > 0;
  }

  moved(): void {
    this.#moves += 1;
  }

  began(head: ResponseHead, length: number): void {
    this.#moves += 1;
    if (!this.#isKept(head, length)) this.#closes = true;
  }

  get canSwitch(): boolean {
    return this.#upload?.isRunning !== true;
  }

  broken(exchange: ClientExchange, error: Error): void {
    this.#fail(exchange, error);
  }

  switched(exchange: ClientExchange, head: ResponseHead, rest: Buffer): void {
    const socket = this.#socket;
    this.#leave(exchange);
    this.#isOver = true;
    this.#owner.gone(this);
    socket.off("drain", onDrain).off("end", onEnd).off("close", onClose).off("data", onData);
    (socket as Owned)[owned] = undefined;
    socket.pause();
    try {
      exchange.handler.onUpgrade(head.status, head.rawHeaders, socket, rest);
      socket.off("error", ignore);
    } catch (error) {
      socket.destroy();
      exchange.handler.onResponseError(exchange, asError(error));
    }
  }

  whole(exchange: ClientExchange, trailers: readonly string[], hasSurplus: boolean): void {
    const isSending = this.#upload?.isRunning === true;
    this.#leave(exchange);
    // Free before the end is told: the next request may come in the same turn.
    if (this.#closes || hasSurplus || isSending || this.#isEnded) this.#close();
    else if (this.#socket.writableLength === 0) this.#free();
    else setImmediate(() => this.#freeOnceSent());
    try {
      exchange.handler.onResponseEnd(exchange, trailers);
    } catch (error) {
      exchange.handler.onResponseError(exchange, asError(error));
    }
  }

  /** The request was not sent. */
  #refuse(exchange: ClientExchange, error: Error): void {
    if (this.#exchange !== exchange) return;
    this.#leave(exchange);
    if (this.#closes) this.#close();
    else this.#free();
    exchange.handler.onResponseError(exchange, error);
  }

  #fail(exchange: ClientExchange, error: Error): void {
    if (this.#exchange !== exchange) return;
    this.#leave(exchange);
    this.#close();
    exchange.handler.onResponseError(exchange, error);
  }

  #leave(exchange: ClientExchange): void {
    this.#upload?.stop();
    this.#upload = undefined;
    this.#exchange = undefined;
    this.#responses.clear();
    exchange.carrier = undefined;
  }

  /** TLS tells a turn late that a write is done; what is unsent after that is a request that its origin does not read. */
  #freeOnceSent(): void {
    if (!this.#isIdle) return;
    if (this.#closes || this.#isEnded || this.#socket.writableLength > 0) this.#close();
    else this.#free();
  }

  #free(): void {
    this.#moves += 1;
    this.#idleSinceMs = performance.now();
    // A closed origin is noticed only by who reads.
    if (this.#socket.isPaused()) this.#socket.resume();
    this.#owner.freed(this);
  }

  #close(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#owner.gone(this);
    this.#socket.destroy();
  }

  get #isIdle(): boolean {
    return this.#exchange === undefined && !this.#isOver && !this.#socket.destroyed;
  }

  /** Why the connection is gone. */
  #lost(): Error {
    const cause = this.#socket.errored ?? this.#writeFailure?.();
    if (cause !== undefined && cause !== null && !isReset(cause)) return cause;
    return new ClientFault("closed", "the connection was closed", cause ?? undefined);
  }
}

function onData(this: Socket, chunk: Buffer): void {
  (this as Owned)[owned]?.received(chunk);
}

function onDrain(this: Socket): void {
  (this as Owned)[owned]?.drained();
}

function onEnd(this: Socket): void {
  (this as Owned)[owned]?.ended();
}

function onClose(this: Socket): void {
  (this as Owned)[owned]?.closed();
}

function ignore(): void {
  // `close` follows.
}
