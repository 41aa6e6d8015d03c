/** The upstream proxy that the file asks for beside the one that was accepted, and why they differ where they do. */
import type { Metrics } from "../../telemetry/metrics.ts";
import type { ProbeFailure } from "./probe.ts";
import type { ChainView } from "./plan.ts";

/** What `/config` and `/reload/status` show. */
export interface ChainStatusView {
  /** The newest file's. */
  readonly spec: ChainView | null;
  /** The one that serves; null where nothing is chained. */
  readonly status: ChainView | null;
  readonly condition: {
    readonly accepted: boolean;
    /** Whether the endpoints were asked. */
    readonly probed: boolean;
    readonly since: string;
    readonly failures: readonly {
      readonly endpoint: string;
      readonly hop: string;
      readonly message: string;
    }[];
  };
}

/** Outlives generations. */
export class ChainStatus {
  readonly #metrics: Pick<Metrics, "gauge">;
  #spec: ChainView | null = null;
  #status: ChainView | null = null;
  #condition: ChainStatusView["condition"] | undefined;

  constructor(metrics: Pick<Metrics, "gauge">) {
    this.#metrics = metrics;
  }

  /** A candidate that stays a candidate. */
  refused(view: ChainView, failures: readonly ProbeFailure[]): void {
    this.#spec = view;
    this.#settle(
      false,
      true,
      failures.map(({ endpoint, hop, message }) => ({ endpoint, hop, message })),
    );
  }

  /** What a generation that serves now is chained by; undefined for nothing. */
  accepted(view: ChainView | undefined, probed: boolean): void {
    if (view === undefined && this.#condition === undefined) return;
    this.#spec = view ?? null;
    this.#status = view ?? null;
    this.#settle(true, probed, []);
  }

  /** Undefined where no file ever had the block. */
  view(): ChainStatusView | undefined {
    const condition = this.#condition;
    return condition === undefined
      ? undefined
      : { spec: this.#spec, status: this.#status, condition };
  }

  #settle(
    accepted: boolean,
    probed: boolean,
    failures: ChainStatusView["condition"]["failures"],
  ): void {
    this.#condition = { accepted, probed, since: new Date().toISOString(), failures };
    const serves = accepted && this.#status !== null ? 1 : 0;
    this.#metrics.gauge("upstream_proxy_accepted", () => serves);
  }
}
