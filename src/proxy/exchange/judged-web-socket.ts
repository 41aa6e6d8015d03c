/**
 * A WebSocket whose client messages are judged: each is forwarded only after its verdict.
 *
 * Messages are framed anew, one frame each, so that the message that was judged is the message that arrives.
 * The other direction passes byte for byte, but for credentials that the origin repeats.
 */
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { clientFrame, closeFrame, FrameBoundary, opcodes } from "../../http/web-socket-frame.ts";
import { WebSocketEcho } from "../../http/web-socket-echo.ts";
import {
  type WebSocketFault,
  type WebSocketItem,
  WebSocketReader,
} from "../../http/web-socket-reader.ts";
import type { AbortSource } from "../../net/abort-source.ts";
import { Backlog, PairOfPeers } from "../../net/backlogs.ts";
import { cutOff } from "../../net/cut.ts";
import { giveBack } from "../../net/give-back.ts";
import type { SpliceResult, SpliceTerms } from "../../net/splice.ts";
import type { ByteMeter } from "../../pipeline/byte-meter.ts";
import type { LastSeen, Stallable } from "../../net/stall-watch.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { MessageVerdict } from "../../pipeline/message-judge.ts";
import type { MessageGate } from "./message-gate.ts";

/** Timeouts, accounting and cancellation of the connection. */
export interface JudgedOptions extends SpliceTerms {
  readonly gate: Pick<MessageGate, "judge" | "limits" | "echo">;
  /** Closes the connection. */
  readonly signal: AbortSource;
  readonly toll?: ByteMeter | undefined;
  /** What the client sent after its request. */
  readonly head: Buffer;
}

/** How the connection ended; `denial` where a message was refused. */
export interface JudgedResult extends SpliceResult {
  readonly denial?: Denial;
}

type Ending = Pick<JudgedResult, "reason" | "error" | "denial">;

/** How long both sides have to take their Close frames. */
const closingMs = 2_000;
const policyViolation = 1008;
const serviceRestart = 1012;

/** Carries the connection to its end. Never rejects; owns both streams and destroys them. */
export function carryJudged(
  client: Duplex,
  upstream: Duplex,
  options: JudgedOptions,
): Promise<JudgedResult> {
  return new Promise((resolve) => {
    new JudgedWebSocket(client, upstream, options, resolve).start();
  });
}

class JudgedWebSocket implements Stallable {
  readonly #client: Duplex;
  readonly #upstream: Duplex;
  readonly #options: JudgedOptions;
  readonly #resolve: (result: JudgedResult) => void;
  readonly lastSeen: LastSeen = { progress: -1, sinceMs: 0 };
  /** In the sweep of the stalled. */
  #slot: number | undefined;
  /** Counts signs of life. */
  #moves = 0;
  readonly #backlog: Backlog;
  readonly #reader: WebSocketReader;
  readonly #boundary = new FrameBoundary();
  readonly #echo: WebSocketEcho;
  #bytesUp = 0;
  #bytesDown = 0;
  #open = 2;
  #isJudging = false;
  #hasClientEnded = false;
  /** The client sent its Close frame: nothing is forwarded after that (RFC 6455 section 5.5.1). */
  #hasClosed = false;
  #ending: Ending | undefined;
  /** Our Close frame for the client, while it waits for the present frame of the origin to end. */
  #farewell: Buffer | undefined;
  #closing: NodeJS.Timeout | undefined;

