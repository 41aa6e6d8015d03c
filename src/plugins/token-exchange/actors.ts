/** Delegation through this proxy: who acts for the user is not lost in an exchange, and does not grow for ever. */
import { countOf, isKept } from "../../oauth/actor-chain.ts";
import type { TokenResponse } from "../../oauth/token-response.ts";
import { type UnverifiedClaims, unverifiedClaims } from "../../oauth/unverified-claims.ts";
import { type Decision, deny } from "../../pipeline/plugin.ts";

/** Whether an issued token has to name the actors of the token that it was exchanged for. */
export const actorChecks = ["kept", "any"] as const;

/** The limits of one instance. */
export interface ActorRules {
  readonly issued_actors: (typeof actorChecks)[number];
  readonly max_actors: number;
}

/** The refusal of a token that is not to be exchanged; `added` is how many actors the exchange adds for certain. */
export function actorDenial(
  subject: UnverifiedClaims | undefined,
  added: number,
  { max_actors: most }: ActorRules,
): Decision | undefined {
  if (subject === undefined) return undefined;
  const { actors } = subject;
  if (actors === undefined) {
    return deny("malformed_actors", {
      code: "auth.unauthorized",
      message: "the act claim of the token is malformed",
      headers: { "WWW-Authenticate": 'Bearer realm="authbridge", error="invalid_token"' },
    });
  }
  if (actors.length + added <= most) return undefined;
  return deny(
    "too_many_actors",
    { code: "policy.forbidden", message: "the token was passed on too often" },
    { actors: countOf(actors), max_actors: String(most) },
  );
}

/** The response, or in place of a token the reason why it is not used. An opaque token says nothing. */
export function forItsActors(
  response: TokenResponse,
  before: readonly string[],
  { issued_actors: check, max_actors: most }: ActorRules,
): TokenResponse {
  if (response.kind !== "issued") return response;
  const issued = unverifiedClaims(response.token.reveal());
  if (issued === undefined) return response;
  const { actors = [] } = issued;
  if (actors.length > most) {
    const reason = `issued a token with ${countOf(actors)} actors (max_actors: ${most})`;
    return { kind: "unavailable", reason };
  }
  if (check === "any" || isKept(before, actors)) return response;
  return {
    kind: "unavailable",
    reason: "issued a token without the actors of the one before it (issued_actors: any)",
  };
}
