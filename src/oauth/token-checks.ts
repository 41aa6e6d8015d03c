/** The checks of a token's claims: a request stops at the first that fails, `doctor` reports all. */
import { hash } from "node:crypto";
import type { JWSHeaderParameters, JWTPayload } from "jose";
import { parseSpiffeId, trustDomainOf } from "../spiffe/spiffe-id.ts";
import { actorsOf, countOf } from "./actor-chain.ts";
import { audienceOf } from "./unverified-claims.ts";

/** Signature algorithms that can be allowed. Symmetric ones cannot: their key would be in a published set. */
export const signatureAlgorithms = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
] as const;

/** One of {@link signatureAlgorithms}. */
export type SignatureAlgorithm = (typeof signatureAlgorithms)[number];

/** What a token must be, besides signed. */
export interface JwtRules {
  /** The `iss` of tokens; a SPIFFE trust domain (`spiffe://example.org`) means its JWT-SVIDs, whatever their `iss`. */
  readonly issuer: string;
  readonly algorithms: readonly SignatureAlgorithm[];
  readonly clockSkewMs: number;
  readonly requireExpiry: boolean;
  /** The protected header's `typ`, e.g. `at+jwt` (RFC 9068); anything when absent. */
  readonly tokenType?: string | undefined;
  readonly requiredScopes: readonly string[];
  /** Claim by claim, the values of which one must be there. */
  readonly requiredClaims: Readonly<Record<string, readonly (string | number | boolean)[]>>;
  /** A token that is bound to a key (`cnf`) may be taken: whoever asks looks at the proof of the key, or need not. */
  readonly acceptsBound?: boolean;
  /** Actors that the token may name at most: how often it was passed on. No limit when absent. */
  readonly maxActors?: number;
}

/** Why a token is not accepted; the words are in logs, events and labels of metrics, and do not change. */
export type TokenFaultCause =
  | "malformed"
  | "algorithm_not_allowed"
  | "unknown_key"
  | "bad_signature"
  | "type_mismatch"
  | "issuer_mismatch"
  | "audience_mismatch"
  | "no_expiry"
  | "expired"
  | "not_yet_valid"
  | "issued_in_future"
  | "not_access_token"
  | "bound_to_key"
  | "too_many_actors"
  | "inactive"
  | "logged_out"
  | "claim_mismatch"
  | "insufficient_scope";

/** One check that a token fails, for the operator: no part of it is a secret. */
export interface TokenFault {
  readonly cause: TokenFaultCause;
  /** The claim or the header parameter that was looked at. */
  readonly claim?: string;
  readonly expected?: string;
  /** What came in its place, cut; absent where it may be nobody's business. */
  readonly found?: string;
}

/** What the checks look at. */
export interface TokenParts {
  readonly header: JWSHeaderParameters;
  readonly payload: JWTPayload;
}

/** 9999-12-31: a later date is a unit mistake or an attempt at a token for ever. */
const latestDate = 253_402_300_799;
/** Seconds by which clocks differ in the field: RFC 7519 gives `iat` no part in acceptance, and `nbf` a leeway. */
const issueLeeway = 60;
const beforeLeeway = 30;
const longestShown = 200;

/** The checks that do not depend on the request, in the order in which they count. `now` is in milliseconds. */
export function* claimFaults(
  parts: TokenParts,
  rules: JwtRules,
  now: number,
): Iterable<TokenFault> {
  const { header, payload } = parts;
  const { issuer, tokenType } = rules;
  if (tokenType !== undefined && bareType(header.typ) !== bareType(tokenType)) {
    yield { cause: "type_mismatch", claim: "typ", expected: tokenType, found: shown(header.typ) };
  }
  const trustDomain = trustDomainOfIssuer(issuer);
  if (trustDomain !== undefined) yield* svidFaults(parts, trustDomain);
  else if (payload.iss !== issuer) {
    yield { cause: "issuer_mismatch", claim: "iss", expected: issuer, found: shown(payload.iss) };
  }
  const requireExpiry = rules.requireExpiry || trustDomain !== undefined;
  yield* dateFaults(payload, { ...rules, requireExpiry }, now);
  const kind = otherKindOf(payload);
  if (kind !== undefined) yield { cause: "not_access_token", expected: "an access token", ...kind };
  const { cnf } = payload;
  if (cnf !== undefined && rules.acceptsBound !== true) {
    const expected = "none: bound tokens are not taken here (bound_tokens)";
    const kinds = typeof cnf === "object" && cnf !== null ? Object.keys(cnf).join(", ") : cnf;
    yield { cause: "bound_to_key", claim: "cnf", expected, found: shown(kinds) };
  }
  const chain = actorFault(payload["act"], rules.maxActors ?? Number.POSITIVE_INFINITY);
  if (chain !== undefined) yield chain;
  for (const [claim, accepted] of Object.entries(rules.requiredClaims)) {
    const value: unknown = Object.hasOwn(payload, claim) ? payload[claim] : undefined;
    const values: unknown[] = Array.isArray(value) ? value : [value];
    if (accepted.some((wanted) => values.includes(wanted))) continue;
    const found = value === undefined ? absent : "another value";
    yield { cause: "claim_mismatch", claim, expected: accepted.join(" or "), found };
  }
}

/** The trust domain whose JWT-SVIDs an "issuer" such as `spiffe://example.org` stands for; undefined for any other one. */
export function trustDomainOfIssuer(issuer: string): string | undefined {
  return issuer.startsWith("spiffe://") ? trustDomainOf(issuer) : undefined;
}

