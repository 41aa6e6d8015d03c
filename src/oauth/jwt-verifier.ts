/** Verifies bearer JWTs against one issuer's keys and remembers what was verified. */
import { hash } from "node:crypto";
import {
  decodeJwt,
  decodeProtectedHeader,
  errors,
  jwtVerify,
  type CryptoKey,
  type JWSHeaderParameters,
  type JWTPayload,
  type JWTVerifyOptions,
} from "jose";
import type { Clock } from "../duration.ts";
import { KeysUnavailable } from "./jwks.ts";
import {
  audienceFault,
  claimFaults,
  type JwtRules,
  scopeFault,
  scopesOf,
  shown,
  type TokenFault,
  type TokenFaultCause,
  type TokenParts,
} from "./token-checks.ts";
import { audienceOf } from "./unverified-claims.ts";

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

/** Options of a {@link JwtVerifier}. */
export interface JwtVerifierOptions {
  readonly keys: VerificationKeys;
  readonly rules: JwtRules;
  readonly clock: Clock;
  readonly maxRemembered?: number;
}

/** A token that holds. */
export interface VerifiedToken {
  readonly subject: string;
  readonly clientId?: string | undefined;
  readonly audience: readonly string[];
  readonly scopes: readonly string[];
  readonly claims: JWTPayload;
  /** Seconds since the epoch. */
  readonly expiresAt?: number | undefined;
}

/** What a verifier says; the fault is for the operator. */
export type Verification =
  | { readonly outcome: "verified"; readonly token: VerifiedToken }
  | { readonly outcome: "invalid"; readonly fault: TokenFault }
  | {
      readonly outcome: "insufficient_scope";
      readonly token: VerifiedToken;
      readonly fault: TokenFault;
    }
  | { readonly outcome: Unavailable; readonly reason: string };

type Unavailable = "keys_unavailable" | "introspection_unavailable";

/** Longer tokens are verified each time: the claims of 10,000 of them would fill memory. */
const longestRemembered = 16 * 1024;

/** What is wrong with a token, all of it; without keys its signature was not looked at. */
export interface Examination {
  readonly faults: readonly TokenFault[];
  readonly keysProblem?: string | undefined;
}

