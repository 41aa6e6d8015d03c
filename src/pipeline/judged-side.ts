/** What one side of a WebSocket sends: each message goes on after its verdict, and the next one is read after that. */
import {
  type WebSocketFault,
  type WebSocketItem,
  type WebSocketLimits,
  WebSocketReader,
} from "../http/web-socket-reader.ts";
import type { Denial } from "./decision.ts";
import type { MessageSource, MessageVerdict } from "./message-judge.ts";

/** What a side needs of its connection. */
export interface JudgedSideOptions {
  readonly from: MessageSource;
  readonly limits: WebSocketLimits;
  judge(
    this: void,
    item: WebSocketItem,
  ): MessageVerdict | undefined | Promise<MessageVerdict | undefined>;
  send(this: void, item: WebSocketItem): void;
  refuse(this: void, denial: Denial, closeCode: number): void;
  /** A verdict has to be waited for. */
  onWaiting(this: void): void;
  onSettled(this: void): void;
  /** The side has ended, and all that it sent is settled. */
  onEnd(this: void): void;
}

/** RFC 6455 section 7.4.1. */
export const policyViolation = 1008;

/** The verdict on what could not be checked. */
export const unchecked: Denial = {
  code: "plugin.fault",
  message: "the message could not be checked",
};

/** One side of one connection. */
export class JudgedSide {
  readonly #options: JudgedSideOptions;
  readonly #reader: WebSocketReader;
  #isJudging = false;
  #hasEnded = false;
  #hasClosed = false;
  #isStopped = false;

  constructor(options: JudgedSideOptions) {
    this.#options = options;
    this.#reader = new WebSocketReader(options.limits, options.from);
  }

  /** A verdict is waited for. */
  get isJudging(): boolean {
    return this.#isJudging;
  }

  /** It sent its Close frame: nothing is forwarded after that (RFC 6455 section 5.5.1). */
  get hasClosed(): boolean {
    return this.#hasClosed;
  }

  push(chunk: Buffer): void {
    if (this.#isStopped || this.#hasClosed) return;
    this.#reader.push(chunk);
    this.#readOn();
  }

  end(): void {
    this.#hasEnded = true;
    this.#readOn();
  }

  /** Nothing more is read, and what is being judged does not go on. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Gives its memory back; a message that is still being judged does so after its verdict. */
  close(): void {
    this.stop();
    if (!this.#isJudging) this.#reader.release();
  }

  /** Reads and judges synchronously, as far as the bytes reach and no plugin returns a promise. */
  #readOn(): void {
    const { from, refuse, onEnd } = this.#options;
    while (!this.#isJudging && !this.#isStopped && !this.#hasClosed) {
      const item = this.#reader.next();
      if (item === undefined) break;
      if (item.kind === "fault") refuse(faultDenials[from](item), item.closeCode);
      else this.#judge(item);
    }
    if (this.#hasEnded && !this.#isJudging && !this.#isStopped) onEnd();
  }

  #judge(item: WebSocketItem): void {
    const { judge, onWaiting, onSettled } = this.#options;
    const verdict = judge(item);
    if (!(verdict instanceof Promise)) {
      this.#settle(item, verdict);
      return;
    }
    this.#isJudging = true;
    onWaiting();
    const settle = (settled: MessageVerdict | undefined): void => {
      this.#isJudging = false;
      this.#settle(item, settled);
      this.#readOn();
      onSettled();
    };
    verdict.then(settle, () => settle({ denial: unchecked }));
  }

  #settle(item: WebSocketItem, verdict: MessageVerdict | undefined): void {
    const { send, refuse } = this.#options;
    if (!this.#isStopped) {
      this.#hasClosed = item.kind === "close";
      if (verdict === undefined) send(item);
      else if ("instead" in verdict) send({ ...item, data: verdict.instead });
      else refuse(verdict.denial, closeCodeOf(verdict.denial));
    }
    // Between the fragments of a message there may be control frames.
    if (item.kind === "text" || item.kind === "binary") this.#reader.release();
  }
}

/** What a fault of either side is to the client. */
const faultDenials: Readonly<Record<MessageSource, (fault: WebSocketFault) => Denial>> = {
  client: ({ closeCode, reason }) => {
    const message = `WebSocket: ${reason}`;
    if (closeCode === 1009) return { code: "request.body-too-large", message };
    return { code: closeCode === 1013 ? "proxy.overloaded" : "request.malformed", message };
  },
  server: ({ closeCode, reason }) => {
    const message = `WebSocket, from the origin: ${reason}`;
    if (closeCode === 1009)
      return { code: "upstream.response-too-large", message: `${message} (limits.max_body)` };
    return { code: closeCode === 1013 ? "proxy.overloaded" : "upstream.bad-response", message };
  },
};

function closeCodeOf({ code }: Denial): number {
  if (code === "request.body-too-large") return 1009;
  return code === "plugin.fault" ? 1011 : policyViolation;
}
