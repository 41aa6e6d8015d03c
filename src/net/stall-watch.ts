/** One timer for every exchange: it ends those whose client has stopped sending or reading for too long. */

/** What {@link StallWatch} saw at its last check. */
export interface LastSeen {
  progress: number;
  sinceMs: number;
}

/** A wait whose length a peer decides. */
export interface Stallable {
  /** How long the present wait may last without progress, in milliseconds; 0 when nothing is waited for. */
  stallLimitMs(): number;
  /** A number that changes whenever bytes move. */
  progress(): number;
  /** State of the last check; kept here so that watching allocates nothing. */
  readonly lastSeen: LastSeen;
  /** Called once when the limit has passed. */
  onStall(): void;
}

/** One interval for all: a timer per socket costs more, and limits of seconds need no finer clock. */
export class StallWatch {
  /**
   * Slots that are used again, not a Set: V8 links a Set's outgrown tables to their successors, and with constant turnover
   * that makes the young generation's collector keep what has passed through them.
   */
  readonly #slots: (Stallable | undefined)[] = [];
  readonly #free: number[] = [];
  readonly #timer: NodeJS.Timeout;

  constructor(intervalMs: number) {
    this.#timer = setInterval(() => this.#check(performance.now()), intervalMs);
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

  #check(now: number): void {
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
