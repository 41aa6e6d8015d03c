/** budgets: how much callers, users, sessions and models may use, in tokens, money, requests, tool calls and bytes. */
import { durationMs } from "../../duration.ts";
import {
  type Answer,
  askPerson,
  type BodyAccess,
  definePlugin,
  type Denial,
  type Outcome,
  type Passing,
  type Plugin,
  PluginConfigError,
  type PluginDeps,
  type RequestContext,
  type Soon,
} from "../../pipeline/plugin.ts";
import { nanosPerDollar, ownPrices, type Prices, sharedPrices } from "../parsers/prices.ts";
import { budgetsConfig, type BudgetsConfig } from "./config.ts";
import { BudgetEngine, type EngineOptions } from "./engine.ts";
import type { Exceeded } from "./entry.ts";
import type { LimitOptions } from "./limit.ts";
import { type SeenHere, shownAmount } from "./sightings.ts";

/** The definition that a pipeline names. */
export const budgets = definePlugin<BudgetsConfig>({
  name: "budgets",
  description:
    "Bounds tokens, cost, requests, tool calls, bytes, hosts and what names carry, for each caller, user, session or model",
  config: budgetsConfig,
  stages: ["connect", "request"],
  // What a person approves is the whole request.
  bodyOf: ({ limits }) =>
    limits.some(({ mode }) => mode === "ask") ? { request: "read" } : undefined,
  requiredBy: parsersFor,
  behind: ({ limits }) =>
    limits.some(({ by }) => by.includes("subject")) ? ["jwt-validation"] : [],
  readsSessions: true,
  unused: ({ limits }) => {
    const isPriced = limits.some(({ unit, mode }) => unit === "cost" && mode !== "soft");
    const message = "has no effect without a hard limit of cost";
    return isPriced ? [] : [{ path: ["unknown_models"], message }];
  },
  create: (config, deps) => new BudgetPlugin(engineOptions(config, deps), deps),
});

/** Whose facts the limits count. */
function parsersFor({ limits }: BudgetsConfig): string[] {
  const isOfModels = limits.some(
    ({ unit, by, models }) =>
      unit === "tokens" || unit === "cost" || by.includes("model") || models.length > 0,
  );
  const isOfTools = limits.some(({ unit }) => unit === "tool_calls");
  return [...(isOfModels ? ["inference-parser"] : []), ...(isOfTools ? ["mcp-parser"] : [])];
}

/** The hooks of every plugin that is a spelling of budgets. */
export class BudgetPlugin implements Plugin {
  readonly body?: BodyAccess;
  readonly #engine: BudgetEngine;

  constructor(options: EngineOptions, deps: PluginDeps) {
    if (options.limits.some(({ asks }) => asks === true)) this.body = { request: "read" };
    this.#engine = new BudgetEngine(options, deps);
  }

  start(): Promise<void> {
    return this.#engine.start();
  }

  onRequest(context: RequestContext): Answer | Promise<Answer> {
    return context.stage === "connect"
      ? this.#engine.judgeConnect(context)
      : this.#engine.judgeRequest(context);
  }

  wantsBody(context: RequestContext): boolean {
    return this.#engine.mayAsk(context);
  }

  rehearseRequest(context: RequestContext): Answer | Promise<Answer> {
    return context.stage === "connect" ? undefined : this.#engine.rehearse(context);
  }

  wantsAnswer(context: RequestContext): boolean {
    return this.#engine.wantsHead(context);
  }

  wantsAnswerBody(): boolean {
    return false;
  }

  onResponse(context: RequestContext): Answer {
    this.#engine.mark(context);
    return undefined;
  }

  countsBytes(context: RequestContext): boolean {
    return this.#engine.countsBytes(context);
  }

  onBytes(context: RequestContext, passing: Passing): Answer | Promise<Answer> {
    return this.#engine.passes(context, passing);
  }

  onFinish(context: RequestContext, outcome: Outcome): Soon<void> {
    return this.#engine.settle(context, outcome);
  }

  budgets(): unknown {
    return this.#engine.seen;
  }

  budgetsOf(threads: readonly unknown[]): Promise<unknown> {
    return this.#engine.shown(threads as readonly SeenHere[]);
  }
}

