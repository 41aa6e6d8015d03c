/** What an operator has stopped at once, whatever the policy says: everything, a caller, a session or a destination. */
import type { RequestContext } from "./context.ts";
import type { Denial } from "./decision.ts";
import { callerOf, type Flow } from "./flow.ts";

/** What a kill is of. */
export const killScopes = ["all", "caller", "session", "destination"] as const;

/** One of {@link killScopes}. */
export type KillScope = (typeof killScopes)[number];

/** One thing that is stopped. */
export interface Kill {
  readonly scope: KillScope;
  /**
   * The caller's name, executable, address or SPIFFE ID; the session's id; the destination's host, `*.` and a domain, or
   * host and port. Empty for `all`.
   */
  readonly value: string;
  /** Shown to operators and to whoever is refused. */
  readonly reason?: string | undefined;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

/** What a kill is compared with. */
export interface KillFacts {
  readonly flow: Flow;
  readonly sessionId: string | undefined;
}

/** The kills of one thread. They are few, so that each flow is compared with each of them. */
export class KillSwitch {
  readonly #sessionOf: ((context: RequestContext) => string | undefined) | undefined;
  #kills: readonly Kill[] = [];

  /** `sessionOf` says to which session a message belongs that is not permitted yet. */
  constructor(sessionOf?: (context: RequestContext) => string | undefined) {
    this.#sessionOf = sessionOf;
  }

  get kills(): readonly Kill[] {
    return this.#kills;
  }

  /** Whether it matters to which session a message belongs. */
  get hasSessions(): boolean {
    return this.#kills.some(({ scope }) => scope === "session");
  }

  /** From now on; what runs is the business of whoever holds it. */
  set(kills: readonly Kill[]): void {
    this.#kills = kills;
  }

  /** The kill that stops a message; until that is permitted, its session is the one that it names. */
  findFor(context: RequestContext): Kill | undefined {
    // Nearly always there is none.
    if (this.#kills.length === 0) return undefined;
    const named = this.hasSessions ? this.#sessionOf?.(context) : undefined;
    return this.find({ flow: context.flow, sessionId: context.sessionId ?? named });
  }

  /** The kill that stops what is known to be of this session, or of none. */
  find(facts: KillFacts): Kill | undefined {
    return this.#kills.find((kill) => isMeant(kill, facts));
  }
}

/** What whoever is stopped is told. */
export function killDenial({ scope, value, reason }: Kill): Denial {
  const shown = /^[\x21-\x7e]*$/.test(value) ? value : JSON.stringify(value);
  const what = scope === "all" ? "all traffic" : `${scope} ${shown}`;
  const why = reason === undefined ? "" : `: ${reason}`;
  return { code: "policy.killed", message: `an operator has stopped ${what}${why}` };
}

/** Kills of the same thing have the same name. */
export function killName({ scope, value }: Pick<Kill, "scope" | "value">): string {
  return scope === "all" ? scope : `${scope} ${value}`;
}

function isMeant({ scope, value }: Kill, { flow, sessionId }: KillFacts): boolean {
  switch (scope) {
    case "all":
      return true;
    case "caller":
      return namesOf(flow).includes(value);
    case "session":
      return sessionId === value;
    case "destination":
      return isDestination(value.toLowerCase(), flow);
  }
}

function namesOf({ client }: Flow): readonly (string | undefined)[] {
  const executable = client.process?.kind === "resolved" ? client.process.executable : undefined;
  return [callerOf(client), client.caller, client.address, executable, client.tls?.peer?.spiffeId];
}

function isDestination(value: string, { destination }: Flow): boolean {
  const { host, authority } = destination;
  if (value.startsWith("*.")) return host.endsWith(value.slice(1));
  return value === host || value === authority || value === `[${host}]`;
}
