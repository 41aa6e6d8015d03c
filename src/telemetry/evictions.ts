/** Connections that are closed to make room for others: counted, and told about at most once a minute for each reason. */
import type { Cell } from "./instruments.ts";
import type { Logger } from "./log.ts";

/** What was full, with the key that bounds it. */
const keys = {
  reader: "limits.max_buffered",
  head: "limits.max_buffered_heads",
  admin: undefined,
} as const;

/** What there was no room for: bytes that slow readers leave, heads that do not end, places of an operator surface. */
export type Eviction = keyof typeof keys;

const lineEveryMs = 60_000;

/** Made by Metrics. */
export class Evictions {
  readonly #counts: ReadonlyMap<Eviction, Cell>;
  readonly #toldAt = new Map<Eviction, number>();

  constructor(counts: { of(reason: string): Cell }) {
    // A rate over a counter that appears with its first event misses that event.
    const reasons = Object.keys(keys) as Eviction[];
    this.#counts = new Map(reasons.map((reason) => [reason, counts.of(reason)]));
  }

  /** One more connection had to go. */
  evicted(
    reason: Eviction,
    log: Logger,
    facts: Readonly<Record<string, string | number>> = {},
  ): void {
    const count = this.#counts.get(reason);
    if (count === undefined) return;
    count.value += 1;
    const now = performance.now();
    if (now - (this.#toldAt.get(reason) ?? Number.NEGATIVE_INFINITY) < lineEveryMs) return;
    this.#toldAt.set(reason, now);
    log.warn(
      { full: keys[reason], ...facts, closed: count.value },
      "connections are closed to make room, the one idle for longest first",
    );
  }
}