const sessionForgottenMs = 720 * 3_600_000;

function engineOptions(config: BudgetsConfig, deps: PluginDeps): EngineOptions {
  return {
    limits: config.limits.map((limit) => ({ ...limitOf(limit), lease: config.lease })),
    store: deps.state.store,
    storeName: "state",
    whenAway: config.when_away,
    awayHint: " (when_away: allow lets such messages pass)",
    waitMs: durationMs(config.wait),
    answerTokens: config.reserve_tokens,
    answerBytes: config.reserve_bytes,
    prices: pricesOf(config, deps),
    refusesUnknownModels: config.unknown_models === "refuse",
    needsView: true,
    denial,
    ask: askingOf(config, deps),
  };
}

/** The question to a person, for exactly this request under this configuration. */
function askingOf(config: BudgetsConfig, deps: PluginDeps): NonNullable<EngineOptions["ask"]> {
  const isAsking = config.limits.some(({ mode }) => mode === "ask");
  const gate = isAsking ? deps.approvals?.gate(JSON.stringify(config)) : undefined;
  return (context, exceeded) =>
    askPerson(gate, context, { rule: exceeded.limit.name, reason: denial(exceeded).message });
}

function limitOf(limit: BudgetsConfig["limits"][number]): LimitOptions {
  const { name, unit, window, by, hosts, models, forget_after: forget } = limit;
  const isOfSessions = window === "lifetime" && by.includes("session");
  return {
    name,
    unit,
    window,
    // Names of one domain say nothing of those of another.
    by: unit === "subdomains" && !by.includes("domain") ? [...by, "domain"] : by,
    hosts,
    models,
    limit: unit === "cost" ? Math.round(limit.limit * nanosPerDollar) : limit.limit,
    isHard: limit.mode !== "soft",
    asks: limit.mode === "ask",
    refusesAll: limit.refuses === "all",
    skipsUnknown: limit.unknown === "skip",
    forgetAfterMs:
      forget === undefined ? (isOfSessions ? sessionForgottenMs : undefined) : durationMs(forget),
  };
}

/** Only where something costs. */
function pricesOf(config: BudgetsConfig, deps: PluginDeps): Prices | undefined {
  const isPriced = config.limits.some(({ unit }) => unit === "cost");
  if (!isPriced && config.prices_file === undefined) return undefined;
  const prices = sharedPrices(deps);
  const problem = prices.use(config.prices_file ?? ownPrices, deps);
  if (problem === undefined) return prices;
  throw new PluginConfigError([{ path: ["prices_file"], message: problem }]);
}

const unitWords: Readonly<Record<LimitOptions["unit"], string>> = {
  tokens: "tokens",
  cost: "US dollars",
  requests: "requests",
  calls: "calls of language models",
  tool_calls: "tool calls",
  bytes: "bytes",
  bytes_up: "bytes sent",
  bytes_down: "bytes received",
  hosts: "hosts",
  subdomains: "names below the domain",
  name_entropy: "bits in names of hosts",
  url_entropy: "bits in paths and queries",
  seconds: "seconds",
};

function denial({ limit, used, until, isHeld, wanted }: Exceeded): Denial {
  const { name, unit, window } = limit;
  const amounts = `${shownAmount(unit, used)} of ${shownAmount(unit, limit.limit)} ${unitWords[unit]}`;
  const isShort = !isHeld && used < limit.limit;
  const resets = until === Infinity ? undefined : new Date(until).toISOString();
  const when = isHeld
    ? "calls under way hold the rest of it: try again soon"
    : resets === undefined
      ? "it does not begin anew"
      : `it begins anew at ${resets}`;
  return {
    code: "budget.exceeded",
    message: isShort
      ? `the budget "${name}" has not enough left: ${amounts} (${window}), and this takes ${shownAmount(unit, wanted)}; ${when}`
      : `the budget "${name}" is used up: ${amounts} (${window}); ${when}`,
    details: {
      budget: name,
      unit,
      window,
      used: shownAmount(unit, used),
      limit: shownAmount(unit, limit.limit),
      ...(resets === undefined ? {} : { resets_at: resets }),
    },
  };
}
