/** Opaque tokens: what the authorization server says of them (RFC 7662), remembered for a while. */
import type { JWTPayload } from "jose";
import { BoundedMap } from "../bounded-map.ts";
import { ProxyError } from "../errors.ts";
import {
  authenticateClient,
  type ClientAuthentication,
  type ClientRequest,
  hasAnotherSecret,
} from "./client-authentication.ts";
import { type Clock, passingClock } from "../duration.ts";
import type { OperatorFetch, OperatorResponse } from "../http/operator-fetch.ts";
import { parseJsonObject } from "../http/json-access.ts";
import { type Verification, type VerifiedToken, verifiedToken } from "./jwt-verifier.ts";
import { ownerOf, type TokenOwner } from "./logout-token.ts";
import {
  audienceFault,
  claimFaults,
  type JwtRules,
  scopeFault,
  shown,
  tokenDigest,
  type TokenFault,
} from "./token-checks.ts";

/** How opaque tokens are judged. */
export interface IntrospectionRules {
  /** The type of the token is not looked at: there is no header to have it. */
  readonly rules: JwtRules;
  /** A token of which the server names no audience is for nobody. */
  readonly requireAudience: boolean;
  /** How long a response is believed, at most; 0: not at all. */
  readonly ttlMs: number;
  /** Calls at once, those that wait for a connection included. */
  readonly maxPending: number;
}

/** How a verifier reaches the authorization server. */
export interface IntrospectionEndpoint {
  readonly url: string;
  readonly call: OperatorFetch;
  /** Undefined while there are no credentials. */
  client(): ClientAuthentication | undefined;
  /** Called after every call: with `undefined` for a good one, else with what was wrong. */
  onCall(problem: string | undefined): void;
}

type Claims = Readonly<Record<string, unknown>>;

/** The server did not say anything that can be used. */
class Unavailable extends Error {}

interface Answer {
  readonly token?: VerifiedToken;
  readonly fault?: TokenFault;
  /** Of the response. */
  readonly bytes: number;
}

interface Remembered extends Answer {
  readonly until: number;
  /** The same where the clock is set back meanwhile, by {@link passingClock}. */
  readonly passesAt: number;
}

const timeoutMs = 10_000;
const maxBytes = 256 * 1024;
/** Longer responses are asked for each time: the claims of 10,000 of them would fill memory. */
const longestRemembered = 16 * 1024;
const maxGood = 10_000;
/** Strangers send these; they push out one another and no good one. */
const maxBad = 1_000;
const longestBadMs = 10_000;

/** Judges opaque tokens by one introspection endpoint; asks once for a token, however many requests bring it. */
export class OpaqueVerifier {
  readonly #endpoint: IntrospectionEndpoint;
  readonly #terms: IntrospectionRules;
  readonly #clock: Clock;
  readonly #passing: Clock;
  readonly #good = new BoundedMap<string, Remembered>(maxGood);
  readonly #bad = new BoundedMap<string, Remembered>(maxBad);
  /** Of active tokens, also of those whose response is not believed any more. */
  readonly #owners = new BoundedMap<string, TokenOwner>(maxGood);
  readonly #underWay = new Map<string, Promise<Answer>>();
  #epoch = 0;

  constructor(endpoint: IntrospectionEndpoint, terms: IntrospectionRules, clock: Clock) {
    this.#endpoint = endpoint;
    this.#terms = terms;
    this.#clock = clock;
    this.#passing = passingClock(clock);
  }

  /** Judges a token for any of these audiences; returns without a promise when the result is cached. */
  verify(text: string, audiences: readonly string[]): Verification | Promise<Verification> {
    const digest = tokenDigest(text);
    const known = this.#good.get(digest) ?? this.#bad.get(digest);
    if (
      known !== undefined &&
      known.until > this.#clock.now() &&
      known.passesAt > this.#passing.now()
    ) {
      return this.#judge(known, audiences);
    }
    this.#good.delete(digest);
    return this.#verifyAnew(text, digest, audiences);
  }

