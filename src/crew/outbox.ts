/** What a thread tells the one in control without waiting: together, and never more than that one takes. */
import type { Moment } from "./calls.ts";

/** How it is sent; resolves when it was taken. */
type Send = (moments: readonly Moment[]) => Promise<void>;

/** Moments wait at most this long for others. */
const flushMs = 10;
const batchSize = 256;
/** Without room, what is new is dropped and counted. */
const mostWaiting = 20_000;

/** One thread's. */
export class Outbox {
  readonly #send: Send;
  readonly #onLost: (count: number) => void;
  #moments: Moment[] = [];
  #sending: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(send: Send, onLost: (count: number) => void) {
    this.#send = send;
    this.#onLost = onLost;
  }

  put(moment: Moment): void {
    if (this.#moments.length >= mostWaiting) {
      this.#onLost(1);
      return;
    }
    this.#moments.push(moment);
    if (this.#moments.length >= batchSize) this.#start();
    else this.#timer ??= setTimeout(() => this.#start(), flushMs).unref();
  }

  /** Resolves when everything that waits now was taken. */
  async flush(): Promise<void> {
    await this.#sending;
    this.#start();
    await this.#sending;
  }

  #start(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#sending !== undefined || this.#moments.length === 0) return;
    const moments = this.#moments;
    this.#moments = [];
    this.#sending = this.#send(moments)
      .catch(() => this.#onLost(moments.length))
      .finally(() => {
        this.#sending = undefined;
        if (this.#moments.length >= batchSize) this.#start();
        else if (this.#moments.length > 0)
          this.#timer ??= setTimeout(() => this.#start(), flushMs).unref();
      });
  }
}
