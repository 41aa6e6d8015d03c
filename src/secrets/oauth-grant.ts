/** Access tokens of an OAuth token endpoint: for the client itself, or by a refresh token that the endpoint may replace. */
import type { Clock } from "../duration.ts";
import { type Grant, type RefreshGrant, TokenEndpoint } from "../oauth/token-endpoint.ts";
import type { Secret } from "../secret.ts";
import type { ProviderMeans } from "./provider-call.ts";
import type { RefreshTokenFile } from "./refresh-token-file.ts";
import { type Fetched, type SecretFetcher, unavailable } from "./secret-source.ts";

/** What a token is asked for. */
export interface OauthGrantOptions {
  readonly tokenUrl: string;
  readonly wanted: Pick<Grant, "audience" | "resource" | "scopes">;
  /** Absent: the client asks for itself. */
  readonly refreshToken: RefreshTokenFile | undefined;
  /** How long a token is used that comes without expires_in. */
  readonly ttlMs: number;
  readonly timeoutMs: number;
  readonly clock: Clock;
}

/** Asks one token endpoint. */
export class OauthGrant implements SecretFetcher<Secret, ProviderMeans> {
  readonly #options: OauthGrantOptions;

  constructor(options: OauthGrantOptions) {
    this.#options = options;
  }

  async fetch({ call, client }: ProviderMeans, signal: AbortSignal): Promise<Fetched> {
    const { tokenUrl, refreshToken: file, clock, ttlMs, timeoutMs } = this.#options;
    const identity = client?.();
    if (identity === undefined || typeof identity === "string")
      throw unavailable(identity ?? "there is no client to ask as");
    const endpoint = new TokenEndpoint({ call, clock, deadlineMs: timeoutMs });
    const sentAt = clock.now();
    const grant = await this.#grant();
    const response = await endpoint.request(tokenUrl, identity, grant, signal);
    if (response.kind === "issued") {
      const { token: value, refreshToken, expiresAt = sentAt + ttlMs } = response;
      if (refreshToken !== undefined) await file?.replace(refreshToken);
      return { value, expiresAt };
    }
    const { origin, pathname } = new URL(tokenUrl);
    if (response.kind === "unavailable")
      throw unavailable(`${origin}${pathname}: ${response.reason}`);
    const { status, error = "", description = "" } = response;
    const said = [error, description].filter((text) => text !== "").map((text) => `: ${text}`);
    throw unavailable(`${origin}${pathname} answered ${status}${said.join("")}`);
  }

  async #grant(): Promise<Grant | RefreshGrant> {
    const { wanted, refreshToken: file } = this.#options;
    if (file === undefined) return { ...wanted, type: "client-credentials" };
    return { ...wanted, type: "refresh-token", refreshToken: await file.current() };
  }
}
