/** Installation tokens of a GitHub App: a JWT that the app's key signs, and the token that it is exchanged for. */
import { SignJWT } from "jose";
import type { Clock } from "../duration.ts";
import { countOf } from "../http/json-access.ts";
import type { SigningKey } from "../oauth/client-assertion.ts";
import { Secret } from "../secret.ts";
import {
  askProvider,
  instantOf,
  type ProviderMeans,
  type ProviderQuestion,
  secretOf,
} from "./provider-call.ts";
import { type Fetched, type SecretFetcher, unavailable } from "./secret-source.ts";

/** What a token is asked for. */
export interface GithubAppOptions {
  /** Without a slash at its end. */
  readonly apiUrl: string;
  /** The app's id, or its client id. */
  readonly appId: string;
  /** Throws ProxyError where there is no key. */
  key(this: void): SigningKey;
  /** An id, or the path that says it: `/repos/OWNER/NAME/installation`. */
  readonly installation: { readonly id: string } | { readonly path: string };
  /** Less than the installation has; all that it has when empty. */
  readonly subset: Readonly<Record<string, unknown>>;
  readonly clock: Clock;
}

/** GitHub takes ten minutes at most; its clock may be behind this one. */
const lifetimeSeconds = 540;
const skewSeconds = 60;
const notFound = 404;

/** Asks GitHub, or a GitHub Enterprise Server. */
export class GithubApp implements SecretFetcher<Secret, ProviderMeans> {
  readonly #options: GithubAppOptions;
  #installation: string | undefined;

  constructor(options: GithubAppOptions) {
    this.#options = options;
  }

  async fetch({ call }: ProviderMeans, signal: AbortSignal): Promise<Fetched> {
    const { apiUrl, installation, subset } = this.#options;
    const headers = {
      accept: "application/vnd.github+json",
      authorization: `Bearer ${(await this.#appToken()).reveal()}`,
      "x-github-api-version": "2022-11-28",
      // GitHub refuses requests that do not say who sends them.
      "user-agent": "authbridge-proxy",
    };
    const ask = (path: string, more: Partial<ProviderQuestion> = {}) =>
      askProvider(call, { url: `${apiUrl}${path}`, headers, signal, ...more }, [notFound]);
    if ("path" in installation && this.#installation === undefined) {
      const { status, fields } = await ask(installation.path);
      if (status === notFound)
        throw unavailable(`the app is not installed there (GET ${installation.path}: 404)`);
      const id = countOf(fields["id"]);
      if (id === undefined) throw unavailable("GitHub answered without the id of an installation");
      this.#installation = String(id);
    }
    const id = "id" in installation ? installation.id : (this.#installation ?? "");
    const { status, fields } = await ask(`/app/installations/${id}/access_tokens`, {
      method: "POST",
      body: subset,
    });
    if (status === notFound) {
      // It may have been installed anew.
      this.#installation = undefined;
      throw unavailable(`GitHub knows no installation ${id} of this app (404)`);
    }
    const value = secretOf(fields["token"], "a token");
    return { value, expiresAt: instantOf(fields["expires_at"], "expires_at") };
  }

  async #appToken(): Promise<Secret> {
    const { key: keyOf, appId, clock } = this.#options;
    const { key, algorithm } = keyOf();
    const now = Math.floor(clock.now() / 1000);
    const token = await new SignJWT({})
      .setProtectedHeader({ alg: algorithm, typ: "JWT" })
      .setIssuer(appId)
      .setIssuedAt(now - skewSeconds)
      .setExpirationTime(now + lifetimeSeconds)
      .sign(key);
    return new Secret(token);
  }
}
