/** One timer that looks after every exchange: a client that stops sending or reading is let go at its limit. */

/** Something that can wait for a stranger. */
export interface Stallable {
  /** How long the present wait may last without progress, in milliseconds; 0 when nothing is waited for. */
  stallLimitMs(): number;
  /** A number that changes whenever bytes move. */
  progress(): number;
  /** Called once when the limit has passed. */
  onStall(): void;
}

interface Watched {
  progress: number;
  since: number;
}

/** Per-socket timers cost more than this sweep, and one sweep is enough for limits of seconds. */
export class StallWatch {
  readonly #watched = new Map<Stallable, Watched>();
  readonly #timer: NodeJS.Timeout;

  constructor(sweepMs: number) {
    this.#timer = setInterval(() => this.#sweep(performance.now()), sweepMs);
    this.#timer.unref();
  }

  add(item: Stallable): void {
    this.#watched.set(item, { progress: -1, since: 0 });
  }

  delete(item: Stallable): void {
    this.#watched.delete(item);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#watched.clear();
  }

  #sweep(now: number): void {
    for (const [item, seen] of this.#watched) {
      const limit = item.stallLimitMs();
      const progress = item.progress();
      if (limit === 0 || progress !== seen.progress) {
        seen.progress = progress;
        seen.since = now;
      } else if (now - seen.since >= limit) {
        this.#watched.delete(item);
        item.onStall();
      }
    }
  }
}
