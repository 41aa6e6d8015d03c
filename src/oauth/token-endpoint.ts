/** Calls of an OAuth token endpoint: token exchange (RFC 8693), client credentials and refresh tokens (RFC 6749 sections 4.4 and 6). */
import { setTimeout as delay } from "node:timers/promises";
import { ProxyError } from "../errors.ts";
import type { Secret } from "../secret.ts";
import type { Clock } from "../duration.ts";
import type { OperatorFetch, OperatorResponse } from "../http/operator-fetch.ts";
import {
  authenticateClient,
  hasAnotherSecret,
  type ClientAuthentication,
  type ClientRequest,
} from "./client-authentication.ts";
import type { DpopKey } from "./dpop-client.ts";
import { isNonceRequest, readTokenResponse, type TokenResponse } from "./token-response.ts";

/** What is asked for, whichever grant asks for it. */
interface Wanted {
  readonly audience?: string | undefined;
  readonly scopes: readonly string[];
  /** RFC 8707: the URI of the service that the token is for. */
  readonly resource?: string | undefined;
  /** The key that the token is to be bound to (RFC 9449 section 5); no other token is taken then. */
  readonly dpop?: DpopKey | undefined;
}

/** One request for a token. */
export type Grant =
  | (Wanted & {
      readonly type: "token-exchange";
      readonly subjectToken: Secret;
      readonly actorToken?: Secret | undefined;
    })
  | (Wanted & { readonly type: "client-credentials" });

/** One request for a token by a refresh token. */
export interface RefreshGrant extends Wanted {
  readonly type: "refresh-token";
  readonly refreshToken: Secret;
}

/** Options of a {@link TokenEndpoint}. */
export interface TokenEndpointOptions {
  readonly call: OperatorFetch;
  readonly clock: Clock;
  /** For one request with all its retries; 30,000 when absent. */
  readonly deadlineMs?: number;
  /** Waits between attempts; rejects when the signal aborts. */
  readonly sleep?: (milliseconds: number, signal: AbortSignal | undefined) => Promise<void>;
  /** From 0 to 1, for the jitter. */
  readonly random?: () => number;
}

const accessToken = "urn:ietf:params:oauth:token-type:access_token";
const grantTypes = {
  "token-exchange": "urn:ietf:params:oauth:grant-type:token-exchange",
  "client-credentials": "client_credentials",
  "refresh-token": "refresh_token",
} as const;

const maxRetries = 2;
const firstBackoffMs = 100;
/** The Go program's limit; a token response is a few kilobytes. */
const maxResponseBytes = 1024 * 1024;
/** Faults that may not happen again. A wrong certificate or an endless response stays wrong. */
const passing: ReadonlySet<string> = new Set([
  "upstream.refused",
  "upstream.reset",
  "upstream.timeout",
  "upstream.unresolvable",
  "upstream.unreachable",
  "upstream.bad-response",
]);

/** What all attempts of one request have in common. */
interface Attempt {
  readonly grant: Grant | RefreshGrant;
  readonly endsAt: number;
  readonly signal: AbortSignal | undefined;
}

type Outcome =
  | { readonly kind: "response"; readonly response: OperatorResponse; readonly sentAt: number }
  /** `passing`: it may not happen again. */
  | { readonly kind: "fault"; readonly passing: boolean; readonly reason: string };

/** Asks token endpoints; holds no state between calls. */
export class TokenEndpoint {
  readonly #call: OperatorFetch;
  readonly #clock: Clock;
  readonly #deadlineMs: number;
  readonly #sleep: (milliseconds: number, signal: AbortSignal | undefined) => Promise<void>;
  readonly #random: () => number;

  constructor(options: TokenEndpointOptions) {
    this.#call = options.call;
    this.#clock = options.clock;
    this.#deadlineMs = options.deadlineMs ?? 30_000;
    this.#sleep =
      options.sleep ?? ((milliseconds, signal) => delay(milliseconds, undefined, { signal }));
    this.#random = options.random ?? Math.random;
  }

