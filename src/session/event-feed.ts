/** Events as async iterators: each reader has a queue of its own, and nobody waits for it. */
import type { SessionEvent } from "./event.ts";
import type { EventSink } from "./recorder.ts";
import { approximateBytes } from "./size.ts";

/** Bounds of what waits for one reader. */
const maxQueue = 1_024;
const maxQueueBytes = 16 * 1_048_576;

/** One reader: it sees what happens from its making on, and ends once the feed does. */
export interface EventReader extends AsyncIterableIterator<SessionEvent, undefined> {
  /** Events that this reader was too slow for. */
  readonly dropped: number;
  return(): Promise<IteratorResult<SessionEvent, undefined>>;
}

/** Readers of one App's events. */
export class EventFeed implements EventSink, AsyncIterable<SessionEvent> {
  readonly #readers = new Set<Reader>();
  #hasEnded = false;
  #dropped = 0;

  /** Events that readers were too slow for, those included that are gone. */
  get dropped(): number {
    return this.#dropped;
  }

  record(event: SessionEvent): void {
    if (this.#readers.size === 0) return;
    const bytes = approximateBytes(event);
    for (const reader of this.#readers) if (!reader.offer(event, bytes)) this.#dropped += 1;
  }

  [Symbol.asyncIterator](): EventReader {
    const reader = new Reader((gone) => this.#readers.delete(gone));
    if (this.#hasEnded) reader.end();
    else this.#readers.add(reader);
    return reader;
  }

  /** No event comes any more: readers end behind what waits for them. */
  end(): void {
    this.#hasEnded = true;
    for (const reader of this.#readers) reader.end();
    this.#readers.clear();
  }
}

type Result = IteratorResult<SessionEvent, undefined>;

const done: Result = { done: true, value: undefined };

class Reader implements EventReader {
  readonly #onGone: (reader: Reader) => void;
  #queue: { readonly event: SessionEvent; readonly bytes: number }[] = [];
  #bytes = 0;
  /** Calls of {@link next} that came before their event. */
  #waiting: ((result: Result) => void)[] = [];
  #hasEnded = false;
  #dropped = 0;

  constructor(onGone: (reader: Reader) => void) {
    this.#onGone = onGone;
  }

  get dropped(): number {
    return this.#dropped;
  }

  /** False where there is no room. */
  offer(event: SessionEvent, bytes: number): boolean {
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) {
      waiting({ done: false, value: event });
      return true;
    }
    const isFull = this.#queue.length >= maxQueue || this.#bytes + bytes > maxQueueBytes;
    if (isFull && this.#queue.length > 0) {
      this.#dropped += 1;
      return false;
    }
    this.#queue.push({ event, bytes });
    this.#bytes += bytes;
    return true;
  }

  end(): void {
    this.#hasEnded = true;
    for (const waiting of this.#waiting.splice(0)) waiting(done);
  }

  next(): Promise<Result> {
    const first = this.#queue.shift();
    if (first !== undefined) {
      this.#bytes -= first.bytes;
      return Promise.resolve({ done: false, value: first.event });
    }
    if (this.#hasEnded) return Promise.resolve(done);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  return(): Promise<Result> {
    this.#queue = [];
    this.#bytes = 0;
    this.end();
    this.#onGone(this);
    return Promise.resolve(done);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
