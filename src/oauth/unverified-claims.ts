/**
 * Claims of a token that nobody has verified here.
 *
 * They may only shorten a lifetime or label a record, never open anything: whoever sent the token wrote them.
 */
import { parseJsonObject } from "../http/json-access.ts";
import { actorsOf } from "./actor-chain.ts";

/** What can be read from a JWT without its key. */
export interface UnverifiedClaims {
  readonly issuer?: string;
  readonly subject?: string;
  /** `sid`: the login that the token came from. */
  readonly session?: string;
  /** Seconds since the epoch. */
  readonly expiresAt?: number;
  readonly audience: readonly string[];
  /** Who acts for the subject, the current actor first; absent where the claim is malformed. */
  readonly actors?: readonly string[];
}

/** Reads the payload of a compact JWS; undefined for an opaque token. Its length is bounded by where it came from. */
export function unverifiedClaims(token: string): UnverifiedClaims | undefined {
  const [, payload, signature, ...rest] = token.split(".");
  if (payload === undefined || signature === undefined || rest.length > 0) return undefined;
  const claims = parseJsonObject(Buffer.from(payload, "base64url").toString("utf8"));
  if (claims === undefined) return undefined;
  const { iss, sub, sid, exp, aud, act } = claims;
  const actors = actorsOf(act);
  return {
    ...(typeof iss === "string" ? { issuer: iss } : {}),
    ...(typeof sid === "string" ? { session: sid } : {}),
    ...(typeof sub === "string" ? { subject: sub } : {}),
    ...(typeof exp === "number" && Number.isFinite(exp) ? { expiresAt: exp } : {}),
    audience: audienceOf(aud),
    ...(actors === undefined ? {} : { actors }),
  };
}

/** The `aud` claim as a list: RFC 7519 section 4.1.3 allows one string or an array of them. */
export function audienceOf(aud: unknown): string[] {
  if (typeof aud === "string") return [aud];
  if (!Array.isArray(aud)) return [];
  return aud.filter((item): item is string => typeof item === "string");
}
