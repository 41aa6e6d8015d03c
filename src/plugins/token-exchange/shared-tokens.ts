/** Exchanged tokens in the store of `state`, sealed: what one replica was issued the others need not ask for. */
import { parseJsonObject } from "../../http/json-access.ts";
import type { IssuedToken, TokenResponse } from "../../oauth/token-response.ts";
import type { UnverifiedClaims } from "../../oauth/unverified-claims.ts";
import type { PluginDeps, StateStore } from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import { type HeardLogins, heardLogins } from "../credentials/heard-logins.ts";

/** What a token is asked for. */
export interface SharedRequest {
  readonly key: string;
  /** Of the token that is exchanged; undefined where it says nothing, or none is. */
  readonly subject: UnverifiedClaims | undefined;
  /** False for tokens whose login nobody can tell, and for those bound to a key of this process. */
  readonly isShareable: boolean;
}

/** The tokens of one client of one endpoint. */
export class SharedTokens {
  readonly #deps: PluginDeps;
  readonly #store: StateStore | undefined;
  readonly #logins: HeardLogins;
  readonly #place: string;

  constructor(deps: PluginDeps, place: string) {
    const { state } = deps;
    this.#deps = deps;
    this.#store = state.isKept ? state.sealed : undefined;
    this.#logins = heardLogins(deps);
    this.#place = place;
  }

  start(): Promise<void> {
    if (this.#store === undefined) {
      const message =
        "share_tokens needs state in a file or in Redis, and state.encryption_key_file to seal tokens with";
      return Promise.reject(new Error(message));
    }
    return this.#logins.start();
  }

  /** The token that a replica has, or what `ask` gives. A store that is away is asked in vain, and nobody waits longer than its limit. */
  async obtain(request: SharedRequest, ask: () => Promise<TokenResponse>): Promise<TokenResponse> {
    const store = this.#store;
    if (store === undefined || !request.isShareable) return ask();
    const key = `token:${this.#place}:${request.key}`;
    const kept = await this.#kept(store, key, request.subject);
    if (kept !== undefined) return kept;
    const response = await ask();
    if (response.kind === "issued") void this.#keep(store, key, response);
    return response;
  }

  async #kept(
    store: StateStore,
    key: string,
    subject: UnverifiedClaims | undefined,
  ): Promise<IssuedToken | undefined> {
    // What was exchanged before a login ended is not used after it.
    const { issuer } = subject ?? {};
    if (issuer !== undefined && this.#logins.includes(issuer, subject ?? {}, undefined)) {
      return undefined;
    }
    try {
      const found = keptOf(await store.get(key));
      if (found !== undefined) this.#deps.count("shared_hit");
      return found;
    } catch {
      this.#deps.count("state_away");
      return undefined;
    }
  }

  async #keep(store: StateStore, key: string, { token, expiresAt, scope }: IssuedToken) {
    const lifetimeMs = expiresAt === undefined ? 0 : expiresAt - this.#deps.clock.now();
    if (lifetimeMs <= 0) return;
    try {
      await store.set(key, JSON.stringify({ token: token.reveal(), expiresAt, scope }), lifetimeMs);
    } catch {
      this.#deps.count("state_away");
    }
  }
}

function keptOf(text: string | undefined): IssuedToken | undefined {
  const { token, expiresAt, scope } =
    (text === undefined ? undefined : parseJsonObject(text)) ?? {};
  if (typeof token !== "string" || typeof expiresAt !== "number") return undefined;
  return {
    kind: "issued",
    token: new Secret(token),
    expiresAt,
    ...(typeof scope === "string" ? { scope } : {}),
  };
}
