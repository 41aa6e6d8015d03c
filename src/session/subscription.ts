/** One reader of new events, which may be slow or dead without anybody else noticing. */
import type { SessionEvent } from "./event.ts";

/** Gets one event; a promise holds the next one back until it settles. */
export type EventListener = (event: SessionEvent) => void | Promise<void>;

/** Which events a reader wants and how far it may fall behind. */
export interface SubscriptionOptions {
  readonly session?: string;
  /** Events that wait for a slow reader; further ones are dropped and counted. 64 when absent. */
  readonly maxQueue?: number;
}

const defaultQueue = 64;

/** A queue between the store and one listener. Made by SessionStore.subscribe. */
export class Subscription {
  readonly #listener: EventListener;
  readonly #session: string | undefined;
  readonly #maxQueue: number;
  readonly #onClose: (subscription: Subscription) => void;
  #queue: SessionEvent[] = [];
  #delivering = false;
  #closed = false;
  #dropped = 0;

  constructor(
    listener: EventListener,
    options: SubscriptionOptions,
    onClose: (subscription: Subscription) => void,
  ) {
    this.#listener = listener;
    this.#session = options.session;
    this.#maxQueue = options.maxQueue ?? defaultQueue;
    this.#onClose = onClose;
  }

  /** Events that this reader missed. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Queues the event, or counts it as missed. Never waits and never throws. */
  offer(event: SessionEvent): void {
    if (this.#closed) return;
    if (this.#session !== undefined && event.sessionId !== this.#session) return;
    if (this.#queue.length >= this.#maxQueue) {
      this.#dropped += 1;
      return;
    }
    this.#queue.push(event);
    if (this.#delivering) return;
    this.#delivering = true;
    // Later, so that the flow that produced the event does not pay for writing it to readers.
    setImmediate(() => void this.#deliver());
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#queue = [];
    this.#onClose(this);
  }

  async #deliver(): Promise<void> {
    try {
      for (;;) {
        const event = this.#queue.shift();
        if (event === undefined || this.#closed) break;
        const waiting = this.#listener(event);
        if (waiting !== undefined) await waiting;
      }
    } catch {
      // A listener that fails is a reader that is gone; its owner hears of it by its own connection.
      this.close();
    } finally {
      this.#delivering = false;
    }
  }
}
