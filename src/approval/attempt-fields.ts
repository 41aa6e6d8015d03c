/**
 * What the header fields of a request ask for: what differs between two attempts at it is left out, as far as it has the
 * form that it has there. Anything else that stood in such a field would go out unseen with what was approved.
 */
import { parseJsonObject } from "../http/json-access.ts";
import type { HeaderList } from "../http/headers.ts";

/** Fields that say nothing of what is asked: those that follow from the body, and those of traces and retries. */
const formOf: ReadonlyMap<string, RegExp> = new Map([
  ["content-length", /^\d+$/],
  ["expect", /^100-continue$/i],
  ["date", /^[\w ,:+-]{1,40}$/],
  ["traceparent", /^[\da-f-]{1,128}$/i],
  ["tracestate", /^[\x21-\x7e \t]{0,512}$/],
  ["x-request-id", /^[\w.:=+/@{}-]{1,128}$/],
  ["x-stainless-retry-count", /^\d{1,4}$/],
  ["amz-sdk-invocation-id", /^[\w-]{1,64}$/],
  ["amz-sdk-request", /^[\w=;. -]{1,128}$/],
]);

/** `AWS4-HMAC-SHA256 Credential=KEY/DAY/SCOPE, SignedHeaders=…, Signature=…` */
const awsSignature =
  /^(AWS4-[A-Z0-9-]+) Credential=([^/,\s]+)\/\d{8}\/([^,\s]+),\s*SignedHeaders=([^,\s]+),\s*Signature=[0-9a-f]{1,512}\**$/i;
const awsTime = /^\d{8}T\d{6}Z$/;
/** What differs between two signatures of one request (RFC 9421 section 2.3). */
const signatureTime = /;\s*(?:(?:created|expires)=\d{1,12}|nonce="[^"\\]{0,128}")/g;
/** RFC 9421 section 4.2. */
const signatures =
  /^[\w.*-]{1,64}=:[A-Za-z0-9+/]{1,1024}={0,2}:(?:,\s*[\w.*-]{1,64}=:[A-Za-z0-9+/]{1,1024}={0,2}:){0,7}$/;
/** RFC 9449 section 4.2: what a proof has of its attempt. */
const ofAttempt: ReadonlySet<string> = new Set(["jti", "iat", "exp", "nbf", "nonce"]);
const maxOfAttempt = 512;

/** Each field of `headers`, with what of its value is bound; undefined where nothing of it is. */
export function boundFields(
  headers: HeaderList,
): (field: string, value: string) => string | undefined {
  const isSigned = headers.has("signature-input");
  const isAwsSigned = awsSignature.test(headers.get("authorization") ?? "");
  return (field, value) => {
    if (formOf.get(field)?.test(value) === true) return undefined;
    if (field === "signature" && isSigned && signatures.test(value)) return undefined;
    if (field === "x-amz-date" && isAwsSigned && awsTime.test(value)) return undefined;
    // A signature is made anew at every attempt: what it is by, and what it covers, is bound.
    if (field === "authorization") return value.replace(awsSignature, "$1 $2 $3 $4");
    if (field === "signature-input") return value.replaceAll(signatureTime, "");
    return field === "dpop" ? (boundProof(value) ?? value) : value;
  };
}

/** The key of a proof, and what it is for; undefined where it is none. */
function boundProof(proof: string): string | undefined {
  const [, head = "", claims = ""] =
    /^([\w-]{1,4096})\.([\w-]{1,4096})\.[\w-]{1,1024}$/.exec(proof) ?? [];
  const text = Buffer.from(claims, "base64url").toString("utf8");
  const payload = parseJsonObject(text);
  // White space, or a name that stands twice, would be bound by nothing.
  if (payload === undefined || JSON.stringify(payload) !== text) return undefined;
  const [bound, free] = [new Array<unknown>(), new Array<unknown>()];
  for (const [name, value] of Object.entries(payload))
    (ofAttempt.has(name) ? free : bound).push([name, value]);
  return JSON.stringify(free).length > maxOfAttempt ? undefined : JSON.stringify([head, bound]);
}
