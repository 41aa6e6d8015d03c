/**
 * One HTTP exchange: request phase, send, response phase, reply. The same for every surface and both directions.
 *
 * Direction is a value here: only the pipeline and the destination differ, and the listener chose both.
 */
import type { Duplex } from "node:stream";
import { ProxyError } from "../../errors.ts";
import type { ByteMeter } from "../../pipeline/byte-meter.ts";
import { Cancellation } from "../../pipeline/cancellation.ts";
import type { ResponseNeeds, StepJudge } from "../../pipeline/message-needs.ts";
import type { Holder, RequestContext } from "../../pipeline/context.ts";
import type { Denial, Reply } from "../../pipeline/decision.ts";
import type { Permit, Pipeline, Verdict } from "../../pipeline/pipeline.ts";
import type { OutgoingRequest } from "../../upstream/upstream.ts";
import { type HeldBody, takeBody, type TakenBody } from "./buffered-body.ts";
import {
  type Carried,
  contextOf,
  type ExchangeRequest,
  type ExchangeServices,
} from "./exchange-request.ts";
import { HeldStream } from "./held-stream.ts";
import { denialOf, renderDenial, renderRefusal, statusOf } from "../flow/reply.ts";
import { type Receipts, takeReceiptWish, withReceipt } from "../flow/receipts.ts";
import type { LiveExchange } from "../flow/live-exchanges.ts";
import { outgoingMessage } from "./outgoing-message.ts";
import type { RequestBody } from "./request-body.ts";
import type { FlowControl, ReplacedResponse, ResponseSink } from "./response-sink.ts";
import { ResponseSinks } from "./response-sinks.ts";
import { UpgradedTunnel } from "./upgraded-tunnel.ts";
import { UpstreamRequest } from "./upstream-request.ts";

/** What is logged for a client that left before it was answered; no client ever sees it. */
const clientClosedRequest = 499;
const nothingRead = { responseBody: false, frames: false };
const switchedUnasked = "the upstream switched protocols unasked";

/**
 * Begins the exchange; `done` is called at its end. Never throws: whatever goes wrong is answered, recorded and logged.
 *
 * Steps that do not wait follow each other without a promise, which would cost more than most of them.
 */
export function exchange(
  services: ExchangeServices,
  done: () => void,
  request: ExchangeRequest,
): void {
  new Exchange(services, done, request).begin();
}

class Exchange implements LiveExchange, Holder {
  readonly #services: ExchangeServices;
  #request: ExchangeRequest;
  readonly #pipeline: Pipeline;
  /** The file exempts this destination from the pipeline. */
  readonly #skipped: boolean;
  readonly #context: RequestContext;
  readonly #cancellation = new Cancellation();
  readonly #done: () => void;
  readonly #slot: number;
  readonly #liveSlot: number;
  /** Until replicas have said what they know of the message. */
  #arriving: Promise<void> | undefined;
  readonly #receiptFor: ReturnType<Receipts["readersOf"]> | undefined;
  #isOver = false;
  #needs: ResponseNeeds | undefined;
  #upstream: UpstreamRequest | undefined;
  #sinks: ResponseSinks | undefined;
  #body: RequestBody | undefined;
  /** Present where what goes by is bounded. */
  #meter: ByteMeter | undefined;
  /** What was read of a body that only observers wanted and that is too large for them. */
  #held: HeldBody | undefined;
  /** Set where the body is judged as it is streamed. */
  #judges: readonly StepJudge[] | undefined;
  #bufferedBytes = 0;
  /** Gives back what a body in memory holds. */
  #releaseBody: (() => void) | undefined;
  #status = 0;
  /** When the response's head came, as performance.now() gave it. */
  #answeredAt: number | undefined;
  #denial: Denial | undefined;
  #refused = false;
  #cancelled = false;
  #switched: Promise<void> | undefined;
  #carried: Carried | undefined;
  /** Set for an upgrade. */
  readonly #tunnel: UpgradedTunnel | undefined;

