/** Connections that are closed to make room for others: counted, and logged at most once a minute. */
import type { Cell } from "./instruments.ts";
import type { RareLog } from "./rare-log.ts";

/** What was full, with the key that bounds it. */
const keys = {
  reader: "limits.max_buffered",
  head: "limits.max_buffered_heads",
  admin: undefined,
} as const;

/** What there was no room for: bytes that slow readers leave, heads that do not end, places of an operator surface. */
export type Eviction = keyof typeof keys;

/** Made by Metrics. */
export class Evictions {
  readonly #counts: ReadonlyMap<Eviction, Cell>;

  constructor(counts: { of(reason: string): Cell }) {
    // A rate over a counter that appears with its first event misses that event.
    const reasons = Object.keys(keys) as Eviction[];
    this.#counts = new Map(reasons.map((reason) => [reason, counts.of(reason)]));
  }

  /** One more connection had to go. */
  evicted(
    reason: Eviction,
    log: RareLog,
    facts: Readonly<Record<string, string | number>> = {},
  ): void {
    const count = this.#counts.get(reason);
    if (count !== undefined) count.value += 1;
    log.warn(
      reason,
      { full: keys[reason], ...facts },
      "connections are closed to make room, the one idle for longest first",
    );
  }
}
