/** Says what becomes of a text: by its own signals, those that its caller knows, the classifier, and the rules of the file. */
import type { DecisionDetails } from "../../pipeline/decision.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";
import { Classifier } from "./classifier.ts";
import type { PromptGuardConfig } from "./config.ts";
import type { Findings, SignalName } from "./findings.ts";
import { GuardRule, type Origin } from "./guard-rule.ts";
import { scanText, type TextKind } from "./scan.ts";
import type { Spotlight } from "./spotlight.ts";
import { stripHidden } from "./strip.ts";
import type { SecretSet } from "../credentials/secret-set.ts";

/** A text with where it comes from. */
export interface JudgedText {
  readonly text: string;
  readonly kind: TextKind;
  readonly origin: Origin;
  /** The tool has changed since it was first seen. */
  readonly isChanged?: boolean;
}

/** What a rule makes of a text. */
export interface Verdict {
  readonly rule: GuardRule;
  readonly action: "refuse" | "strip" | "mark" | "observe";
  readonly score: number;
  readonly signals: readonly SignalName[];
  /** Set where the classifier was to be asked and is the reason of the refusal. */
  readonly unavailable?: string;
}

/** Judges texts. */
export class GuardJudge {
  readonly rules: readonly GuardRule[];
  readonly #config: PromptGuardConfig;
  readonly #deps: PluginDeps;
  readonly #classifier: Classifier | undefined;
  readonly #spotlight: Spotlight;

  constructor(
    config: PromptGuardConfig,
    deps: PluginDeps,
    { spotlight, secrets }: { readonly spotlight: Spotlight; readonly secrets: SecretSet },
  ) {
    this.#config = config;
    this.#deps = deps;
    this.rules = config.rules.map((rule) => new GuardRule(rule));
    this.#spotlight = spotlight;
    const { classifier } = config;
    this.#classifier =
      classifier === undefined ? undefined : new Classifier(classifier, deps, secrets);
  }

  /** The verdict on the text; undefined where no rule holds. Never rejects. */
  async judge(judged: JudgedText): Promise<Verdict | undefined> {
    const { text, kind, origin, isChanged = false } = judged;
    const rules = this.rules.filter(
      (rule) =>
        rule.speaksOf(origin) &&
        (origin.contentType === undefined || rule.takesType(origin.contentType)),
    );
    if (rules.length === 0 || this.#spotlight.isMarked(text)) return undefined;
    const findings = await scanText(text, { kind, weights: this.#config.weights });
    if (isChanged) findings.add("tool_changed", 30);
    const unavailable = await this.#classify(text, origin, findings);
    const { score, names: signals } = findings;
    if (unavailable !== undefined) {
      const [rule] = rules;
      const isOnlyObserved = rules.every(({ config }) => config.action === "observe");
      if (rule !== undefined && !isOnlyObserved) {
        return { rule, action: "refuse", score, signals, unavailable };
      }
    }
    const rule = rules.find(({ config }) => score >= config.threshold);
    if (rule === undefined) return undefined;
    const { action } = rule.config;
    this.#deps.count(
      action === "observe"
        ? "observed"
        : action === "mark"
          ? "marked"
          : action === "strip"
            ? "stripped"
            : "refused",
    );
    return { rule, action, score, signals };
  }

  /** Adds what the classifier says; why it said nothing, where that is a reason to refuse. */
  async #classify(text: string, origin: Origin, findings: Findings): Promise<string | undefined> {
    const { classifier } = this.#config;
    if (this.#classifier === undefined || classifier === undefined) return undefined;
    if (findings.score < classifier.least_score) return undefined;
    const said = await this.#classifier.classify(text, origin, findings.names);
    if (said.kind === "score") {
      this.#deps.count("classified");
      findings.add("classifier", said.score * classifier.score);
      return undefined;
    }
    this.#deps.count("classifier_unavailable");
    this.#deps.log.warn(
      { why: said.why, on_failure: classifier.on_failure },
      "prompt-guard: a text was not classified",
    );
    return classifier.on_failure === "refuse" ? said.why : undefined;
  }

  /** The text as a verdict to mark or to strip has it; undefined where what is left is refused. */
  async rewrite(
    text: string,
    judged: Omit<JudgedText, "text">,
    verdict: Verdict,
  ): Promise<string | undefined> {
    const { kind } = judged;
    const { marking, remove_invisible: removeInvisible, threshold } = verdict.rule.config;
    if (verdict.action === "mark") {
      return this.#spotlight.mark(text, { kind, marking, removeInvisible });
    }
    const rest = stripHidden(text);
    const { score } = await scanText(rest, { kind, weights: this.#config.weights });
    return score >= Math.max(1, threshold) ? undefined : rest;
  }

  /** Whether texts that no mark stands around would be caught by themselves. */
  async isCaught(text: string, verdict: Verdict): Promise<boolean> {
    if (text === "") return false;
    const { score } = await scanText(text, { kind: "text", weights: this.#config.weights });
    return score >= Math.max(1, verdict.rule.config.threshold);
  }
}

/** What records say of a verdict. */
export function detailsOf(
  { rule, score, signals, unavailable }: Verdict,
  { tool }: Origin,
): DecisionDetails {
  return {
    rule: rule.config.name,
    score,
    signals: signals.join(","),
    ...(typeof tool === "string" ? { tool: tool.slice(0, 128) } : {}),
    ...(unavailable === undefined ? {} : { why: unavailable.slice(0, 240) }),
  };
}

/** What the agent reads in place of a text that is refused. Nothing of the text is in it. */
export function noticeOf(what: string, { rule, score, signals, unavailable }: Verdict): string {
  const why =
    unavailable === undefined
      ? `it holds text that tries to instruct the model (${signals.join(", ")}; score ${score}, rule ${JSON.stringify(rule.config.name)} of prompt-guard, rules[].threshold ${rule.config.threshold})`
      : `it could not be classified: ${unavailable} (prompt-guard, classifier.on_failure)`;
  return `${what} was withheld: ${why}.`;
}
