/** opa: asks a policy written in Rego about every message, in both directions and both phases. */
import { randomUUID } from "node:crypto";
import { readPath } from "../../http/path.ts";
import type { DecisionPath, Evaluation } from "../../opa/decision-engine.ts";
import { readVerdict } from "../../opa/verdict.ts";
import {
  allow,
  type BodyAccess,
  type Decision,
  deny,
  type Frame,
  type Plugin,
  type PluginDeps,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import { originOf } from "../config-values.ts";
import { OpaResponses } from "./responses.ts";
import { AgentId } from "./agent-id.ts";
import { opaConfig, type OpaConfig } from "./config.ts";
import { DecisionLog } from "./decision-log.ts";
import { type HeldEngine, holdEngine } from "./engine.ts";
import {
  answeredInputs,
  IncludedParts,
  type JsonObject,
  parsedInputs,
  parsersOf,
  type ResponseFacts,
  shownFindings,
} from "../parsers/policy-input.ts";
import { flatHeaders, requestInput } from "./input.ts";
import { type SecretSet, sourceAt } from "../credentials/secret-set.ts";
import { defineSecretUser } from "../credentials/secret-users.ts";

/** The definition that a pipeline names. */
export const opa = defineSecretUser<OpaConfig>({
  name: "opa",
  description:
    "Asks an OPA policy, compiled to WebAssembly or on an OPA server, about each message",
  config: opaConfig,
  stages: ["connect", "request"],
  behind: ({ include }) => parsersOf(include),
  missed: ({ include }) => parsersOf(include),
  bestBehind: shownFindings,
  origins: ({ bundle_url: bundle, redirect_origins: others, server_url: server }) => {
    if (bundle !== undefined) return [bundle, ...others].map(originOf);
    if (server === undefined) return [];
    return [server.startsWith("unix://") ? server : originOf(server)];
  },
  sources: (config) => sourceAt(["bearer_token"], config.bearer_token),
  create: (config, deps, secrets) => new Opa(config, deps, secrets),
});

type Phase = "request" | "response";

/** Decisions that one message may cost. */
const maxDocuments = 100;

/** The input for a request, kept for its response: credentials are attached in between. */
interface Asked {
  /** One for each reading of the path: all of them have to be allowed. */
  inputs: readonly JsonObject[] | undefined;
}

class Opa implements Plugin {
  readonly body: BodyAccess;
  readonly onFrame?: NonNullable<Plugin["onFrame"]>;
  readonly #config: OpaConfig;
  readonly #deps: PluginDeps;
  readonly #parts: IncludedParts;
  readonly #responses: OpaResponses;
  readonly #agentId: AgentId;
  readonly #held: HeldEngine;
  readonly #log: DecisionLog;

  /** Throws an Error when a local bundle cannot be used. */
  constructor(config: OpaConfig, deps: PluginDeps, secrets: SecretSet) {
    this.#config = config;
    this.#deps = deps;
    this.#parts = new IncludedParts(config.include);
    this.#agentId = new AgentId(config, deps);
    this.#held = holdEngine(config, deps, { agentId: () => this.#agentId.current(), secrets });
    this.#log = new DecisionLog(config.decision_log, deps.log);
    this.#responses = new OpaResponses(this.#parts);
    const { isNeeded } = this.#responses;
    this.body = isNeeded ? { response: "read" } : {};
    if (isNeeded) this.onFrame = (context, frame) => this.#judgeFrame(context, frame);
  }

  async start(): Promise<void> {
    await this.#held.start();
  }

  ready(): true | string {
    return this.#held.engine.ready();
  }

  close(): void {
    this.#held.release();
  }

  async onRequest(context: RequestContext): Promise<Decision> {
    const isConnect = context.stage === "connect";
    const { readings, ambiguous } = readPath(context.pathname, { slashIsData: true });
    if (!isConnect && ambiguous !== undefined) {
      const message = `the path can be read in more than one way: ${ambiguous}`;
      return deny("ambiguous_path", { code: "request.malformed", message });
    }
    // A policy that does not get the content of a message would judge another one.
    if (context.unread !== undefined) return deny("body_unread", context.unread);
    const agent = this.#agentId.current();
    const inputs = (isConnect ? [""] : readings).map((path) => ({
      ...requestInput(context, path),
      ...(agent === undefined ? {} : { agent: { client_id: agent } }),
    }));
    context.stateOf<Asked>(this, () => ({ inputs: undefined })).inputs = inputs;
    return this.#judgeAll(context, "request", combined(inputs, parsedInputs(context, this.#parts)));
  }

  /** A policy that a service decides or holds is not known where nobody is asked. */
  async rehearseRequest(context: RequestContext): Promise<Decision> {
    const { bundle_path: path, server_url: server } = this.#config;
    if (path !== undefined) return this.onRequest(context);
    const message = `the policy of ${server === undefined ? "bundle_url" : "server_url"} is not asked for in a rehearsal; with bundle_path it is judged`;
    return deny("not_rehearsed", { code: "upstream.unreachable", message });
  }

  wantsAnswerBody(context: RequestContext): boolean {
    return this.#responses.isNeededFor(context);
  }

  onResponse(context: RequestContext): Promise<Decision> {
    return this.#judgeResponse(context, this.#responses.whole(context));
  }

  /** Whole bodies were judged with the head. */
  #judgeFrame(context: RequestContext, frame: Frame): Promise<Decision> | undefined {
    const facts = this.#responses.event(context, frame);
    return facts === undefined ? undefined : this.#judgeResponse(context, facts);
  }

  #judgeResponse(context: RequestContext, facts: ResponseFacts): Promise<Decision> {
    const { response } = context;
    if (facts.problem !== undefined) {
      const denial = { code: "upstream.bad-response", message: facts.problem };
      return Promise.resolve(deny("response_unreadable", denial));
    }
    const { inputs = [requestInput(context, "")] } = context.stateOf<Asked>(this, () => ({
      inputs: undefined,
    }));
    const judged = {
      response: {
        status_code: response?.status ?? 0,
        headers: response === undefined ? {} : flatHeaders(response.headers),
      },
    };
    const parsed = answeredInputs(context, facts, this.#parts);
    const documents = combined(inputs, parsed).map((each) => ({ ...each, ...judged }));
    return this.#judgeAll(context, "response", documents);
  }

  /** Every document is judged: one refusal refuses, and only when all are allowed it is consent. */
  async #judgeAll(
    context: RequestContext,
    phase: Phase,
    documents: readonly JsonObject[],
  ): Promise<Decision> {
    if (documents.length > maxDocuments) {
      const message = `a batch of more than ${maxDocuments} messages cannot be judged`;
      return deny("batch_too_large", { code: "policy.forbidden", message });
    }
    let weakest: Decision | undefined;
    for (const document of documents) {
      const decision = await this.#judge(context, phase, document);
      if (decision.action === "deny") return decision;
      if (weakest?.action !== "skip") weakest = decision;
    }
    return weakest ?? skip("nothing_to_judge");
  }

  async #judge(context: RequestContext, phase: Phase, document: JsonObject): Promise<Decision> {
    const path: DecisionPath = `authbridge/${context.flow.direction}/${phase}`;
    const startedAt = performance.now();
    const evaluation = await this.#held.engine.evaluate(path, JSON.stringify(document));
    const latencyMs = performance.now() - startedAt;
    const id = (evaluation.kind === "fault" ? undefined : evaluation.decisionId) ?? randomUUID();
    const decision = this.#decide(evaluation, {
      path,
      id,
      prefix: phase === "request" ? "" : "response_",
    });
    if (evaluation.kind === "fault")
      this.#deps.count(`decision_${evaluation.fault.replace("-", "_")}`);
    this.#log.write({
      id,
      path,
      flow: context.flow.id,
      latencyMs,
      decision,
      headers: document["headers"],
    });
    return decision;
  }

  #decide(evaluation: Evaluation, { path, id, prefix }: Question): Decision {
    const details = { decision_id: id, decision_path: path };
    const forbid = (reason: string, message: string, more: Readonly<Record<string, string>> = {}) =>
      deny(`${prefix}${reason}`, { code: "policy.forbidden", message }, { ...details, ...more });
    if (evaluation.kind === "undefined") {
      if (this.#config.on_undefined === "allow") return skip("no_policy_rule", details);
      return deny(
        "no_policy_rule",
        { code: "policy.forbidden", message: `the policy defines no decision for ${path}` },
        details,
      );
    }
    if (evaluation.kind === "value") {
      const verdict = readVerdict(evaluation.value);
      if (verdict.allowed) return allow(`${prefix}policy_allowed`, details);
      return forbid("policy_denied", verdict.reason, { opa_reason: verdict.reason });
    }
    const { fault, message: error } = evaluation;
    const fail = (reason: string, message: string) =>
      deny(
        `${prefix}${reason}`,
        { code: "policy.forbidden", message, unavailable: true },
        { ...details, error },
      );
    switch (fault) {
      case "not-ready": {
        const message = "opa policy engine not initialized";
        return deny(
          "opa_not_ready",
          { code: "upstream.unreachable", message },
          { ...details, error },
        );
      }
      case "overloaded":
        return deny("opa_overloaded", { code: "proxy.overloaded", message: error }, details);
      case "timeout":
        return fail("decision_timeout", "OPA decision timed out");
      case "error":
        // What went wrong may say more about the policy than a client should know.
        return fail("decision_error", "OPA decision error");
    }
  }
}

interface Question {
  readonly path: DecisionPath;
  readonly id: string;
  readonly prefix: "" | "response_";
}

function combined(inputs: readonly JsonObject[], parsed: readonly JsonObject[]): JsonObject[] {
  return inputs.flatMap((input) => parsed.map((each) => ({ ...input, ...each })));
}