/** Three non-empty parts in the base64url alphabet: no JWE, no unsecured JWS, no detached payload. */
export const compactJws = /^[\w-]+\.[\w-]+\.[\w-]+$/;
/** The claims are judged by token-checks.ts: what jose would say of dates is put out of reach. */
const signatureOnly = { clockTolerance: Number.MAX_SAFE_INTEGER } as const;

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

  /** Judges a token for any of these audiences; returns without a promise when the result is cached. */
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
      return invalid(this.#faultOf(error, text));
    }
  }

  /** Every check that the token fails, for people: a request stops at the first. Nothing is remembered. */
  async examine(text: string, audiences: readonly string[] | undefined): Promise<Examination> {
    const parts = partsOf(text);
    if (parts === undefined) return { faults: [notCompact] };
    const faults: TokenFault[] = [];
    let keysProblem: string | undefined;
    try {
      await this.#signed(text);
    } catch (error) {
      if (error instanceof KeysUnavailable) keysProblem = error.message;
      else faults.push(this.#faultOf(error, text));
    }
    for (const fault of claimFaults(parts, this.#rules, this.#clock.now())) {
      // A date that is none has been found by jose as well.
      if (!faults.some(({ cause, claim }) => cause === fault.cause && claim === fault.claim)) {
        faults.push(fault);
      }
    }
    const { payload } = parts;
    const others = [
      audiences === undefined ? undefined : audienceFault(audienceOf(payload.aud), audiences),
      scopeFault(scopesOf(payload), this.#rules.requiredScopes),
    ];
    for (const fault of others) if (fault !== undefined) faults.push(fault);
    return { faults, keysProblem };
  }

  /** All that does not depend on the request: signature, issuer, times, type and required claims. */
  async #check(text: string): Promise<VerifiedToken> {
    const now = this.#clock.now();
    const parts = await this.#signed(text);
    for (const fault of claimFaults(parts, this.#rules, now)) throw new Unacceptable(fault);
    return verifiedToken(parts.payload);
  }

  /** Tries each fitting key, then those of a newer set; whatever but the signature is wrong is so under every key. */
  async #signed(text: string): Promise<TokenParts> {
    if (!compactJws.test(text)) throw new Unacceptable(notCompact);
    const options: JWTVerifyOptions = {
      ...signatureOnly,
      algorithms: [...this.#rules.algorithms],
      currentDate: new Date(this.#clock.now()),
    };
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
      return signedParts(await jwtVerify(text, firstOf, options));
    } catch (error) {
      if (!isKeysFault(error) || known.length === 0) throw error;
      return await signedUnder(known.slice(1), text, options, error).catch(
        async (fault: unknown) => {
          if (!isKeysFault(fault)) throw fault;
          const newer = await this.#keys.keysBeside(known, header);
          return signedUnder(newer, text, options, fault);
        },
      );
    }
  }

  /** What jose threw, or a check of ours, in the words for operators. */
  #faultOf(error: unknown, text: string): TokenFault {
    if (error instanceof Unacceptable) return error.fault;
    const { header, payload } = partsOf(text) ?? { header: {}, payload: {} };
    const { issuer, algorithms } = this.#rules;
    // Keys of another issuer explain most of these: that claim is unverified, and is shown as what came.
    const alien = payload.iss === issuer ? "" : ` in a token whose iss is ${shown(payload.iss)}`;
    const key = (cause: TokenFaultCause, expected: string): TokenFault => {
      const found = `${header.kid === undefined ? "no kid" : shown(header.kid)}${alien}`;
      return { cause, claim: "kid", expected, found };
    };
    if (error instanceof errors.JOSEAlgNotAllowed) {
      const expected = algorithms.join(" or ");
      return {
        cause: "algorithm_not_allowed",
        claim: "alg",
        expected,
        found: shown(header.alg),
      };
    }
    if (error instanceof errors.JWKSNoMatchingKey) {
      return key("unknown_key", "a key of the issuer's key set");
    }
    if (error instanceof errors.JOSEError && !isKeysFault(error)) {
      const claim = error instanceof errors.JWTClaimValidationFailed ? { claim: error.claim } : {};
      return { cause: "malformed", ...claim, expected: "a JWT", found: shown(error.message) };
    }
    // A key that the issuer published and the runtime cannot use is a token that cannot be verified.
    return key("bad_signature", "a signature by that key of the issuer");
  }

  #judge(token: VerifiedToken, audiences: readonly string[]): Verification {
    const other = audienceFault(token.audience, audiences);
    if (other !== undefined) return invalid(other);
    const fault = scopeFault(token.scopes, this.#rules.requiredScopes);
    return fault === undefined
      ? { outcome: "verified", token }
      : { outcome: "insufficient_scope", token, fault };
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

class Unacceptable extends Error {
  readonly fault: TokenFault;

  constructor(fault: TokenFault) {
    super(fault.cause);
    this.fault = fault;
  }
}

const notCompact: TokenFault = {
  cause: "malformed",
  expected: "a compact JWS",
  found: "something else",
};

function signedParts({
  protectedHeader: header,
  payload,
}: {
  readonly protectedHeader: JWSHeaderParameters;
  readonly payload: JWTPayload;
}): TokenParts {
  return { header, payload };
}

/** Header and claims as they came, whoever wrote them; undefined where there are none to read. */
function partsOf(text: string): TokenParts | undefined {
  if (!compactJws.test(text)) return undefined;
  try {
    return { header: decodeProtectedHeader(text), payload: decodeJwt(text) };
  } catch {
    return undefined;
  }
}

/** What the first of the keys that fits verifies; rejects with the last fault, at first that of the keys before. */
async function signedUnder(
  keys: readonly CryptoKey[],
  text: string,
  options: JWTVerifyOptions,
  before: unknown,
): Promise<TokenParts> {
  let last = before;
  for (const key of keys) {
    try {
      return signedParts(await jwtVerify(text, key, options));
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

function invalid(fault: TokenFault): Verification {
  return { outcome: "invalid", fault };
}

/** The token that has these claims; whoever calls it has verified them. */
export function verifiedToken(payload: JWTPayload): VerifiedToken {
  const { azp, client_id: clientId } = payload;
  const client = [azp, clientId].find((claim) => typeof claim === "string");
  return Object.freeze({
    subject: typeof payload.sub === "string" ? payload.sub : "",
    clientId: client,
    audience: audienceOf(payload.aud),
    scopes: scopesOf(payload),
    claims: payload,
    expiresAt: payload.exp,
  });
}
