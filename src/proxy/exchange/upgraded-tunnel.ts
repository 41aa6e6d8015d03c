/** A request that turned into a tunnel: it ends when a reload brings rules that refuse it. */
import type { Duplex } from "node:stream";
import { HeaderList } from "../../http/headers.ts";
import { MessageCounts } from "../../http/web-socket-frame.ts";
import type { Cancellation } from "../../pipeline/cancellation.ts";
import { type RequestContext, type RequestFacts, ResponseHalf } from "../../pipeline/context.ts";
import type { ResponseVerdict } from "../../pipeline/decision.ts";
import type { MessageSource } from "../../pipeline/message-judge.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import type { Carried, UpgradeRequest } from "./exchange-request.ts";
import { HeardMessages } from "./heard-messages.ts";
import { MessageGate, type MessageLimits } from "./message-gate.ts";
import type { ReplacedResponse } from "./response-sink.ts";
import { renderResponseRefusal } from "../flow/reply.ts";
import { upstreamFault } from "../flow/upstream-fault.ts";
import type { JudgedBy, OpenTunnel, TunnelRegistry } from "../flow/tunnel-registry.ts";

/** An upstream that switched protocols, and the exchange that is notified of the outcome. */
export interface SwitchedResponse {
  readonly headers: string[];
  readonly socket: Duplex;
  /** True once the client has its response, or has disconnected. */
  isOver(): boolean;
  /** The pipeline gave another response than the upstream's. */
  onReplaced(replaced: ReplacedResponse): void;
  onFault(error: unknown): void;
  /** Both connections are taken over; the promise never rejects. */
  onCarrying(carrying: Promise<Carried>): void;
}

const nothing: Carried = { bytesUp: 0, bytesDown: 0 };

/** An upgrade from before its pipeline is asked until its connection is closed. */
export class UpgradedTunnel {
  readonly #request: UpgradeRequest;
  readonly #tunnels: TunnelRegistry;
  readonly #context: RequestContext;
  readonly #cancellation: Cancellation;
  readonly #facts: RequestFacts;
  readonly #judgedBy: JudgedBy;
  #gate: MessageGate | undefined;
  #heard: HeardMessages | undefined;
  /** False where the file exempts the destination from the pipeline. */
  #isJudged = false;

  /** Copies the fields of the request: what a pipeline judges has none of the credentials that a pipeline attached. */
  constructor(
    request: UpgradeRequest,
    tunnels: TunnelRegistry,
    context: RequestContext,
    pipeline: Pipeline,
  ) {
    this.#request = request;
    this.#tunnels = tunnels;
    this.#context = context;
    this.#cancellation = context.cancellation;
    this.#judgedBy = { pipeline, epoch: tunnels.epoch };
    const { flow, stage, method, path, host, headers, hasBody, cancellation, upgrade } = context;
    const copied = { headers: headers.clone(), hasBody, cancellation, upgrade };
    this.#facts = { flow, stage, method, path, host, ...copied };
  }

  /** Makes the messages readable where the pipeline has to see them; throws where they cannot be. */
  permitted(limits: MessageLimits): void {
    this.#isJudged = true;
    const { pipeline } = this.#judgedBy;
    this.#gate = MessageGate.of(pipeline, this.#context, limits);
    const { upgrade, headers } = this.#context;
    const isJudged = (from: MessageSource): boolean => this.#gate?.asksAbout(from) === true;
    const hear =
      upgrade?.toLowerCase() === "websocket"
        ? pipeline.messages.hearers(this.#context, isJudged, limits.budget)
        : undefined;
    if (hear === undefined) return;
    headers.delete("sec-websocket-extensions");
    this.#heard = new HeardMessages(limits, hear);
  }

  /** Judges the response that announces the new protocol, and carries the connection where it may pass. */
  open(switched: SwitchedResponse): void {
    const { headers, socket } = switched;
    const failed = (error: unknown): void => {
      // Invalid fields of the upstream, or a client that has just disconnected: the connection was not taken over.
      socket.destroy();
      const { destination } = this.#context.flow;
      switched.onFault(error instanceof Error ? upstreamFault(error, destination) : error);
    };
    const carry = (fields: string[]): void => {
      const carrying = this.#carry(fields, socket);
      switched.onCarrying(
        carrying.catch((error: unknown) => {
          failed(error);
          return nothing;
        }),
      );
    };
    const { pipeline } = this.#judgedBy;
    if (!this.#isJudged || !pipeline.responseNeeds(this.#context).response) {
      carry(headers);
      return;
    }
    const half = new ResponseHalf(101, new HeaderList(headers));
    this.#context.response = half;
    const follow = (verdict: ResponseVerdict): void => {
      if (verdict.kind === "pass" && !switched.isOver()) {
        carry([...half.headers.raw]);
        return;
      }
      socket.destroy();
      if (verdict.kind === "pass" || switched.isOver()) return;
      const denial = verdict.kind === "denial" ? verdict.denial : undefined;
      const reply =
        verdict.kind === "reply"
          ? verdict.reply
          : renderResponseRefusal(verdict.denial, this.#context);
      switched.onReplaced({ status: reply.status, denial, reply });
    };
    pipeline.runResponse(this.#context).then(follow, failed);
  }

  /** Forwards the connection until it closes. */
  async #carry(headers: string[], upstream: Duplex): Promise<Carried> {
    this.#gate?.checkResponse(headers);
    const { upgrade } = this.#context;
    const watch =
      upgrade?.toLowerCase() === "websocket" ? (this.#heard ?? new MessageCounts()) : undefined;
    this.#context.messages = watch;
    const { bytes } = this.#judgedBy.pipeline;
    const toll = this.#isJudged ? bytes.meterOf(this.#context) : undefined;
    const terms = { signal: this.#cancellation, gate: this.#gate, watch, toll };
    return this.#during(this.#request.switchTo(headers, upstream, terms));
  }

  /** Counts as an open tunnel while the work lasts. */
  async #during<Result>(work: Promise<Result>): Promise<Result> {
    const open: OpenTunnel = {
      facts: this.#facts,
      context: this.#context,
      judgedBy: this.#judgedBy,
      readsMessages: this.#gate?.isJudging === true,
      cut: () => this.#cancellation.abort(),
    };
    const slot = this.#tunnels.add(open);
    try {
      return await work;
    } finally {
      this.#tunnels.delete(slot);
      this.#heard?.close();
    }
  }
}
