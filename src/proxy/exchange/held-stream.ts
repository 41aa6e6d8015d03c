/**
 * The client of an MCP call that waits for a person: it takes event streams, so that it can be told that it waits.
 *
 * Until the first sign of life this only passes on. After it the head of the response is a promise of events, and whatever
 * comes of the call becomes one.
 */
import { ProxyError } from "../../errors.ts";
import type { BodyBudget } from "../../http/body.ts";
import type { BodySource } from "../../http/body-source.ts";
import { Gathered } from "../../http/gathered.ts";
import { parseJsonObject } from "../../http/json-access.ts";
import { classifyRpc } from "../../http/json-rpc.ts";
import type { LastSeen } from "../../net/stall-watch.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { Denial, Reply, ReplyFields } from "../../pipeline/decision.ts";
import { BudgetReservation } from "../flow/budget-reservation.ts";
import { jsonRpcError } from "../flow/reply.ts";
import { overBudget } from "./buffered-body.ts";
import type { Downstream } from "./downstream.ts";
import { responseTooLarge } from "./response-head.ts";

/** What the client may be told, and of which call. */
interface Call {
  readonly id: string | number;
  readonly progressToken: string | number | undefined;
}

/** What bounds a response that is kept until it is whole. */
interface HeldLimits {
  readonly maxBytes: number;
  readonly budget: BodyBudget;
}

type Trailers = readonly (readonly [string, string])[];

const eventStream = /^\s*text\/event-stream\b/i;
/** Progress has to grow, and the server's own may begin at 0: a wait is next to nothing of the work. */
const progressStep = 1e-6;

/** The call that a message makes, where its client can be told that it waits. */
function callOf({ method, headers, clearBody, upgrade }: RequestContext): Call | undefined {
  const takesEvents = /text\/event-stream/i.test(headers.get("accept") ?? "");
  if (method !== "POST" || upgrade !== undefined || !takesEvents) return undefined;
  if (clearBody?.kind !== "body") return undefined;
  const body = classifyRpc(parseJsonObject(clearBody.bytes.toString("utf8")));
  if (body.kind !== "request" || body.id === null) return undefined;
  const params = body.params as
    { readonly _meta?: { readonly progressToken?: unknown } } | undefined;
  const token = params?._meta?.progressToken;
  const isToken = typeof token === "string" || typeof token === "number";
  return { id: body.id, progressToken: isToken ? token : undefined };
}

/** Downstream over another one. */
export class HeldStream implements Downstream {
  readonly #inner: Downstream;
  readonly #call: Call;
  readonly #maxBytes: number;
  /** The bytes of {@link #chunks}. */
  readonly #kept: BudgetReservation;
  #timer: NodeJS.Timeout | undefined;
  #signs = 0;
  /** Of the response to the call, once there is a head; events are passed as they come. */
  #answer: { readonly status: number; readonly isEvents: boolean } | undefined;
  readonly #chunks = new Gathered();

  /** Undefined where the client would not understand. */
  static over(
    inner: Downstream,
    context: RequestContext,
    everyMs: number,
    limits: HeldLimits,
  ): HeldStream | undefined {
    const call = callOf(context);
    if (call === undefined || inner.headSent) return undefined;
    const held = new HeldStream(inner, call, limits);
    held.#begin(everyMs);
    context.cancellation.addEventListener("abort", () => {
      held.#stop();
      held.#letGo();
    });
    return held;
  }

  private constructor(inner: Downstream, call: Call, { maxBytes, budget }: HeldLimits) {
    this.#inner = inner;
    this.#call = call;
    this.#maxBytes = maxBytes;
    this.#kept = new BudgetReservation(budget);
  }

  /** The client has been promised events. */
  get isPromised(): boolean {
    return this.#signs > 0;
  }

  get method(): string {
    return this.#inner.method;
  }

  get rawHeaders(): readonly string[] {
    return this.#inner.rawHeaders;
  }

  get httpVersion(): string {
    return this.#inner.httpVersion;
  }

  get hasBody(): boolean {
    return this.#inner.hasBody;
  }

  get body(): BodySource {
    return this.#inner.body;
  }

  get expectsContinue(): boolean {
    return this.#inner.expectsContinue;
  }

  get wantsChunkedTrailers(): boolean {
    return !this.isPromised && this.#inner.wantsChunkedTrailers;
  }

  get headSent(): boolean {
    return this.isPromised ? this.#answer !== undefined : this.#inner.headSent;
  }

  get bytesSent(): number {
    return this.#inner.bytesSent;
  }

  get isDrained(): boolean {
    // What is kept is still referred to.
    return this.#chunks.length === 0 && this.#inner.isDrained;
  }

  get stalled(): Denial | undefined {
    return this.#inner.stalled;
  }

  get replyFields(): ReplyFields | undefined {
    return this.#inner.replyFields;
  }

  set replyFields(fields: ReplyFields | undefined) {
    this.#inner.replyFields = fields;
  }

  get lastSeen(): LastSeen {
    return this.#inner.lastSeen;
  }

  sendContinue(): void {
    this.#inner.sendContinue();
  }

