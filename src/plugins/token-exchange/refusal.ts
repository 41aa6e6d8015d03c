/** The refusal for an agent that got no token. */
import type { RefusalMeaning } from "../../oauth/refusal-kind.ts";
import { understandRefusal } from "../../oauth/refusal-meaning.ts";
import type { RejectedGrant, UnavailableEndpoint } from "../../oauth/token-response.ts";
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

/** 401: a new token may help; 403: the caller may not have this token; 503: nothing that the caller can change. */
const statusOf = {
  "caller-token": 401,
  "caller-right": 403,
  registration: 503,
  provider: 503,
} as const satisfies Readonly<Record<RefusalMeaning, number>>;

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
    return deny(reason, { code, message, status: 503 }, { ...details, problem: refused.reason });
  }
  const { meaning, error } = understandRefusal(refused, grant);
  const status = statusOf[meaning];
  return deny(
    reason,
    {
      code,
      message,
      status,
      ...(error === undefined ? {} : { details: { oauth_error: error } }),
      ...(status === 401
        ? { headers: { "WWW-Authenticate": 'Bearer realm="authbridge", error="invalid_token"' } }
        : {}),
    },
    {
      ...details,
      problem: `the token endpoint answered ${refused.status}`,
      refusal: meaning,
      ...errorDetail(refused),
    },
  );
}

function errorDetail(refused: RejectedGrant): Readonly<Record<string, string>> {
  return refused.error === undefined ? {} : { oauth_error: refused.error };
}

/** The refusal for a request that has no token to exchange; `isMatched` where a rule names its host, `places` where the file does. */
export function noToken(isMatched: boolean, places?: string): Decision {
  return deny(
    "no_token",
    {
      code: "upstream.token-exchange-failed",
      message:
        places === undefined
          ? "missing Authorization header"
          : `no token in: ${places || "any place"}`,
      status: 401,
      headers: { "WWW-Authenticate": 'Bearer realm="authbridge"' },
    },
    { route_matched: isMatched ? "true" : "false" },
  );
}

/** The refusal for a request whose Authorization field is no bearer token. */
export function malformed(): Decision {
  const message = "invalid Authorization header format";
  return deny("malformed_header", { code: "auth.unauthorized", message });
}
