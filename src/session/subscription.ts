/** One reader of new events, which may be slow or dead without anybody else noticing. */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { StoredEvent } from "./session.ts";

/** Gets one event; a promise holds the next one back until it settles. */
export type EventListener = (stored: StoredEvent) => void | Promise<void>;

/** Which events a reader wants and how far it may fall behind. */
export interface SubscriptionOptions {
  readonly session?: string | undefined;
  /** Events that wait for a slow reader; further ones are dropped and counted. 64 when absent. */
  readonly maxQueue?: number;
  /** The same in bytes: a queue must not keep alive what the store has given up. 1 MiB when absent. */
  readonly maxQueueBytes?: number;
}

const defaultQueue = 64;
const defaultQueueBytes = 1_048_576;
/** Events in one go; between two of them the process does its other work. */
const batchSize = 64;

/** A queue between the store and one listener. Made by SessionStore.subscribe. */
export class Subscription {
  readonly #listener: EventListener;
  readonly #session: string | undefined;
  readonly #maxQueue: number;
  readonly #maxQueueBytes: number;
  readonly #onClose: (subscription: Subscription) => void;
  #queue: StoredEvent[] = [];
  #queuedBytes = 0;
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
    this.#maxQueueBytes = options.maxQueueBytes ?? defaultQueueBytes;
    this.#onClose = onClose;
  }

  /** Events that this reader missed. */
  get dropped(): number {
    return this.#dropped;
  }

  /**
   * Queues the event, or counts it as missed. Never waits and never throws. Whoever saw the message's first event in another
   * session (`shownIn`) sees this one there too.
   */
  offer(kept: StoredEvent, shownIn = kept.event.sessionId): void {
    if (this.#closed) return;
    const { sessionId } = kept.event;
    const wanted = this.#session;
    if (wanted !== undefined && wanted !== sessionId && wanted !== shownIn) return;
    const isMoved = shownIn !== sessionId && wanted !== sessionId;
    const stored = isMoved
      ? { ...kept, event: { ...kept.event, sessionId: shownIn, movedTo: sessionId } }
      : kept;
    const isFull =
      this.#queue.length >= this.#maxQueue ||
      (this.#queue.length > 0 && this.#queuedBytes + stored.bytes > this.#maxQueueBytes);
    if (isFull) {
      this.#dropped += 1;
      return;
    }
    this.#queue.push(stored);
    this.#queuedBytes += stored.bytes;
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
      for (let count = 1; ; count += 1) {
        const stored = this.#queue.shift();
        if (stored === undefined || this.#closed) break;
        this.#queuedBytes -= stored.bytes;
        const waiting = this.#listener(stored);
        if (waiting !== undefined) await waiting;
        if (count % batchSize === 0) await nextTurn();
      }
    } catch {
      // A listener fails when its reader has disconnected; its owner is notified by its own connection.
      this.close();
    } finally {
      this.#delivering = false;
    }
  }
}
