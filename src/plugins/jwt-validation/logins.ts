/** Logins that have ended (OpenID Connect Back-Channel Logout): whose tokens are not taken any more. */
import { durationMs } from "../../duration.ts";
import {
  type EndedLogin,
  type LogoutReading,
  issuedAtOf,
  ownerOf,
  readLogoutToken,
} from "../../oauth/logout-token.ts";
import type { VerificationKeys } from "../../oauth/jwt-signature.ts";
import type { VerifiedToken } from "../../oauth/jwt-verifier.ts";
import { SeenOnce, type SharedIds } from "../../oauth/seen-once.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";
import { type HeardLogins, heardLogins } from "../credentials/heard-logins.ts";
import type { Audiences } from "./audiences.ts";
import type { JwtValidationConfig } from "./config.ts";
import { sharedIds } from "./shared-ids.ts";

/** What an issuer said of the logins that it gave tokens for. */
export class Logins {
  readonly #config: JwtValidationConfig;
  readonly #deps: PluginDeps;
  readonly #keys: VerificationKeys;
  readonly #audiences: Audiences;
  readonly #heard: HeardLogins;
  readonly #seen: SeenOnce;
  readonly #shared: SharedIds | undefined;

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
    this.#heard = heardLogins(deps);
    this.#seen = deps.carry("logout-tokens", () => new SeenOnce(deps.clock));
    // A token that is taken twice ends once more what it has ended.
    this.#shared = sharedIds(deps, "logout", "local");
  }

  /** Hears what ended before this process was there. */
  start(): Promise<void> {
    return this.#heard.start();
  }

  /** Why logins may have ended that are not known to have; undefined where the file does not mind, or all are known. */
  get unheard(): string | undefined {
    if (this.#config.logins_when_away === "local") return undefined;
    const { problem } = this.#heard;
    if (problem !== undefined) this.#deps.count("state_away");
    return problem;
  }

  async read(token: string): Promise<LogoutReading> {
    const { issuer, algorithms, clock_skew: skew, logout_audiences: own } = this.#config;
    const reading = await readLogoutToken(token, {
      keys: this.#keys,
      rules: { issuer, algorithms, clockSkewMs: durationMs(skew) },
      audiences: () => (own.length > 0 ? own : this.#audiences.fixed),
      seen: this.#seen,
      shared: this.#shared,
      clock: this.#deps.clock,
    });
    this.#deps.count(`logout_${reading.kind}`);
    return reading;
  }

  end(login: EndedLogin): void {
    if (login.issuer === this.#config.issuer) this.#heard.add(login);
  }

  /** Whether the login that this token came from has ended. */
  hasEnded({ claims }: VerifiedToken): boolean {
    return this.#heard.includes(this.#config.issuer, ownerOf(claims), issuedAtOf(claims));
  }
}
