/** A request that turned into a tunnel: it ends when the rules that let it in change against it. */
import type { Duplex } from "node:stream";
import type { Cancellation } from "../../pipeline/cancellation.ts";
import type { RequestContext, RequestFacts } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import type { UpgradeRequest } from "./exchange-request.ts";
import { MessageGate, type MessageLimits } from "./message-gate.ts";
import type { JudgedBy, OpenTunnel, TunnelRegistry } from "../flow/tunnel-registry.ts";

/** An upgrade from before its chain is asked until its connection is closed. */
export class UpgradedTunnel {
  readonly #tunnels: TunnelRegistry;
  readonly #context: RequestContext;
  readonly #cancellation: Cancellation;
  readonly #facts: RequestFacts;
  readonly #judgedBy: JudgedBy;
  #gate: MessageGate | undefined;

  /** Copies the fields of the request: what a chain judges has none of the credentials that a chain attached. */
  constructor(tunnels: TunnelRegistry, context: RequestContext, pipeline: Pipeline) {
    this.#tunnels = tunnels;
    this.#context = context;
    this.#cancellation = context.cancellation;
    this.#judgedBy = { pipeline, epoch: tunnels.epoch };
    const { flow, stage, method, path, host, headers, hasBody, cancellation, upgrade } = context;
    const copied = { headers: headers.clone(), hasBody, cancellation, upgrade };
    this.#facts = { flow, stage, method, path, host, ...copied };
  }

  /** Makes the messages readable where the chain has to see them; throws where they cannot be. */
  permitted(limits: MessageLimits): void {
    this.#gate = MessageGate.of(this.#judgedBy.pipeline, this.#context, limits);
  }

  /** Carries the connection to its end; resolves with the refusal of a message, if there was one. */
  async carry(
    upgrade: UpgradeRequest,
    headers: string[],
    upstream: Duplex,
  ): Promise<Denial | undefined> {
    this.#gate?.checkAnswer(headers);
    const { signal } = this.#cancellation;
    const carrying = upgrade.switchTo(headers, upstream, { signal, gate: this.#gate });
    return this.#context.flow.direction === "inbound" ? carrying : this.#during(carrying);
  }

  /** Counts as an open tunnel while the work lasts; those that come in are not asked about again. */
  async #during<Result>(work: Promise<Result>): Promise<Result> {
    const open: OpenTunnel = {
      facts: this.#facts,
      judgedBy: this.#judgedBy,
      readsMessages: this.#gate !== undefined,
      cut: () => this.#cancellation.abort(),
    };
    this.#tunnels.add(open);
    try {
      return await work;
    } finally {
      this.#tunnels.delete(open);
    }
  }
}
