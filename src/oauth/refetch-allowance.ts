/** How often strangers may make a key set be fetched again, by tokens that no known key fits. */
import { type Clock, passingClock } from "../duration.ts";

/** The same count for several key sets, in different threads. */
export interface SharedAllowance {
  /** Takes one of `most`, which are there again after the interval. */
  take(most: number, intervalMs: number): Promise<boolean>;
  giveBack(intervalMs: number): void;
}

/** A few at once, then one for every interval that passes. */
export class RefetchAllowance {
  readonly #clock: Clock;
  readonly #most: number;
  readonly #shared: SharedAllowance | undefined;
  readonly #intervalMs: number;
  #left: number;
  #since: number;

  constructor(clock: Clock, intervalMs: number, shared?: SharedAllowance, most = 2) {
    this.#shared = shared;
    this.#clock = passingClock(clock);
    this.#most = most;
    this.#intervalMs = intervalMs;
    this.#left = most;
    this.#since = this.#clock.now();
  }

  /** Takes one; false where none is left. */
  take(): boolean | Promise<boolean> {
    if (this.#shared !== undefined) return this.#shared.take(this.#most, this.#intervalMs);
    const now = this.#clock.now();
    const gained = Math.floor((now - this.#since) / this.#intervalMs);
    if (gained > 0) {
      this.#left = Math.min(this.#most, this.#left + gained);
      this.#since = now;
    }
    if (this.#left === 0) return false;
    this.#left -= 1;
    return true;
  }

  /** Gives one back: the fetch brought what the token needed, so the issuer had changed its keys. */
  giveBack(): void {
    this.#shared?.giveBack(this.#intervalMs);
    this.#left = Math.min(this.#most, this.#left + 1);
  }
}
