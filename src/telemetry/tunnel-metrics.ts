/** Counters of tunnels and upgraded connections. */
import { tunnelBounds } from "./bounds.ts";
import type { Cell, Distribution, MakeDistribution, MakeTally, Tally } from "./instruments.ts";

const ends = ["closed", "idle", "aborted", "error", "crowded", "revoked", "refused"] as const;

/** Why a tunnel ended. */
export type TunnelEnd = (typeof ends)[number];

/** Made by Metrics. */
export class TunnelMetrics {
  readonly #opened: Cell;
  readonly #closed: Tally;
  readonly #seconds: Distribution;
  readonly #bytesUp: Cell;
  readonly #bytesDown: Cell;

  constructor(tally: MakeTally, distribution: MakeDistribution) {
    this.#opened = tally("tunnels_opened_total", "Tunnels that were opened.").of();
    this.#closed = tally("tunnels_closed_total", "Tunnels that ended, by why.", "reason");
    this.#seconds = distribution(
      "tunnel_duration_seconds",
      "From the opening of a tunnel to its end.",
      tunnelBounds,
    );
    const bytes = tally(
      "tunnel_bytes_total",
      "Bytes through tunnels; up is from the client to the upstream.",
      "way",
    );
    this.#bytesUp = bytes.of("up");
    this.#bytesDown = bytes.of("down");
    // A rate over a counter that appears with its first event misses that event.
    for (const end of ends) this.#closed.of(end);
  }

  opened(): void {
    this.#opened.value += 1;
  }

  closed(bytesUp: number, bytesDown: number, seconds: number, end: TunnelEnd): void {
    this.#closed.of(end).value += 1;
    this.#bytesUp.value += bytesUp;
    this.#bytesDown.value += bytesDown;
    this.#seconds.of().observe(seconds);
  }
}
