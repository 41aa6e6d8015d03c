/**
 * ibac: a language model judges what the agent is about to do against what its user asked for.
 *
 * Every failure is a refusal, and no header of the agent switches the judge off (docs/compatibility.md, Parsers and ibac).
 */
import { hash } from "node:crypto";
import { bounded } from "../../http/json-access.ts";
import { type BypassPaths, compileBypassPaths } from "../../pattern/path-pattern.ts";
import { compileHostGlob, type HostGlob } from "../../pattern/host-pattern.ts";
import {
  allow,
  type Decision,
  deny,
  type Plugin,
  type PluginDeps,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import { bypassHostGlob, defaultBypassHosts, originOf } from "../config-values.ts";
import { VerdictCache } from "../verdict-cache.ts";
import { classify } from "../../protocols/agent-action.ts";
import { describe, type DescribedAction } from "./action.ts";
import { ibacConfig, type IbacConfig } from "./config.ts";
import { Judge, type Verdict } from "./judge.ts";
import { mayBeJson } from "../../protocols/message-json.ts";
import { type SecretSet, sourceAt } from "../credentials/secret-set.ts";
import { defineSecretUser } from "../credentials/secret-users.ts";

/** The definition that a pipeline names. */
export const ibac = defineSecretUser<IbacConfig>({
  name: "ibac",
  description: "Has a language model judge actions against the user's intent",
  config: ibacConfig,
  body: { request: "read" },
  requiresAny: ["mcp-parser", "inference-parser"],
  origins: (config) => [originOf(config.judge_endpoint)],
  readsSessions: true,
  sources: (config) => sourceAt(["judge_bearer"], config.judge_bearer),
  unused: ({ agent_llm_host: own }) =>
    own === undefined
      ? []
      : [{ path: ["judge_inference"], message: "has no effect with agent_llm_host" }],
  create: (config, deps, secrets) => new Ibac(config, deps, secrets),
});

const maxShownChars = 512;
const maxIntentPreview = 80;

class Ibac implements Plugin {
  readonly #config: IbacConfig;
  readonly #deps: PluginDeps;
  readonly #paths: BypassPaths;
  readonly #hosts: readonly HostGlob[];
  readonly #ownModel: HostGlob | undefined;
  readonly #judge: Judge;
  readonly #verdicts: VerdictCache<Verdict>;

  constructor(config: IbacConfig, deps: PluginDeps, secrets: SecretSet) {
    this.#config = config;
    this.#deps = deps;
    this.#paths = compileBypassPaths(config.bypass_paths);
    const hosts = config.bypass_hosts ?? defaultBypassHosts;
    this.#hosts = hosts.map((pattern) => compileHostGlob(bypassHostGlob(pattern)));
    const { agent_llm_host: own } = config;
    this.#ownModel = own === undefined ? undefined : compileHostGlob(hostOf(own));
    this.#judge = new Judge(config, deps.fetch, secrets);
    this.#verdicts = new VerdictCache<Verdict>({
      clock: deps.clock,
      timeoutMs: config.timeout_ms,
      maxConcurrency: config.max_concurrency,
      cacheTtlMs: config.cache_ttl_ms,
      unavailable: (why) => ({ kind: "unavailable", why }),
      isKept: ({ kind }) => kind === "allow" || kind === "deny",
    });
    if (config.bypass_hosts === undefined) {
      deps.log.warn(
        { hosts: defaultBypassHosts },
        "bypass_hosts is not set: hosts of these names are not judged, whoever they belong to",
      );
    }
  }

  wantsBody(context: RequestContext): boolean {
    if (this.#bypassOf(context) !== undefined) return false;
    return this.#config.unclassified_policy === "judge" || mayBeJson(context);
  }

  #bypassOf({ path, destination: { host } }: RequestContext): string | undefined {
    if (this.#paths.matches(path)) return "path_bypass";
    const isOwnModel = this.#ownModel?.matches(host) === true;
    return isOwnModel || this.#hosts.some((glob) => glob.matches(host)) ? "host_bypass" : undefined;
  }

  onRequest(context: RequestContext): Decision | Promise<Decision> {
    const bypass = this.#bypassOf(context);
    if (bypass !== undefined) return skip(bypass);
    const found = classify(context);
    switch (found.kind) {
      case "mechanics":
        return skip("protocol_mechanics");
      case "unparsable":
        return refuse("unparsable", 403, "the message cannot be read", { why: found.why });
      case "unclassified":
        if (this.#config.unclassified_policy === "passthrough") return skip("unclassified");
        break;
      case "inference":
        // With the agent's own model named, another host that takes such calls is somebody else's.
        if (!this.#config.judge_inference && this.#ownModel === undefined) {
          return skip("inference_bypass");
        }
        break;
      case "action":
    }
    return this.#judged(context);
  }

  async #judged(context: RequestContext): Promise<Decision> {
    const intent = this.#deps.sessions?.intentOf(context);
    if (intent === undefined) return this.#withoutIntent(context);
    const action = describe(context, this.#config.max_action_chars);
    if (action === undefined) {
      return refuse(
        "judge_uncertain",
        403,
        "the action cannot be shown to the judge whole (max_action_chars)",
      );
    }
    const question = { intent: intent.text, action: action.text };
    const digest = hash("sha256", `${intent.text.length}:${intent.text}${action.key}`);
    const { verdict, isCached } = await this.#verdicts.rule(digest, (timeoutMs) =>
      this.#judge.ask({ ...question, timeoutMs }),
    );
    this.#deps.count(isCached ? "cached" : verdict.kind);
    return decisionOf(verdict, {
      action: bounded(action.text, maxShownChars),
      intent_preview: bounded(intent.text, maxIntentPreview),
      ...(intent.tie === undefined ? {} : { intent_tie: intent.tie }),
      ...(isCached ? { cached: true } : {}),
    });
  }

  #withoutIntent(context: RequestContext): Decision {
    const { sessions } = this.#deps;
    if (sessions?.isInDoubt(context) === true) {
      return refuse(
        "no_session",
        403,
        "several users' conversations are known and nothing ties this request to one of them (session.header, or a traceparent that the agent passes on)",
      );
    }
    const reason = context.sessionId === undefined ? "no_session" : "no_intent";
    if (this.#config.no_intent_policy === "allow") {
      return skip("no_user_context", { sub_reason: reason });
    }
    const message =
      reason === "no_session" ? "no session for this request" : "no recorded user intent";
    return refuse(reason, 403, message);
  }
}

type Shown = Readonly<Record<string, string | boolean>> & {
  readonly action: DescribedAction["text"];
};

function decisionOf(verdict: Verdict, shown: Shown): Decision {
  switch (verdict.kind) {
    case "allow":
      return allow("aligned", { ...shown, llm_reason: verdict.reason });
    case "deny": {
      const message = verdict.reason === "" ? "not what the user asked for" : verdict.reason;
      return refuse("blocked", 403, message, { ...shown, llm_reason: verdict.reason });
    }
    case "uncertain":
      return refuse("judge_uncertain", 403, verdict.why, shown);
    case "unavailable":
      return refuse("judge_unavailable", 503, verdict.why, shown);
  }
}

function refuse(
  reason: string,
  status: number,
  message: string,
  details?: Readonly<Record<string, string | boolean>>,
): Decision {
  return deny(reason, { code: `ibac.${reason}`, status, message }, details);
}

/** A host, also where the file has an address or a port. */
function hostOf(text: string): string {
  const url = text.includes("://") ? text : `http://${text}`;
  return URL.canParse(url) ? new URL(url).hostname.replace(/^\[|\]$/g, "") : text;
}
