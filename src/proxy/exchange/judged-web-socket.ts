/**
 * A WebSocket whose messages are judged: each is forwarded only after its verdict.
 *
 * Messages are framed anew, one frame each, so that the message that was judged is the message that arrives.
 * What the origin sends passes byte for byte where nobody judges it, but for credentials that it repeats.
 */
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import {
  clientFrame,
  closeFrame,
  FrameBoundary,
  opcodes,
  serverFrame,
} from "../../http/web-socket-frame.ts";
import { WebSocketEcho } from "../../http/web-socket-echo.ts";
import type { WebSocketItem, WebSocketMessage } from "../../http/web-socket-reader.ts";
import type { AbortSource } from "../../net/abort-source.ts";
import { Backlog, PairOfPeers } from "../../net/backlogs.ts";
import { cutOff } from "../../net/cut.ts";
import { giveBack } from "../../net/give-back.ts";
import type { SpliceResult, SpliceTerms } from "../../net/splice.ts";
import type { ByteMeter } from "../../pipeline/byte-meter.ts";
import type { LastSeen, Stallable } from "../../net/stall-watch.ts";
import type { Denial } from "../../pipeline/decision.ts";
import { JudgedSide, policyViolation, unchecked } from "../../pipeline/judged-side.ts";
import type { MessageVerdict } from "../../pipeline/message-judge.ts";
import type { MessageGate } from "./message-gate.ts";

