/** How long the phases of flows take. */
import type { Registry } from "./prom-client.ts";
import { phaseBounds } from "./bounds.ts";
import { type Buckets, Distribution } from "./instruments.ts";

/** The parts of a flow whose duration is measured. */
export type FlowPhase = "pipeline" | "connect" | "tls" | "first_byte" | "response";

/** The histogram of phases. */
export class PhaseSeconds {
  readonly #seconds: Distribution;
  /** Each exchange observes three phases: to find them by their labels every time took 0.75 % of its processor time. */
  readonly #known = {
    inbound: new Map<FlowPhase, Buckets>(),
    outbound: new Map<FlowPhase, Buckets>(),
  };

  constructor(registry: Registry) {
    this.#seconds = new Distribution(registry, {
      name: "authbridge_phase_duration_seconds",
      help: "Time that a flow spent in one of its phases.",
      labels: ["direction", "phase"],
      bounds: phaseBounds,
    });
  }

  observe(direction: "inbound" | "outbound", phase: FlowPhase, seconds: number): void {
    const known = this.#known[direction];
    let buckets = known.get(phase);
    if (buckets === undefined) {
      buckets = this.#seconds.of(direction, phase);
      known.set(phase, buckets);
    }
    buckets.observe(seconds);
  }
}
