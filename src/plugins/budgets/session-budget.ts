/** session-budget: the Go program's spelling of budgets for the lifetime of a session, in tokens, calls and time. */
import { z } from "zod";
import { durationMs } from "../../duration.ts";
import {
  type ConfigProblem,
  type Decision,
  definePlugin,
  type Denial,
  deny,
  observe,
  type PluginDeps,
  type RequestContext,
} from "../../pipeline/plugin.ts";
import { duration, originOf, serviceUrl } from "../config-values.ts";
import { Approvals } from "./approvals.ts";
import type { EngineOptions } from "./engine.ts";
import type { Exceeded } from "./entry.ts";
import type { LimitOptions } from "./limit.ts";
import { BudgetPlugin } from "./plugin.ts";

const whole = (): z.ZodNumber => z.int().min(0).max(Number.MAX_SAFE_INTEGER);
const limitKeys = ["max_tokens", "max_calls", "max_duration_seconds"] as const;

const sessionBudgetConfig = z
  .strictObject({
    redis_url: z
      .string()
      .regex(/^rediss?:\/\/[^\s]+$/, {
        error: "must be a redis:// or rediss:// address",
        abort: true,
      })
      .refine((text) => URL.canParse(text), { error: "is not a valid address" })
      .describe("The server of Redis or Valkey, which replicas share."),
    max_tokens: whole().default(0).describe("Tokens of a session; 0: no limit."),
    max_calls: whole().default(0).describe("Calls of language models in a session; 0: no limit."),
    max_duration_seconds: whole()
      .default(0)
      .describe("Time since the first call of a session; 0: no limit."),
    on_exceed: z
      .enum(["deny", "observe", "pause"])
      .default("deny")
      .describe(
        "What happens to everything that a session sends when one of them is reached: deny (403), observe (recorded), or pause (a webhook is asked).",
      ),
    pause_webhook: serviceUrl()
      .optional()
      .describe(
        'Where approval is asked for: a POST whose answer is {"action":"approve"} or deny.',
      ),
    pause_timeout: duration().default("30s").describe("Time for its answer."),
    pause_timeout_action: z
      .enum(["deny", "allow"])
      .default("deny")
      .describe(
        "What counts where it does not answer with 200 and JSON. Every action but approve is a denial.",
      ),
    pause_grace_period: duration(0)
      .default("5m")
      .describe("How long an approval holds, in this process."),
    session_ttl_seconds: whole()
      .default(7_200)
      .transform((seconds) => (seconds === 0 ? 7_200 : seconds))
      .describe("How long a session is remembered after its last use; 0: 7200."),
    refresh_interval: duration()
      .default("5s")
      .describe("Without effect: of the Go program's cache. Here every request asks the server."),
    redis_unavailable: z
      .literal("fail_open", { error: "only fail_open; for the other, use budgets with when_away" })
      .default("fail_open")
      .describe("Messages pass while the server is away, and are counted when it is back."),
    default_session_fallback: z
      .boolean()
      .default(false)
      .describe("Messages of no session share one budget; else they are not counted."),
  })
  .superRefine((config, context) => {
    const issue = (key: string, message: string): void =>
      context.addIssue({ code: "custom", path: [key], message });
    if (limitKeys.every((key) => config[key] === 0)) {
      issue("max_tokens", `at least one of ${limitKeys.join(", ")} has to be more than 0`);
    }
    if (config.session_ttl_seconds < config.max_duration_seconds) {
      issue("session_ttl_seconds", "must be at least max_duration_seconds");
    }
    if (config.on_exceed === "pause" && config.pause_webhook === undefined) {
      issue("pause_webhook", "is required with on_exceed: pause");
    }
  });

type SessionBudgetConfig = z.output<typeof sessionBudgetConfig>;

/** The definition that a pipeline names. */
export const sessionBudget = definePlugin<SessionBudgetConfig>({
  name: "session-budget",
  description: "Bounds tokens, calls and time of a session (budgets)",
  config: sessionBudgetConfig,
  stages: ["connect", "request"],
  origins: ({ pause_webhook: webhook }) => (webhook === undefined ? [] : [originOf(webhook)]),
  readsSessions: true,
  unused: unusedIn,
  create: (config, deps) => new BudgetPlugin(engineOptions(config, deps), deps),
});

