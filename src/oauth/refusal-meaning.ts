/** What a token endpoint's refusal means: whose turn it is, and what the operator can change. */
import { entraMeaning } from "./entra-codes.ts";
import type { Understood } from "./refusal-kind.ts";
import type { RejectedGrant } from "./token-response.ts";

/** A refusal as it is understood. */
export interface UnderstoodRefusal extends Understood {
  /** The OAuth error code, if it is one that may be repeated to the agent. */
  readonly error?: string;
}

const credentials =
  "check client_id and the secret, assertion or certificate under identity, and that at the identity provider the client is enabled, proves itself by this method and may use the grant";
const exchangeSwitch =
  "allow token exchange for this proxy's client at the identity provider (Keycloak: Standard Token Exchange of a confidential client)";
const consent = "give consent as an administrator to the API permissions of this client";
const unknownAudience = "the identity provider knows nothing of the name in target_audience";
const clientGrant = "authorize this client for the API in target_audience (a client grant)";
const accessPolicy =
  "give the authorization server an access policy with a rule for this client, grant type, user and scopes";
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
  // Entra ID: the user has to sign in again, or nobody has consented, or there is no such resource.
  ["interaction_required", { meaning: "caller-token" }],
  ["login_required", { meaning: "caller-token" }],
  ["consent_required", { meaning: "registration", remedy: consent }],
  ["invalid_resource", { meaning: "registration", remedy: unknownAudience }],
  ["server_error", { meaning: "provider" }],
  ["temporarily_unavailable", { meaning: "provider" }],
  ["slow_down", { meaning: "provider" }],
]);

/** Beginnings of `error_description` that say more than the code: identity providers use one code for different faults. */
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
    /^client disabled/i,
    {
      meaning: "registration",
      remedy: "enable the client of target_audience at the identity provider",
    },
  ],
  [
    /^client_id parameter does not match sub claim/i,
    {
      meaning: "registration",
      remedy: "leave client_id out of identity, or set send_client_id: false",
    },
  ],
  [/^audience not found/i, { meaning: "registration", remedy: unknownAudience }],
  [
    /^parameter '?(?:requested|subject|actor)_token_type/i,
    { meaning: "registration", remedy: exchangeSwitch },
  ],
  [/^invalid client\b/i, ownClient],
  // Auth0.
  [/^client\b.*\bis not authorized to access\b/i, { meaning: "registration", remedy: clientGrant }],
  [/^service not enabled within domain/i, { meaning: "registration", remedy: unknownAudience }],
  [
    /^grant type '.*' not allowed for the client/i,
    { meaning: "registration", remedy: "allow the grant type for this client" },
  ],
  // Okta.
  [
    /^policy evaluation failed for this request/i,
    { meaning: "caller-right", remedy: accessPolicy },
  ],
  // ZITADEL.
  [
    /^resource parameter not supported/i,
    { meaning: "registration", remedy: "remove resource from the route: the provider has none" },
  ],
  [
    /^actor_token invalid/i,
    { meaning: "registration", remedy: "see that actor_token_file holds a token of the provider" },
  ],
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
    known === undefined
      ? undefined
      : (entraMeaning(description) ??
        byDescription.find(([text]) => text.test(description))?.[1] ??
        // Auth0 says so of a wrong secret: a 401 is about the client, whatever the code.
        (status === 401 && error === "access_denied" ? ownClient : undefined));
  const understood = (status === 429 ? byStatus.get(status) : undefined) ??
    told ??
    known ??
    byStatus.get(status) ?? { meaning: "provider" };
  // Without a subject there is nobody to blame but the proxy's own client.
  const isOwn = understood.meaning === "caller-token" && grant === "client-credentials";
  return {
    ...(isOwn ? ownClient : understood),
    ...(known === undefined || error === undefined ? {} : { error }),
  };
}
