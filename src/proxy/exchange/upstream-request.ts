/** One request on its way to an origin: sent, sent again where that is safe, and its response led into a sink. */
import type { Duplex } from "node:stream";
import type { Dispatcher } from "../../upstream/undici.ts";
import { isContinue } from "../../upstream/http1-connections.ts";
import { asError, ProxyError } from "../../errors.ts";
import { HeaderList } from "../../http/headers.ts";
import type { FieldValue } from "../../pipeline/context.ts";
import type { Permit } from "../../pipeline/pipeline.ts";
import type { Attempt, OriginPools } from "../../upstream/origin-pools.ts";
import { isStreamed, isWhole } from "../../upstream/http2-stream.ts";
import { isProtocolRefusal } from "../../upstream/origin-protocols.ts";
import type { OutgoingRequest } from "../../upstream/upstream.ts";
import type { Downstream } from "./downstream.ts";
import { type ParsedHead, responseHeaders, safeTrailers, withoutLength } from "./response-head.ts";
import type { FlowControl, ResponseSink } from "./response-sink.ts";
import { isIdempotent } from "./request-head.ts";
import { isDropped, upstreamFault } from "./upstream-fault.ts";

/** Parts of the request, and the callbacks for its response. */
export interface UpstreamRequestOptions {
  readonly origins: OriginPools;
  readonly permit: Permit;
  readonly outgoing: OutgoingRequest;
  readonly downstream: Downstream;
  /** Value of the Via field that the response gets. */
  readonly via: string;
  /** The request was sent before with another form of its credential. */
  readonly isRenewal?: boolean;
  makeSink(control: FlowControl): ResponseSink;
  /** The final status is known. */
  onStatus(status: number): void;
  /** The upstream switched protocols; its connection is the callee's. */
  onSwitched(headers: string[], socket: Duplex): void;
  onFault(error: ProxyError): void;
}

/** More interim responses than this on one exchange is an attack on the client. */
const maxInformational = 16;
/** A request that may be sent twice is sent again when a kept-alive connection turns out to be dead. */
const maxRetries = 1;

/** undici's handler for one exchange. */
export class UpstreamRequest implements Dispatcher.DispatchHandler {
  readonly #options: UpstreamRequestOptions;
  #controller: Dispatcher.DispatchController | undefined;
  #sink: ResponseSink | undefined;
  #aborted: ProxyError | undefined;
  #answered = false;
  #ended = false;
  #informational = 0;
  /** A byte of a response has come: the request was read. */
  #started = false;
  #retries = 0;
  readonly #attempt: Attempt = {};
  /** The same request with a renewed credential: what is left of the response to this one is nobody's. */
  #successor: Promise<UpstreamRequest | undefined> | undefined;

  constructor(options: UpstreamRequestOptions) {
    this.#options = options;
  }

