/** Whether a request is signed as it says: over its fields, its target and its body, within its time. */
import type { RequestContext } from "../../pipeline/plugin.ts";
import {
  canonicalPath,
  canonicalRequest,
  emptyHash,
  encodedSegments,
  isObjectStore,
  unsignedPayload,
} from "./canonical.ts";
import { signedChunks } from "./chunked-body.ts";
import { type Claim, msOf } from "./claim.ts";
import { sha256, type SigningKeys, stringToSign } from "./signing-keys.ts";

/** Why a signature is not taken. */
export interface Fault {
  readonly reason: "malformed" | "unsupported" | "skew" | "expired" | "mismatch";
  readonly why: string;
}

const unsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/** The form of a signature: its payload, and its time. */
export function formFault(claim: Claim, now: number, skewMs: number): Fault | undefined {
  const { payload, scope, place, time, expires } = claim;
  const isChunked = payload !== undefined && signedChunks.has(payload);
  const isKnown =
    payload === undefined ||
    isChunked ||
    [unsignedPayload, unsignedTrailer].includes(payload) ||
    /^[0-9a-f]{64}$/.test(payload);
  if (!isKnown)
    return {
      reason: "unsupported",
      why: `a payload of the kind ${shown(payload)} is not signed anew`,
    };
  if (isChunked && (place === "query" || !payload.includes(scope.algorithm)))
    return { reason: "malformed", why: "its x-amz-content-sha256 is not of its signature" };
  const from = msOf(time);
  if (from > now + skewMs) return { reason: "skew", why: "its date is in the future (clock_skew)" };
  if (expires !== undefined) {
    if (now > from + expires * 1000) return { reason: "expired", why: "its URL has expired" };
  } else if (from < now - skewMs) {
    return { reason: "skew", why: "its date is too long ago (clock_skew)" };
  }
  return undefined;
}

function shown(payload: string): string {
  return payload.replace(/[^\w-]/g, "?").slice(0, 64);
}

/** Whether the payload's hash is in no field, so that the body has to be read. */
export function needsBody({ payload, place, scope }: Claim): boolean {
  return payload === undefined && !(place === "query" && isObjectStore(scope.service));
}

/** What the payload is in the canonical request; undefined where the body was not read. */
export function payloadOf(claim: Claim, body: Buffer | undefined): string | undefined {
  if (claim.payload !== undefined) return claim.payload;
  if (!needsBody(claim)) return unsignedPayload;
  return body === undefined ? undefined : hashOf(body);
}

/** Of bodies that were verified and are about to be signed. */
const hashes = new WeakMap<Buffer, string>();

function hashOf(body: Buffer): string {
  const known = hashes.get(body);
  if (known !== undefined) return known;
  const made = sha256(body);
  hashes.set(body, made);
  return made;
}

/** Whether the request is what was signed; the secret is known. */
export function signatureFault(
  context: RequestContext,
  claim: Claim,
  keys: SigningKeys,
): Fault | undefined {
  const { headers, hasBody, body } = context;
  const gone = claim.signed.find((name) => !headers.has(name));
  if (gone !== undefined) {
    const why = `it signs the field ${gone}, which it does not have or which is of one connection`;
    return { reason: "malformed", why };
  }
  const payload = payloadOf(claim, hasBody ? body : Buffer.alloc(0));
  const isHashed = /^[0-9a-f]{64}$/.test(payload ?? "");
  const other = { reason: "mismatch", why: "its body is not the one that was signed" } as const;
  if (payload === undefined) return other;
  if (isHashed && !hasBody && payload !== emptyHash) return other;
  if (isHashed && body !== undefined && payload !== hashOf(body)) return other;
  const { scope, target, time, signature } = claim;
  const paths = isObjectStore(scope.service)
    ? [canonicalPath(target.path, scope.service), target.path]
    : [canonicalPath(target.path, scope.service), encodedSegments(target.path)];
  const isRight = [...new Set(paths)].some((path) => {
    const canonical = canonicalRequest({
      method: context.method,
      path,
      parameters: target.parameters.filter(([name]) => name !== "X-Amz-Signature"),
      headers,
      signed: claim.signed,
      payload,
    });
    return keys.verify(scope, stringToSign(scope, time, canonical), signature);
  });
  return isRight
    ? undefined
    : { reason: "mismatch", why: "its signature is not one of the stand-in key over this request" };
}
