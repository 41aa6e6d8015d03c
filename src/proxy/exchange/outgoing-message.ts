/** The upstream request of a permitted message: the context's fields and body, and our own Via. */
import { BegunSource, type BodySource } from "../../http/body-source.ts";
import type { BodyBudget } from "../../http/body.ts";
import { isSignedField } from "../../http/signed-fields.ts";
import type { ByteMeter } from "../../pipeline/byte-meter.ts";
import type { LeavingRequest, RequestContext, RequestSigner } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { StepJudge } from "../../pipeline/message-needs.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import type { OutgoingRequest } from "../../upstream/upstream.ts";
import { MeteredBody } from "../flow/metered-body.ts";
import { receiptField } from "../flow/receipts.ts";
import type { ExchangeRequest } from "./exchange-request.ts";
import type { HeldBody } from "./buffered-body.ts";
import { JudgedBody, RequestBody } from "./request-body.ts";
import { isGrpc } from "./request-head.ts";

/** Parts of an outgoing message. */
export interface OutgoingParts {
  readonly request: ExchangeRequest;
  readonly context: RequestContext;
  /** The name of this proxy in Via fields. */
  readonly pseudonym: string;
  /** Bytes of bodies that the process may hold. */
  readonly budget: BodyBudget;
  /** The body, where it was read for the pipeline. */
  readonly buffered: Buffer | undefined;
  /** The beginning of a body that was to be read and is streamed after all. */
  readonly held: HeldBody | undefined;
  /** Who judges the body as it is streamed. */
  readonly judges: readonly StepJudge[] | undefined;
  readonly pipeline: Pipeline;
  readonly onRefused: (denial: Denial) => void;
  /** Whether the pipeline reads the response's body, so that an uncompressed one is asked for. */
  readonly isResponseRead: boolean;
  /** Present where what goes by is bounded. */
  readonly meter: ByteMeter | undefined;
  /** For an origin that is to get one. */
  readonly receipt: string | undefined;
}

/** The message, and its body where that is streamed. */
export function outgoingMessage(parts: OutgoingParts): {
  readonly outgoing: OutgoingRequest;
  readonly streamed: RequestBody | undefined;
} {
  const { request, context, pseudonym, buffered, isResponseRead, receipt } = parts;
  const { downstream, upgrade, priorKnowledge: prior } = request;
  const { headers, content, sentBody } = context;
  if (content.replaced || sentBody !== undefined) headers.delete("content-encoding");
  const needsHttp2 = isGrpc(headers.get("content-type"));
  const bytes = sentBody ?? (content.replaced ? content.bytes : buffered);
  if (bytes !== undefined) headers.set("Content-Length", String(bytes.length));
  if (isResponseRead && asksForCoding(context)) headers.delete("accept-encoding");
  const isStreamed = bytes === undefined && downstream.hasBody;
  if (isStreamed) prepareStream(parts);
  const { signed, wrap } = signedMessage(parts, bytes);
  const streamed = isStreamed ? streamedBody(parts, wrap) : undefined;
  return {
    outgoing: {
      method: downstream.method,
      path: signed.target,
      headers: [
        ...signed.headers.raw,
        ...(receipt === undefined ? [] : [receiptField, receipt]),
        "Via",
        `${downstream.httpVersion} ${pseudonym}`,
      ],
      body: streamed ?? (bytes === undefined ? null : (signed.body ?? bytes)),
      needsHttp2,
      priorKnowledge: prior === "always" || (prior === "where-needed" && needsHttp2),
      upgrade: upgrade?.protocol,
      credential: context.credential,
    },
    streamed,
  };
}

function prepareStream({ request, context, held, judges = [] }: OutgoingParts): void {
  if (judges.some(({ judge }) => !judge.keepsLength)) context.headers.delete("content-length");
  const { downstream } = request;
  // Where reading has begun, the client has already been told to send the body.
  if (downstream.expectsContinue && held === undefined) downstream.sendContinue();
}

const nothing = Buffer.alloc(0);

/** What leaves, signed where a plugin signs: nothing is changed behind it. */
function signedMessage(
  { request, context, budget }: OutgoingParts,
  bytes: Buffer | undefined,
): {
  readonly signed: LeavingRequest;
  readonly wrap: ReturnType<RequestSigner["sign"]>;
} {
  const { downstream, basePath = "" } = request;
  const { headers, content, sentPath, signer } = context;
  const signed: LeavingRequest = {
    method: downstream.method,
    target: basePath + sentPath,
    headers: signer === undefined ? headers : headers.clone(),
    body: downstream.hasBody || bytes !== undefined ? bytes : nothing,
    isBodyReplaced: content.replaced,
    budget,
  };
  return { signed, wrap: signer?.sign(signed) };
}

function streamedBody(parts: OutgoingParts, wrap: ReturnType<RequestSigner["sign"]>): RequestBody {
  const { request, budget, held, judges, meter } = parts;
  const { body } = request.downstream;
  if (wrap === undefined && judges === undefined && meter === undefined)
    return new RequestBody(body, budget, held);
  const whole = held === undefined ? body : new BegunSource(held.chunks, body, held.release);
  const passed = meteredBody(judgedBody(whole, parts), parts);
  return new RequestBody(wrap?.(passed) ?? passed, budget);
}

function judgedBody(source: BodySource, parts: OutgoingParts): BodySource {
  const { context, pipeline, budget, judges, onRefused } = parts;
  if (judges === undefined) return source;
  return new JudgedBody({ source, judges, pipeline, context, budget, onRefused });
}

/** Counts what is left of it. */
function meteredBody(source: BodySource, { meter, onRefused }: OutgoingParts): BodySource {
  if (meter === undefined) return source;
  return new MeteredBody(source, meter, () => {
    if (meter.denial !== undefined) onRefused(meter.denial);
  });
}

/** False where the field asks for none, or is signed: what comes compressed is decoded to be read. */
function asksForCoding({ headers, path }: RequestContext): boolean {
  const asked = headers.get("accept-encoding");
  if (asked === undefined || asked.split(",").every(isNoCoding)) return false;
  return !isSignedField(headers, path, "accept-encoding");
}

function isNoCoding(item: string): boolean {
  const [coding = "", weight = ""] = item.toLowerCase().split(";", 2);
  return ["", "identity"].includes(coding.trim()) || /^\s*q=0(?:\.0{0,3})?\s*$/.test(weight);
}
