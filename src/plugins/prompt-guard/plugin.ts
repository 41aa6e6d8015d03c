/**
 * prompt-guard: looks at what comes to the agent for text that tries to instruct its model, and refuses it, takes it out or
 * marks it as data.
 *
 * It permits nothing. What cannot be looked at passes only where the file says so (`unseen`).
 */
import { frameReaderFor } from "../../http/frames.ts";
import { messageOf } from "../../errors.ts";
import { forgetDigests } from "../../http/signed-fields.ts";
import {
  type Answer,
  type BodyAccess,
  deny,
  type Frame,
  type Plugin,
  type PluginDeps,
  type RequestContext,
  type ResponseView,
} from "../../pipeline/plugin.ts";
import { type Pins, ToolPins } from "../../policy/tools/tool-pins.ts";
import { inferenceFact } from "../../protocols/inference-view.ts";
import { mayBeJson } from "../../protocols/message-json.ts";
import { originOf } from "../config-values.ts";
import { inferenceEndpoint } from "../parsers/inference.ts";
import { SharedPins } from "../parsers/shared-pins.ts";
import { BodyGuard } from "./body-guard.ts";
import { promptGuardConfig, type PromptGuardConfig, unusedKeysOf } from "./config.ts";
import { type GuardRule, typeOf } from "./guard-rule.ts";
import { GuardJudge } from "./judge.ts";
import { guardMessage, guardToolOutputs } from "./request-guard.ts";
import { Spotlight } from "./spotlight.ts";
import { type SecretSet, sourceAt } from "../credentials/secret-set.ts";
import { defineSecretUser } from "../credentials/secret-users.ts";

/** The definition that a pipeline names. */
export const promptGuard = defineSecretUser<PromptGuardConfig>({
  name: "prompt-guard",
  description: "Refuses, takes out or marks text that tries to instruct the agent's model",
  config: promptGuardConfig,
  stages: ["connect", "request"],
  body: { request: "write", response: "read" },
  bodyOf,
  requiredBy: ({ where, rules }) => [
    ...(rules.some(({ tools }) => tools !== undefined) && where.includes("responses")
      ? ["mcp-parser"]
      : []),
    ...(where.includes("tool_outputs") ? ["inference-parser"] : []),
  ],
  origins: ({ classifier }) => (classifier === undefined ? [] : [originOf(classifier.url)]),
  sources: ({ classifier }) => [
    ...sourceAt(["classifier", "bearer"], classifier?.bearer),
    ...Object.entries(classifier?.headers ?? {}).flatMap(([name, value]) =>
      sourceAt(["classifier", "headers", name], value),
    ),
  ],
  unused: unusedKeysOf,
  create: (config, deps, secrets) => new PromptGuard(config, deps, secrets),
});

function bodyOf({ where }: PromptGuardConfig): BodyAccess {
  const isWriting = where.includes("tool_outputs") || where.includes("requests");
  return {
    ...(isWriting ? { request: "write" as const } : {}),
    ...(where.includes("responses") ? { response: "read" as const } : {}),
  };
}

class PromptGuard implements Plugin {
  readonly body: BodyAccess;
  readonly onFrame?: NonNullable<Plugin["onFrame"]>;
  readonly onResponse?: NonNullable<Plugin["onResponse"]>;
  readonly #config: PromptGuardConfig;
  readonly #deps: PluginDeps;
  readonly #judge: GuardJudge;
  readonly #pins: Pins;