  constructor(services: ExchangeServices, done: () => void, request: ExchangeRequest) {
    this.#services = services;
    this.#done = done;
    this.#request = request;
    const { runtime, flow, downstream } = request;
    const inbound = flow.direction === "inbound";
    this.#pipeline = inbound ? runtime.inbound : runtime.outbound;
    this.#skipped = !inbound && runtime.skipHosts.matches(flow.destination.host);
    this.#context = contextOf(request, this.#cancellation);
    const isAsked = takeReceiptWish(request.headers);
    this.#receiptFor = services.receipts?.readersOf(flow.destination.host, isAsked);
    if (this.#receiptFor?.client === true) downstream.receipt = () => this.#receipt() ?? "";
    this.#context.holder = this;
    this.#tunnel =
      request.upgrade === undefined
        ? undefined
        : new UpgradedTunnel(request.upgrade, services.tunnels, this.#context, this.#pipeline);
    const judge = this.#skipped ? undefined : this.#pipeline;
    this.#arriving = services.recorder.arrived(this.#context, judge);
    if (inbound && !this.#skipped)
      downstream.onEnding(() => services.recorder.ending(this.#context));
    this.#slot = services.stalls.add(downstream);
    this.#liveSlot = services.live.add(this);
    downstream.onClose((complete) => this.#onClientClosed(complete));
  }

  get context(): RequestContext {
    return this.#context;
  }

  kill(denial: Denial): boolean {
    if (this.#isOver || this.#switched !== undefined) return false;
    this.#fail(new ProxyError("policy.killed", denial.message));
    this.#cancellation.abort();
    return true;
  }

  /** A client that can be told that it waits is told so. */
  tellHeld(everyMs: number): void {
    const { downstream, runtime } = this.#request;
    const limits = { maxBytes: runtime.limits.maxBodyBytes, budget: this.#services.budget };
    const held = HeldStream.over(downstream, this.#context, everyMs, limits);
    if (held !== undefined) this.#request = { ...this.#request, downstream: held };
  }

  begin(): void {
    try {
      if (this.#skipped) this.#send(this.#pipeline.permitSkipped(this.#request.flow), undefined);
      else this.#judge()?.catch((error) => this.#fail(error));
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Nothing moves any more; a plugin that ignores the cancellation is waited for as long as one that hears of the end. */
  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const { recorder, stalls, live } = this.#services;
    this.#releaseBody?.();
    this.#sinks?.close();
    this.#body?.close();
    this.#held?.release();
    if (this.#answeredAt !== undefined) recorder.phase(this.#context, "response", this.#answeredAt);
    const pipeline = this.#skipped ? undefined : this.#pipeline;
    const finishing = recorder.finished(this.#context, pipeline, {
      status: this.#status,
      bytesReceived: (this.#body?.bytes ?? this.#bufferedBytes) + (this.#carried?.bytesUp ?? 0),
      bytesSent: this.#request.downstream.bytesSent + (this.#carried?.bytesDown ?? 0),
      refused: this.#refused,
      cancelled: this.#cancelled,
      denial: this.#denial,
      ...(this.#skipped ? { note: { skipped: "listener.skip_hosts" } } : {}),
    });
    const leave = (): void => {
      stalls.delete(this.#slot);
      live.delete(this.#liveSlot);
      this.#done();
    };
    if (finishing === undefined) leave();
    else void finishing.finally(leave);
  }

  /** A promise only where the body, or a step, has to be waited for. */
  #judge(): Promise<void> | undefined {
    const { downstream, runtime } = this.#request;
    const need = downstream.hasBody ? this.#pipeline.bodyNeed(this.#context) : "nobody";
    if (need === "nobody") return this.#judgeWith(undefined);
    const taken = takeBody(need, {
      context: this.#context,
      pipeline: this.#pipeline,
      downstream,
      limitBytes: runtime.limits.maxBodyBytes,
      budget: this.#services.budget,
      signal: this.#cancellation.signal,
    });
    return taken instanceof Promise ? taken.then((body) => this.#took(body)) : this.#took(taken);
  }

  #took(taken: TakenBody): Promise<void> | undefined {
    if (taken.kind === "gone") {
      if (taken.error instanceof ProxyError) this.#fail(taken.error);
      // Else the stall watch has responded, or the client has disconnected; `close` follows.
      return undefined;
    }
    if (taken.kind === "refused") {
      if (taken.denial.code === "proxy.overloaded")
        this.#services.recorder.metrics.refused("buffer");
      this.#refuse(taken.denial);
      return undefined;
    }
    this.#held = taken.held;
    this.#judges = taken.judges;
    // The bytes stay accounted for until the exchange ends.
    if (this.#isOver) taken.release?.();
    else this.#releaseBody = taken.release;
    this.#bufferedBytes = taken.bytes?.length ?? 0;
    return this.#isStopped ? undefined : this.#judgeWith(taken.bytes);
  }

  /** The client has its response, or has disconnected. */
  get #isStopped(): boolean {
    return this.#cancelled || this.#denial !== undefined;
  }

  /**
   * A part of a streamed body was refused, or more would go by than is allowed: the origin has not got its end, and the client
   * gets the refusal, or a cut where its response has begun.
   */
  #refuseMidway(denial: Denial): void {
    if (this.#isStopped) return;
    this.#drop("what goes by was refused");
    this.#cancellation.abort();
    this.#denial = denial;
    this.#refused = true;
    if (this.#request.downstream.headSent) this.#request.downstream.destroy();
    else this.#refuse(denial);
  }

  #judgeWith(body: Buffer | undefined): Promise<void> | undefined {
    const arriving = this.#arriving;
    if (arriving !== undefined) {
      this.#arriving = undefined;
      return arriving.then(() => (this.#isStopped ? undefined : this.#judgeWith(body)));
    }
    const startedAt = performance.now();
    const verdict = this.#pipeline.runRequest(this.#context);
    return verdict instanceof Promise
      ? verdict.then((settled) => this.#follow(settled, body, startedAt))
      : this.#follow(verdict, body, startedAt);
  }

  #follow(
    verdict: Verdict,
    body: Buffer | undefined,
    startedAt: number,
  ): Promise<void> | undefined {
    const { recorder } = this.#services;
    this.#request.downstream.replyFields = this.#context.replyFields;
    recorder.phase(this.#context, "pipeline", startedAt);
    // Meanwhile, so that it is recorded already: what is told of it now would stay for good.
    if (this.#isStopped) return undefined;
    if (verdict.kind === "denial") {
      this.#refuse(verdict.denial);
      return undefined;
    }
    const proceed = (): undefined => {
      if (verdict.kind === "reply") {
        this.#status = verdict.reply.status;
        this.#reply(verdict.reply);
      } else {
        this.#send(verdict.permit, body);
      }
    };
    const told = recorder.permitted(this.#context);
    return told === undefined ? proceed() : told.then(proceed);
  }

  #send(permit: Permit, buffered: Buffer | undefined): void {
    if (this.#isStopped) return;
    const { confirm, runtime, downstream } = this.#request;
    const confirming = confirm?.(permit, runtime.upstream, this.#cancellation);
    if (confirming !== undefined) {
      confirming.then(() => this.#send(permit, buffered)).catch((error) => this.#fail(error));
      return;
    }
    const maxMessageBytes = runtime.limits.maxBodyBytes;
    if (!this.#skipped) {
      this.#tunnel?.permitted({ maxMessageBytes, ...this.#services });
      this.#meter = this.#pipeline.bytes.meterOf(this.#context);
    }
    this.#services.recorder.sent(this.#context, this.#request.basePath);
    this.#upstream = new UpstreamRequest({
      origins: runtime.origins,
      permit,
      outgoing: this.#outgoing(buffered),
      downstream,
      via: `1.1 ${this.#services.pseudonym}`,
      echo: this.#context.echo,
      givesReceipts: this.#services.receipts !== undefined,
      makeSink: (control) => this.#makeSink(control),
      onStatus: (status) => {
        this.#status = status;
        const peer = runtime.peerOf?.(permit.destination);
        this.#answeredAt = this.#services.recorder.answered(this.#context, status, peer);
      },
      onSwitched: (headers, socket) => this.#switch(headers, socket),
      onFault: (error) => {
        this.#request.onFault?.(error);
        this.#fail(error);
      },
    });
    this.#upstream.send();
  }

  #outgoing(buffered: Buffer | undefined): OutgoingRequest {
    const { responseBody, frames } = this.#skipped ? nothingRead : this.#responseNeeds();
    const { outgoing, streamed } = outgoingMessage({
      request: this.#request,
      context: this.#context,
      pseudonym: this.#services.pseudonym,
      budget: this.#services.budget,
      buffered,
      held: this.#held,
      meter: this.#meter,
      judges: this.#judges,
      pipeline: this.#pipeline,
      onRefused: (denial) => this.#refuseMidway(denial),
      receipt: this.#receiptFor?.origin === true ? this.#receipt() : undefined,
      // Bodies that are to be inspected must come uncompressed.
      isResponseRead:
        responseBody ||
        frames ||
        this.#context.echo?.isEverywhere === true ||
        this.#request.downstream instanceof HeldStream,
    });
    this.#body = streamed;
    // What was read of it is the stream's now, and is let go by that.
    this.#held &&= { ...this.#held, chunks: [] };
    return outgoing;
  }

  #receipt(): string | undefined {
    const { invocations } = this.#context;
    const isRefused =
      this.#refused || invocations.some(({ action, shadow }) => action === "deny" && !shadow);
    const isDecided = this.#denial === undefined || this.#upstream !== undefined;
    const decided = isRefused ? "deny" : isDecided ? "allow" : "error";
    return this.#services.receipts?.sign(this.#context, this.#skipped ? "exempt" : decided);
  }

  /** The client may have got another downstream meanwhile: one that is told that it waits. */
  #makeSink(control: FlowControl): ResponseSink {
    this.#sinks = new ResponseSinks({
      services: this.#services,
      request: this.#request,
      context: this.#context,
      pipeline: this.#pipeline,
      needs: this.#skipped ? undefined : this.#responseNeeds(),
      meter: this.#meter,
      onRefused: (denial) => this.#refuseMidway(denial),
      onReplaced: (replaced) => this.#replaced(replaced),
      onFault: (error) => this.#fail(error),
    });
    return this.#sinks.make(control);
  }

  /** Read once: the needs that plugins state must not change between the request's head and the response. */
  #responseNeeds(): ResponseNeeds {
    this.#needs ??= this.#pipeline.responseNeeds(this.#context);
    return this.#needs;
  }

  #switch(headers: string[], socket: Duplex): void {
    if (this.#tunnel === undefined) {
      socket.destroy();
      this.#fail(new ProxyError("upstream.bad-response", switchedUnasked));
      return;
    }
    const { receipt } = this.#request.downstream;
    this.#tunnel.open({
      headers: receipt === undefined ? headers : withReceipt(headers, receipt()),
      socket,
      isOver: () => this.#isStopped,
      onReplaced: (replaced) => this.#replaced(replaced),
      onFault: (error) => this.#fail(error),
      onCarrying: (carrying) => {
        this.#switched = carrying.then((carried) => {
          this.#carried = carried;
          this.#denial ??= carried.denial;
          this.#refused ||= carried.denial !== undefined;
        });
        void this.#switched.finally(() => this.#end());
      },
    });
  }

  /** The client gets a response other than the upstream's. */
  #replaced({ status, denial, reply }: ReplacedResponse): void {
    this.#denial = denial;
    this.#status = status;
    if (reply !== undefined) this.#reply(reply);
    this.#drop("the answer was replaced");
  }

  /** What the upstream still says is nobody's, whatever plugins make of it. */
  #drop(why: string): void {
    this.#sinks?.close();
    this.#upstream?.abort(why);
  }

  #refuse(denial: Denial): void {
    this.#denial = denial;
    this.#refused = true;
    const reply = renderRefusal(denial, this.#context);
    this.#status = reply.status;
    this.#reply(reply);
  }

  /** Answers with an error, or cuts the connection when the response has begun: a cut must be visible. */
  #fail(error: unknown): void {
    if (this.#isStopped || this.#isStalled()) return;
    const denial = denialOf(error);
    this.#denial = denial;
    if (!(error instanceof ProxyError)) {
      this.#services.recorder.log.error(
        { flow: this.#request.flow.id, err: error },
        "exchange fault",
      );
    }
    this.#refused = statusOf(denial) === 403 || denial.code === "request.misdirected";
    this.#drop("the exchange failed");
    const { downstream } = this.#request;
    if (downstream.headSent) {
      downstream.destroy();
      return;
    }
    this.#status = statusOf(denial);
    this.#reply(renderDenial(denial));
  }

  /** A fault while replying closes the connection: every exchange ends. */
  #reply(reply: Reply): void {
    const { downstream, flow } = this.#request;
    try {
      downstream.reply(reply);
    } catch (err) {
      this.#services.recorder.log.error({ flow: flow.id, err }, "the reply could not be written");
      downstream.destroy();
    }
  }

  /** True when the client was cut for its slowness: its response is sent, and later failures follow from that. */
  #isStalled(): boolean {
    const { stalled, headSent } = this.#request.downstream;
    if (stalled === undefined) return false;
    if (this.#denial === undefined) {
      this.#denial = stalled;
      if (this.#status === 0 && headSent) this.#status = statusOf(stalled);
      this.#cancellation.abort();
      this.#drop("the client stalled");
    }
    return true;
  }

  #onClientClosed(complete: boolean): void {
    if (this.#switched !== undefined) return;
    if (!this.#isStalled() && !complete) {
      this.#cancelled = this.#denial === undefined;
      if (this.#cancelled && this.#status === 0) this.#status = clientClosedRequest;
      this.#cancellation.abort();
    }
    // Also after a complete response: later bytes have no reader.
    this.#upstream?.abort("the client went away");
    this.#end();
  }
}
