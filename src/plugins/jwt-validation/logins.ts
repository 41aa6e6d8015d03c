/** Logins that have ended (OpenID Connect Back-Channel Logout): whose tokens are not taken any more. */
import { hash } from "node:crypto";
import { durationMs } from "../../duration.ts";
import {
  EndedLogins,
  type EndedLogin,
  type LogoutReading,
  ownerOf,
  readLogoutToken,
} from "../../oauth/logout-token.ts";
import type { VerificationKeys } from "../../oauth/jwt-signature.ts";
import type { VerifiedToken } from "../../oauth/jwt-verifier.ts";
import { SeenOnce } from "../../oauth/seen-once.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";
import type { Audiences } from "./audiences.ts";
import type { JwtValidationConfig } from "./config.ts";

/** What an issuer said of the logins that it gave tokens for. */
export class Logins {
  readonly #config: JwtValidationConfig;
  readonly #deps: PluginDeps;
  readonly #keys: VerificationKeys;
  readonly #audiences: Audiences;
  readonly #ended: EndedLogins;
  readonly #seen: SeenOnce;

  constructor(
    config: JwtValidationConfig,
    deps: PluginDeps,
    keys: VerificationKeys,
    audiences: Audiences,
  ) {
    this.#config = config;
    this.#deps = deps;
    this.#keys = keys;
    this.#audiences = audiences;
    const issuer = hash("sha256", config.issuer, "base64url");
    this.#ended = deps.carry(`ended-logins:${issuer}`, () => new EndedLogins());
    this.#seen = deps.carry("logout-tokens", () => new SeenOnce(deps.clock));
  }

  async read(token: string): Promise<LogoutReading> {
    const { issuer, algorithms, clock_skew: skew, logout_audiences: own } = this.#config;
    const reading = await readLogoutToken(token, {
      keys: this.#keys,
      rules: { issuer, algorithms, clockSkewMs: durationMs(skew) },
      audiences: () => (own.length > 0 ? own : this.#audiences.fixed),
      seen: this.#seen,
      clock: this.#deps.clock,
    });
    this.#deps.count(`logout_${reading.kind}`);
    return reading;
  }

  end(login: EndedLogin): void {
    if (login.issuer === this.#config.issuer) this.#ended.add(login);
  }

  /** Whether the login that this token came from has ended. */
  hasEnded({ claims }: VerifiedToken): boolean {
    const { iat } = claims;
    return this.#ended.includes(ownerOf(claims), typeof iat === "number" ? iat : undefined);
  }
}
