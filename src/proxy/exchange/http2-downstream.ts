/** A client on one HTTP/2 stream. */
import { constants, type ServerHttp2Stream } from "node:http2";
import { type BodySource, ReadableSource } from "../../http/body-source.ts";
import { HeaderList, isHopByHop, isSameName } from "../../http/headers.ts";
import { Backlog, type SlowPeer } from "../../net/backlogs.ts";
import { lingerBytes, lingerMs } from "../../net/linger.ts";
import type { Denial, Reply, ReplyFields } from "../../pipeline/decision.ts";
import {
  bodyStalled,
  type Downstream,
  type DownstreamLimits,
  readerCrowded,
  readerStalled,
} from "./downstream.ts";
import { withReceipt } from "../flow/receipts.ts";
import { grpcFields, hasContent, renderDenial, replyFields } from "../flow/reply.ts";
import { isGrpc } from "./request-head.ts";
import { contentLengthOf } from "./response-head.ts";
import type { LastSeen } from "../../net/stall-watch.ts";

/** What the stream began with. */
export interface Http2Head {
  readonly method: string;
  readonly fields: Readonly<Record<string, string | string[] | undefined>>;
  readonly raw: readonly string[];
}

/** Downstream over a stream; field names are lower-case on the wire (RFC 9113 section 8.2). */
export class Http2Downstream implements Downstream, SlowPeer {
  readonly httpVersion = "2.0";
  readonly wantsChunkedTrailers = false;
  readonly method: string;
  readonly rawHeaders: readonly string[];
  readonly lastSeen: LastSeen = { progress: -1, sinceMs: 0 };
  readonly hasBody: boolean;
  readonly expectsContinue: boolean;
  replyFields: ReplyFields | undefined;
  stalled: Denial | undefined;
  receipt: (() => string) | undefined;
  readonly #stream: ServerHttp2Stream;
  readonly #limits: DownstreamLimits;
  readonly #contentType: string | undefined;
  #trailers: readonly (readonly [string, string])[] = [];
  #body: ReadableSource | undefined;
  #sent = 0;
  #received = 0;
  /** Set once bytes had to wait for the client. */
  #backlog: Backlog | undefined;
  #onEnding: (() => void) | undefined;
  #onClose: ((complete: boolean) => void) | undefined;
  /** Whether the client has the whole response, once the stream is closed. */
  #isComplete: boolean | undefined;
  /** The length that the head announced, and the bytes of the body that have left. */
  #length: number | undefined;
  #left = 0;
  /** The response is whole, and the client is still sending. */
  #lingers = false;

