/** What the agent is told when it got no token. */
import type { RejectedGrant, UnavailableEndpoint } from "../../oauth/token-answer.ts";
import { type Decision, deny } from "../../pipeline/plugin.ts";

/** Why no token could be asked for or was given. */
export type NoToken = RejectedGrant | UnavailableEndpoint;

/** The words for each grant, as the Go program has them. */
const wording = {
  "token-exchange": { reason: "token_exchange_failed", message: "token exchange failed" },
  "client-credentials": {
    reason: "credentials_grant_failure",
    message: "client credentials token acquisition failed",
  },
} as const;

/**
 * Codes of RFC 6749, RFC 8693 and RFC 8707 that may be repeated to the agent, with what they mean for it.
 *
 * 401: the caller's token is no good and a new one may help; RFC 8693 section 2.2.2 has `invalid_request` for that, and
 * Keycloak answers `invalid_token`. 403: the caller may not have this token. 503: the proxy itself is refused.
 */
const statusOfError: ReadonlyMap<string, 401 | 403 | 503> = new Map([
  ["invalid_grant", 401],
  ["invalid_token", 401],
  ["invalid_request", 401],
  ["invalid_target", 403],
  ["invalid_scope", 403],
  ["access_denied", 403],
  ["unauthorized_client", 403],
  ["invalid_client", 503],
  ["unsupported_grant_type", 503],
]);

/** The refusal for a request whose token could not be had. Nothing that the endpoint wrote is part of it. */
export function refusalOf(
  grant: keyof typeof wording,
  refused: NoToken,
  details: Readonly<Record<string, string>>,
): Decision {
  const { reason, message } = wording[grant];
  const code = "upstream.token-exchange-failed";
  if (refused.kind === "unavailable") {
    if (refused.reason === "cancelled") {
      return deny("cancelled", { code: "pipeline.cancelled", message: "the client went away" });
    }
    return deny(reason, { code, message, status: 503 }, { ...details, cause: refused.reason });
  }
  const known = refused.error === undefined ? undefined : statusOfError.get(refused.error);
  // Without a subject there is nobody to blame but the proxy's own client.
  const status = known === 401 && grant === "client-credentials" ? 503 : (known ?? 503);
  return deny(
    reason,
    {
      code,
      message,
      status,
      ...(known === undefined ? {} : { details: { oauth_error: refused.error } }),
      ...(status === 401
        ? { headers: { "WWW-Authenticate": 'Bearer realm="authbridge", error="invalid_token"' } }
        : {}),
    },
    { ...details, cause: `the token endpoint answered ${refused.status}`, ...errorDetail(refused) },
  );
}

function errorDetail(refused: RejectedGrant): Readonly<Record<string, string>> {
  return refused.error === undefined ? {} : { oauth_error: refused.error };
}
