/** Tokens of a Google service account, from the key file that Google gives out (RFC 7523 section 2.1). */
import { SignJWT } from "jose";
import type { Clock } from "../duration.ts";
import { parseJsonObject, textOf } from "../http/json-access.ts";
import { readSigningKey, type SigningKey } from "../oauth/client-assertion.ts";
import { accessTokenOf, addressOf, type GoogleToken, idTokenOf } from "./google-tokens.ts";
import { askProvider, type ProviderMeans } from "./provider-call.ts";
import type { Secret } from "../secret.ts";
import type { Fetched, SecretFetcher } from "./secret-source.ts";

/** A key of a service account. */
export interface ServiceAccountKey {
  readonly email: string;
  readonly signing: SigningKey;
  readonly tokenUrl: string;
}

/** What a token is asked for. */
export interface GoogleServiceAccountOptions {
  /** Throws ProxyError where there is no key. */
  key(this: void): ServiceAccountKey;
  /** In place of the address that the key file names. */
  readonly tokenUrl: string | undefined;
  readonly token: GoogleToken;
  /** The user to act for, where the domain lets this account do that. */
  readonly subject: string | undefined;
  readonly clock: Clock;
}

export const googleTokenUrl = "https://oauth2.googleapis.com/token";
const lifetimeSeconds = 3_600;
const jwtBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/** Reads a key file; an Error says what is wrong with it and quotes nothing. */
export function readServiceAccountKey(text: string): ServiceAccountKey {
  const fields = parseJsonObject(text);
  if (fields === undefined) throw new Error("it is not a JSON object");
  if (fields["type"] !== "service_account")
    throw new Error('it is no key of a service account: its type is not "service_account"');
  const email = textOf(fields["client_email"]);
  const pem = textOf(fields["private_key"]);
  if (email === undefined || pem === undefined)
    throw new Error("it has no client_email or no private_key");
  const keyId = textOf(fields["private_key_id"]);
  const signing = readSigningKey(pem, "RS256");
  return {
    email,
    signing: keyId === undefined ? signing : { ...signing, keyId },
    tokenUrl: addressOf(fields["token_uri"], "token_uri", googleTokenUrl),
  };
}

/** Asks Google's token endpoint. */
export class GoogleServiceAccount implements SecretFetcher<Secret, ProviderMeans> {
  readonly #options: GoogleServiceAccountOptions;

  constructor(options: GoogleServiceAccountOptions) {
    this.#options = options;
  }

  async fetch({ call }: ProviderMeans, signal: AbortSignal): Promise<Fetched> {
    const { key: keyOf, token, subject, clock } = this.#options;
    const { email, signing, tokenUrl } = keyOf();
    const url = this.#options.tokenUrl ?? tokenUrl;
    const sentAt = clock.now();
    const now = Math.floor(sentAt / 1000);
    const claims =
      "audience" in token ? { target_audience: token.audience } : { scope: token.scopes.join(" ") };
    const assertion = await new SignJWT({ ...claims, ...(subject && { sub: subject }) })
      .setProtectedHeader({
        alg: signing.algorithm,
        typ: "JWT",
        ...(signing.keyId === undefined ? {} : { kid: signing.keyId }),
      })
      .setIssuer(email)
      .setAudience(url)
      .setIssuedAt(now)
      .setExpirationTime(now + lifetimeSeconds)
      .sign(signing.key);
    const body = new URLSearchParams({ grant_type: jwtBearer, assertion });
    const { fields } = await askProvider(call, { url, method: "POST", body, signal });
    return "audience" in token ? idTokenOf(fields["id_token"]) : accessTokenOf(fields, sentAt);
  }
}
