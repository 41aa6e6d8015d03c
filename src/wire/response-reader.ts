/** Reads the responses of one connection to an origin, each for the exchange that waits for it. */
import { asError } from "../errors.ts";
import { BodyReader } from "./body-reader.ts";
import type { ClientExchange } from "./client-exchange.ts";
import { HeadReader } from "./head-reader.ts";
import { ResponseHead } from "./head.ts";
import { MalformedMessage } from "./malformed.ts";

/** What a response means to its connection. Throws nothing. */
export interface ReaderOwner {
  /** An interim head has come. */
  moved(): void;
  /** A final head has come; `length` as in {@link ResponseHead.lengthFor}. */
  began(head: ResponseHead, length: number): void;
  /** Whether the connection may become another protocol's now. */
  readonly canSwitch: boolean;
  /** It has become that, with the bytes behind the head. */
  switched(exchange: ClientExchange, head: ResponseHead, rest: Buffer): void;
  /** Bytes behind a whole response belong to nobody. */
  whole(exchange: ClientExchange, trailers: readonly string[], hasSurplus: boolean): void;
  broken(exchange: ClientExchange, error: Error): void;
}

/** Bounds of a response, apart from its content. */
export interface ReaderLimits {
  readonly maxHeaderBytes: number;
  readonly maxHeaders: number;
}

const statusBegins = "HTTP/1.";
const nothing = Buffer.alloc(0);
const none: readonly string[] = [];

/** Finds heads, content and ends in what arrives. */
export class ResponseReader {
  readonly #owner: ReaderOwner;
  readonly #limits: ReaderLimits;
  readonly #heads: HeadReader;
  #exchange: ClientExchange | undefined;
  #body: BodyReader | undefined;
  /** The head is read. */
  #isInBody = false;
  /** Read, but not wanted yet. */
  #held: Buffer | undefined;
  #isReading = false;
  /** Nothing refers any longer to the chunk that {@link read} was given last. */
  isUsedUp = false;
  /** The last byte of an unfinished head. */
  #lastByte = 0;

  constructor(owner: ReaderOwner, limits: ReaderLimits) {
    this.#owner = owner;
    this.#limits = limits;
    this.#heads = new HeadReader(limits.maxHeaderBytes);
  }

  /** Bytes wait for the handler to go on. */
  get isHeld(): boolean {
    return this.#held !== undefined;
  }

  get isInBody(): boolean {
    return this.#isInBody;
  }

  /** The response is whole when the connection ends. */
  get endsWithConnection(): boolean {
    return this.#body?.endsWithConnection === true;
  }

  /** What comes from now on is the response of this exchange. */
  expect(exchange: ClientExchange): void {
    this.#exchange = exchange;
    this.#lastByte = 0;
  }

  /** Nothing is expected any more. */
  clear(): void {
    this.#exchange = undefined;
    this.#body = undefined;
    this.#isInBody = false;
    this.#held = undefined;
  }

  /** False where nothing more should be read before {@link goOn}. */
  read(chunk: Buffer): boolean {
    const exchange = this.#exchange;
    this.isUsedUp = false;
    if (exchange === undefined) return true;
    if (!this.#isInBody) this.#readHead(chunk, exchange);
    else if (this.#held === undefined && !exchange.isPaused) this.#readBody(chunk, exchange);
    else {
      this.#held = this.#held === undefined ? chunk : Buffer.concat([this.#held, chunk]);
      return false;
    }
    return true;
  }

  /** Gives what was held; false where that is going on already, or some of it is still held. */
  goOn(): boolean {
    const held = this.#held;
    if (this.#isReading) return false;
    if (held === undefined || this.#exchange === undefined) return true;
    this.#held = undefined;
    this.#readBody(held, this.#exchange);
    return !this.isHeld;
  }

  #readHead(chunk: Buffer, exchange: ClientExchange): void {
    this.#isReading = true;
    try {
      let rest: Buffer | undefined = chunk;
      while (rest !== undefined && this.#exchange === exchange)
        rest = this.#readOneHead(rest, exchange);
    } catch (error) {
      this.#owner.broken(exchange, asError(error));
    }
    this.#isReading = false;
  }

  /** Returns what came behind an interim head. */
  #readOneHead(bytes: Buffer, exchange: ClientExchange): Buffer | undefined {
    const { handler, request } = exchange;
    if (!exchange.isStarted) {
      exchange.isStarted = true;
      handler.onResponseStarted();
    }
    const reader = this.#heads;
    if (!reader.read(bytes)) {
      this.#checkBeginning(bytes);
      return undefined;
    }
    const { rest } = reader;
    reader.rest = undefined;
    const head = new ResponseHead(reader.text, this.#limits.maxHeaders);
    // An idle connection keeps nothing of it.
    reader.text = "";
    if (head.status === 101) {
      if (request.upgrade === undefined || !head.switches || !this.#owner.canSwitch)
        throw new MalformedMessage("a switch of protocols that was not asked for");
      this.#owner.switched(exchange, head, rest ?? nothing);
      return undefined;
    }
    if (head.status < 200) {
      this.#owner.moved();
      handler.onInformational(exchange, head.status, head.rawHeaders);
      return rest;
    }
    this.#begin(exchange, head, rest);
    return undefined;
  }

  /** Nobody waits for the end of a head that is none. */
  #checkBeginning(chunk: Buffer): void {
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) {
      if ((at === 0 ? this.#lastByte : chunk[at - 1]) !== 13)
        throw new MalformedMessage("a line end that is not CRLF");
    }
    this.#lastByte = chunk.at(-1) ?? 0;
    if (this.#heads.bytes - chunk.length >= statusBegins.length) return;
    const begins = this.#heads.beginning().slice(0, statusBegins.length);
    if (!statusBegins.startsWith(begins)) throw new MalformedMessage("no status line of HTTP/1");
  }

  #begin(exchange: ClientExchange, head: ResponseHead, rest: Buffer | undefined): void {
    const { handler, request } = exchange;
    const length = head.lengthFor(request.method);
    this.#isInBody = true;
    if (length !== 0) this.#body = new BodyReader(length, this.#limits);
    this.#owner.began(head, length);
    handler.onResponseStart(exchange, head.status, head.rawHeaders, head.reason);
    if (this.#exchange !== exchange) return;
    if (length === 0) this.#owner.whole(exchange, none, rest !== undefined);
    else if (rest !== undefined) {
      if (exchange.isPaused) this.#held = rest;
      else this.#readBody(rest, exchange);
    }
  }

  #readBody(bytes: Buffer, exchange: ClientExchange): void {
    const body = this.#body;
    if (body === undefined) return;
    let used: number;
    this.#isReading = true;
    this.isUsedUp = true;
    try {
      used = body.read(bytes, this.#take);
    } catch (error) {
      this.isUsedUp = false;
      this.#isReading = false;
      this.#owner.broken(exchange, asError(error));
      return;
    }
    this.#isReading = false;
    if (used < bytes.length) this.isUsedUp = false;
    if (this.#exchange !== exchange) return;
    if (body.isDone) this.#owner.whole(exchange, body.trailers, used < bytes.length);
    else if (used < bytes.length) this.#held = bytes.subarray(used);
  }

  readonly #take = (piece: Buffer): boolean => {
    const exchange = this.#exchange;
    if (exchange === undefined) return false;
    exchange.handler.onResponseData(exchange, piece);
    if (exchange.handler.isDrained !== true) this.isUsedUp = false;
    return this.#exchange === exchange && !exchange.isPaused;
  };
}
