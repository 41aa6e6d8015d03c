/** Logins that have ended (OpenID Connect Back-Channel Logout): whose tokens are not taken any more. */
import { hash } from "node:crypto";
import { durationMs } from "../../duration.ts";
import {
  EndedLogins,
  type EndedLogin,
  endedLoginOf,
  type LogoutReading,
  ownerOf,
  readLogoutToken,
} from "../../oauth/logout-token.ts";
import type { VerificationKeys } from "../../oauth/jwt-signature.ts";
import type { VerifiedToken } from "../../oauth/jwt-verifier.ts";
import { SeenOnce, type SharedIds } from "../../oauth/seen-once.ts";
import type { PluginDeps, StateFeed } from "../../pipeline/plugin.ts";
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
    const { issuer } = config;
    const { logouts } = deps.state;
    this.#heard = deps.carry(
      `ended-logins:${hash("sha256", issuer, "base64url")}`,
      () => new HeardLogins(issuer, logouts),
    );
    this.#seen = deps.carry("logout-tokens", () => new SeenOnce(deps.clock));
    // A token that is taken twice ends once more what it has ended.
    this.#shared = sharedIds(deps, "logout", "local");
  }

  /** Hears what ended before this process was there. */
  start(): Promise<void> {
    return this.#heard.begun;
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
    this.#heard.add(login);
  }

  /** Whether the login that this token came from has ended. */
  hasEnded({ claims }: VerifiedToken): boolean {
    const { iat } = claims;
    return this.#heard.ended.includes(ownerOf(claims), typeof iat === "number" ? iat : undefined);
  }
}

/** The ended logins of one issuer, of this process and of its replicas; outlives reloads. */
class HeardLogins {
  readonly ended = new EndedLogins();
  readonly #issuer: string;
  readonly #feed: StateFeed | undefined;
  #following: Promise<(() => void) | undefined> | undefined;

  constructor(issuer: string, feed: StateFeed | undefined) {
    this.#issuer = issuer;
    this.#feed = feed;
  }

  get begun(): Promise<void> {
    const add = (texts: readonly string[]): void => {
      for (const text of texts) this.add(endedLoginOf(text));
    };
    this.#following ??= Promise.resolve(this.#feed?.follow(add));
    return this.#following.then(() => undefined);
  }

  get problem(): string | undefined {
    return this.#feed?.problem;
  }

  add(login: EndedLogin | undefined): void {
    if (login?.issuer === this.#issuer) this.ended.add(login);
  }

  async close(): Promise<void> {
    (await this.#following)?.();
  }
}