  /** Asks `url` for a token. Transport faults and 5xx responses are tried again, twice at most; 4xx never. */
  async request(
    url: string,
    client: ClientAuthentication,
    grant: Grant | RefreshGrant,
    signal?: AbortSignal,
  ): Promise<TokenResponse> {
    const endsAt = performance.now() + this.#deadlineMs;
    const { dpop } = grant;
    let hasNonce = false;
    let hasSecret = false;
    let retries = 0;
    for (;;) {
      const outcome = await this.#attempt(url, client, { grant, endsAt, signal });
      if (outcome.kind === "response") {
        const { response, sentAt } = outcome;
        if (dpop?.learn(url, response.headers["dpop-nonce"]) === true && !hasNonce) {
          // Once: a server that asks again did not like the one that it gave.
          hasNonce = isNonceRequest(response);
          if (hasNonce) continue;
        }
        if (!hasSecret) {
          // Once, as well: it was replaced since this program read it.
          hasSecret = await hasAnotherSecret(client, response);
          if (hasSecret) continue;
        }
        if (response.status < 500) return readTokenResponse(response, sentAt, dpop !== undefined);
      } else if (!outcome.passing) {
        return { kind: "unavailable", reason: outcome.reason };
      }
      const reason =
        outcome.kind === "response" ? `answered ${outcome.response.status}` : outcome.reason;
      // Half of the step is fixed and half is chance, so that callers that failed together do not return together.
      const wait = firstBackoffMs * 2 ** retries * (0.5 + this.#random() / 2);
      const isLast = retries === maxRetries || performance.now() + wait >= endsAt;
      if (isLast || signal?.aborted === true) return { kind: "unavailable", reason };
      retries += 1;
      try {
        await this.#sleep(wait, signal);
      } catch {
        // The wait ends early only because the callers have disconnected; nobody reads this result.
        return { kind: "unavailable", reason: "cancelled" };
      }
    }
  }

  /** One request, with a proof of its own: the endpoint may have taken the assertion of the one before it. */
  async #attempt(
    url: string,
    client: ClientAuthentication,
    { grant, endsAt, signal }: Attempt,
  ): Promise<Outcome> {
    const request: ClientRequest = {
      form: formOf(grant),
      headers: {
        "content-type": "application/x-www-form-urlencoded",
        accept: "application/json",
      },
    };
    try {
      if (grant.dpop !== undefined)
        request.headers["dpop"] = await grant.dpop.proof({ method: "POST", url });
      await authenticateClient(client, url, request);
    } catch (error) {
      if (!(error instanceof ProxyError)) throw error;
      return { kind: "fault", passing: passing.has(error.code), reason: error.message };
    }
    const { form, ...proven } = request;
    try {
      const sentAt = this.#clock.now();
      const response = await this.#call(url, {
        ...proven,
        method: "POST",
        body: form.toString(),
        maxBytes: maxResponseBytes,
        timeoutMs: Math.max(1, Math.ceil(endsAt - performance.now())),
        ...(signal === undefined ? {} : { signal }),
      });
      return { kind: "response", response, sentAt };
    } catch (error) {
      if (signal?.aborted === true) return { kind: "fault", passing: false, reason: "cancelled" };
      if (!(error instanceof ProxyError)) throw error;
      return { kind: "fault", passing: passing.has(error.code), reason: error.code };
    }
  }
}

function formOf(grant: Grant | RefreshGrant): URLSearchParams {
  const form = new URLSearchParams({ grant_type: grantTypes[grant.type] });
  if (grant.type === "token-exchange") {
    form.set("subject_token", grant.subjectToken.reveal());
    form.set("subject_token_type", accessToken);
    form.set("requested_token_type", accessToken);
    if (grant.actorToken !== undefined) {
      form.set("actor_token", grant.actorToken.reveal());
      form.set("actor_token_type", accessToken);
    }
  }
  if (grant.type === "refresh-token") form.set("refresh_token", grant.refreshToken.reveal());
  if (grant.audience !== undefined && grant.audience !== "") form.set("audience", grant.audience);
  if (grant.scopes.length > 0) form.set("scope", grant.scopes.join(" "));
  if (grant.resource !== undefined) form.set("resource", grant.resource);
  return form;
}
