/** Timers of a clock that tests turn: what is due is called in its order, and what it began is let go on. */
import { setImmediate as turn } from "node:timers/promises";
import type { ManualClock } from "./plugin-bench.ts";

interface Timer {
  readonly at: number;
  readonly call: () => void;
}

/** The timers of one clock. */
export class ManualTimers {
  readonly #clock: ManualClock;
  readonly #timers = new Set<Timer>();

  constructor(clock: ManualClock) {
    this.#clock = clock;
  }

  readonly later = (milliseconds: number, call: () => void): (() => void) => {
    const timer: Timer = { at: this.#clock.now() + milliseconds, call };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  };

  /** Lets the time pass. */
  async advance(milliseconds: number): Promise<void> {
    const end = this.#clock.now() + milliseconds;
    for (;;) {
      await turn();
      const due = [...this.#timers].filter(({ at }) => at <= end).toSorted((a, b) => a.at - b.at);
      const [next] = due;
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#clock.advance(Math.max(0, next.at - this.#clock.now()));
      next.call();
    }
    this.#clock.advance(end - this.#clock.now());
    await turn();
  }
}
