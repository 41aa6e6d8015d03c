/** A client's connection of HTTP/1.1: one request at a time, and what is sent behind it waits. */
import type { Socket } from "node:net";
import { cutOff } from "../net/cut.ts";
import { giveBack } from "../net/give-back.ts";
import type { HeadHolder } from "../net/head-watch.ts";
import { lingerBytes, lingerMs } from "../net/linger.ts";
import { HeadReader } from "./head-reader.ts";
import { HeldBytes } from "./held-bytes.ts";
import { problemOfBeginning, RequestHead } from "./head.ts";
import { IncomingBody } from "./incoming-body.ts";
import { MalformedMessage, malformedRequest } from "./malformed.ts";
import { type ExchangeConnection, ServerExchange } from "./server-exchange.ts";
import { mayBeHttp2, otherProtocol, preface, prefaceHead } from "./other-protocols.ts";
import { disown, own, type SocketOwner } from "./socket-owner.ts";

/** Limits of one connection. Bytes and milliseconds. */
export interface ConnectionLimits {
  readonly maxHeaderBytes: number;
  readonly maxHeaders: number;
  readonly headerTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
  /** 0 means no limit. */
  readonly maxRequestsPerConnection: number;
}

/** What is done with what arrives. Never throws. */
export interface ConnectionEvents {
  /** A request; its body is unread. */
  onRequest(exchange: ServerExchange): void;
  /** A CONNECT: the socket is the callee's, with the bytes that came behind the head. */
  onConnect(head: RequestHead, socket: Socket, rest: Buffer): void;
  /**
   * A connection begins as one of HTTP/2 does (RFC 9113 section 3.4), or ALPN gave HTTP/2: the socket is the callee's,
   * with every byte put back. Without it that is a broken request.
   */
  readonly onPreface?: ((socket: Socket) => void) | undefined;
  /** A connection begins with a version of SOCKS, as no request does: given away in the same way. */
  readonly onSocks?: ((socket: Socket) => void) | undefined;
  /** No request can be read any more, and no response is under way: the callee sends the last one. */
  onBroken(connection: ServerConnection, why: MalformedMessage | "timeout"): void;
  /** The socket was given away. */
  onDetached(connection: ServerConnection): void;
  onClosed(connection: ServerConnection): void;
}

/** Bytes behind a request that are kept without an end in sight before the client is made to wait. */
const maxHeldBytes = 65_536;
const nothing = Buffer.alloc(0);

type Phase =
  /** Before or in a head. */
  | "head"
  /** A request is served. */
  | "exchange"
  /** The response is sent, the rest of its request is read and dropped. */
  | "lingering"
  /** Nothing is read any more: the last response is on its way, or somebody else has the socket. */
  | "over";

/** Reads requests, and tells when their responses have left. */
export class ServerConnection implements ExchangeConnection, HeadHolder, SocketOwner {
  readonly socket: Socket;
  readonly #events: ConnectionEvents;
  readonly #limits: ConnectionLimits;
  readonly #reader: HeadReader;
  #phase: Phase = "head";
  #exchange: ServerExchange | undefined;
  /** What came and has no reader yet, in order. */
  readonly #held = new HeldBytes();
  /** What came behind the head of the present request, and the memory that both were read into. */
  #behindHead: { readonly rest: Buffer; readonly chunk: Buffer } | undefined;
  #isReading = false;
  #requests = 0;
  #dropped = 0;
  /** When the present wait began, as performance.now() gave it. */
  #sinceMs = performance.now();
  /** The next response is the last one. */
  #closes = false;
  /** The next response says that it is the last one. */
  #isDraining = false;
  bytes = 0;
  sinceMs = 0;
  watchSlot: number | undefined;
  /** For its server. */
  serverSlot: number | undefined;

  constructor(socket: Socket, events: ConnectionEvents, limits: ConnectionLimits) {
    this.socket = socket;
    this.#events = events;
    this.#limits = limits;
    this.#reader = new HeadReader(limits.maxHeaderBytes);
    own(socket, this);
  }

  look(now: number): number {
    const held = this.#headBytes();
    if (held > 0 && this.bytes === 0) this.sinceMs = now;
    this.bytes = held;
    return held;
  }

  letGo(): void {
    this.socket.destroy();
  }

  /** Bytes of a head that is not whole, or of requests that wait for their turn. */
  #headBytes(): number {
    if (this.#phase === "head") return this.#reader.bytes;
    return this.#exchange?.isUnread === true ? 0 : this.heldBytes;
  }

  get heldBytes(): number {
    return this.#held.length;
  }

