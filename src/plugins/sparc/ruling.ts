/** What the file makes of the service's verdicts on some calls: they pass, or the agent gets something else. */
import { bounded } from "../../http/json-access.ts";
import type { DecisionDetails } from "../../pipeline/decision.ts";
import {
  allow,
  type Decision,
  observe,
  type PluginDeps,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import { firstReason } from "./clarification.ts";
import type { SparcConfig } from "./config.ts";
import type { Conversation } from "./conversations.ts";
import { type Issue, Reflector, type ToolCall, type Verdict } from "./reflector.ts";
import type { SecretSet } from "../credentials/secret-set.ts";

/** What becomes of calls that were judged together. */
export type Ruling =
  | { readonly kind: "pass"; readonly decision: Decision }
  | {
      readonly kind: "stop";
      /** `reflect`: the agent reads what is wrong. `deny`: it is refused. `closed`: nobody could judge. */
      readonly action: "reflect" | "deny" | "closed";
      readonly reason: string;
      readonly message: string;
      readonly issues: readonly Issue[];
      readonly details: DecisionDetails;
    };

type Given = Exclude<Verdict, { readonly kind: "unavailable" }>;

const maxWhyChars = 240;

/** Judges calls as the file says. */
export class Rulings {
  readonly #config: SparcConfig;
  readonly #deps: PluginDeps;
  readonly #reflector: Reflector;

  constructor(config: SparcConfig, deps: PluginDeps, secrets: SecretSet) {
    this.#config = config;
    this.#deps = deps;
    this.#reflector = new Reflector(config, deps, secrets);
  }

  /** False where nothing is ever kept from the agent. */
  get mayStop(): boolean {
    const {
      on_reject_action: action,
      fail_policy: policy,
      deny_score_threshold: threshold,
    } = this.#config;
    return action !== "observe" || policy === "closed" || threshold > 0;
  }

  /** All of the calls have to be grounded: they were asked for together, and an agent makes all of them or none. */
  async of(
    context: RequestContext,
    calls: readonly ToolCall[],
    conversation: Conversation | undefined,
  ): Promise<Ruling> {
    const tool = bounded([...new Set(calls.map(({ name }) => name))].join(", "), 256);
    if (conversation === undefined) return this.#withoutContext(tool);
    const sessionId = this.#deps.sessions?.sessionOf(context);
    const given = await Promise.all(
      calls.map((call) => this.#reflector.reflect(call, { conversation, sessionId })),
    );
    for (const { verdict, isCached } of given) {
      this.#deps.count(isCached ? "cached" : verdict.kind);
    }
    const verdicts = given.map(({ verdict }) => verdict);
    const known = verdicts.filter((verdict): verdict is Given => verdict.kind !== "unavailable");
    const rejected = known.filter(({ kind }) => kind === "reject");
    this.#publish(context, tool, known, rejected);
    if (rejected.length > 0) return this.#rejected(tool, rejected);
    const failed = verdicts.find((verdict) => verdict.kind === "unavailable");
    if (failed !== undefined) return this.#unavailable(tool, failed.why);
    return { kind: "pass", decision: allow("grounded", this.#details(tool, scoreOf(known))) };
  }

  /** Calls that nobody can be shown as their receiver reads them are not grounded. */
  unparsable(why: string): Ruling {
    const issues = [{ explanation: `the message cannot be read: ${why}` }];
    return this.#stopped("", issues, { reason: "unparsable" });
  }

  #rejected(tool: string, rejected: readonly Given[]): Ruling {
    const { deny_score_threshold: threshold } = this.#config;
    const score = scoreOf(rejected);
    const isEscalated = threshold > 0 && score !== undefined && score <= threshold;
    const issues = rejected.flatMap((verdict) => verdict.issues);
    return this.#stopped(tool, issues, { score, isEscalated });
  }

  #stopped(
    tool: string,
    issues: readonly Issue[],
    found: { readonly score?: number | undefined; isEscalated?: boolean; reason?: string },
  ): Ruling {
    const { score, isEscalated = false, reason } = found;
    const action = isEscalated ? "deny" : this.#config.on_reject_action;
    const message = firstReason(issues);
    const details = {
      ...this.#details(tool, score),
      sparc: message,
      action,
      escalated: isEscalated,
    };
    if (action === "observe") {
      const decision = observe(reason ?? "reject_observed", { ...details, mode: "observe" });
      return { kind: "pass", decision };
    }
    const why = reason ?? (action === "reflect" ? "reflected" : "blocked");
    return { kind: "stop", action, reason: why, message, issues, details };
  }

  #unavailable(tool: string, why: string): Ruling {
    const details = { ...this.#details(tool, undefined), error: bounded(why, maxWhyChars) };
    const { fail_policy: policy } = this.#config;
    this.#deps.log.warn(
      { error: details.error, fail_policy: policy },
      "a tool call was not judged",
    );
    if (policy === "open") {
      const decision = observe("reflector_unavailable", { ...details, mode: "fail_open" });
      return { kind: "pass", decision };
    }
    const message = "the tool call could not be verified: the reflection service is unavailable";
    return { ...closed, reason: "reflector_unavailable", message, details };
  }

  #withoutContext(tool: string): Ruling {
    this.#deps.count("no_context");
    const details = this.#details(tool, undefined);
    if (this.#config.fail_policy === "open") {
      return { kind: "pass", decision: skip("no_inference_context", details) };
    }
    const message = "no conversation context to verify the tool call";
    return { ...closed, reason: "no_inference_context", message, details };
  }

  #details(tool: string, score: number | undefined): DecisionDetails {
    return {
      tool,
      enforcement: this.#config.enforcement,
      ...(score === undefined ? {} : { score: score.toFixed(2) }),
    };
  }

  /** The verdict as clients of the session API show it. */
  #publish(
    context: RequestContext,
    tool: string,
    known: readonly Given[],
    rejected: readonly Given[],
  ): void {
    if (known.length === 0) return;
    const score = scoreOf(known);
    const issues = known.flatMap((verdict) => verdict.issues);
    const spent = known.reduce((sum, { executionMs = 0 }) => sum + executionMs, 0);
    const { track, enforcement } = this.#config;
    context.facts.set("sparc/event", {
      tool,
      decision: rejected.length > 0 ? "reject" : "approve",
      ...(score === undefined ? {} : { score }),
      track,
      enforcement,
      ...(issues.length === 0 ? {} : { issues }),
      ...(spent === 0 ? {} : { executionMs: spent }),
    });
  }
}

const closed = { kind: "stop", action: "closed", issues: [] } as const;

/** The worst of them. */
function scoreOf(verdicts: readonly Given[]): number | undefined {
  const scores = verdicts.flatMap(({ score }) => score ?? []);
  return scores.length === 0 ? undefined : Math.min(...scores);
}