const pauseKeys = [
  "pause_webhook",
  "pause_timeout",
  "pause_timeout_action",
  "pause_grace_period",
] as const;

/** Files of the Go program have them. */
function unusedIn({ on_exceed: action }: SessionBudgetConfig): ConfigProblem[] {
  const ofPause = action === "pause" ? [] : pauseKeys;
  return [
    { path: ["refresh_interval"], message: "has no effect: every request asks the server" },
    ...ofPause.map((key) => ({ path: [key], message: "has no effect without on_exceed: pause" })),
  ];
}

function engineOptions(config: SessionBudgetConfig, deps: PluginDeps): EngineOptions {
  const approvals = approvalsOf(config, deps);
  const said = (exceeded: Exceeded): Readonly<Record<string, number>> =>
    detailsOf(config, exceeded);
  return {
    limits: limitsOf(config),
    store: deps.state.at(config.redis_url),
    storeName: config.redis_url,
    whenAway: "allow",
    waitMs: 10_000,
    answerTokens: 4_096,
    answerBytes: 0,
    prices: undefined,
    refusesUnknownModels: false,
    needsView: false,
    denial: (exceeded) => denial(exceeded, said(exceeded)),
    ...(approvals === undefined
      ? {}
      : {
          appeal: (context: RequestContext, exceeded: Exceeded) =>
            appeal(approvals, { context, exceeded, details: said(exceeded) }),
        }),
  };
}

function limitsOf(config: SessionBudgetConfig): LimitOptions[] {
  const common = {
    window: "lifetime",
    by: ["session"],
    isHard: config.on_exceed !== "observe",
    hosts: [],
    models: [],
    refusesAll: true,
    skipsUnknown: !config.default_session_fallback,
    forgetAfterMs: config.session_ttl_seconds * 1_000,
  } as const;
  const limits: LimitOptions[] = [
    { ...common, name: "tokens", unit: "tokens", limit: config.max_tokens },
    { ...common, name: "calls", unit: "calls", limit: config.max_calls },
    { ...common, name: "duration", unit: "seconds", limit: config.max_duration_seconds },
  ];
  return limits.filter(({ limit }) => limit > 0);
}

function reasonOf({ limit, used }: Exceeded): string {
  if (limit.unit === "tokens") return `token limit reached: ${used}/${limit.limit}`;
  if (limit.unit === "calls") return `call limit reached: ${used}/${limit.limit}`;
  return `duration limit reached: ${used}s/${limit.limit}s`;
}

function denial(exceeded: Exceeded, details: Readonly<Record<string, number>>): Denial {
  return { code: "budget.exceeded", status: 403, message: reasonOf(exceeded), details };
}

function detailsOf(
  config: SessionBudgetConfig,
  { amounts }: Exceeded,
): Readonly<Record<string, number>> {
  const seconds = amounts.get("duration");
  return {
    spent_tokens: amounts.get("tokens") ?? 0,
    spent_calls: amounts.get("calls") ?? 0,
    token_limit: config.max_tokens,
    call_limit: config.max_calls,
    ...(seconds === undefined
      ? {}
      : { duration_seconds: seconds, duration_limit: config.max_duration_seconds }),
  };
}

function approvalsOf(config: SessionBudgetConfig, deps: PluginDeps): Approvals | undefined {
  const { on_exceed: action, pause_webhook: url } = config;
  if (action !== "pause" || url === undefined) return undefined;
  return new Approvals({
    url,
    timeoutMs: durationMs(config.pause_timeout),
    graceMs: durationMs(config.pause_grace_period),
    otherwise: config.pause_timeout_action === "allow",
    deps,
  });
}

async function appeal(
  approvals: Approvals,
  parts: {
    readonly context: RequestContext;
    readonly exceeded: Exceeded;
    readonly details: Readonly<Record<string, number>>;
  },
): Promise<Decision> {
  const { context, exceeded, details } = parts;
  const [session = ""] = exceeded.values;
  const reason = reasonOf(exceeded);
  const answer = await approvals.ask(session, { session_id: session, reason, ...details });
  if (answer.isApproved) return observe(answer.isKept ? "pause_grace_window" : "pause_approved");
  const refused = denial(exceeded, details);
  const why = context.signal.aborted ? "client canceled during pause" : "approval denied";
  return deny("pause_denied", { ...refused, message: `${refused.message} (${why})` });
}