/** JWT-SVID, sections 2 and 3: the subject says whose it is, `iss` need not be there, and `typ` is one of two or absent. */
function* svidFaults({ header, payload }: TokenParts, trustDomain: string): Iterable<TokenFault> {
  const { sub } = payload;
  const id = typeof sub === "string" ? parseSpiffeId(sub) : "none";
  if (typeof id === "string" || id.trustDomain !== trustDomain) {
    const expected = `a SPIFFE ID of ${trustDomain}`;
    yield { cause: "issuer_mismatch", claim: "sub", expected, found: shown(sub) };
  }
  if (header.typ !== undefined && header.typ !== "JWT" && header.typ !== "JOSE") {
    const expected = "JWT or JOSE";
    yield { cause: "type_mismatch", claim: "typ", expected, found: shown(header.typ) };
  }
}

/** RFC 8693 section 4.1: a chain that is too long, or one that names nobody. */
function actorFault(act: unknown, most: number): TokenFault | undefined {
  const actors = actorsOf(act);
  if (actors === undefined)
    return { cause: "malformed", claim: "act", expected: "actors", found: "no such claim" };
  if (actors.length <= most) return undefined;
  const expected = `at most ${most} actors (max_actors)`;
  return { cause: "too_many_actors", claim: "act", expected, found: countOf(actors) };
}

/** The audience's check: which are accepted can depend on the request. */
export function audienceFault(
  audience: readonly string[],
  accepted: readonly string[],
): TokenFault | undefined {
  if (audience.some((one) => accepted.includes(one))) return undefined;
  const expected = accepted.length === 0 ? "an audience for this host" : accepted.join(" or ");
  const found = audience.length === 0 ? absent : shown(audience.join(", "));
  return { cause: "audience_mismatch", claim: "aud", expected, found };
}

/** The scopes' check. */
export function scopeFault(
  scopes: readonly string[],
  required: readonly string[],
): TokenFault | undefined {
  if (required.every((scope) => scopes.includes(scope))) return undefined;
  const found = scopes.length === 0 ? absent : shown(scopes.join(" "));
  return { cause: "insufficient_scope", claim: "scope", expected: required.join(" "), found };
}

/** RFC 8693 section 4.2 has `scope` as one string; some issuers write `scp`, as a string or a list. */
export function scopesOf({ scope, scp }: JWTPayload): readonly string[] {
  const granted = scope ?? scp;
  if (typeof granted === "string") return granted.split(" ").filter((word) => word !== "");
  return audienceOf(granted);
}

/** What stands for a token where it is remembered. */
export function tokenDigest(text: string): string {
  return hash("sha256", text, "base64");
}

const absent = "none";

/** A text of the token, cut: whoever wrote it chose its length. */
export function shown(value: unknown): string {
  if (value === undefined) return absent;
  if (typeof value !== "string") return `a value of type ${typeof value}`;
  return value.length > longestShown ? `${value.slice(0, longestShown)}…` : value;
}

/** RFC 7515 section 4.1.9: `application/` may be left out. */
function bareType(type: unknown): string | undefined {
  return typeof type === "string" ? type.toLowerCase().replace(/^application\//, "") : undefined;
}

function* dateFaults(payload: JWTPayload, rules: JwtRules, now: number): Iterable<TokenFault> {
  const skew = rules.clockSkewMs / 1_000;
  const seconds = Math.floor(now / 1_000);
  if (rules.requireExpiry && payload.exp === undefined) {
    yield { cause: "no_expiry", claim: "exp", expected: "a date (require_exp)", found: absent };
  }
  const date = (claim: "exp" | "nbf" | "iat"): number | undefined => {
    const value: unknown = payload[claim];
    return isDate(value) ? value : undefined;
  };
  for (const claim of ["exp", "nbf", "iat"] as const) {
    if (payload[claim] === undefined || date(claim) !== undefined) continue;
    yield { cause: "malformed", claim, expected: "seconds since 1970", found: "no such date" };
  }
  const [exp, nbf, iat] = [date("exp"), date("nbf"), date("iat")];
  if (exp !== undefined && exp <= seconds - skew) {
    const expected = `later than ${timeOf(seconds - skew)}`;
    yield { cause: "expired", claim: "exp", expected, found: timeOf(exp) };
  }
  const latestStart = seconds + Math.max(skew, beforeLeeway);
  if (nbf !== undefined && nbf > latestStart) {
    const expected = `not later than ${timeOf(latestStart)}`;
    yield { cause: "not_yet_valid", claim: "nbf", expected, found: timeOf(nbf) };
  }
  const latestIssue = now / 1_000 + Math.max(skew, issueLeeway);
  if (iat !== undefined && Math.floor(iat) > latestIssue) {
    const expected = `not later than ${timeOf(latestIssue)}`;
    yield { cause: "issued_in_future", claim: "iat", expected, found: timeOf(iat) };
  }
}

function isDate(value: unknown): value is number {
  return typeof value === "number" && value >= 0 && value <= latestDate;
}

function timeOf(seconds: number): string {
  return new Date(Math.trunc(seconds) * 1_000).toISOString().replace(".000Z", "Z");
}

/**
 * An ID token has the same issuer and key and, for the agent's own client, the same audience, but it is not for APIs.
 * OpenID Connect Core gives `at_hash` and `c_hash` to ID tokens only; Keycloak says what a token is in `typ`.
 */
function otherKindOf(payload: JWTPayload): Pick<TokenFault, "claim" | "found"> | undefined {
  const { typ } = payload;
  if (typeof typ === "string" && ["ID", "Refresh", "Offline", "Logout"].includes(typ)) {
    return { claim: "typ", found: typ };
  }
  const hash = ["at_hash", "c_hash"].find((claim) => payload[claim] !== undefined);
  return hash === undefined ? undefined : { claim: hash, found: "an ID token" };
}
