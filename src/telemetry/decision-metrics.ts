/** Counters of what plugins decided: for /metrics, and in the Go program's shape for /stats. */
import type { Direction } from "./flow-metrics.ts";
import { type CountedInvocation, type GoStats, GoStatsCounter } from "./go-stats.ts";
import type { MakeTally, Tally } from "./instruments.ts";

/** Made by Metrics. */
export class DecisionMetrics {
  readonly #decisions: Tally;
  readonly #denials: Tally;
  readonly #goStats = new GoStatsCounter();
  readonly #bounded: (value: string) => string;

  constructor(tally: MakeTally, bounded: (value: string) => string) {
    this.#bounded = bounded;
    this.#decisions = tally(
      "decisions_total",
      "What plugins decided; shadow is true where on_error: observe muted a refusal.",
      "direction",
      "plugin",
      "action",
      "shadow",
    );
    this.#denials = tally(
      "denials_total",
      "What plugins refused, by why; shadow is true where on_error: observe muted it.",
      "direction",
      "plugin",
      "reason",
      "shadow",
    );
  }

  count(direction: Direction, invocation: CountedInvocation): void {
    const { plugin, action, reason, cause = reason } = invocation;
    const shadow = invocation.shadow === true ? "true" : "false";
    this.#decisions.of(direction, plugin, action, shadow).value += 1;
    if (action === "deny") {
      this.#denials.of(direction, plugin, this.#bounded(cause), shadow).value += 1;
    }
    this.#goStats.count(invocation);
  }

  snapshot(): GoStats {
    return this.#goStats.snapshot();
  }
}
