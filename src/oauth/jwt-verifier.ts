/** Verifies bearer JWTs against one issuer's keys and remembers what was verified. */
import { hash } from "node:crypto";
import {
  errors,
  jwtVerify,
  type CryptoKey,
  type JWSHeaderParameters,
  type JWTPayload,
  type JWTVerifyOptions,
} from "jose";
import { type Clock } from "./http-call.ts";
import { KeysUnavailable } from "./jwks.ts";
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

/** The keys that a verifier asks; see JwksSource. */
export interface VerificationKeys {
  readonly withdrawals: number;
  /** The keys that fit the header, at least one. */
  keysFor(header: JWSHeaderParameters): Promise<readonly CryptoKey[]>;
  /** Those that fit besides the ones that were tried in vain, from a newer key set. */
  keysBeside(tried: readonly CryptoKey[], header: JWSHeaderParameters): Promise<CryptoKey[]>;
  /** Called for each token that is remembered: its key may have been withdrawn meanwhile. */
  refresh(): void;
}

/** What a token must be, besides signed. */
export interface JwtRules {
  readonly issuer: string;
  readonly algorithms: readonly SignatureAlgorithm[];
  readonly clockSkewMs: number;
  readonly requireExpiry: boolean;
  /** The protected header's `typ`, e.g. `at+jwt` (RFC 9068); anything when absent. */
  readonly tokenType?: string;
  readonly requiredScopes: readonly string[];
  /** Claim by claim, the values of which one must be there. */
  readonly requiredClaims: Readonly<Record<string, readonly (string | number | boolean)[]>>;
}

/** What a {@link JwtVerifier} is made with. */
export interface JwtVerifierOptions {
  readonly keys: VerificationKeys;
  readonly rules: JwtRules;
  readonly clock: Clock;
  readonly maxRemembered?: number;
}

/** A token that holds. */
export interface VerifiedToken {
  readonly subject: string;
  readonly clientId?: string;
  readonly audience: readonly string[];
  readonly scopes: readonly string[];
  readonly claims: JWTPayload;
  /** Seconds since the epoch. */
  readonly expiresAt?: number;
}

/** What a verifier says. `reason` is for the operator; it never holds a part of the token. */
export type Verification =
  | { readonly outcome: "verified"; readonly token: VerifiedToken }
  | { readonly outcome: "invalid"; readonly reason: string }
  | { readonly outcome: "insufficient_scope"; readonly token: VerifiedToken }
  | { readonly outcome: "keys_unavailable"; readonly reason: string };

/** Longer tokens are verified each time: the claims of 10,000 of them would fill memory. */
const longestRemembered = 16 * 1024;
/** Three non-empty parts in the base64url alphabet: no JWE, no unsecured JWS, no detached payload. */
const compactJws = /^[\w-]+\.[\w-]+\.[\w-]+$/;
/** 9999-12-31: a later date is a unit mistake or an attempt at a token for ever. */
const latestDate = 253_402_300_799;
/** Seconds by which clocks differ in the field: RFC 7519 gives `iat` no part in acceptance, and `nbf` a leeway. */
const issueLeeway = 60;
const beforeLeeway = 30;

/** Verifies tokens of one issuer. Audiences are asked per call, because they can depend on the request. */
export class JwtVerifier {
  readonly #keys: VerificationKeys;
  readonly #rules: JwtRules;
  readonly #clock: Clock;
  readonly #maxRemembered: number;
  readonly #remembered = new Map<string, VerifiedToken>();
  readonly #underWay = new Map<string, Promise<VerifiedToken>>();
  #withdrawals: number;

  constructor(options: JwtVerifierOptions) {
    this.#keys = options.keys;
    this.#rules = options.rules;
    this.#clock = options.clock;
    this.#maxRemembered = options.maxRemembered ?? 10_000;
    this.#withdrawals = options.keys.withdrawals;
  }