  constructor(stream: ServerHttp2Stream, head: Http2Head, limits: DownstreamLimits) {
    this.#stream = stream;
    this.#limits = limits;
    this.method = head.method;
    this.rawHeaders = head.raw;
    this.expectsContinue = head.fields["expect"] === "100-continue";
    const { "content-type": contentType } = head.fields;
    this.#contentType = typeof contentType === "string" ? contentType : undefined;
    // An extended CONNECT leaves its stream open for the new protocol; that is no body.
    this.hasBody = !stream.endAfterHeaders && head.fields[":protocol"] === undefined;
    stream.on("error", ignore);
    // Not with the listener, which may come when the stream is gone: who the client is may have to be looked up first.
    if (stream.destroyed) this.#isComplete = false;
    else stream.once("close", () => this.#closed());
    if (this.hasBody) {
      stream.on("data", (chunk: Buffer) => (this.#received += chunk.length));
      stream.pause();
    }
  }

  get body(): BodySource {
    this.#body ??= new ReadableSource(this.#stream);
    return this.#body;
  }

  get headSent(): boolean {
    return this.#stream.headersSent;
  }

  get isDrained(): boolean {
    return false;
  }

  get bytesSent(): number {
    return this.#sent;
  }

  sendContinue(): void {
    if (this.#open()) this.#stream.additionalHeaders({ ":status": 100 });
  }

  sendInformational(status: number, headers: readonly string[]): void {
    if (status !== 101 && this.#open())
      this.#stream.additionalHeaders({ ...fieldsOf(headers), ":status": status });
  }

  writeHead(status: number, headers: string[]): void {
    if (!this.#open()) return;
    this.#length = contentLengthOf(headers);
    const regular = fieldsOf(this.#all(headers));
    const fields = { ...regular, ":status": status };
    if (regular["grpc-status"] !== undefined) {
      // Trailers-Only: a gRPC client takes the status from a head only when that head ends the stream.
      this.#stream.once("finish", () => this.#endRequest());
      this.#stream.respond(fields, { endStream: true });
      return;
    }
    // The stream then waits for its trailers, which `end` has by that time.
    this.#stream.once("wantTrailers", () => this.#sendTrailers());
    this.#stream.respond(fields, { waitForTrailers: true });
  }

  flushHead(): void {
    // respond() has sent it.
  }

  write(chunk: Buffer): boolean {
    this.#sent += chunk.length;
    if (this.#stream.destroyed) return true;
    const hasRoom = this.#stream.write(chunk, (error) => {
      if (error === null || error === undefined) this.#left += chunk.length;
    });
    if (!hasRoom) this.#countBacklog();
    return hasRoom;
  }

  end(chunk?: Buffer, trailers: readonly (readonly [string, string])[] = []): void {
    this.#trailers = trailers;
    if (this.#stream.writableEnded) return;
    this.#onEnding?.();
    if (chunk !== undefined) this.write(chunk);
    this.#stream.end();
    this.#countBacklog();
  }

  reply(reply: Reply): void {
    if (this.#stream.headersSent) {
      this.destroy();
      return;
    }
    if (!this.#open()) return;
    const headers = withoutConnectionFields(reply.headers);
    if (reply.reason !== undefined && isGrpc(this.#contentType)) {
      this.#onEnding?.();
      this.writeHead(reply.status, grpcFields({ ...reply, headers }, this.replyFields));
      return;
    }
    const isFull = hasContent(reply);
    this.#stream.once("finish", () => this.#endRequest());
    this.#stream.respond({
      ...fieldsOf(this.#all(replyFields({ headers }, this.replyFields))),
      ...(isFull ? { "content-length": reply.body.length } : {}),
      ":status": reply.status,
    });
    this.end(this.method === "HEAD" || !isFull ? undefined : reply.body);
  }

  destroy(): void {
    this.#stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  }

  cut(): void {
    if (this.#stream.destroyed || this.#stream.writableEnded) this.destroy();
    else this.#stream.write(Buffer.alloc(0), () => this.destroy());
  }

  onDrain(listener: () => void): void {
    this.#stream.on("drain", () => {
      this.#backlog?.note();
      listener();
    });
  }

  onEnding(listener: () => void): void {
    this.#onEnding = listener;
  }

  onClose(listener: (complete: boolean) => void): void {
    const isComplete = this.#isComplete;
    if (isComplete === undefined) this.#onClose = listener;
    else queueMicrotask(() => listener(isComplete));
  }

  #closed(): void {
    const { rstCode, writableFinished } = this.#stream;
    // Some clients reset the stream after the last announced byte, before END_STREAM.
    const isWhole = writableFinished || this.#left === this.#length;
    const isOver = rstCode === constants.NGHTTP2_NO_ERROR ? isWhole : this.#left === this.#length;
    const isLeft = rstCode === constants.NGHTTP2_NO_ERROR || rstCode === constants.NGHTTP2_CANCEL;
    this.#isComplete = this.#lingers || (isLeft && isOver);
    this.#onClose?.(this.#isComplete);
  }

  stallLimitMs(): number {
    const stream = this.#stream;
    if (stream.headersSent && (stream.writableNeedDrain || stream.writableEnded)) {
      return this.#limits.readerTimeoutMs;
    }
    const waitsForBody = this.hasBody && !stream.readableEnded && stream.readableLength === 0;
    return waitsForBody && !stream.headersSent ? this.#limits.bodyTimeoutMs : 0;
  }

  progress(): number {
    return this.#received + this.takenBytes();
  }

  heldBytes(): number {
    return this.#stream.destroyed ? 0 : this.#stream.writableLength;
  }

  takenBytes(): number {
    return this.#sent - this.#stream.writableLength;
  }

  letGo(): void {
    this.stalled ??= readerCrowded;
    // close() would keep the buffered bytes until the client takes the reset.
    this.#stream.destroy(new Error(readerCrowded.message));
  }

  onStall(): void {
    if (this.#stream.headersSent) {
      this.stalled ??= readerStalled;
      this.#stream.destroy(new Error(readerStalled.message));
      return;
    }
    this.stalled ??= bodyStalled;
    this.reply(renderDenial(bodyStalled));
  }

  #countBacklog(): void {
    if (this.#backlog === undefined) {
      if (this.heldBytes() === 0) return;
      this.#backlog = new Backlog(this.#limits.backlogs, this);
      this.#stream.once("close", () => this.#backlog?.close());
    }
    this.#backlog.note();
  }

  #all(headers: string[]): string[] {
    return this.receipt === undefined ? headers : withReceipt(headers, this.receipt());
  }

  #open(): boolean {
    return !this.#stream.destroyed && !this.#stream.closed && !this.#stream.headersSent;
  }

  /**
   * Reads on and drops what comes, within bounds; then NO_ERROR tells the client to stop and to keep the response
   * (RFC 9113 section 8.1). Sent at once it would overtake END_STREAM, and clients that are still sending (httpx,
   * java.net.http) take it for a failure.
   */
  #endRequest(): void {
    const stream = this.#stream;
    if (!this.hasBody || stream.readableEnded || this.#lingers) return;
    this.#lingers = true;
    const stop = (): void => stream.close(constants.NGHTTP2_NO_ERROR);
    const timer = setTimeout(stop, lingerMs);
    stream.once("close", () => clearTimeout(timer));
    const most = this.#received + lingerBytes;
    this.#body?.detach();
    stream.on("data", () => {
      if (this.#received > most) stop();
    });
    stream.resume();
  }

  #sendTrailers(): void {
    if (this.#stream.destroyed) return;
    try {
      // An empty list ends the stream as well.
      this.#stream.sendTrailers(fieldsOf(this.#trailers.flat()));
      this.#endRequest();
    } catch {
      // This runs in an event of the stream, which catches no error that a hostile origin's field name causes.
      this.destroy();
    }
  }
}

function fieldsOf(headers: readonly string[]): Record<string, string | string[]> {
  return new HeaderList([...headers]).toRecord();
}

/** RFC 9113 section 8.2.2: HTTP/2 has none; the challenge of a proxy is for its client all the same. */
function withoutConnectionFields(headers: ReplyFields): ReplyFields {
  const kept = Object.entries(headers).filter(
    ([name]) => !isHopByHop(name) || isSameName(name, "proxy-authenticate"),
  );
  return Object.fromEntries(kept);
}

function ignore(): void {
  // `close` follows and is what ends the exchange.
}