  constructor(
    client: Duplex,
    upstream: Duplex,
    options: JudgedOptions,
    resolve: (result: JudgedResult) => void,
  ) {
    this.#client = client;
    this.#upstream = upstream;
    this.#options = options;
    this.#resolve = resolve;
    this.#reader = new WebSocketReader(options.gate.limits);
    this.#echo = new WebSocketEcho(options.gate.echo);
    const pair = new PairOfPeers(client, upstream, () => this.#cut({ reason: "crowded" }));
    this.#backlog = new Backlog(options.backlogs, pair);
  }

  start(): void {
    const { signal, head } = this.#options;
    this.#guard(this.#client);
    this.#guard(this.#upstream);
    signal.addEventListener("abort", this.#onAbort);
    if (signal.aborted) this.#onAbort();
    if (this.#ending !== undefined) return;
    this.#slot = this.#options.stalls.add(this);
    this.#client.on("data", (chunk: Buffer) => this.#fromClient(chunk));
    this.#upstream.on("data", (chunk: Buffer) => this.#fromUpstream(chunk));
    // A listener alone does not start a stream that was given paused.
    this.#client.resume();
    this.#upstream.resume();
    this.#client.on("drain", () => {
      this.#backlog.note();
      this.#upstream.resume();
    });
    this.#upstream.on("drain", () => this.#listenOn());
    onEnd(this.#client, () => this.#onClientEnd());
    onEnd(this.#upstream, () => {
      this.#moves += 1;
      this.#client.end();
      // After the Close frames of both there is nothing to wait for.
      if (this.#hasClosed) this.#upstream.end();
    });
    if (head.length > 0) this.#fromClient(head);
    // A listener alone does not start a stream that was given paused.
    this.#listenOn();
  }

  readonly #onAbort = (): void =>
    this.#close({ reason: "aborted" }, serviceRestart, "the rules have changed");

  stallLimitMs(): number {
    return this.#options.idleTimeoutMs;
  }

  progress(): number {
    return this.#moves;
  }

  onStall(): void {
    this.#cut({ reason: "idle" });
  }

  #unwatch(): void {
    if (this.#slot !== undefined) this.#options.stalls.delete(this.#slot);
    this.#slot = undefined;
  }

  /** Listens for the end of a stream before anything can fail. */
  #guard(stream: Duplex): void {
    stream.on("error", (error) => this.#cut({ reason: "error", error }));
    if (stream.closed) this.#onClose();
    else stream.once("close", () => this.#onClose());
    if (stream.destroyed) this.#cut({ reason: "closed" });
  }

  #onClose(): void {
    this.#open -= 1;
    const isDone = this.#client.readableEnded && this.#upstream.readableEnded;
    if (this.#ending === undefined && !isDone) this.#cut({ reason: "closed" });
    if (this.#open > 0) return;
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    this.#unwatch();
    this.#backlog.close();
    clearTimeout(this.#closing);
    // A message that is still being judged releases its memory after its verdict.
    if (!this.#isJudging) this.#reader.release();
    this.#resolve({
      bytesUp: this.#bytesUp,
      bytesDown: this.#bytesDown,
      ...(this.#ending ?? { reason: "closed" }),
    });
  }

  #onClientEnd(): void {
    this.#moves += 1;
    this.#hasClientEnded = true;
    if (this.#ending === undefined) this.#readOn();
  }

  #fromClient(chunk: Buffer): void {
    this.#moves += 1;
    if (this.#ending !== undefined || this.#hasClosed) return;
    this.#options.watch?.up(chunk);
    this.#reader.push(chunk);
    this.#readOn();
  }

  /** Reads and judges synchronously, as far as the bytes reach and no plugin returns a promise. */
  #readOn(): void {
    while (!this.#isJudging && this.#ending === undefined && !this.#hasClosed) {
      const item = this.#reader.next();
      if (item === undefined) break;
      if (item.kind === "fault") this.#refuse(faultDenial(item), item.closeCode);
      else this.#judge(item);
    }
    const isIdle = !this.#isJudging && this.#ending === undefined;
    if (isIdle && this.#hasClientEnded && !this.#upstream.writableEnded) this.#upstream.end();
  }

  #judge(message: WebSocketItem): void {
    const verdict = this.#verdictOn(message);
    if (!(verdict instanceof Promise)) {
      this.#settle(message, verdict);
      return;
    }
    this.#isJudging = true;
    this.#client.pause();
    const settle = (settled: MessageVerdict | undefined): void => {
      this.#isJudging = false;
      this.#settle(message, settled);
      this.#readOn();
      this.#listenOn();
    };
    verdict.then(settle, () => settle({ denial: unchecked }));
  }

  /** Control frames say nothing to plugins, and are counted like everything else. */
  #verdictOn({
    kind,
    data,
  }: WebSocketItem): MessageVerdict | undefined | Promise<MessageVerdict | undefined> {
    const isMessage = kind === "text" || kind === "binary";
    const verdict = isMessage ? this.#options.gate.judge({ kind, data }) : undefined;
    const { toll } = this.#options;
    if (toll === undefined) return verdict;
    const weighed = (
      said: MessageVerdict | undefined,
    ): MessageVerdict | undefined | Promise<MessageVerdict | undefined> => {
      if (said !== undefined && "denial" in said) return said;
      const passed = toll.pass("client", data.length);
      const told = (isPassed: boolean): MessageVerdict | undefined =>
        isPassed ? said : { denial: toll.denial ?? unchecked };
      return passed instanceof Promise ? passed.then(told) : told(passed);
    };
    return verdict instanceof Promise ? verdict.then(weighed) : weighed(verdict);
  }

  #settle(message: WebSocketItem, verdict: MessageVerdict | undefined): void {
    if (this.#ending === undefined) {
      if (verdict === undefined) this.#sendOn(message);
      else if ("instead" in verdict) this.#sendOn({ ...message, data: verdict.instead });
      else this.#refuse(verdict.denial, closeCodeOf(verdict.denial));
    }
    // Between the fragments of a message there may be control frames.
    if (message.kind === "text" || message.kind === "binary") this.#reader.release();
  }

  #sendOn({ kind, data }: WebSocketItem): void {
    const frame = clientFrame(opcodes[kind], data);
    this.#hasClosed = kind === "close";
    this.#bytesUp += frame.length;
    if (this.#upstream.write(frame)) return;
    this.#client.pause();
    this.#backlog.note();
  }

  #listenOn(): void {
    this.#moves += 1;
    this.#backlog.note();
    if (!this.#isJudging && !this.#upstream.writableNeedDrain) this.#client.resume();
  }

  #fromUpstream(chunk: Buffer): void {
    this.#moves += 1;
    if (this.#ending !== undefined && this.#farewell === undefined) return;
    if (this.#isOverDown(chunk.length)) return;
    const length = this.#boundary.pass(chunk, this.#farewell !== undefined);
    this.#bytesDown += length;
    const shown = this.#echo.pass(chunk.subarray(0, length));
    // Who hears it may record it.
    this.#options.watch?.down(shown);
    const hasRoom = this.#client.write(shown);
    if (this.#farewell !== undefined) this.#sayFarewell();
    else if (!hasRoom) this.#upstream.pause();
    if (this.#client.writableLength > 0) this.#backlog.note();
    else if (this.#client instanceof Socket) giveBack(chunk);
  }

  /** What the origin sends is counted while it goes by. */
  #isOverDown(bytes: number): boolean {
    const { toll } = this.#options;
    const refuse = (): void => this.#refuse(toll?.denial ?? unchecked, policyViolation);
    const said = this.#ending === undefined ? toll?.pass("server", bytes) : true;
    if (said === false) refuse();
    if (said instanceof Promise) void said.then((isPassed) => isPassed || refuse());
    return said === false;
  }

  #refuse(denial: Denial, closeCode: number): void {
    this.#close({ reason: "refused", denial }, closeCode, denial.message);
  }

  /** Sends both sides a Close frame, and gives them a limited time to read it. */
  #close(ending: Ending, code: number, reason: string): void {
    if (this.#ending !== undefined) return;
    this.#ending = ending;
    this.#unwatch();
    this.#closing = setTimeout(() => this.#destroy(), closingMs);
    if (!this.#upstream.writableEnded) {
      // The reason of the refusal is for the client only.
      if (!this.#hasClosed) this.#upstream.write(closeFrame("client", code));
      this.#upstream.end();
    }
    this.#farewell = closeFrame("server", code, reason);
    this.#sayFarewell();
    this.#client.resume();
    this.#upstream.resume();
  }

  #sayFarewell(): void {
    if (this.#farewell === undefined || !this.#boundary.isBetweenFrames) return;
    if (!this.#client.writableEnded) this.#client.end(this.#farewell);
    this.#farewell = undefined;
  }

  #cut(ending: Ending): void {
    const isBroken = ending.reason === "error" || ending.reason === "crowded";
    this.#ending ??= ending;
    this.#unwatch();
    this.#destroy(isBroken);
  }

  #destroy(isBroken = false): void {
    for (const stream of [this.#client, this.#upstream]) {
      // A FIN would make a cut message look like the end.
      if (isBroken) cutOff(stream);
      else stream.destroy();
    }
  }
}

const unchecked: Denial = { code: "plugin.fault", message: "the message could not be checked" };

function onEnd(stream: Duplex, listener: () => void): void {
  if (stream.readableEnded) listener();
  else stream.once("end", listener);
}

function faultDenial({ closeCode, reason }: WebSocketFault): Denial {
  const message = `WebSocket: ${reason}`;
  if (closeCode === 1009) return { code: "request.body-too-large", message };
  return { code: closeCode === 1013 ? "proxy.overloaded" : "request.malformed", message };
}

/** RFC 6455 section 7.4.1. */
function closeCodeOf({ code }: Denial): number {
  if (code === "request.body-too-large") return 1009;
  return code === "plugin.fault" ? 1011 : policyViolation;
}
