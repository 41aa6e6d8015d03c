/** What the token endpoints of Google answer: access tokens, ID tokens, and those of a service account that is impersonated. */
import type { JsonObject } from "../http/json-access.ts";
import { numberOf, textOf } from "../http/json-access.ts";
import type { OperatorFetch } from "../http/operator-fetch.ts";
import { unverifiedClaims } from "../oauth/unverified-claims.ts";
import type { Secret } from "../secret.ts";
import { askProvider, instantOf, secretOf } from "./provider-call.ts";
import { type Fetched, unavailable } from "./secret-source.ts";

/** Either: what an access token may do, or whom an ID token is for. */
export type GoogleToken = { readonly scopes: readonly string[] } | { readonly audience: string };

/** An address that a file of Google names; an Error says which member is none. */
export function addressOf(value: unknown, member: string, usual: string): string {
  const url = textOf(value) ?? usual;
  if (URL.canParse(url) && /^https?:/.test(url)) return url;
  throw new Error(`its ${member} is no http:// or https:// address`);
}

/** An access token of a token endpoint; `sentAt` is when it was asked for. */
export function accessTokenOf(fields: JsonObject, sentAt: number): Fetched {
  const seconds = numberOf(fields["expires_in"]);
  if (seconds === undefined || seconds <= 0)
    throw unavailable("the provider answered without a usable expires_in");
  const value = secretOf(fields["access_token"], "an access_token");
  return { value, expiresAt: sentAt + seconds * 1000 };
}

/** An ID token, which says itself when it ends. */
export function idTokenOf(token: unknown): Fetched {
  const value = secretOf(token, "an ID token");
  const { expiresAt } = unverifiedClaims(value.reveal()) ?? {};
  if (expiresAt === undefined)
    throw unavailable("the provider answered with an ID token that has no end");
  return { value, expiresAt: expiresAt * 1000 };
}

/** A service account to act as. */
export interface Impersonation {
  /** Ends in `:generateAccessToken`, as the files of Google have it. */
  readonly url: string;
  readonly lifetimeSeconds: number;
  readonly token: GoogleToken;
}

/** A token of a service account, for whoever has `bearer`. */
export async function impersonate(
  call: OperatorFetch,
  { url, lifetimeSeconds, token }: Impersonation,
  bearer: Secret,
  signal: AbortSignal,
): Promise<Fetched> {
  const headers = { authorization: `Bearer ${bearer.reveal()}` };
  if ("audience" in token) {
    const idUrl = url.replace(/:generateAccessToken$/, ":generateIdToken");
    const body = { audience: token.audience, includeEmail: true };
    const asked = { url: idUrl, method: "POST", headers, body, signal } as const;
    return idTokenOf((await askProvider(call, asked)).fields["token"]);
  }
  const body = { scope: token.scopes, lifetime: `${lifetimeSeconds}s` };
  const { fields } = await askProvider(call, { url, method: "POST", headers, body, signal });
  return {
    value: secretOf(fields["accessToken"], "an accessToken"),
    expiresAt: instantOf(fields["expireTime"], "expireTime"),
  };
}