  /** Serves one request more at most: that which waits for its response, or is on its way. */
  drain(): void {
    this.#isDraining = true;
    if (this.#exchange?.response.headSent === false) this.#exchange.response.closes = true;
  }

  /** Closes it where no request has come. */
  closeIdle(): void {
    if (this.#phase === "head") this.socket.destroy();
  }

  /** Ends waits that have lasted too long; called for every connection from time to time. */
  check(now: number): void {
    const waitedMs = now - this.#sinceMs;
    if (this.#phase === "lingering") {
      if (waitedMs >= lingerMs) this.socket.destroy();
      return;
    }
    if (this.#phase !== "head") return;
    const { headerTimeoutMs, keepAliveTimeoutMs } = this.#limits;
    if (this.#requests > 0 && this.#reader.bytes === 0) {
      if (waitedMs >= keepAliveTimeoutMs) this.socket.destroySoon();
    } else if (waitedMs >= headerTimeoutMs) this.#break("timeout");
  }

  responded(): void {
    const { socket } = this;
    if (socket.destroyed) return;
    if (socket.writableLength === 0) this.#settle();
    // What failed has not left: `close` follows.
    else socket.write(nothing, (error) => error ?? this.#settle());
  }

  detach(): Buffer {
    this.#phase = "over";
    const held = this.#held.takeAll();
    this.#forget();
    disown(this.socket);
    this.#events.onDetached(this);
    return held;
  }

  supply(): void {
    this.socket.resume();
    if (this.#isReading) return;
    const held = this.#held.shift();
    if (held !== undefined) this.#read(held);
  }

  onData(chunk: Buffer): void {
    if (this.#held.length > 0 || this.#isReading) this.#hold(chunk);
    else this.#read(chunk);
  }

  onEnd(): void {
    const { socket } = this;
    this.#exchange?.body?.fail();
    if (this.#phase === "head" && this.#reader.bytes > 0)
      this.#break(new MalformedMessage("the connection ended in the middle of a head"));
    else if (this.#phase === "exchange" && this.#exchange?.response.isEnded !== true) {
      // As a client that left: one that waits for its response keeps its side open.
      socket.destroy();
    } else {
      this.#closes = true;
      socket.end();
    }
  }

  onDrain(): void {
    this.#exchange?.onDrain?.();
  }

  onClose(): void {
    this.#phase = "over";
    this.#forget();
    const exchange = this.#exchange;
    this.#exchange = undefined;
    exchange?.close(false);
    this.#events.onClosed(this);
  }

  /** Reads as far as bytes, or the present request, go. Not re-entered: what a request brings about waits. */
  #read(bytes: Buffer): void {
    this.#isReading = true;
    let rest: Buffer | undefined = bytes;
    while (rest !== undefined && rest.length > 0) {
      if (this.#phase === "head") rest = this.#readHead(rest);
      else if (this.#phase === "over") rest = undefined;
      else if (this.#exchange?.isUnread === true) rest = this.#readBody(rest, this.#exchange);
      else {
        this.#hold(rest, true);
        break;
      }
      if (rest === undefined && this.#canRead()) rest = this.#held.shift();
    }
    this.#isReading = false;
  }

  /** Returns what is behind the head. */
  #readHead(bytes: Buffer): Buffer | undefined {
    const reader = this.#reader;
    try {
      const isFirst = reader.bytes === 0;
      const other = isFirst && this.#requests === 0 ? otherProtocol(this.socket, bytes) : undefined;
      if (other !== undefined && this.#givesAway(other, bytes)) return undefined;
      if (!reader.read(bytes)) {
        if (reader.bytes === 0) return undefined;
        if (isFirst) this.#sinceMs = performance.now();
        const beginning = reader.beginning();
        if (this.#requests === 0 && preface.startsWith(beginning)) return undefined;
        const problem = problemOfBeginning(beginning);
        if (problem !== undefined) throw problem;
        return undefined;
      }
      const { text, rest } = reader;
      // A connection that waits keeps nothing of it.
      reader.text = "";
      reader.rest = undefined;
      const isPreface = this.#requests === 0 && text === prefaceHead && mayBeHttp2(this.socket);
      if (isPreface && this.#givesAway("onPreface", Buffer.from(preface), rest)) return undefined;
      this.#behindHead = rest === undefined ? undefined : { rest, chunk: bytes };
      return this.#begin(new RequestHead(text, this.#limits.maxHeaders), rest);
    } catch (error) {
      if (!(error instanceof MalformedMessage)) throw error;
      this.#break(error);
      return undefined;
    }
  }

  /** Whether the connection is served by somebody else, as another protocol. */
  #givesAway(to: "onPreface" | "onSocks", first: Buffer, rest: Buffer = nothing): boolean {
    const { socket } = this;
    const serve = this.#events[to];
    if (serve === undefined) return false;
    const held = this.detach();
    socket.unshift(Buffer.concat([first, rest, held]));
    serve(socket);
    return true;
  }

  #begin(head: RequestHead, rest: Buffer | undefined): Buffer | undefined {
    this.#requests += 1;
    if (head.method === "CONNECT") {
      if (rest !== undefined) this.#hold(rest, true);
      this.#events.onConnect(head, this.socket, this.detach());
      return undefined;
    }
    const { maxRequestsPerConnection: most } = this.#limits;
    if (this.#requests === most || !head.isPersistent) this.#closes = true;
    const body = head.hasBody ? new IncomingBody(this, head.length, this.#limits) : undefined;
    const exchange = new ServerExchange(this, head, body, this.#closes || this.#isDraining);
    this.#exchange = exchange;
    this.#phase = "exchange";
    // What came behind the head is there before anybody asks for it.
    if (rest !== undefined) this.#hold(rest, true);
    this.#events.onRequest(exchange);
    return this.#canRead() ? this.#held.shift() : undefined;
  }

  #readBody(bytes: Buffer, { body }: ServerExchange): Buffer | undefined {
    if (body === undefined) return bytes;
    if (this.#phase === "lingering") {
      this.#dropped += bytes.length;
      if (this.#dropped > lingerBytes) this.socket.destroy();
      if (body.isOver) return undefined;
    } else if (!body.isWanted) {
      this.#hold(bytes, true);
      return undefined;
    }
    let used: number;
    try {
      used = body.take(bytes);
    } catch (error) {
      if (!(error instanceof MalformedMessage)) throw error;
      this.#breakBody(error, body);
      return undefined;
    }
    const rest = used < bytes.length ? bytes.subarray(used) : undefined;
    const behind = this.#behindHead;
    this.#behindHead = undefined;
    // The body took all of a chunk, or all that was behind the head in one: nothing else is in its memory.
    if (rest === undefined && body.isUsedUp)
      giveBack(behind?.rest === bytes ? behind.chunk : bytes);
    if (body.finish() && this.#phase === "lingering") this.#next();
    return rest;
  }

  /** In front of what is held where it was read before that. */
  #hold(bytes: Buffer, isFirst = false): void {
    if (isFirst) this.#held.unshift(bytes);
    else this.#held.push(bytes);
    if (this.#held.length >= maxHeldBytes) this.socket.pause();
  }

  #forget(): void {
    this.#behindHead = undefined;
    this.#held.clear();
  }

  /** Somebody takes what comes next: a head, or the body of the request that is served. */
  #canRead(): boolean {
    if (this.#phase !== "exchange") return true;
    const body = this.#exchange?.body;
    return body !== undefined && !body.isOver && body.isWanted;
  }

  /** The response has left. */
  #settle(): void {
    // Behind the code that wrote it: what its upstream still reports belongs to this exchange.
    queueMicrotask(() => {
      const exchange = this.#exchange;
      if (exchange === undefined || this.#phase !== "exchange") return;
      exchange.close(true);
      if (exchange.response.closes || exchange.isUncertain) this.#closes = true;
      if (exchange.isUnread) this.#linger(exchange);
      else this.#next();
    });
  }

  /** Closing with unread bytes makes the kernel reset the connection, and the client lose the response. */
  #linger({ body }: ServerExchange): void {
    this.#phase = "lingering";
    this.#sinceMs = performance.now();
    this.#dropped = 0;
    body?.detach();
    if (this.#closes) this.socket.end();
    this.supply();
  }

  #next(): void {
    this.#exchange = undefined;
    this.#behindHead = undefined;
    this.#sinceMs = performance.now();
    if (this.#closes) {
      this.#phase = "over";
      this.socket.resume();
      this.socket.destroySoon();
      return;
    }
    this.#phase = "head";
    this.supply();
  }

  #break(why: MalformedMessage | "timeout"): void {
    this.#phase = "over";
    this.#reader.clear();
    this.#forget();
    this.#events.onBroken(this, why);
  }

  /** Nothing behind a body that cannot be read can be read either; its reader has the error and may respond. */
  #breakBody(error: MalformedMessage, body: IncomingBody): void {
    this.#closes = true;
    const exchange = this.#exchange;
    if (this.#phase === "lingering") this.socket.destroy();
    else if (exchange?.response.headSent === true) cutOff(this.socket);
    else if (exchange !== undefined) exchange.response.closes = true;
    body.fail(malformedRequest(error));
  }
}