  send(): void {
    const { origins, permit, outgoing } = this.#options;
    const { method, body, credential } = outgoing;
    if (isStreamed(body) && (isIdempotent(method) || credential !== undefined)) body.keep();
    origins.dispatch(permit, outgoing, this, this.#attempt);
  }

  /** Aborts the upstream request; nothing is reported any more. */
  abort(why: string): void {
    if (this.#ended) return;
    this.#aborted ??= new ProxyError("pipeline.cancelled", why);
    if (this.#successor === undefined) this.#controller?.abort(this.#aborted);
    else void this.#successor.then((successor) => successor?.abort(why));
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
    if (!isAskedProtocol(fields, this.#options.outgoing.upgrade)) {
      socket.destroy();
      const { authority } = this.#options.permit.destination;
      const message = `${authority} switched to another protocol than the client asked for`;
      this.#options.onFault(new ProxyError("upstream.bad-response", message));
      return;
    }
    this.#answered = true;
    this.#options.onStatus(status);
    this.#options.onSwitched(responseHeaders(status, fields, this.#options.via), socket);
  }

  onResponseStarted(): void {
    this.#started = true;
    if (this.#options.outgoing.credential === undefined) this.#forgetBody();
  }

  #forgetBody(): void {
    const { body } = this.#options.outgoing;
    if (isStreamed(body)) body.forget();
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    fields: ParsedHead,
    reason?: string,
  ): void {
    if (this.#successor !== undefined) return;
    this.onResponseStarted();
    checkCoding(fields);
    const headers = responseHeaders(status, fields, this.#options.via);
    if (status < 200) {
      this.#informational += 1;
      if (this.#informational > maxInformational) {
        throw new ProxyError("upstream.bad-response", "too many interim responses");
      }
      // A client that expects a 100 got ours; others may not understand one.
      if (!isContinue(status)) this.#options.downstream.sendInformational(status, headers);
      return;
    }
    if (this.#isRenewed(controller, status, fields)) return;
    this.#forgetBody();
    this.#answered = true;
    this.#options.onStatus(status);
    const control: FlowControl = controller;
    this.#sink = this.#options.makeSink(control);
    const isCounted =
      control.mayHaveTrailers !== true || !this.#options.downstream.wantsChunkedTrailers;
    this.#sink.start(status, isCounted ? headers : withoutLength(headers), reason);
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#successor === undefined) this.#begun().data(chunk);
  }

  onResponseEnd(
    _controller: Dispatcher.DispatchController,
    trailers: Record<string, string | string[] | undefined>,
  ): void {
    if (this.#successor !== undefined) return;
    this.#ended = true;
    this.#begun().end(safeTrailers(trailers));
  }

  /** Bytes without a head are a fault: dropping them would make a short response look whole. */
  #begun(): ResponseSink {
    if (this.#sink !== undefined) return this.#sink;
    const { authority } = this.#options.permit.destination;
    throw new ProxyError("upstream.bad-response", `${authority} sent a body before its head`);
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.#aborted !== undefined || this.#successor !== undefined) return;
    if (this.#canRetry(error) || this.#isOtherProtocol(error)) {
      this.#retries += 1;
      this.send();
      return;
    }
    this.#options.onFault(upstreamFault(error, this.#options.permit.destination));
  }

  /**
   * Lets the credential see the response's head; true where the request is sent again in its place, once at most.
   *
   * The connection ends with the response: to read what is left of it would hold the client up for a body of any length.
   */
  #isRenewed(
    controller: Dispatcher.DispatchController,
    status: number,
    fields: ParsedHead,
  ): boolean {
    const { outgoing, isRenewal = false } = this.#options;
    const renew = outgoing.credential?.answered(status, (name) => fieldOf(fields, name));
    if (renew === undefined || isRenewal || !isWhole(outgoing.body)) return false;
    this.#successor = renew().then(
      (renewed) => this.#sendRenewed(renewed),
      (error: unknown) => {
        const { destination } = this.#options.permit;
        if (this.#aborted === undefined) {
          this.#options.onFault(upstreamFault(asError(error), destination));
        }
        return undefined;
      },
    );
    controller.abort(new ProxyError("pipeline.cancelled", "the credential is renewed"));
    return true;
  }

  #sendRenewed(fields: readonly FieldValue[]): UpstreamRequest | undefined {
    if (this.#aborted !== undefined) return undefined;
    const headers = new HeaderList([...this.#options.outgoing.headers]);
    for (const [name, value] of fields) headers.set(name, value);
    const outgoing = { ...this.#options.outgoing, headers: [...headers.raw] };
    const successor = new UpstreamRequest({ ...this.#options, outgoing, isRenewal: true });
    successor.send();
    return successor;
  }

  /** The origin refused the handshake for HTTP/1.1: nothing was sent, and the pools have noted the protocol. */
  #isOtherProtocol(error: Error): boolean {
    return !this.#answered && this.#retries < maxRetries && isProtocolRefusal(error);
  }

  /** RFC 9110 section 9.2.2: a request that may be carried out twice, and whose body is still known. */
  #canRetry(error: Error): boolean {
    const { method, body } = this.#options.outgoing;
    const isFresh = !this.#started && this.#retries < maxRetries;
    return isFresh && isWhole(body) && isIdempotent(method) && isDropped(error);
  }
}

/** The values of a field in one, as RFC 9110 section 5.3 joins them. */
function fieldOf(fields: ParsedHead, name: string): string | undefined {
  const value = fields[name];
  return Array.isArray(value) ? value.join(", ") : value;
}

/** A coding that we cannot take off the message would reach the client as its body (RFC 9112 section 6.1). */
function checkCoding(fields: ParsedHead): void {
  const coding = fields["transfer-encoding"];
  if (coding === undefined) return;
  if (typeof coding === "string" && coding.trim().toLowerCase() === "chunked") return;
  throw new ProxyError(
    "upstream.bad-response",
    "the answer has a transfer coding that is not known",
  );
}

/** RFC 9110 section 7.8: a server must not switch to a protocol that was not in the request. */
function isAskedProtocol(fields: ParsedHead, asked: string | undefined): boolean {
  const chosen = fields["upgrade"];
  if (typeof chosen !== "string" || asked === undefined) return false;
  const offered = asked.split(",").map((protocol) => protocol.trim().toLowerCase());
  return chosen.split(",").every((protocol) => offered.includes(protocol.trim().toLowerCase()));
}

function ignore(): void {
  // `close` follows and is what ends the tunnel.
}
