/** What a token endpoint's refusal means: whose turn it is, and what the operator can change. */
import type { RejectedGrant } from "./token-answer.ts";

/**
 * Whose fault a refusal is.
 *
 * - `caller-token`: the caller's token is no good, a new one may help.
 * - `caller-right`: the token is good, the caller may not have what is asked for.
 * - `registration`: this program's own client is wrong or wrongly set up at the identity provider.
 * - `provider`: the identity provider is out of order or asks to wait.
 */
export type RefusalMeaning = "caller-token" | "caller-right" | "registration" | "provider";

/** A refusal as it is understood. */
export interface UnderstoodRefusal {
  readonly meaning: RefusalMeaning;
  /** The OAuth error code, if it is one that may be repeated to the agent. */
  readonly error?: string;
  /** For the operator's log. */
  readonly remedy?: string;
}

type Understood = Pick<UnderstoodRefusal, "meaning" | "remedy">;

const credentials =
  "check client_id and the secret or assertion under identity, and that the identity provider lets this client use the grant";
const exchangeSwitch =
  "allow token exchange for this proxy's client at the identity provider (Keycloak: Standard Token Exchange of a confidential client)";
const ownClient: Understood = { meaning: "registration", remedy: credentials };

/** Codes of RFC 6749, RFC 8693 and RFC 8707, and those that identity providers add. */
const byError: ReadonlyMap<string, Understood> = new Map([
  // RFC 8693 section 2.2.2 has invalid_request for a subject token that is no good; Keycloak answers invalid_token.
  ["invalid_grant", { meaning: "caller-token" }],
  ["invalid_token", { meaning: "caller-token" }],
  ["invalid_request", { meaning: "caller-token" }],
  ["invalid_target", { meaning: "caller-right" }],
  ["invalid_scope", { meaning: "caller-right" }],
  ["access_denied", { meaning: "caller-right" }],
  ["invalid_client", ownClient],
  // RFC 6749 section 5.2: the client may not use this grant; for Keycloak, a wrong secret as well.
  ["unauthorized_client", ownClient],
  ["unsupported_grant_type", { meaning: "registration", remedy: exchangeSwitch }],
  ["server_error", { meaning: "provider" }],
  ["temporarily_unavailable", { meaning: "provider" }],
  ["slow_down", { meaning: "provider" }],
]);

/** Beginnings of `error_description` that say more than the code; Keycloak uses one code for different faults. */
const byDescription: readonly (readonly [RegExp, Understood])[] = [
  [/^requested audience not available/i, { meaning: "caller-right" }],
  [/^client is not within the token audience/i, { meaning: "caller-right" }],
  [
    /^(?:standard )?token exchange (?:is )?not (?:enabled|supported|allowed)/i,
    { meaning: "registration", remedy: exchangeSwitch },
  ],
  [
    /^(?:public client|client) (?:is )?not (?:allowed|permitted) to exchange/i,
    { meaning: "registration", remedy: exchangeSwitch },
  ],
  [
    /^audience not found/i,
    {
      meaning: "registration",
      remedy: "the identity provider knows no client of the name in target_audience",
    },
  ],
  [
    /^parameter '?(?:requested|subject|actor)_token_type/i,
    { meaning: "registration", remedy: exchangeSwitch },
  ],
  [/^invalid client\b/i, ownClient],
];

const byStatus: ReadonlyMap<number, Understood> = new Map([
  // RFC 6749 section 5.2: a 401 of a token endpoint is about the client, not about the subject token.
  [401, ownClient],
  [404, { meaning: "registration", remedy: "see that token_url is the token endpoint" }],
  [405, { meaning: "registration", remedy: "see that token_url is the token endpoint" }],
  [408, { meaning: "provider" }],
  [429, { meaning: "provider" }],
]);

/** Understands a refusal by its text, its code, then its status. What nothing explains is the provider's. */
export function understandRefusal(
  refused: RejectedGrant,
  grant: "token-exchange" | "client-credentials",
): UnderstoodRefusal {
  const { status, error, description = "" } = refused;
  const known = error === undefined ? undefined : byError.get(error);
  const told =
    known === undefined ? undefined : byDescription.find(([text]) => text.test(description));
  const understood = (status === 429 ? byStatus.get(status) : undefined) ??
    told?.[1] ??
    known ??
    byStatus.get(status) ?? { meaning: "provider" };
  // Without a subject there is nobody to blame but the proxy's own client.
  const isOwn = understood.meaning === "caller-token" && grant === "client-credentials";
  return {
    ...(isOwn ? ownClient : understood),
    ...(known === undefined || error === undefined ? {} : { error }),
  };
}
