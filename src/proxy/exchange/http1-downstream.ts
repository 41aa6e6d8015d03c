/** A client on HTTP/1.0 or 1.1. */
import type { Socket } from "node:net";
import type { BodySource } from "../../http/body-source.ts";
import { acceptsTrailers } from "../../http/headers.ts";
import { Backlog, type SlowPeer } from "../../net/backlogs.ts";
import { cutOff } from "../../net/cut.ts";
import type { Denial, Reply, ReplyFields } from "../../pipeline/decision.ts";
import type { ServerExchange } from "../../wire/server-exchange.ts";
import { withReceipt } from "../flow/receipts.ts";
import { hasContent, renderDenial, replyFields } from "../flow/reply.ts";
import {
  bodyStalled,
  type Downstream,
  type DownstreamLimits,
  readerCrowded,
  readerStalled,
} from "./downstream.ts";
import type { LastSeen } from "../../net/stall-watch.ts";

/** Where there is no body to read. */
const emptyBody: BodySource = {
  isComplete: true,
  open: (sink) => sink.end(),
  resume: ignore,
  detach: ignore,
};

/** Downstream over one exchange of the wire. */
export class Http1Downstream implements Downstream, SlowPeer {
  readonly #exchange: ServerExchange;
  readonly #limits: DownstreamLimits;
  readonly #socket: Socket;
  readonly lastSeen: LastSeen = { progress: -1, sinceMs: 0 };
  readonly hasBody: boolean;
  replyFields: ReplyFields | undefined;
  stalled: Denial | undefined;
  receipt: (() => string) | undefined;
  #onDrain: (() => void) | undefined;
  #onEnding: (() => void) | undefined;
  /** Set once bytes had to wait for the client. */
  #backlog: Backlog | undefined;

  constructor(exchange: ServerExchange, limits: DownstreamLimits) {
    this.#exchange = exchange;
    this.#limits = limits;
    this.#socket = exchange.socket;
    this.hasBody = exchange.head.hasBody;
  }

  get method(): string {
    return this.#exchange.head.method;
  }

  get rawHeaders(): readonly string[] {
    return this.#exchange.head.rawHeaders;
  }

  get httpVersion(): string {
    return this.#exchange.head.httpVersion;
  }

  get body(): BodySource {
    return this.#exchange.body ?? emptyBody;
  }

  get expectsContinue(): boolean {
    return this.#exchange.expectsContinue;
  }

  get wantsChunkedTrailers(): boolean {
    const { te, httpVersion, method } = this.#exchange.head;
    return te !== undefined && httpVersion === "1.1" && method !== "HEAD" && acceptsTrailers(te);
  }

  get headSent(): boolean {
    return this.#exchange.response.headSent;
  }

  get bytesSent(): number {
    return this.#exchange.response.bytes;
  }

  get isDrained(): boolean {
    return !this.#socket.destroyed && this.#socket.writableLength === 0;
  }

  sendContinue(): void {
    this.#exchange.sendContinue();
  }

  sendInformational(status: number, headers: readonly string[]): void {
    if (status !== 101) this.#exchange.response.writeInformational(status, headers);
  }

  writeHead(status: number, headers: string[], reason?: string): void {
    const all = this.receipt === undefined ? headers : withReceipt(headers, this.receipt());
    this.#exchange.response.writeHead(status, all, reason);
  }

  flushHead(): void {
    this.#exchange.response.flushHead();
  }

  write(chunk: Buffer): boolean {
    // Before the write: what is written in pieces leaves the process a moment later even where the client reads.
    this.#countBacklog();
    if (this.#exchange.response.write(chunk)) return true;
    this.#countBacklog();
    return false;
  }

  end(chunk?: Buffer, trailers?: readonly (readonly [string, string])[]): void {
    this.#onEnding?.();
    this.#exchange.end(chunk, trailers);
    this.#countBacklog();
  }

  reply(reply: Reply): void {
    const { response, isUnread } = this.#exchange;
    if (response.headSent) {
      this.destroy();
      return;
    }
    const headers = replyFields(reply, this.replyFields);
    const isFull = hasContent(reply);
    if (isFull) headers.push("Content-Length", String(reply.body.length));
    if (isUnread) response.closes = true;
    this.writeHead(reply.status, headers, reply.reason);
    this.end(this.method === "HEAD" || !isFull ? undefined : reply.body);
  }

  cut(): void {
    this.#socket.destroySoon();
  }

  destroy(): void {
    cutOff(this.#socket);
  }

  onDrain(listener: () => void): void {
    this.#onDrain = listener;
    this.#exchange.onDrain = this.#drained;
  }

  onEnding(listener: () => void): void {
    this.#onEnding = listener;
  }

  onClose(listener: (complete: boolean) => void): void {
    this.#exchange.listen(listener);
  }

  stallLimitMs(): number {
    const { response, isStarved } = this.#exchange;
    if (response.headSent && (this.#socket.writableNeedDrain || response.isEnded)) {
      return this.#limits.readerTimeoutMs;
    }
    // Held bytes mean that the proxy is slower than the client; none the opposite.
    return isStarved && !response.headSent ? this.#limits.bodyTimeoutMs : 0;
  }

  progress(): number {
    return this.#socket.bytesRead + this.takenBytes();
  }

  heldBytes(): number {
    return this.#socket.destroyed ? 0 : this.#socket.writableLength;
  }

  takenBytes(): number {
    // libuv counts a write when it is handed over, so what the kernel has not taken yet is subtracted.
    return this.#socket.bytesWritten - this.#socket.writableLength;
  }

  letGo(): void {
    this.stalled ??= readerCrowded;
    this.destroy();
  }

  onStall(): void {
    if (this.#exchange.response.headSent) {
      this.stalled ??= readerStalled;
      this.destroy();
      return;
    }
    this.stalled ??= bodyStalled;
    this.reply(renderDenial(bodyStalled));
    this.#exchange.body?.fail(new Error("request body timed out"));
  }

  readonly #drained = (): void => {
    this.#backlog?.note();
    this.#onDrain?.();
  };

  #countBacklog(): void {
    if (this.#backlog === undefined) {
      if (this.heldBytes() === 0) return;
      const backlog = new Backlog(this.#limits.backlogs, this);
      this.#backlog = backlog;
      this.#exchange.onSettled = () => backlog.close();
    }
    this.#backlog.note();
  }
}

function ignore(): void {
  // There is nothing to hold back.
}
