/** One request of a client, and its response, on a connection of HTTP/1.1. */
import type { Socket } from "node:net";
import type { RequestHead } from "./head.ts";
import type { IncomingBody } from "./incoming-body.ts";
import { ResponseWriter } from "./response-writer.ts";

/** The connection of an exchange, as the exchange uses it. */
export interface ExchangeConnection {
  readonly socket: Socket;
  /** Bytes behind the request that nobody has read. */
  readonly heldBytes: number;
  /** The response was written whole. */
  responded(): void;
  /** Gives the socket away with the bytes that were read of it; nothing here hears of it any more. */
  detach(): Buffer;
}

/** What the reader of a request does with it, and the writer of its response. */
export class ServerExchange {
  readonly head: RequestHead;
  readonly body: IncomingBody | undefined;
  readonly response: ResponseWriter;
  readonly #connection: ExchangeConnection;
  /** A 100 was sent, or none is expected. */
  #hasContinued: boolean;
  #isOver = false;
  #isComplete = false;
  /** Called when bytes that had to wait have left. */
  onDrain: (() => void) | undefined;
  /** Called when nothing more happens, before the listener of the end. */
  onSettled: (() => void) | undefined;
  #onClose: ((complete: boolean) => void) | undefined;

  constructor(
    connection: ExchangeConnection,
    head: RequestHead,
    body: IncomingBody | undefined,
    closes: boolean,
  ) {
    this.#connection = connection;
    this.head = head;
    this.body = body;
    this.#hasContinued = !this.expectsContinue;
    this.response = new ResponseWriter(connection.socket, head, closes);
  }

  get socket(): Socket {
    return this.#connection.socket;
  }

  /** RFC 9110 section 10.1.1: an HTTP/1.0 client would take the interim response for the final one. */
  get expectsContinue(): boolean {
    return this.head.expect !== undefined && this.head.httpVersion === "1.1";
  }

  /** The client has sent all that is awaited of it, or may never send the rest. */
  get isUnread(): boolean {
    return this.body !== undefined && !this.body.isComplete;
  }

  /** A client that was not told to go on may send its body or not: what comes next cannot be told apart. */
  get isUncertain(): boolean {
    return this.isUnread && !this.#hasContinued;
  }

  /** The body is awaited: what came of it has been taken. */
  get isStarved(): boolean {
    return this.isUnread && this.#connection.heldBytes === 0;
  }

  /** Calls back once, when the response has left or the client is gone. */
  listen(onClose: (complete: boolean) => void): void {
    if (this.#isOver) queueMicrotask(() => onClose(this.#isComplete));
    else this.#onClose = onClose;
  }

  sendContinue(): void {
    if (this.response.headSent || this.#hasContinued) return;
    this.#hasContinued = true;
    this.socket.write("HTTP/1.1 100 Continue\r\n\r\n", "latin1");
  }

  end(chunk?: Buffer, trailers?: readonly (readonly [string, string])[]): void {
    if (this.response.isEnded) return;
    this.response.end(chunk, trailers);
    this.#connection.responded();
  }

  /** The connection becomes something else; gives what its client sent behind the request. */
  detach(): Buffer {
    return this.#connection.detach();
  }

  /** For the connection: tells the reader and the writer that nothing more happens here. */
  close(complete: boolean): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#isComplete = complete;
    if (!complete) this.body?.fail();
    this.onSettled?.();
    this.#onClose?.(complete);
  }
}