/** Timeouts, accounting and cancellation of the connection. */
export interface JudgedOptions extends SpliceTerms {
  readonly gate: Pick<MessageGate, "judge" | "limits" | "echo" | "isJudgingServer">;
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
  readonly #up: JudgedSide;
  /** Undefined where what the origin sends passes as it is. */
  readonly #down: JudgedSide | undefined;
  readonly #boundary = new FrameBoundary();
  readonly #echo: WebSocketEcho;
  #bytesUp = 0;
  #bytesDown = 0;
  #open = 2;
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
    this.#up = this.#sideUp();
    this.#down = options.gate.isJudgingServer ? this.#sideDown() : undefined;
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
    this.#client.on("drain", () => this.#listenToOrigin());
    this.#upstream.on("drain", () => this.#listenOn());
    onEnd(this.#client, () => {
      this.#moves += 1;
      this.#up.end();
    });
    onEnd(this.#upstream, () => {
      this.#moves += 1;
      if (this.#down === undefined) this.#endDown();
      else this.#down.end();
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

  #stop(): void {
    this.#up.stop();
    this.#down?.stop();
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
    this.#stop();
    this.#backlog.close();
    clearTimeout(this.#closing);
    this.#up.close();
    this.#down?.close();
    this.#resolve({
      bytesUp: this.#bytesUp,
      bytesDown: this.#bytesDown,
      ...(this.#ending ?? { reason: "closed" }),
    });
  }

  #fromClient(chunk: Buffer): void {
    this.#moves += 1;
    if (this.#ending !== undefined || this.#up.hasClosed) return;
    this.#options.watch?.up(chunk);
    this.#up.push(chunk);
  }

  /** What the client sends, on its way to the origin. */
  #sideUp(): JudgedSide {
    const { limits, judge } = this.#options.gate;
    return new JudgedSide({
      from: "client",
      limits,
      judge: (item) =>
        this.#weighed(item, isMessage(item) ? judge({ from: "client", ...item }) : undefined),
      send: (item) => this.#sendUp(item),
      refuse: this.#refuse,
      onWaiting: () => this.#client.pause(),
      onSettled: () => this.#listenOn(),
      onEnd: () => {
        if (!this.#upstream.writableEnded) this.#upstream.end();
      },
    });
  }

  /** What the origin sends, where it is judged. Its bytes were counted as they came. */
  #sideDown(): JudgedSide {
    const { limits, judge } = this.#options.gate;
    return new JudgedSide({
      from: "server",
      limits,
      judge: (item) => {
        if (!isMessage(item)) return undefined;
        // Nobody sees it before its echoes are gone.
        const data = this.#options.gate.echo()?.stream(false).end(item.data) ?? item.data;
        const verdict = judge({ from: "server", kind: item.kind, data });
        const said = (one: MessageVerdict | undefined): MessageVerdict | undefined =>
          one ?? (data === item.data ? undefined : { instead: data });
        return verdict instanceof Promise ? verdict.then(said) : said(verdict);
      },
      send: ({ kind, data }) => this.#sendDown(serverFrame(opcodes[kind], data)),
      refuse: this.#refuse,
      onWaiting: () => this.#upstream.pause(),
      onSettled: () => this.#listenToOrigin(),
      onEnd: () => this.#endDown(),
    });
  }

  /** Control frames say nothing to plugins, and are counted like everything else. */
  #weighed(
    { data }: WebSocketItem,
    verdict: MessageVerdict | undefined | Promise<MessageVerdict | undefined>,
  ): MessageVerdict | undefined | Promise<MessageVerdict | undefined> {
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

  #sendUp({ kind, data }: WebSocketItem): void {
    const frame = clientFrame(opcodes[kind], data);
    this.#bytesUp += frame.length;
    if (this.#upstream.write(frame)) return;
    this.#client.pause();
    this.#backlog.note();
  }

  #sendDown(shown: Buffer): void {
    this.#bytesDown += shown.length;
    // Who hears it may record it.
    this.#options.watch?.down(shown);
    const hasRoom = this.#client.write(shown);
    if (!hasRoom && this.#ending === undefined) this.#upstream.pause();
    if (this.#client.writableLength > 0) this.#backlog.note();
  }

  #endDown(): void {
    this.#client.end();
    // After the Close frames of both there is nothing to wait for.
    if (this.#up.hasClosed) this.#upstream.end();
  }

  #listenToOrigin(): void {
    this.#moves += 1;
    this.#backlog.note();
    if (this.#down?.isJudging !== true && !this.#client.writableNeedDrain) this.#upstream.resume();
  }

  #listenOn(): void {
    this.#moves += 1;
    this.#backlog.note();
    if (!this.#up.isJudging && !this.#upstream.writableNeedDrain) this.#client.resume();
  }

  #fromUpstream(chunk: Buffer): void {
    this.#moves += 1;
    if (this.#ending !== undefined && this.#farewell === undefined) return;
    if (this.#isOverDown(chunk.length)) return;
    if (this.#down !== undefined) {
      this.#down.push(chunk);
      return;
    }
    const length = this.#boundary.pass(chunk, this.#farewell !== undefined);
    this.#sendDown(this.#echo.pass(chunk.subarray(0, length)));
    if (this.#farewell !== undefined) this.#sayFarewell();
    if (this.#client.writableLength === 0 && this.#client instanceof Socket) giveBack(chunk);
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

  readonly #refuse = (denial: Denial, closeCode: number): void =>
    this.#close({ reason: "refused", denial }, closeCode, denial.message);

  /** Sends both sides a Close frame, and gives them a limited time to read it. */
  #close(ending: Ending, code: number, reason: string): void {
    if (this.#ending !== undefined) return;
    this.#ending = ending;
    this.#stop();
    this.#closing = setTimeout(() => this.#destroy(), closingMs);
    if (!this.#upstream.writableEnded) {
      // The reason of the refusal is for the client only.
      if (!this.#up.hasClosed) this.#upstream.write(closeFrame("client", code));
      this.#upstream.end();
    }
    this.#farewell = closeFrame("server", code, reason);
    this.#sayFarewell();
    this.#client.resume();
    this.#upstream.resume();
  }

  #sayFarewell(): void {
    if (this.#farewell === undefined || !this.#boundary.isBetweenFrames) return;
    if (!this.#client.writableEnded)
      this.#client.end(this.#down?.hasClosed === true ? undefined : this.#farewell);
    this.#farewell = undefined;
  }

  #cut(ending: Ending): void {
    const isBroken = ending.reason === "error" || ending.reason === "crowded";
    this.#ending ??= ending;
    this.#stop();
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

function onEnd(stream: Duplex, listener: () => void): void {
  if (stream.readableEnded) listener();
  else stream.once("end", listener);
}

function isMessage(item: WebSocketItem): item is WebSocketMessage {
  return item.kind === "text" || item.kind === "binary";
}
