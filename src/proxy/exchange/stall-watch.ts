/** One timer that looks after every exchange: a client that stops sending or reading is let go at its limit. */

/** Notes of {@link StallWatch}. */
export interface LastSeen {
  progress: number;
  sinceMs: number;
}

/** Something that can wait for a stranger. */
export interface Stallable {
  /** How long the present wait may last without progress, in milliseconds; 0 when nothing is waited for. */
  stallLimitMs(): number;
  /** A number that changes whenever bytes move. */
  progress(): number;
  /** What the last sweep saw; the watch keeps its notes here, so that watching costs no allocation. */
  readonly lastSeen: LastSeen;
  /** Called once when the limit has passed. */
  onStall(): void;
}

/** Per-socket timers cost more than this sweep, and one sweep is enough for limits of seconds. */
export class StallWatch {
  /**
   * Slots that are used again, not a Set: V8 links a Set's outgrown tables to their successors, and with constant turnover
   * that makes the young generation's collector keep what has passed through them.
   */
  readonly #slots: (Stallable | undefined)[] = [];
  readonly #free: number[] = [];
  readonly #timer: NodeJS.Timeout;

  constructor(sweepMs: number) {
    this.#timer = setInterval(() => this.#sweep(performance.now()), sweepMs);
    this.#timer.unref();
  }

  /** Watches until {@link delete} is called with the slot that this returns. */
  add(item: Stallable): number {
    const slot = this.#free.pop() ?? this.#slots.length;
    this.#slots[slot] = item;
    return slot;
  }

  delete(slot: number): void {
    this.#slots[slot] = undefined;
    this.#free.push(slot);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #sweep(now: number): void {
    for (const item of this.#slots) {
      if (item === undefined) continue;
      const limit = item.stallLimitMs();
      const progress = item.progress();
      const { lastSeen } = item;
      if (limit === 0 || progress !== lastSeen.progress) {
        lastSeen.progress = progress;
        lastSeen.sinceMs = now;
      } else if (now - lastSeen.sinceMs >= limit) {
        lastSeen.sinceMs = now;
        item.onStall();
      }
    }
  }
}
