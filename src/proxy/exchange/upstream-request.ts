/** One request on its way to an origin: sent, sent again where that is safe, and its response led into a sink. */
import type { Duplex } from "node:stream";
import { asError, ProxyError } from "../../errors.ts";
import type { Echo } from "../../http/echo.ts";
import { HeaderList, isSameName } from "../../http/headers.ts";
import type { RequestControl, ResponseHandler } from "../../http/response-handler.ts";
import type { FieldValue } from "../../pipeline/context.ts";
import type { Permit } from "../../pipeline/pipeline.ts";
import type { Attempt, OriginPools } from "../../upstream/origin-pools.ts";
import { isStreamed, isWhole } from "../../upstream/http2-stream.ts";
import { isProtocolRefusal } from "../../upstream/origin-protocols.ts";
import type { OutgoingRequest } from "../../upstream/upstream.ts";
import type { Downstream } from "./downstream.ts";
import { responseHeaders, safeTrailers, withoutLength } from "./response-head.ts";
import type { FlowControl, ResponseSink } from "./response-sink.ts";
import { isIdempotent } from "./request-head.ts";
import { withoutReceipt } from "../flow/receipts.ts";
import { isDropped, upstreamFault } from "../flow/upstream-fault.ts";

/** Parts of the request, and the callbacks for its response. */
export interface UpstreamRequestOptions {
  readonly origins: OriginPools;
  readonly permit: Permit;
  readonly outgoing: OutgoingRequest;
  readonly downstream: Downstream;
  /** Value of the Via field that the response gets. */
  readonly via: string;
  /** Credentials of the request that no field of the response may repeat. */
  readonly echo: Echo | undefined;
  /** The request was sent before with another form of its credential. */
  readonly isRenewal?: boolean;
  /** Whether this proxy gives receipts: those of an origin are no field of the response then. */
  readonly givesReceipts: boolean;
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

/** The handler of one exchange. */
export class UpstreamRequest implements ResponseHandler {
  readonly #options: UpstreamRequestOptions;
  #control: RequestControl | undefined;
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
    if (this.#successor === undefined) this.#control?.abort(this.#aborted);
    else void this.#successor.then((successor) => successor?.abort(why));
  }

  onRequestStart(control: RequestControl): void {
    this.#control = control;
    if (this.#aborted !== undefined) control.abort(this.#aborted);
  }

  onUpgrade(status: number, fields: string[], socket: Duplex, head: Buffer): void {
    socket.on("error", ignore);
    if (head.length > 0) socket.unshift(head);
    if (!isAskedProtocol(fields, this.#options.outgoing.upgrade)) {
      socket.destroy();
      const { authority } = this.#options.permit.destination;
      const message = `${authority} switched to another protocol than the client asked for`;
      this.#options.onFault(new ProxyError("upstream.bad-response", message));
      return;
    }
    this.#answered = true;
    this.#options.onStatus(status);
    this.#options.onSwitched(this.#fieldsFor(status, fields), socket);
  }

  onResponseStarted(): void {
    this.#started = true;
    if (this.#options.outgoing.credential === undefined) this.#forgetBody();
  }

  #forgetBody(): void {
    const { body } = this.#options.outgoing;
    if (isStreamed(body)) body.forget();
  }

  onInformational(_control: RequestControl, status: number, fields: string[]): void {
    this.onResponseStarted();
    this.#informational += 1;
    if (this.#informational > maxInformational) {
      throw new ProxyError("upstream.bad-response", "too many interim responses");
    }
    // A client that expects a 100 got ours; others may not understand one.
    if (status === 100) return;
    const headers = this.#fieldsFor(status, fields);
    this.#options.downstream.sendInformational(status, headers);
  }

  onResponseStart(
    control: RequestControl,
    status: number,
    fields: string[],
    reason: string | undefined,
  ): void {
    this.onResponseStarted();
    if (this.#isRenewed(control, status, fields)) return;
    this.#forgetBody();
    const headers = this.#fieldsFor(status, fields);
    this.#answered = true;
    this.#options.origins.tls.answered(this.#options.permit.destination);
    this.#options.onStatus(status);
    this.#sink = this.#options.makeSink(control);
    const isCounted =
      control.mayHaveTrailers !== true || !this.#options.downstream.wantsChunkedTrailers;
    const said = reason === undefined ? undefined : this.#options.echo?.clean(reason);
    this.#sink.start(status, isCounted ? headers : withoutLength(headers), said ?? reason);
  }

  #fieldsFor(status: number, fields: readonly string[]): string[] {
    const { via, echo } = this.#options;
    const headers = responseHeaders(status, this.#believable(fields), via);
    return echo === undefined ? headers : echo.cleanFields(headers);
  }

  onResponseData(_control: RequestControl, chunk: Buffer): void {
    if (this.#successor === undefined) this.#begun().data(chunk);
  }

  get isDrained(): boolean {
    return this.#successor === undefined && this.#sink?.isDrained === true;
  }

  onResponseEnd(_control: RequestControl, trailers: readonly string[]): void {
    if (this.#successor !== undefined) return;
    this.#ended = true;
    const { echo } = this.#options;
    const fields = this.#believable(trailers);
    this.#begun().end(safeTrailers(echo === undefined ? fields : echo.cleanFields(fields)));
  }

  #believable(fields: readonly string[]): readonly string[] {
    return this.#options.givesReceipts ? withoutReceipt(fields) : fields;
  }

  /** Bytes without a head are a fault: dropping them would make a short response look whole. */
  #begun(): ResponseSink {
    if (this.#sink !== undefined) return this.#sink;
    const { authority } = this.#options.permit.destination;
    throw new ProxyError("upstream.bad-response", `${authority} sent a body before its head`);
  }

  onResponseError(_control: RequestControl, error: Error): void {
    if (this.#aborted !== undefined || this.#successor !== undefined) return;
    if (this.#canRetry(error) || this.#isOtherProtocol(error)) {
      this.#retries += 1;
      this.send();
      return;
    }
    const { origins, permit } = this.#options;
    const { destination } = permit;
    const fault = upstreamFault(error, destination);
    this.#options.onFault(this.#started ? fault : origins.tls.explained(fault, destination));
  }

  /**
   * Lets the credential see the response's head; true where the request is sent again in its place, once at most.
   *
   * The connection ends with the response: to read what is left of it would hold the client up for a body of any length.
   */
  #isRenewed(control: RequestControl, status: number, fields: readonly string[]): boolean {
    const { outgoing, isRenewal = false } = this.#options;
    const renew = outgoing.credential?.answered(status, (name) => {
      const values = valuesOf(fields, name);
      return values.length === 0 ? undefined : values.join(", ");
    });
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
    control.abort(new ProxyError("pipeline.cancelled", "the credential is renewed"));
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

/** RFC 9110 section 7.8: a server must not switch to a protocol that was not in the request. */
function isAskedProtocol(fields: readonly string[], asked: string | undefined): boolean {
  const [chosen, another] = valuesOf(fields, "upgrade");
  if (chosen === undefined || another !== undefined || asked === undefined) return false;
  const offered = asked.split(",").map((protocol) => protocol.trim().toLowerCase());
  return chosen.split(",").every((protocol) => offered.includes(protocol.trim().toLowerCase()));
}

function valuesOf(fields: readonly string[], name: string): string[] {
  const values: string[] = [];
  for (let at = 0; at < fields.length; at += 2)
    if (isSameName(fields[at] ?? "", name)) values.push(fields[at + 1] ?? "");
  return values;
}

function ignore(): void {
  // `close` follows and is what ends the tunnel.
}