  constructor(config: PromptGuardConfig, deps: PluginDeps, secrets: SecretSet) {
    this.#config = config;
    this.#deps = deps;
    // All threads mark a text in the same way, and so does the generation that a reload makes.
    this.#judge = new GuardJudge(config, deps, {
      spotlight: new Spotlight(deps.secret("prompt-guard mark")),
      secrets,
    });
    this.#pins = deps.carry("prompt-guard pins", () => this.#makePins());
    this.body = bodyOf(config);
    if (this.body.response === undefined) return;
    this.onFrame = (context, frame) => this.#onFrame(context, frame);
    this.onResponse = (context) => this.#onResponse(context);
  }

  wantsBody(context: RequestContext): boolean {
    if (this.#rulesAt(context).length === 0) return false;
    if (this.#looksAt("requests") && mayBeJson(context)) return true;
    return this.#looksAt("tool_outputs") && inferenceEndpoint(context) !== undefined;
  }

  wantsAnswer(context: RequestContext): boolean {
    return this.#looksAt("responses") && this.#isRead(context);
  }

  wantsAnswerBody({ response }: RequestContext): boolean {
    return response === undefined || this.#takes(typeOf(response.headers));
  }

  onRequest(context: RequestContext): Answer | Promise<Answer> {
    const rules = this.#rulesAt(context);
    if (rules.length === 0) return undefined;
    const unseen = this.#judgeUnseen(context, rules);
    if (unseen !== undefined || context.stage === "connect") return unseen;
    if (context.body === undefined) return this.#judgeUnread(context);
    const isMessage = this.#looksAt("requests");
    // An agent may speak as a model does: what comes to it is a message all the same, outputs of tools included.
    const isToAgent = isMessage && context.flow.direction === "inbound";
    if (!isToAgent && this.#looksAt("tool_outputs") && isInference(context)) {
      return guardToolOutputs(this.#judge, context);
    }
    return isMessage ? guardMessage(this.#judge, context) : undefined;
  }

  /** Responses that nobody can look at. */
  #judgeUnseen(context: RequestContext, rules: readonly GuardRule[]): Answer {
    if (this.#config.unseen === "pass" || !this.#looksAt("responses")) return undefined;
    const rule = rules.find(({ config }) => config.action !== "observe");
    if (rule === undefined) return undefined;
    const { name } = rule.config;
    if (context.stage === "connect") {
      context.tunnelTerms.mustInspect ??= `prompt-guard rule '${name}' (unseen: pass lets it through)`;
      return undefined;
    }
    if (context.upgrade === undefined) return undefined;
    const message = `What comes over an upgrade to ${context.upgrade.slice(0, 32)} cannot be looked at (prompt-guard, rule ${JSON.stringify(name)}; unseen: pass lets it through)`;
    return deny("unseen", { code: "policy.forbidden", message, rule: name });
  }

  /** A body that should have been read and was not. */
  #judgeUnread(context: RequestContext): Answer {
    if (context.unread === undefined || !this.wantsBody(context)) return undefined;
    return deny("unread", context.unread);
  }

  /** The head of a stream goes on before its frames are judged. */
  #onResponse(context: RequestContext): Answer {
    const { response } = context;
    if (response === undefined || !this.wantsAnswer(context)) return undefined;
    const type = typeOf(response.headers);
    const isStream = frameReaderFor(response.headers.get("content-type"), 1) !== undefined;
    const rules = this.#rulesAt(context).filter(({ config }) => config.action !== "observe");
    const [rule] = rules;
    if (rule === undefined) return undefined;
    if (isStream && this.#takes(type)) forgetDigests(response.headers);
    const isUnread = this.#config.unread_types === "refuse" && hasBody(context, response);
    if (!isUnread || rules.some((one) => one.takesType(type))) return undefined;
    const { name } = rule.config;
    const message = `A response of ${JSON.stringify(type?.slice(0, 64) ?? "no type")} is not read (prompt-guard, rule ${JSON.stringify(name)}; rules[].content_types, unread_types: pass lets it through)`;
    this.#deps.count("refused");
    return deny("unread_type", { code: "prompt-guard.blocked", status: 403, message, rule: name });
  }

  #onFrame(context: RequestContext, frame: Frame): Answer | Promise<Answer> {
    if (frame.data.length === 0 || !this.wantsAnswer(context)) return undefined;
    if (!this.wantsAnswerBody(context)) return undefined;
    const guard = context.stateOf(this, () => new BodyGuard(this.#judge, context, this.#pins));
    if (!(this.#pins instanceof SharedPins)) return guard.onFrame(frame);
    // Only a list of tools has to do with pins, and that is rare.
    if (!frame.data.includes('"tools"')) return guard.onFrame(frame);
    return this.#withPins(context, () => guard.onFrame(frame));
  }

  async #withPins(context: RequestContext, judge: () => Promise<Answer>): Promise<Answer> {
    try {
      await (this.#pins as SharedPins).load(`prompt-guard ${context.destination.authority}`);
    } catch (error) {
      this.#deps.count("state_away");
      this.#deps.log.warn(
        { error: messageOf(error) },
        "prompt-guard: pins of tools could not be read; those of this process count",
      );
    }
    return judge();
  }

  #makePins(): Pins {
    const { state, shared, isAlone, log } = this.#deps;
    if (state.isKept) return new SharedPins({ state, log });
    return isAlone
      ? new ToolPins()
      : new SharedPins({ state: { store: shared, sealed: undefined }, log });
  }

  #looksAt(place: PromptGuardConfig["where"][number]): boolean {
    return this.#config.where.includes(place);
  }

  #rulesAt({ destination }: RequestContext): readonly GuardRule[] {
    return this.#judge.rules.filter((rule) => rule.isAt(destination.host));
  }

  /** What a model says is not what a stranger says. */
  #isRead(context: RequestContext): boolean {
    return !isInference(context) && this.#rulesAt(context).length > 0;
  }

  #takes(type: string | undefined): boolean {
    return this.#judge.rules.some((rule) => rule.takesType(type));
  }
}

function hasBody({ method }: RequestContext, { status, headers }: ResponseView): boolean {
  const isBodyless = method === "HEAD" || status < 200 || status === 204 || status === 304;
  return !isBodyless && headers.get("content-length") !== "0";
}

function isInference(context: RequestContext): boolean {
  return context.hasFacts && context.facts.has(inferenceFact);
}
