/** Counters of HTTP flows and of attempts at tunnels: how they ended, and where their time went. */
import { phaseBounds, requestBounds } from "./bounds.ts";
import type {
  Buckets,
  Cell,
  Distribution,
  MakeDistribution,
  MakeTally,
  Tally,
} from "./instruments.ts";

// The same words as in pipeline/flow.ts, which stands above this folder.
/** Which chain a flow belongs to. */
export type Direction = "inbound" | "outbound";
type Transport = "http" | "connect" | "bridge" | "transparent";

/** How a flow ended. */
export type FlowOutcome = "ok" | "denied" | "unavailable" | "error" | "cancelled";

/** The parts of a flow whose duration is measured. */
export type FlowPhase = "pipeline" | "connect" | "tls" | "first_byte" | "response";

/** A flow that is over. */
export interface FinishedFlow {
  readonly direction: Direction;
  readonly transport: Transport;
  readonly outcome: FlowOutcome;
  /** HTTP status; anything that is none where there was no answer. */
  readonly status: number;
  readonly seconds: number;
}

const statusClasses = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"] as const;

/** Made by Metrics. */
export class FlowMetrics {
  readonly #flows: Tally;
  readonly #seconds: Distribution;
  readonly #phaseSeconds: Distribution;
  /** An exchange observes three phases: finding them by their labels each time took 0.75 % of its processor time. */
  readonly #phases = {
    inbound: new Map<FlowPhase, Buckets>(),
    outbound: new Map<FlowPhase, Buckets>(),
  };
  #last:
    | {
        readonly flow: FinishedFlow;
        readonly statusClass: string;
        readonly cell: Cell;
        readonly seconds: Buckets;
      }
    | undefined;

  constructor(tally: MakeTally, distribution: MakeDistribution) {
    this.#flows = tally(
      "flows_total",
      "Flows that ended, by how they ended and by class of status.",
      "direction",
      "transport",
      "outcome",
      "status",
    );
    this.#seconds = distribution(
      "flow_duration_seconds",
      "From the first byte of a flow to its end. Tunnels have their own histogram.",
      requestBounds,
      "direction",
      "transport",
    );
    this.#phaseSeconds = distribution(
      "phase_duration_seconds",
      "Time that a flow spent in one of its phases.",
      phaseBounds,
      "direction",
      "phase",
    );
  }

  /** Counts the end of one HTTP flow, or of a refused or failed attempt at a tunnel. */
  finished(flow: FinishedFlow): void {
    const { direction, transport, outcome, status, seconds } = flow;
    const last = this.#last;
    const statusClass = statusClasses[Math.trunc(status / 100)] ?? "none";
    // Most flows are like the one before them.
    if (
      last !== undefined &&
      last.flow.direction === direction &&
      last.flow.transport === transport &&
      last.flow.outcome === outcome &&
      last.statusClass === statusClass
    ) {
      last.cell.value += 1;
      last.seconds.observe(seconds);
      return;
    }
    const cell = this.#flows.of(direction, transport, outcome, statusClass);
    const distribution = this.#seconds.of(direction, transport);
    this.#last = { flow, statusClass, cell, seconds: distribution };
    cell.value += 1;
    distribution.observe(seconds);
  }

  phase(direction: Direction, phase: FlowPhase, seconds: number): void {
    const known = this.#phases[direction];
    let buckets = known.get(phase);
    if (buckets === undefined) {
      buckets = this.#phaseSeconds.of(direction, phase);
      known.set(phase, buckets);
    }
    buckets.observe(seconds);
  }
}
