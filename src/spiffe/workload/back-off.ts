/** How long to wait before the agent is asked again. */
import { setTimeout as delay } from "node:timers/promises";

/** Milliseconds. */
export interface BackOffTimes {
  readonly first: number;
  readonly most: number;
}

/** A socket of this machine costs nothing to try, and an agent that was restarted should be found again soon. */
const usual: BackOffTimes = { first: 250, most: 10_000 };

/** Waits twice as long each time, and up to a half less, so that the workloads of a node do not ask together. */
export class BackOff {
  readonly #times: BackOffTimes;
  #next: number;

  constructor(times: BackOffTimes = usual) {
    this.#times = times;
    this.#next = times.first;
  }

  /** It worked. */
  reset(): void {
    this.#next = this.#times.first;
  }

  /** How long the next wait is, in milliseconds. */
  takeMs(): number {
    const most = this.#next;
    this.#next = Math.min(this.#times.most, most * 2);
    return most * (0.5 + Math.random() / 2);
  }

  /** Waits; ends at once where the signal says so. */
  async wait(signal: AbortSignal): Promise<void> {
    try {
      await delay(this.takeMs(), undefined, { signal, ref: false });
    } catch {
      // Whoever asked looks at the signal.
    }
  }
}
