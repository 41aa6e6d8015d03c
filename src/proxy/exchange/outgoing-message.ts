/** The upstream request of a permitted message: the context's fields and body, and our own Via. */
import type { BodyBudget } from "../../http/body.ts";
import { isSignedField } from "../../http/signed-fields.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { OutgoingRequest } from "../../upstream/upstream.ts";
import { receiptField } from "../flow/receipts.ts";
import type { ExchangeRequest } from "./exchange-request.ts";
import type { HeldBody } from "./buffered-body.ts";
import { RequestBody } from "./request-body.ts";
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
  /** Whether the pipeline reads the response's body, so that an uncompressed one is asked for. */
  readonly isResponseRead: boolean;
  /** For an origin that is to get one. */
  readonly receipt: string | undefined;
}

/** The message, and its body where that is streamed. */
export function outgoingMessage(parts: OutgoingParts): {
  readonly outgoing: OutgoingRequest;
  readonly streamed: RequestBody | undefined;
} {
  const { request, context, pseudonym, budget, buffered, held, isResponseRead, receipt } = parts;
  const { downstream, basePath = "", upgrade, priorKnowledge: prior } = request;
  const { headers, content, sentPath } = context;
  if (content.replaced) headers.delete("content-encoding");
  const needsHttp2 = isGrpc(headers.get("content-type"));
  const bytes = content.replaced ? content.bytes : buffered;
  if (bytes !== undefined) headers.set("Content-Length", String(bytes.length));
  if (isResponseRead && asksForCoding(context)) headers.delete("accept-encoding");
  const isStreamed = bytes === undefined && downstream.hasBody;
  // Where reading has begun, the client has already been told to send the body.
  if (isStreamed && downstream.expectsContinue && held === undefined) downstream.sendContinue();
  const streamed = isStreamed ? new RequestBody(downstream.body, budget, held) : undefined;
  return {
    outgoing: {
      method: downstream.method,
      path: basePath + sentPath,
      headers: [
        ...headers.raw,
        ...(receipt === undefined ? [] : [receiptField, receipt]),
        "Via",
        `${downstream.httpVersion} ${pseudonym}`,
      ],
      body: streamed ?? bytes ?? null,
      needsHttp2,
      priorKnowledge: prior === "always" || (prior === "where-needed" && needsHttp2),
      upgrade: upgrade?.protocol,
      credential: context.credential,
    },
    streamed,
  };
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