  /** Forgets the tokens of owners that the predicate names, and what is being asked for; the digests of the tokens. */
  forget(isMeant: (owner: TokenOwner) => boolean): readonly string[] {
    this.#epoch += 1;
    const meant = [...this.#owners].filter(([, owner]) => isMeant(owner));
    for (const [digest] of meant) {
      this.#owners.delete(digest);
      this.#good.delete(digest);
    }
    return meant.map(([digest]) => digest);
  }

  async #verifyAnew(
    text: string,
    digest: string,
    audiences: readonly string[],
  ): Promise<Verification> {
    let asking = this.#underWay.get(digest);
    if (asking === undefined) {
      if (this.#underWay.size >= this.#terms.maxPending) {
        return unavailable("too many introspections at once (introspection.max_pending)");
      }
      const epoch = this.#epoch;
      asking = this.#ask(text)
        .then((answer) => {
          if (epoch === this.#epoch) this.#remember(digest, answer);
          return answer;
        })
        .finally(() => this.#underWay.delete(digest));
      this.#underWay.set(digest, asking);
    }
    try {
      return this.#judge(await asking, audiences);
    } catch (error) {
      if (error instanceof Unavailable) return unavailable(error.message);
      throw error;
    }
  }

  async #ask(text: string): Promise<Answer> {
    const asked = await this.#call(text)
      // A kept connection may just have been closed; to ask twice changes nothing at the server.
      .catch((error: unknown) => {
        if (codeOf(error) !== "upstream.reset") throw error;
        return this.#call(text);
      })
      .catch(codeOf);
    this.#endpoint.onCall(typeof asked === "string" ? asked : undefined);
    if (typeof asked === "string") throw new Unavailable(`the introspection endpoint: ${asked}`);
    return { ...this.#read(asked.claims), bytes: asked.bytes };
  }

  /** The claims, or what is wrong with the response in our own words. */
  async #call(text: string): Promise<{ readonly claims: Claims; readonly bytes: number } | string> {
    const { url, call } = this.#endpoint;
    const client = this.#endpoint.client();
    if (client === undefined) return "credentials pending";
    const request: ClientRequest = {
      form: new URLSearchParams({ token: text, token_type_hint: "access_token" }),
      headers: {
        "content-type": "application/x-www-form-urlencoded",
        accept: "application/json",
      },
    };
    const send = async (): Promise<OperatorResponse> => {
      await authenticateClient(client, url, request);
      const { form, ...proven } = request;
      const body = form.toString();
      return call(url, { ...proven, method: "POST", body, timeoutMs, maxBytes });
    };
    const first = await send();
    const response = (await hasAnotherSecret(client, first)) ? await send() : first;
    if (response.status !== 200) return `answered ${response.status}`;
    const claims = parseJsonObject(response.body.toString("utf8"));
    if (typeof claims?.["active"] !== "boolean") return "answered without a boolean active";
    return { claims, bytes: response.body.length };
  }

  #read(claims: Claims): Omit<Answer, "bytes"> {
    if (claims["active"] !== true) {
      const expected = "a token that is active";
      return { fault: { cause: "inactive", claim: "active", expected, found: "false" } };
    }
    const { rules } = this.#terms;
    // A server that is authorised for the issuer need not repeat its name.
    const payload: JWTPayload = { ...claims, iss: (claims["iss"] ?? rules.issuer) as string };
    const [fault] = [
      ...kindFaults(claims),
      ...claimFaults(
        { header: {}, payload },
        { ...rules, tokenType: undefined },
        this.#clock.now(),
      ),
    ];
    return fault === undefined ? { token: verifiedToken(payload) } : { fault };
  }

  #judge({ token, fault }: Answer, audiences: readonly string[]): Verification {
    if (token === undefined) {
      return { outcome: "invalid", fault: fault ?? { cause: "inactive" } };
    }
    const { rules, requireAudience } = this.#terms;
    const isUnnamed = token.audience.length === 0 && !requireAudience;
    const other = isUnnamed ? undefined : audienceFault(token.audience, audiences);
    if (other !== undefined) return { outcome: "invalid", fault: other };
    const lacking = scopeFault(token.scopes, rules.requiredScopes);
    return lacking === undefined
      ? { outcome: "verified", token }
      : { outcome: "insufficient_scope", token, fault: lacking };
  }

  #remember(digest: string, answer: Answer): void {
    const { token } = answer;
    if (token !== undefined) this.#owners.renew(digest, ownerOf(token.claims));
    if (answer.bytes > longestRemembered) return;
    const now = this.#clock.now();
    const { ttlMs, rules } = this.#terms;
    if (token === undefined) {
      const until = now + Math.min(ttlMs, longestBadMs);
      if (until > now) this.#bad.renew(digest, { ...answer, ...this.#until(until, now) });
      return;
    }
    const { expiresAt = Number.POSITIVE_INFINITY } = token;
    const until = Math.min(now + ttlMs, expiresAt * 1_000 + rules.clockSkewMs);
    if (until > now) this.#good.renew(digest, { ...answer, ...this.#until(until, now) });
  }

  #until(until: number, now: number): Pick<Remembered, "until" | "passesAt"> {
    return { until, passesAt: this.#passing.now() + until - now };
  }
}

/** Of what is no fault of the call, the error itself is thrown. */
function codeOf(error: unknown): string {
  // Which source gave no client secret is said, and nothing of what it read.
  if (error instanceof ProxyError)
    return error.code === "secret.unavailable" ? error.message : error.code;
  throw error;
}

/** A refresh token is active, too; some servers say what they looked at. */
function* kindFaults(claims: Claims): Iterable<TokenFault> {
  const use = claims["token_use"];
  if (use !== undefined && use !== "access_token" && use !== "access") {
    const expected = "an access token";
    yield { cause: "not_access_token", claim: "token_use", expected, found: shown(use) };
  }
  const type = claims["token_type"];
  if (typeof type === "string" && /refresh|^id_token$/i.test(type)) {
    const expected = "an access token";
    yield { cause: "not_access_token", claim: "token_type", expected, found: shown(type) };
  }
}

function unavailable(reason: string): Verification {
  return { outcome: "introspection_unavailable", reason };
}
