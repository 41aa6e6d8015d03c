/** One timer for every exchange: it ends those whose client has stopped sending or reading for too long. */
import { Slots } from "./slots.ts";

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
  readonly #slots = new Slots<Stallable>();
  readonly #timer: NodeJS.Timeout;

  constructor(intervalMs: number) {
    this.#timer = setInterval(() => this.#check(performance.now()), intervalMs);
    this.#timer.unref();
  }

  /** Watches until {@link delete} is called with the slot that this returns. */
  add(item: Stallable): number {
    return this.#slots.add(item);
  }

  delete(slot: number): void {
    this.#slots.delete(slot);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #check(now: number): void {
    for (const item of this.#slots) {
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
