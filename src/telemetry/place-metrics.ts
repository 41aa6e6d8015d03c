/** What found no place: connections to upstreams, and look-ups of names. */
import type { MakeTally, Tally } from "./instruments.ts";

/** Which bound was in the way. */
type Limit = "all" | "destination" | "caller";

/** Made by Metrics. */
export class PlaceMetrics {
  readonly #refused: Tally;

  constructor(tally: MakeTally) {
    this.#refused = tally(
      "upstream_refused_total",
      "Connections to upstreams and look-ups of names for which there was no place, by the limit that was reached.",
      "what",
      "limit",
    );
    // A rate over a counter that appears with its first event misses that event.
    for (const limit of ["all", "caller"]) {
      for (const what of ["connection", "lookup"]) this.#refused.of(what, limit);
    }
    this.#refused.of("connection", "destination");
  }

  refused(what: "connection" | "lookup", limit: Limit): void {
    this.#refused.of(what, limit).value += 1;
  }
}
