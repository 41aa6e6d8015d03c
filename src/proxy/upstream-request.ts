/** One request on its way to an origin: sent, sent again where that is safe, and its answer led into a sink. */
import type { Duplex } from "node:stream";
import type { Dispatcher } from "undici";
import { ProxyError } from "../errors.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import type { OriginPools, OutgoingRequest } from "../upstream/origin-pools.ts";
import type { Downstream } from "./downstream.ts";
import { type ParsedHead, responseHeaders, safeTrailers } from "./response-head.ts";
import type { FlowControl, ResponseSink } from "./response-sink.ts";
import { isDropped, upstreamFault } from "./upstream-fault.ts";

/** What the request is made of, and who hears of its answer. */
export interface UpstreamRequestOptions {
  readonly origins: OriginPools;
  readonly permit: Permit;
  readonly outgoing: OutgoingRequest;
  readonly downstream: Downstream;
  /** Value of the Via field that the answer gets. */
  readonly via: string;
  makeSink(control: FlowControl): ResponseSink;
  /** The final status is known. */
  onStatus(status: number): void;
  /** The upstream switched protocols; its connection is the callee's. */
  onSwitched(headers: string[], socket: Duplex): void;
  onFault(error: ProxyError): void;
}

/** More interim responses than this on one exchange is an attack on the client. */
const maxInformational = 16;
/** A request that is safe to send twice is sent again when a kept-alive connection turns out to be dead. */
const maxRetries = 1;

/** undici's handler for one exchange. */
export class UpstreamRequest implements Dispatcher.DispatchHandler {
  readonly #options: UpstreamRequestOptions;
  #controller: Dispatcher.DispatchController | undefined;
  #sink: ResponseSink | undefined;
  #aborted: ProxyError | undefined;
  #answered = false;
  #informational = 0;
  #retries = 0;

  constructor(options: UpstreamRequestOptions) {
    this.#options = options;
  }

  send(): void {
    const { origins, permit, outgoing } = this.#options;
    origins.dispatch(permit, outgoing, this);
  }

  /** Gives the upstream up; nothing is reported any more. */
  abort(why: string): void {
    this.#aborted ??= new ProxyError("pipeline.cancelled", why);
    this.#controller?.abort(this.#aborted);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#aborted !== undefined) controller.abort(this.#aborted);
  }

  onRequestUpgrade(
    _controller: Dispatcher.DispatchController,
    status: number,
    fields: ParsedHead,
    socket: Duplex,
  ): void {
    socket.on("error", ignore);
    this.#answered = true;
    this.#options.onStatus(status);
    this.#options.onSwitched(responseHeaders(status, fields, this.#options.via), socket);
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    fields: ParsedHead,
    reason?: string,
  ): void {
    const headers = responseHeaders(status, fields, this.#options.via);
    if (status < 200) {
      this.#informational += 1;
      if (this.#informational > maxInformational) {
        throw new ProxyError("upstream.bad-response", "too many interim responses");
      }
      this.#options.downstream.sendInformational(status, headers);
      return;
    }
    this.#answered = true;
    this.#options.onStatus(status);
    this.#sink = this.#options.makeSink(controller);
    this.#sink.start(status, headers, reason);
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#sink?.data(chunk);
  }

  onResponseEnd(
    _controller: Dispatcher.DispatchController,
    trailers: Record<string, string | string[] | undefined>,
  ): void {
    this.#sink?.end(safeTrailers(trailers));
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.#aborted !== undefined) return;
    if (this.#canRetry(error)) {
      this.#retries += 1;
      this.send();
      return;
    }
    this.#options.onFault(upstreamFault(error, this.#options.permit.destination));
  }

  /** RFC 9110 section 9.2.2: only a safe request without a body may be sent again on its own. */
  #canRetry(error: Error): boolean {
    const { method, body, upgrade } = this.#options.outgoing;
    const safe = method === "GET" || method === "HEAD" || method === "OPTIONS";
    const fresh = !this.#answered && this.#retries < maxRetries;
    return safe && fresh && body === null && upgrade === undefined && isDropped(error);
  }
}

function ignore(): void {
  // `close` follows and is what ends the tunnel.
}
