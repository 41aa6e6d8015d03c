/** Verifies bearer JWTs against one issuer's keys and remembers what was verified. */
import type { JWTPayload } from "jose";
import type { Clock } from "../duration.ts";
import { KeysUnavailable } from "./jwks.ts";
import {
  notCompact,
  partsOf,
  signatureFault,
  signedParts,
  Unacceptable,
  type VerificationKeys,
} from "./jwt-signature.ts";
import { ownerOf, type TokenOwner } from "./logout-token.ts";
import {
  audienceFault,
  claimFaults,
  type JwtRules,
  scopeFault,
  scopesOf,
  tokenDigest,
  type TokenFault,
  type TokenParts,
} from "./token-checks.ts";
import { audienceOf } from "./unverified-claims.ts";

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

/** Verifies tokens of one issuer. Audiences are asked per call, because they can depend on the request. */
export class JwtVerifier {
  readonly #keys: VerificationKeys;
  readonly #rules: JwtRules;
  readonly #clock: Clock;
  readonly #maxRemembered: number;
  readonly #remembered = new Map<string, VerifiedToken>();
  readonly #underWay = new Map<string, Promise<VerifiedToken>>();
  #withdrawals: number;
  /** When something was judged last. */
  #latest = Number.NEGATIVE_INFINITY;

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
    this.#forgetOfFuture();
    const digest = tokenDigest(text);
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
      return invalid(signatureFault(error, text, this.#rules));
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
      else faults.push(signatureFault(error, text, this.#rules));
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

  /** Signature and shape; what is wrong with them is thrown. */
  #signed(text: string): Promise<TokenParts> {
    return signedParts(text, this.#keys, this.#rules, this.#clock.now());
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

  /** Forgets the tokens of owners that the predicate names; the digests of the tokens. */
  forget(isMeant: (owner: TokenOwner) => boolean): readonly string[] {
    const meant = [...this.#remembered].filter(([, { claims }]) => isMeant(ownerOf(claims)));
    for (const [digest] of meant) this.#remembered.delete(digest);
    return meant.map(([digest]) => digest);
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

  /** The clock was set back: what was valid by it need not be valid yet. */
  #forgetOfFuture(): void {
    const now = this.#clock.now();
    if (now < this.#latest) this.#remembered.clear();
    this.#latest = now;
  }

  #forgetWithdrawn(): void {
    if (this.#withdrawals === this.#keys.withdrawals) return;
    this.#withdrawals = this.#keys.withdrawals;
    this.#remembered.clear();
  }
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
