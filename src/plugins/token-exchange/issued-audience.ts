/** Whether an issued token is for whom it was asked for: an endpoint may ignore the audience of the request. */
import type { TokenResponse } from "../../oauth/token-response.ts";
import type { Grant } from "../../oauth/token-endpoint.ts";
import { shown } from "../../oauth/token-checks.ts";
import { unverifiedClaims } from "../../oauth/unverified-claims.ts";

/** How the audience of an issued token is compared with the one that was asked for. */
export const audienceChecks = ["exact", "includes", "any"] as const;

/** One of {@link audienceChecks}. */
export type AudienceCheck = (typeof audienceChecks)[number];

/** The response, or in place of a token for others the reason why it is not used. */
export function forItsAudience(
  response: TokenResponse,
  { audience, resource }: Pick<Grant, "audience" | "resource">,
  check: AudienceCheck,
): TokenResponse {
  if (response.kind !== "issued" || check === "any") return response;
  const asked = [audience, resource].flatMap((one) => (one === undefined ? [] : [bare(one)]));
  // An opaque token says nothing; so does one that was asked for without a word about its audience.
  const issued = unverifiedClaims(response.token.reveal())?.audience;
  if (asked.length === 0 || issued === undefined) return response;
  const isFor = (one: string): boolean => asked.includes(bare(one));
  if (!issued.some(isFor)) {
    return refused(`${named(issued)}, not for ${named(asked)} (issued_audiences: any)`);
  }
  return check === "includes" || issued.every(isFor)
    ? response
    : refused(`${named(issued)}, wider than ${named(asked)} (issued_audiences: includes)`);
}

function refused(what: string): TokenResponse {
  return { kind: "unavailable", reason: `issued a token for ${what}` };
}

/** Resources are URIs, which endpoints write with or without the slash at their end. */
function bare(audience: string): string {
  return audience.replace(/\/$/, "");
}

function named(audiences: readonly string[]): string {
  if (audiences.length === 0) return "no audience";
  return shown(audiences.join(", ").replace(/[^\x20-\x7e]/g, "?"));
}
