/** Logins that ended, of this process and of its replicas, by their issuers. */
import { BoundedMap } from "../../bounded-map.ts";
import {
  EndedLogins,
  type EndedLogin,
  endedLoginOf,
  type TokenOwner,
} from "../../oauth/logout-token.ts";
import type { PluginDeps, StateFeed } from "../../pipeline/plugin.ts";

/** Issuers are named by files of replicas, not by strangers. */
const maxIssuers = 1_000;

/** What is known of all logins that ended; outlives reloads. */
export class HeardLogins {
  readonly #byIssuer = new BoundedMap<string, EndedLogins>(maxIssuers);
  readonly #feed: StateFeed | undefined;
  #following: Promise<(() => void) | undefined> | undefined;

  constructor(feed: StateFeed | undefined) {
    this.#feed = feed;
  }

  /** Why logins may have ended that are not known to have. */
  get problem(): string | undefined {
    return this.#feed?.problem;
  }

  /** Hears what ended before this process was there. */
  async start(): Promise<void> {
    this.#following ??= Promise.resolve(
      this.#feed?.follow((texts) => {
        for (const text of texts) {
          const login = endedLoginOf(text);
          if (login !== undefined) this.add(login);
        }
      }),
    );
    await this.#following;
  }

  add(login: EndedLogin): void {
    this.#byIssuer.getOrMake(login.issuer, () => new EndedLogins()).add(login);
  }

  /** Whether the login of a token has ended that this issuer issued at this second. */
  includes(issuer: string, owner: TokenOwner, issuedAt: number | undefined): boolean {
    return this.#byIssuer.get(issuer)?.includes(owner, issuedAt) === true;
  }

  async close(): Promise<void> {
    (await this.#following)?.();
  }
}

/** The one of the process. */
export function heardLogins(deps: PluginDeps): HeardLogins {
  return deps.carry("ended-logins", () => new HeardLogins(deps.state.logouts));
}
