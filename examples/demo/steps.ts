/** What the demo does and what has to come of it. */
import { connectThrough, get, getThrough, type Answer } from "./requests.ts";
import type { World } from "./world.ts";

/** Tokens of the demo's users, as the authorization server issued them. */
export interface Tokens {
  readonly alice: string;
  readonly bob: string;
  readonly elsewhere: string;
  readonly expired: string;
  readonly forged: string;
}

/** What has to come of one step. */
export interface Promised {
  readonly status: number;
  /** Code of a refusal. */
  readonly code?: string;
  /** What the plugins decided, in order: `in` for the reverse proxy, `out` for the forward proxy. */
  readonly decided: readonly string[];
  /** What the token that reached a service said; absent when no service was reached. */
  readonly target?: string;
  /** Exchanges that the authorization server was asked for; 0 when absent. */
  readonly exchanges?: number;
}

/** One line of the table. */
export interface Step {
  readonly what: string;
  run(world: World, tokens: Tokens): Promise<Answer>;
  readonly promised: Promised;
}

/** Steps that show one thing. */
export interface Chapter {
  readonly title: string;
  readonly steps: readonly Step[];
}

const ask =
  (service: string, user: keyof Tokens | undefined) =>
  ({ ports }: World, tokens: Tokens): Promise<Answer> =>
    get(`http://127.0.0.1:${ports.reverse}/ask/${service}`, user && tokens[user]);

const refusedInbound = (reason: string): Promised => ({
  status: 401,
  code: "auth.unauthorized",
  decided: [`in ${reason}`],
});

const forbiddenAddress: Promised = {
  status: 403,
  code: "upstream.address-forbidden",
  decided: [],
};

/** The whole demo, in order. */
export const chapters: readonly Chapter[] = [
  {
    title: "Who may call the agent",
    steps: [
      {
        what: "nobody → agent",
        run: ask("tickets", undefined),
        promised: refusedInbound("no_header"),
      },
      {
        what: "alice, a token for tickets-api → agent",
        run: ask("tickets", "elsewhere"),
        promised: refusedInbound("jwt_failed"),
      },
      {
        what: "alice, an expired token → agent",
        run: ask("tickets", "expired"),
        promised: refusedInbound("jwt_failed"),
      },
      {
        what: "alice, a forged token → agent",
        run: ask("tickets", "forged"),
        promised: refusedInbound("jwt_failed"),
      },
    ],
  },
  {
    title: "What the agent may call, and with which token",
    steps: [
      {
        what: "alice → agent → tickets",
        run: ask("tickets", "alice"),
        promised: {
          status: 200,
          decided: ["in authorized", "out token_replaced"],
          target: "aud=tickets-api sub=alice act=agent",
          exchanges: 1,
        },
      },
      {
        what: "alice → agent → tickets, again",
        run: ask("tickets", "alice"),
        promised: {
          status: 200,
          decided: ["in authorized", "out cache_hit"],
          target: "aud=tickets-api sub=alice act=agent",
        },
      },
      {
        what: "bob → agent → tickets",
        run: ask("tickets", "bob"),
        promised: {
          status: 200,
          decided: ["in authorized", "out token_replaced"],
          target: "aud=tickets-api sub=bob act=agent",
          exchanges: 1,
        },
      },
      {
        what: "alice → agent → public, passthrough",
        run: ask("public", "alice"),
        promised: {
          status: 200,
          decided: ["in authorized", "out passthrough"],
          target: "aud=agent sub=alice",
        },
      },
      {
        what: "alice → agent → billing, IdP says no",
        run: ask("billing", "alice"),
        promised: {
          status: 403,
          code: "upstream.token-exchange-failed",
          decided: ["in authorized", "out token_exchange_failed"],
          exchanges: 1,
        },
      },
      {
        what: "alice → agent → a host without a rule",
        run: ask("elsewhere", "alice"),
        promised: {
          status: 403,
          code: "policy.forbidden",
          decided: ["in authorized", "out no_matching_route"],
        },
      },
      {
        what: "agent without a token → tickets",
        run: ({ ports, tickets }) =>
          getThrough(ports.forward, `http://tickets.demo:${tickets.port}/`),
        promised: {
          status: 401,
          code: "upstream.token-exchange-failed",
          decided: ["out no_token"],
        },
      },
    ],
  },
  {
    title: "Where no byte goes, whatever the rules say",
    steps: [
      {
        what: "alice → agent → 169.254.169.254",
        run: ask("metadata", "alice"),
        promised: {
          status: 403,
          code: "policy.forbidden",
          decided: ["in authorized", "out no_matching_route"],
        },
      },
      {
        what: "… → an allowed name for 169.254.169.254",
        run: ask("rebound", "alice"),
        promised: { ...forbiddenAddress, decided: ["in authorized", "out passthrough"] },
      },
      {
        what: "CONNECT 169.254.169.254:80",
        run: ({ ports }) => connectThrough(ports.forward, "169.254.169.254:80"),
        promised: { status: 403, code: "policy.forbidden", decided: ["out no_matching_route"] },
      },
      {
        what: "CONNECT a skipped name for 169.254.169.254",
        run: ({ ports }) => connectThrough(ports.forward, "rebound.trusted.demo:80"),
        promised: forbiddenAddress,
      },
      {
        what: "CONNECT the proxy's own session API",
        run: ({ ports }) => connectThrough(ports.forward, `echo.trusted.demo:${ports.sessions}`),
        promised: forbiddenAddress,
      },
      {
        what: "CONNECT a skipped name that is fine",
        run: ({ ports, open }) => connectThrough(ports.forward, `echo.trusted.demo:${open.port}`),
        promised: { status: 200, decided: [], target: "no token" },
      },
    ],
  },
  {
    title: "Without the proxy",
    steps: [
      {
        what: "alice's token straight → tickets",
        run: ({ tickets }, { alice }) => get(`http://127.0.0.1:${tickets.port}/`, alice),
        promised: {
          status: 401,
          code: "target.unauthorized",
          decided: [],
          target: "aud=agent sub=alice",
        },
      },
    ],
  },
];
