/** Counts tunnels and upgraded connections. */
import type { TunnelEnd } from "./catalogue.ts";
import type { Instruments } from "./instruments.ts";

/** Made by Metrics. */
export class TunnelMetrics {
  readonly #of: Instruments;

  constructor(instruments: Instruments) {
    this.#of = instruments;
  }

  opened(): void {
    this.#of.counters.tunnels_opened_total.of().value += 1;
  }

  closed(bytesUp: number, bytesDown: number, seconds: number, end: TunnelEnd): void {
    const { counters, histograms } = this.#of;
    counters.tunnels_closed_total.of(end).value += 1;
    counters.tunnel_bytes_total.of("up").value += bytesUp;
    counters.tunnel_bytes_total.of("down").value += bytesDown;
    histograms.tunnel_duration_seconds.of().observe(seconds);
  }
}
