/** Counters of HTTP flows and of attempts at tunnels: how they ended, and where their time went. */
import type { Direction, FlowOutcome, FlowPhase, Transport } from "./catalogue.ts";
import type { Buckets, Cell } from "./instruments.ts";
import type { Instruments } from "./instruments.ts";
import { statusClasses } from "./label-values.ts";

/** A flow that is over. */
export interface FinishedFlow {
  readonly direction: Direction;
  readonly transport: Transport;
  readonly outcome: FlowOutcome;
  /** HTTP status; anything that is none where there was no response. */
  readonly status: number;
  readonly seconds: number;
}

/** Made by Metrics. */
export class FlowMetrics {
  readonly #of: Instruments;
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

  constructor(instruments: Instruments) {
    this.#of = instruments;
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
    const { counters, histograms } = this.#of;
    const cell = counters.flows_total.of(direction, transport, outcome, statusClass);
    const distribution = histograms.flow_duration_seconds.of(direction, transport);
    this.#last = { flow, statusClass, cell, seconds: distribution };
    cell.value += 1;
    distribution.observe(seconds);
  }

  phase(direction: Direction, phase: FlowPhase, seconds: number): void {
    const known = this.#phases[direction];
    let buckets = known.get(phase);
    if (buckets === undefined) {
      buckets = this.#of.histograms.phase_duration_seconds.of(direction, phase);
      known.set(phase, buckets);
    }
    buckets.observe(seconds);
  }
}
