/** token-broker: gives a request the token that a broker has, or gets with the user's consent, for its destination. */
import { durationMs } from "../../duration.ts";
import { Places } from "../../net/places.ts";
import { SharedCalls } from "../../oauth/shared-calls.ts";
import { tokenCacheKey } from "../../oauth/token-cache.ts";
import { tokenDigest } from "../../oauth/token-checks.ts";
import {
  allow,
  type Decision,
  definePlugin,
  deny,
  modify,
  type Plugin,
  PluginConfigError,
  type PluginDeps,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import type { Secret } from "../../secret.ts";
import { originOf } from "../config-values.ts";
import { attachBearer, readBearer } from "../credentials/bearer.ts";
import { HostRoutes } from "../credentials/host-routes.ts";
import { Placeholders } from "../credentials/shared-placeholders.ts";
import { withSubject } from "../credentials/subject.ts";
import { Broker, type BrokerAnswer, type BrokerQuestion } from "./broker.ts";
import { tokenBrokerConfig, type TokenBrokerConfig } from "./config.ts";
import { type BrokerRule, parseBrokerRoutes } from "./routes.ts";

/** The definition that a pipeline names. */
export const tokenBroker = definePlugin<TokenBrokerConfig>({
  name: "token-broker",
  description: "Asks a broker for the token that the destination accepts from the user",
  config: tokenBrokerConfig,
  origins: (config) => [originOf(config.broker_url)],
  create: (config, deps) => new TokenBroker(config, deps),
});

type Asked = BrokerAnswer | { readonly kind: "overloaded"; readonly key: string };

const unavailable = "upstream.broker-unavailable";
const challenge = 'Bearer realm="authbridge"';
const retryAfterSeconds = "5";

class TokenBroker implements Plugin {
  readonly #config: TokenBrokerConfig;
  readonly #deps: PluginDeps;
  readonly #broker: Broker;
  readonly #routes: HostRoutes<BrokerRule, BrokerRule>;
  readonly #placeholders: Placeholders | undefined;
  readonly #calls = new SharedCalls<Asked>({ kind: "unavailable", why: "cancelled" });
  readonly #places: Places;

  constructor(config: TokenBrokerConfig, deps: PluginDeps) {
    this.#config = config;
    this.#deps = deps;
    this.#broker = new Broker(deps.fetch, config.broker_url, durationMs(config.timeout));
    this.#routes = routesOf(config, deps);
    this.#placeholders = config.resolve_placeholders ? new Placeholders(deps) : undefined;
    this.#places = new Places({
      all: config.max_pending,
      perCaller: config.max_pending_per_token,
      perDestination: Number.POSITIVE_INFINITY,
      waitMs: 0,
    });
  }

  async start(): Promise<void> {
    await this.#placeholders?.start();
  }

  /** Assumes the token that the client has to send, where it sent nothing. */
  describeCredential(context: RequestContext): string | Decision {
    const kept = this.#kept(context);
    if (kept !== undefined) return kept;
    const bearer = readBearer(context.headers);
    if (bearer.kind === "malformed" || bearer.kind === "other") return missingToken();
    const { broker_url: url } = this.#config;
    return `Authorization: a token of the broker at ${url} for ${context.destination.origin}`;
  }

  onCredential(context: RequestContext): Decision | Promise<Decision> {
    const kept = this.#kept(context);
    if (kept !== undefined) return kept;
    const bearer = readBearer(context.headers);
    if (bearer.kind !== "bearer") return missingToken();
    const parts = { context, placeholders: this.#placeholders, deps: this.#deps };
    return withSubject(bearer.token, parts, (subject) => this.#attach(context, subject));
  }

  /** What is said of messages that keep the token they carry. */
  #kept({ destination: { host } }: RequestContext): Decision | undefined {
    const route = this.#routes.find(host);
    if (route?.action === "passthrough") return allow("passthrough", { route_host: route.host });
    const isMeant = route !== undefined || this.#config.default_policy === "broker";
    return isMeant ? undefined : skip("no_broker_route");
  }

  async #attach(context: RequestContext, subject: Secret): Promise<Decision> {
    const route = this.#routes.find(context.destination.host);
    const serverUrl = context.destination.origin;
    const question: BrokerQuestion = {
      subject,
      serverUrl,
      authorizationEndpoint: route?.authorization_endpoint,
      tokenEndpoint: route?.token_endpoint,
    };
    const details = {
      route_host: route?.host ?? "",
      route_matched: route === undefined ? "false" : "true",
      server_url: serverUrl,
    };
    // For a token that goes nowhere, nobody is asked for consent.
    if (context.isHypothetical) return modify("would_ask", details);
    const key = tokenCacheKey([
      subject.reveal(),
      serverUrl,
      question.authorizationEndpoint,
      question.tokenEndpoint,
    ]);
    if (this.#calls.has(key)) this.#deps.count("call_shared");
    const asked = await this.#calls.join(key, context.signal, (signal) =>
      this.#ask(question, signal),
    );
    if (asked.kind !== "token") return this.#refuse(context, asked, details);
    attachBearer(context.headers, asked.token);
    return modify("token_replaced", details);
  }

  /** Each place is one question that may be pending for minutes; nobody waits for a place. */
  async #ask(question: BrokerQuestion, signal: AbortSignal): Promise<Asked> {
    const claim = {
      caller: tokenDigest(question.subject.reveal()),
      destination: question.serverUrl,
    };
    const release = this.#places.takeFree(claim);
    if (release === undefined) {
      const isFull = this.#places.used >= this.#config.max_pending;
      return { kind: "overloaded", key: isFull ? "max_pending" : "max_pending_per_token" };
    }
    try {
      return await this.#broker.ask(question, signal);
    } finally {
      release();
    }
  }

  #refuse(
    context: RequestContext,
    asked: Exclude<Asked, { kind: "token" }>,
    details: Readonly<Record<string, string>>,
  ): Decision {
    const flow = context.flow.id;
    switch (asked.kind) {
      case "refused": {
        const { status, message, retryAfter } = asked;
        this.#deps.count("refused");
        this.#deps.log.warn({ flow, status }, "token broker refused");
        const headers = {
          ...(status === 401 && { "WWW-Authenticate": `${challenge}, error="invalid_token"` }),
          ...(retryAfter !== undefined && { "Retry-After": retryAfter }),
        };
        const denial = { code: "upstream.broker-error", message, status, headers };
        return deny("broker_error", denial, { ...details, status });
      }
      case "overloaded": {
        this.#deps.count("overloaded");
        const message = `too many questions to the token broker are pending (${asked.key})`;
        const headers = { "Retry-After": retryAfterSeconds };
        return deny(
          "broker_overloaded",
          { code: unavailable, message, status: 503, headers },
          details,
        );
      }
      case "unavailable": {
        if (asked.why === "cancelled")
          return deny("cancelled", { code: "pipeline.cancelled", message: "the client went away" });
        this.#deps.count("unavailable");
        this.#deps.log.warn({ flow, reason: asked.why }, "token broker not usable");
        const isLate = asked.why === "upstream.timeout";
        const message = `the token broker gave no token${isLate ? " in time (timeout)" : ""}`;
        const denial = { code: unavailable, message, status: 502 };
        return deny("broker_unavailable", denial, { ...details, problem: asked.why });
      }
    }
  }
}

function routesOf(
  { routes: { file, rules } }: TokenBrokerConfig,
  { clock, log }: PluginDeps,
): HostRoutes<BrokerRule, BrokerRule> {
  let problem: string | undefined;
  const routes = new HostRoutes<BrokerRule, BrokerRule>({
    file,
    rules,
    clock,
    parse: parseBrokerRoutes,
    compile: (rule) => Object.freeze(rule),
    onProblem: (message) => {
      problem = message;
      log.error({ problem }, "routes file not usable");
    },
  });
  if (problem !== undefined)
    throw new PluginConfigError([{ path: ["routes", "file"], message: problem }]);
  return routes;
}

/** The refusal for a request that has no token to show to the broker. */
function missingToken(): Decision {
  return deny("no_token", {
    code: "auth.missing-token",
    message: "broker route requires authorization token",
    headers: { "WWW-Authenticate": challenge },
  });
}
