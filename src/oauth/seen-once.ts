/** Ids that are good for one use, such as the `jti` of a proof: remembered for as long as their bearer could be taken. */
import { hash } from "node:crypto";
import { type Clock, passingClock } from "../duration.ts";

/** How long and how many ids are remembered. */
export interface SeenOnceTerms {
  /** Must not be shorter than the time in which what carries the id is accepted. */
  readonly lifetimeMs: number;
  readonly most: number;
}

/** Where ids are used up for all replicas; rejects where that cannot be said. */
export interface SharedIds {
  /** False where somebody has used the digest before; it is remembered for this long. */
  take(digest: string, lifetimeMs: number): Promise<boolean>;
}

/** Remembers ids. When it is full it takes no new one: to forget an id would be to accept it twice. */
export class SeenOnce {
  readonly #clock: Clock;
  /** Digests with the time of their end, oldest first: all are kept for the same time. */
  readonly #ends = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = passingClock(clock);
  }

  get size(): number {
    return this.#ends.size;
  }

  /** Uses an id up; `used` where it was before, `full` where there is no room to remember it. */
  use(id: string, { lifetimeMs, most }: SeenOnceTerms): "new" | "used" | "full" {
    const now = this.#clock.now();
    for (const [digest, end] of this.#ends) {
      if (end > now) break;
      this.#ends.delete(digest);
    }
    const digest = digestOf(id);
    if (this.#ends.has(digest)) return "used";
    if (this.#ends.size >= most) return "full";
    this.#ends.set(digest, now + lifetimeMs);
    return "new";
  }
}

/** What stands for an id where it is remembered. */
export function digestOf(id: string): string {
  return hash("sha256", id, "base64");
}