  sendInformational(status: number, headers: readonly string[]): void {
    this.#stop();
    if (!this.isPromised) this.#inner.sendInformational(status, headers);
  }

  writeHead(status: number, headers: string[], reason?: string): void {
    this.#stop();
    if (!this.isPromised) {
      this.#inner.writeHead(status, headers, reason);
      return;
    }
    const at = headers.findIndex((name, place) => place % 2 === 0 && /^content-type$/i.test(name));
    const type = at === -1 ? "" : (headers[at + 1] ?? "");
    this.#answer = { status, isEvents: status < 300 && eventStream.test(type) };
  }

  flushHead(): void {
    if (!this.isPromised) this.#inner.flushHead();
  }

  write(chunk: Buffer): boolean {
    if (!this.isPromised || this.#answer?.isEvents === true) return this.#inner.write(chunk);
    this.#keep(chunk);
    return true;
  }

  #keep(chunk: Buffer): void {
    const isTooLong = this.#kept.bytes + chunk.length > this.#maxBytes;
    if (!isTooLong && this.#kept.take(chunk.length)) {
      this.#chunks.push(chunk);
      return;
    }
    // Nothing of it has left: the client can still be told.
    this.#letGo();
    this.#answer = undefined;
    throw isTooLong
      ? new ProxyError("upstream.response-too-large", responseTooLarge.message)
      : new ProxyError("proxy.overloaded", overBudget.message);
  }

  end(chunk?: Buffer, trailers?: Trailers): void {
    this.#stop();
    if (!this.isPromised) this.#inner.end(chunk, trailers);
    else if (this.#answer?.isEvents === true) this.#inner.end(chunk);
    else {
      if (chunk !== undefined) this.#keep(chunk);
      const body = this.#chunks.takeAll();
      this.#letGo();
      this.#inner.end(this.#eventOf(this.#answer?.status ?? 0, body));
    }
  }

  reply(reply: Reply): void {
    this.#stop();
    if (!this.isPromised) {
      this.#inner.reply(reply);
      return;
    }
    const { status, headers, body } = reply;
    const type = Object.entries(headers).find(([name]) => /^content-type$/i.test(name))?.[1];
    this.#answer = { status, isEvents: true };
    this.#inner.end(eventStream.test(String(type ?? "")) ? body : this.#eventOf(status, body));
  }

  destroy(): void {
    this.#stop();
    this.#letGo();
    this.#inner.destroy();
  }

  cut(): void {
    this.#stop();
    this.#inner.cut();
  }

  onDrain(listener: () => void): void {
    this.#inner.onDrain(listener);
  }

  onEnding(listener: () => void): void {
    this.#inner.onEnding(listener);
  }

  onClose(listener: (complete: boolean) => void): void {
    this.#inner.onClose(listener);
  }

  stallLimitMs(): number {
    return this.#inner.stallLimitMs();
  }

  progress(): number {
    return this.#inner.progress();
  }

  onStall(): void {
    this.#stop();
    this.#inner.onStall();
  }

  #begin(everyMs: number): void {
    this.#timer = setInterval(() => this.#tell(), everyMs).unref();
  }

  #stop(): void {
    clearInterval(this.#timer);
  }

  #letGo(): void {
    this.#chunks.clear();
    this.#kept.shrinkTo(0);
  }

  #tell(): void {
    if (this.#signs === 0) {
      // Nothing is decided yet that a receipt could say.
      this.#inner.receipt = undefined;
      const headers = ["Content-Type", "text/event-stream", "Cache-Control", "no-store"];
      this.#inner.writeHead(200, headers);
    }
    this.#signs += 1;
    // A client that does not read gets no more than it has been sent.
    if (!this.#inner.isDrained && this.#signs > 1) return;
    this.#inner.write(Buffer.from(this.#sign()));
  }

  #sign(): string {
    const comment = ": waiting for an approval\n\n";
    const { progressToken } = this.#call;
    if (progressToken === undefined) return comment;
    const progress = this.#signs * progressStep;
    const params = { progressToken, progress, message: "waiting for an approval" };
    const note = { jsonrpc: "2.0", method: "notifications/progress", params };
    return `${comment}event: message\ndata: ${JSON.stringify(note)}\n\n`;
  }

  /** What is no message of JSON-RPC becomes an error of the call. */
  #eventOf(status: number, body: Buffer): Buffer {
    const text = body.toString("utf8");
    const value = parseJsonObject(text);
    const isMessage = value?.["jsonrpc"] === "2.0" && ("result" in value || "error" in value);
    const said = isMessage ? text : jsonRpcError(this.#call.id, denialIn(status, value));
    const lines = said.split(/\r\n|\r|\n/).map((line) => `data: ${line}\n`);
    return Buffer.from(`event: message\n${lines.join("")}\n`);
  }
}

/** The refusal that a plain response says, or what its status means. */
function denialIn(status: number, value: Readonly<Record<string, unknown>> | undefined): Denial {
  const code = value?.["error"];
  const message = value?.["message"];
  if (typeof code === "string" && typeof message === "string") return { code, message };
  return {
    code: "upstream.bad-response",
    message: `the response has the status ${status}, and is no message of JSON-RPC`,
  };
}
