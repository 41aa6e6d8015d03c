/** A request that turned into a tunnel: it ends when the rules that let it in change against it. */
import type { Cancellation } from "../pipeline/cancellation.ts";
import type { RequestContext, RequestFacts } from "../pipeline/context.ts";
import type { Pipeline } from "../pipeline/pipeline.ts";
import type { JudgedBy, OpenTunnel, TunnelRegistry } from "./tunnel-registry.ts";

/** An upgrade from before its chain is asked until its connection is closed. */
export class UpgradedTunnel {
  readonly #tunnels: TunnelRegistry;
  readonly #cancellation: Cancellation;
  readonly #facts: RequestFacts;
  readonly #judgedBy: JudgedBy;

  /** Copies the fields of the request: what a chain judges has none of the credentials that a chain attached. */
  constructor(tunnels: TunnelRegistry, context: RequestContext, pipeline: Pipeline) {
    this.#tunnels = tunnels;
    this.#cancellation = context.cancellation;
    this.#judgedBy = { pipeline, epoch: tunnels.epoch };
    const { flow, stage, method, path, host, headers, hasBody, cancellation, upgrade } = context;
    const copied = { headers: headers.clone(), hasBody, cancellation, upgrade };
    this.#facts = { flow, stage, method, path, host, ...copied };
  }

  /** Counts as an open tunnel while the work lasts. */
  async during(work: Promise<void>): Promise<void> {
    const open: OpenTunnel = {
      facts: this.#facts,
      judgedBy: this.#judgedBy,
      cut: () => this.#cancellation.abort(),
    };
    this.#tunnels.add(open);
    try {
      await work;
    } finally {
      this.#tunnels.delete(open);
    }
  }
}