  /** Judges a token for any of these audiences; answers without a promise when the token is remembered. */
  verify(text: string, audiences: readonly string[]): Verification | Promise<Verification> {
    this.#keys.refresh();
    this.#forgetWithdrawn();
    const digest = hash("sha256", text, "base64");
    const known = this.#remembered.get(digest);
    if (known !== undefined) {
      if (!this.#hasEnded(known)) return this.#judge(known, audiences);
      this.#remembered.delete(digest);
    }
    return this.#verifyAnew(text, digest, audiences);
  }

  async #verifyAnew(
    text: string,
    digest: string,
    audiences: readonly string[],
  ): Promise<Verification> {
    let checking = this.#underWay.get(digest);
    if (checking === undefined) {
      const withdrawals = this.#keys.withdrawals;
      checking = this.#check(text)
        .then((token) => {
          const isCurrent = withdrawals === this.#keys.withdrawals;
          if (isCurrent && text.length <= longestRemembered) this.#remember(digest, token);
          return token;
        })
        .finally(() => this.#underWay.delete(digest));
      this.#underWay.set(digest, checking);
    }
    try {
      return this.#judge(await checking, audiences);
    } catch (error) {
      if (error instanceof KeysUnavailable) {
        return { outcome: "keys_unavailable", reason: error.message };
      }
      if (error instanceof errors.JOSEError) return invalid(error.code);
      if (error instanceof Unacceptable) return invalid(error.message);
      // A key that the issuer published and the runtime cannot use is a token that cannot be verified.
      return invalid("the signature could not be checked");
    }
  }

  /** All that does not depend on the request: signature, issuer, times, type and required claims. */
  async #check(text: string): Promise<VerifiedToken> {
    if (!compactJws.test(text)) throw new Unacceptable("the token is not a compact JWS");
    const { issuer, algorithms, clockSkewMs, requireExpiry, tokenType } = this.#rules;
    const now = this.#clock.now();
    const payload = await this.#payloadOf(text, {
      issuer,
      algorithms: [...algorithms],
      // For nbf; exp is judged by checkDates without the leeway.
      clockTolerance: Math.max(clockSkewMs / 1000, beforeLeeway),
      currentDate: new Date(now),
      ...(requireExpiry ? { requiredClaims: ["exp"] } : {}),
      ...(tokenType === undefined ? {} : { typ: tokenType }),
    });
    checkDates(payload, now / 1000, clockSkewMs / 1000);
    checkIsAccessToken(payload);
    for (const [claim, accepted] of Object.entries(this.#rules.requiredClaims)) {
      if (!hasClaim(payload, claim, accepted)) throw new Unacceptable(`claim ${claim} is missing`);
    }
    return verifiedToken(payload);
  }

  /** Tries each fitting key, then those of a newer set; whatever but the signature is wrong is so under every key. */
  async #payloadOf(text: string, options: JWTVerifyOptions): Promise<JWTPayload> {
    let known: readonly CryptoKey[] = [];
    let header: JWSHeaderParameters = {};
    const firstOf = async (given: JWSHeaderParameters): Promise<CryptoKey> => {
      header = given;
      known = await this.#keys.keysFor(given);
      const [first] = known;
      if (first === undefined) throw new errors.JWKSNoMatchingKey();
      return first;
    };
    try {
      return (await jwtVerify(text, firstOf, options)).payload;
    } catch (error) {
      if (!isKeysFault(error) || known.length === 0) throw error;
      return await payloadUnder(known.slice(1), text, options, error).catch(
        async (fault: unknown) => {
          if (!isKeysFault(fault)) throw fault;
          const newer = await this.#keys.keysBeside(known, header);
          return payloadUnder(newer, text, options, fault);
        },
      );
    }
  }

  #judge(token: VerifiedToken, audiences: readonly string[]): Verification {
    if (!token.audience.some((audience) => audiences.includes(audience))) {
      return invalid("the token is for another audience");
    }
    if (!this.#rules.requiredScopes.every((scope) => token.scopes.includes(scope))) {
      return { outcome: "insufficient_scope", token };
    }
    return { outcome: "verified", token };
  }

  #hasEnded(token: VerifiedToken): boolean {
    const { expiresAt = Number.POSITIVE_INFINITY } = token;
    return expiresAt * 1000 + this.#rules.clockSkewMs <= this.#clock.now();
  }

  /** A token without an end is verified each time: nothing would ever take it out of memory. */
  #remember(digest: string, token: VerifiedToken): void {
    if (token.expiresAt === undefined) return;
    if (this.#remembered.size >= this.#maxRemembered) this.#makeRoom();
    this.#remembered.set(digest, token);
  }

  #makeRoom(): void {
    for (const [digest, token] of this.#remembered) {
      if (this.#hasEnded(token)) this.#remembered.delete(digest);
    }
    const kept = Math.floor(this.#maxRemembered * 0.75);
    for (const digest of this.#remembered.keys()) {
      if (this.#remembered.size <= kept) break;
      this.#remembered.delete(digest);
    }
  }

  #forgetWithdrawn(): void {
    if (this.#withdrawals === this.#keys.withdrawals) return;
    this.#withdrawals = this.#keys.withdrawals;
    this.#remembered.clear();
  }
}

class Unacceptable extends Error {}

/** What the first of the keys that fits verifies; rejects with the last fault, at first that of the keys before. */
async function payloadUnder(
  keys: readonly CryptoKey[],
  text: string,
  options: JWTVerifyOptions,
  before: unknown,
): Promise<JWTPayload> {
  let last = before;
  for (const key of keys) {
    try {
      return (await jwtVerify(text, key, options)).payload;
    } catch (fault) {
      last = fault;
      if (!isKeysFault(fault)) break;
    }
  }
  throw last;
}

/** Another key may do: the signature is not by this one, or the runtime cannot use it (e.g. a short RSA key). */
function isKeysFault(error: unknown): boolean {
  return (
    error instanceof errors.JWSSignatureVerificationFailed || !(error instanceof errors.JOSEError)
  );
}

function invalid(reason: string): Verification {
  return { outcome: "invalid", reason };
}

/** Jose looks at `nbf` and, less strictly, at `exp`; an `iat` that lies ahead and dates beyond all calendars are left to us. */
function checkDates(payload: JWTPayload, now: number, skew: number): void {
  for (const claim of ["exp", "nbf", "iat"] as const) {
    const date: unknown = payload[claim];
    if (date === undefined) continue;
    if (typeof date !== "number" || !(date >= 0 && date <= latestDate)) {
      throw new Unacceptable(`claim ${claim} is not a date`);
    }
  }
  if (payload.exp !== undefined && payload.exp <= Math.floor(now) - skew) {
    throw new errors.JWTExpired("the token has expired", payload, "exp", "check_failed");
  }
  if (payload.iat !== undefined && Math.floor(payload.iat) > now + Math.max(skew, issueLeeway)) {
    throw new Unacceptable("the token was issued in the future");
  }
}

/**
 * An ID token has the same issuer and key and, for the agent's own client, the same audience, but it is not for APIs.
 * OpenID Connect Core gives `at_hash` and `c_hash` to ID tokens only; Keycloak says what a token is in `typ`.
 */
function checkIsAccessToken(payload: JWTPayload): void {
  const { typ, at_hash: atHash, c_hash: cHash } = payload;
  const kinds = ["ID", "Refresh", "Offline", "Logout"];
  if (
    atHash !== undefined ||
    cHash !== undefined ||
    (typeof typ === "string" && kinds.includes(typ))
  ) {
    throw new Unacceptable("the token is not an access token");
  }
}

function hasClaim(
  payload: JWTPayload,
  claim: string,
  accepted: readonly (string | number | boolean)[],
): boolean {
  const value: unknown = Object.hasOwn(payload, claim) ? payload[claim] : undefined;
  const values: unknown[] = Array.isArray(value) ? value : [value];
  return accepted.some((wanted) => values.includes(wanted));
}

function verifiedToken(payload: JWTPayload): VerifiedToken {
  const { azp, client_id: clientId } = payload;
  const client = [azp, clientId].find((claim) => typeof claim === "string");
  return Object.freeze({
    subject: typeof payload.sub === "string" ? payload.sub : "",
    ...(typeof client === "string" ? { clientId: client } : {}),
    audience: audienceOf(payload.aud),
    scopes: scopesOf(payload),
    claims: payload,
    ...(payload.exp === undefined ? {} : { expiresAt: payload.exp }),
  });
}

/** RFC 8693 section 4.2 has `scope` as one string; some issuers write `scp`, as a string or a list. */
function scopesOf(payload: JWTPayload): readonly string[] {
  const { scope, scp } = payload;
  const granted = scope ?? scp;
  if (typeof granted === "string") return granted.split(" ").filter((word) => word !== "");
  return audienceOf(granted);
}
