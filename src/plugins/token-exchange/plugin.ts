/** token-exchange: gives a request the token that its destination wants (RFC 8693). */
import {
  allow,
  type Answer,
  type BodyAccess,
  type Decision,
  type Logout,
  type Message,
  modify,
  type Plugin,
  type PluginDeps,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import type { Secret } from "../../secret.ts";
import { readToken } from "../credentials/bearer.ts";
import { broughtIn, couldBeToken, putInto } from "./subject-places.ts";
import { Exchanger } from "./exchanger.ts";
import { endpointProblem } from "../credentials/client-identity-config.ts";
import { originOf } from "../config-values.ts";
import { malformed, noToken } from "./refusal.ts";
import { type ExchangeRoute, ExchangeRoutes } from "./routes.ts";
import { Places } from "../credentials/places.ts";
import {
  boundElsewhere,
  exchangeWarningsOf,
  isBoundElsewhere,
  tokenExchangeConfig,
  type TokenExchangeConfig,
  tokenOriginsOf,
} from "./config.ts";
import { type SecretSet, sourceAt } from "../credentials/secret-set.ts";
import { unusedIdentityKeys } from "../credentials/client-identity-config.ts";
import { defineSecretUser } from "../credentials/secret-users.ts";

/** The definition that a pipeline names. */
export const tokenExchange = defineSecretUser<TokenExchangeConfig>({
  name: "token-exchange",
  description: "Exchanges the caller's token for one that the destination accepts",
  config: tokenExchangeConfig,
  origins: tokenOriginsOf,
  sources: ({ identity }) => sourceAt(["identity", "client_secret"], identity.client_secret),
  unused: ({ identity }) => unusedIdentityKeys(identity, ["identity"]),
  create: (config, deps, secrets) => new TokenExchange(config, deps, secrets),
});

/** Hosts without a rule under `default_policy: exchange`. */
const defaultRoute: ExchangeRoute = Object.freeze({ host: "", passthrough: false, scopes: [] });

/** What a WebSocket still has to bring. */
interface Awaited {
  isMessage?: boolean;
}

class TokenExchange implements Plugin {
  /** A routes file may open places in bodies at any time; see {@link wantsBody}. */
  readonly body: BodyAccess = { request: "read" };
  readonly #config: TokenExchangeConfig;
  readonly #deps: PluginDeps;
  readonly #routes: ExchangeRoutes;
  readonly #exchanger: Exchanger;
  readonly #places: Places | undefined;

  constructor(config: TokenExchangeConfig, deps: PluginDeps, secrets: SecretSet) {
    this.#config = config;
    this.#deps = deps;
    for (const warning of exchangeWarningsOf(config)) deps.log.warn({}, warning);
    const origins = new Set(tokenOriginsOf(config));
    this.#routes = new ExchangeRoutes({
      ...config.routes,
      clock: deps.clock,
      problemOf: (rule) => {
        if (isBoundElsewhere(config, rule)) return `${rule.host}: ${boundElsewhere}`;
        const { token_url: url } = rule;
        if (url === undefined) return undefined;
        const fault =
          endpointProblem(config.identity, url) ??
          (origins.has(originOf(url))
            ? undefined
            : "is on an origin that needs a reload of the configuration");
        return fault && `token_url ${url} ${fault}`;
      },
      onProblem: (problem) => deps.log.error({ problem }, "routes file not usable"),
    });
    this.#exchanger = new Exchanger(config, deps, secrets);
    this.#places = config.places && new Places(config.places);
  }

  start(): Promise<void> {
    return this.#exchanger.start();
  }

  ready(): true | string {
    return this.#exchanger.ready();
  }

  onLogout(logout: Logout): number {
    return this.#exchanger.forget(logout);
  }

  /** Assumes the token that the client has to send, where it sent nothing, and that each placeholder stands for one. */
  describeCredential(context: RequestContext): string | Decision {
    const route = this.#routes.find(context.destination.host);
    const kept = this.#kept(route);
    if (kept !== undefined) return kept;
    const places = route?.places ?? this.#places;
    const brought = this.#broughtBy(context, places);
    if (typeof brought !== "string") return brought;
    const { no_token_policy: policy } = this.#config;
    const isTokenless = brought === "nothing" || brought === "other";
    if (isTokenless && policy === "allow") return skip("no_token_policy");
    const what = this.#exchanger.describe(context, route ?? defaultRoute);
    if (isTokenless && policy === "client-credentials")
      return `Authorization: a token of the proxy's own from ${what}`;
    const where = places?.shown(context) ?? "Authorization";
    if (brought === "other" || where === "") return noToken(route !== undefined, places && where);
    return `${where}: a token exchanged at ${what}`;
  }

  /** What a hypothetical message has in the places of a token, or its refusal. */
  #broughtBy(
    context: RequestContext,
    places: Places | undefined,
  ): "token" | "nothing" | "other" | Decision {
    if (places === undefined) {
      const read = readToken(context.headers);
      if (read.kind === "malformed") return malformed();
      return "token" in read ? "token" : read.kind === "other" ? "other" : "nothing";
    }
    const found = places.find(context, couldBeToken);
    if (found.kind === "unreadable") return found.refusal;
    const brought = broughtIn(found.places);
    if (brought === undefined) return "nothing";
    return "action" in brought ? brought : "token";
  }

  onCredential(context: RequestContext): Decision | Promise<Decision> {
    // The destination is where the bytes go; the Host field is only what the agent wrote.
    const route = this.#routes.find(context.destination.host);
    const kept = this.#kept(route);
    if (kept !== undefined) return kept;
    const places = route?.places ?? this.#places;
    if (places !== undefined) return this.#fromPlaces(context, route ?? defaultRoute, places);
    const bearer = readToken(context.headers);
    if (bearer.kind === "malformed") return malformed();
    if (!("token" in bearer)) return this.#withoutToken(context, route ?? defaultRoute);
    return this.#exchanger.exchange(context, route ?? defaultRoute, bearer.token);
  }

  wantsBody(context: RequestContext): boolean {
    const route = this.#routes.find(context.destination.host);
    const places = route?.places ?? this.#places;
    return places?.wantsBody(context) === true && this.#kept(route) === undefined;
  }

  needsMessages(context: RequestContext): boolean {
    return this.#stateOf(context).isMessage === true;
  }

  async onMessageCredential(context: RequestContext, message: Message): Promise<Answer> {
    delete this.#stateOf(context).isMessage;
    const route = this.#routes.find(context.destination.host) ?? defaultRoute;
    const places = route.places ?? this.#places;
    const place = places?.findInMessage(context, message, couldBeToken);
    if (place === undefined) {
      const isLeftAlone = this.#config.no_token_policy === "allow";
      return isLeftAlone ? undefined : noToken(route.host !== "", places?.shown(context));
    }
    let data: Buffer | undefined;
    const put = (token: Secret): undefined => {
      data = place.fill(token.reveal());
      context.conceal(token.reveal(), place.standIn, () => this.#deps.count("echo_removed"));
    };
    const decision = await this.#exchanger.exchange(context, route, place.standIn, put);
    return data === undefined || decision.action !== "modify"
      ? decision
      : { ...decision, message: data };
  }

  /** A token in one of the places, or what is done where there is none. */
  #fromPlaces(
    context: RequestContext,
    route: ExchangeRoute,
    places: Places,
  ): Decision | Promise<Decision> {
    const found = places.find(context, couldBeToken);
    if (found.kind === "unreadable") return found.refusal;
    const brought = broughtIn(found.places);
    if (brought === undefined) {
      if (!places.awaitMessage(context))
        return this.#withoutToken(context, route, places.shown(context));
      this.#stateOf(context).isMessage = true;
      return modify("token_awaited");
    }
    if ("action" in brought) return brought;
    return this.#exchanger.exchange(
      context,
      route,
      brought.token,
      putInto(context, brought, this.#deps),
    );
  }

  #stateOf(context: RequestContext): Awaited {
    return context.stateOf<Awaited>(this, () => ({}));
  }

  /** What is said of messages that keep the token they carry. */
  #kept(route: ExchangeRoute | undefined): Decision | undefined {
    if (route === undefined && this.#config.default_policy === "passthrough")
      return skip("no_matching_route", { route_matched: "false" });
    return route?.passthrough === true
      ? allow("passthrough", { route_matched: "true", route_host: route.host })
      : undefined;
  }

  #withoutToken(
    context: RequestContext,
    route: ExchangeRoute,
    places?: string,
  ): Decision | Promise<Decision> {
    const { no_token_policy: policy = "deny" } = this.#config;
    if (policy === "allow") return skip("no_token_policy");
    if (policy === "client-credentials") return this.#exchanger.grantOwn(context, route);
    return noToken(route.host !== "", places);
  }
}
