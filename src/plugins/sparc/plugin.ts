/**
 * sparc: a service says whether a tool call is grounded in the conversation that it came from, before it is made.
 *
 * No header of the agent switches it off, and a call that could not be judged passes only where the file says so
 * (docs/compatibility.md, sparc).
 */
import { compileHostGlob, type HostGlob } from "../../pattern/host-pattern.ts";
import {
  type BypassPaths,
  compileBypassPaths,
  compilePathGlob,
  type PathGlob,
} from "../../pattern/path-pattern.ts";
import { messageOf } from "../../errors.ts";
import { foldedName } from "../../http/json-access.ts";
import { readPath } from "../../http/path.ts";
import { callerOf } from "../../pipeline/flow.ts";
import {
  type BodyAccess,
  type Decision,
  deny,
  type Held,
  type Plugin,
  type PluginDeps,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import { classify, mcpActions } from "../../protocols/agent-action.ts";
import { endpointOf, isModelSocket } from "../../protocols/inference-endpoints.ts";
import { inferenceFact, type InferenceView } from "../../protocols/inference-view.ts";
import { type McpFact, mcpFact } from "../../protocols/mcp-message.ts";
import { mayBeJson, requestJson } from "../../protocols/message-json.ts";
import { bypassHostGlob, defaultBypassHosts, originOf } from "../config-values.ts";
import { inferenceEndpoint } from "../parsers/inference.ts";
import { clarification, reflected } from "./clarification.ts";
import { sparcConfig, type SparcConfig } from "./config.ts";
import { type Conversation, conversationOf, Conversations, type Owner } from "./conversations.ts";
import type { ToolCall } from "./reflector.ts";
import { ResponseGate } from "./response-gate.ts";
import { type Ruling, Rulings } from "./ruling.ts";
import { type SecretSet, sourceAt } from "../credentials/secret-set.ts";
import { defineSecretUser } from "../credentials/secret-users.ts";

/** The definition that a pipeline names. */
export const sparc = defineSecretUser<SparcConfig>({
  name: "sparc",
  description: "Has a reflection service judge whether tool calls are grounded in the conversation",
  config: sparcConfig,
  body: { request: "read", response: "read" },
  requiresAny: ["inference-parser", "mcp-parser"],
  origins: (config) => [originOf(config.reflector_endpoint)],
  readsSessions: true,
  sources: (config) => sourceAt(["reflector_bearer"], config.reflector_bearer),
  create: (config, deps, secrets) => new Sparc(config, deps, secrets),
});

/** What a response is judged with, once its request has been recognised. */
interface Memory {
  gate?: ResponseGate;
}

class Sparc implements Plugin {
  readonly body: BodyAccess;
  readonly onFrame?: NonNullable<Plugin["onFrame"]>;
  readonly #config: SparcConfig;
  readonly #rulings: Rulings;
  readonly #deps: PluginDeps;
  readonly #conversations: Held<Pick<Conversations, "remember" | "find">>;
  readonly #paths: BypassPaths;
  readonly #hosts: readonly HostGlob[];
  readonly #skipped: readonly PathGlob[];
  readonly #chosen: readonly PathGlob[];

  constructor(config: SparcConfig, deps: PluginDeps, secrets: SecretSet) {
    this.#config = config;
    this.#deps = deps;
    this.#rulings = new Rulings(config, deps, secrets);
    this.#paths = compileBypassPaths(config.bypass_paths);
    const hosts = config.bypass_hosts ?? defaultBypassHosts;
    this.#hosts = hosts.map((pattern) => compileHostGlob(bypassHostGlob(pattern)));
    this.#skipped = config.skip_tools.map((pattern) => compilePathGlob(pattern));
    this.#chosen = config.reflect_tools.map((pattern) => compilePathGlob(pattern));
    this.#conversations = deps.held(
      `sparc conversations ${deps.instance}`,
      ["remember", "find"],
      () => new Conversations(),
    );
    const isGate = config.enforcement === "inference";
    this.body = isGate ? { request: "read", response: "read" } : { request: "read" };
    if (isGate) {
      this.onFrame = (context, frame) => this.#memory(context).gate?.onFrame(context, frame);
    } else if (deps.sessions === undefined) {
      deps.log.warn(
        { fail_policy: config.fail_policy },
        "session.enabled is false: no conversation is known that calls of MCP tools could be judged in",
      );
    }
  }

  wantsBody(context: RequestContext): boolean {
    if (this.#bypassOf(context) !== undefined) return false;
    return this.#config.enforcement === "mcp"
      ? mayBeJson(context)
      : inferenceEndpoint(context) !== undefined;
  }

  wantsAnswer(context: RequestContext): boolean {
    return this.#memory(context).gate !== undefined;
  }

  onRequest(context: RequestContext): Decision | undefined | Promise<Decision | undefined> {
    const bypass = this.#bypassOf(context);
    if (bypass !== undefined) return skip(bypass);
    return this.#config.enforcement === "mcp"
      ? this.#judgeCalls(context)
      : this.#expectResponse(context);
  }

  #judgeCalls(context: RequestContext): Decision | undefined | Promise<Decision | undefined> {
    const view = context.facts.get(inferenceFact);
    const remembering = view === undefined ? undefined : this.#remember(context, view);
    return remembering === undefined
      ? this.#judgeActions(context)
      : remembering.then((refusal) => refusal ?? this.#judgeActions(context));
  }

  /** A promise where another thread has the conversations, which must know it before the model can ask for a call. */
  #remember(
    context: RequestContext,
    view: InferenceView,
  ): Promise<Decision | undefined> | undefined {
    const owner = this.#ownerOf(context);
    const conversation = conversationOf(view);
    if (owner === undefined || conversation === undefined) return undefined;
    const bytes = context.clearBody?.kind === "body" ? context.clearBody.bytes.length : 0;
    const remembering = this.#conversations.remember(owner, conversation, bytes);
    if (!(remembering instanceof Promise)) return undefined;
    const done = (): undefined => undefined;
    return remembering.then(done, (error: unknown) => {
      this.#deps.count("state_away");
      if (this.#config.fail_policy === "open") return undefined;
      const message = `the conversation cannot be kept: ${messageOf(error)}`;
      return deny("state_away", { code: "state.unavailable", message, unavailable: true });
    });
  }

  async #find(context: RequestContext): Promise<Conversation | undefined> {
    const owner = this.#ownerOf(context);
    if (owner === undefined) return undefined;
    const isInDoubt = this.#deps.sessions?.isInDoubt(context) === true;
    try {
      return await this.#conversations.find(owner, isInDoubt);
    } catch {
      return undefined;
    }
  }

  #ownerOf(context: RequestContext): Owner | undefined {
    const scope = this.#deps.sessions?.scopeOf(context);
    return scope && { caller: callerOf(context.flow.client), ...scope };
  }

  #judgeActions(context: RequestContext): Decision | undefined | Promise<Decision> {
    const found = classify(context);
    if (found.kind === "unparsable")
      return this.#onCall(context, this.#rulings.unparsable(found.why));
    if (found.kind === "mechanics") return skip("protocol_mechanics");
    if (found.kind !== "action") return undefined;
    const made = mcpActions(context.facts.get(mcpFact)).filter(
      ({ method }) => method === "tools/call",
    );
    if (made.length === 0) return skip("not_tool_call");
    const calls: ToolCall[] = [];
    for (const fact of made) {
      const call = callOf(fact);
      if (typeof call === "string") return this.#onCall(context, this.#rulings.unparsable(call));
      if (!this.#isSkipped(call.name)) calls.push(call);
    }
    if (calls.length === 0) return skip("tool_skipped");
    return this.#find(context)
      .then((conversation) => this.#rulings.of(context, calls, conversation))
      .then((ruling) => this.#onCall(context, ruling));
  }

  /** The ruling on calls of MCP tools, in the form that their client understands. */
  #onCall(context: RequestContext, ruling: Ruling): Decision {
    if (ruling.kind === "pass") return ruling.decision;
    const { action, reason, message, details } = ruling;
    if (action === "closed") {
      return deny(reason, { code: `sparc.${reason}`, status: 503, message }, details);
    }
    const result =
      action === "reflect" ? reflected(context, clarification(ruling.issues), details) : undefined;
    return result ?? deny(reason, { code: "sparc.blocked", status: 403, message }, details);
  }

  #expectResponse(context: RequestContext): Decision | undefined {
    const endpoint = inferenceEndpoint(context);
    if (endpoint === undefined) return this.#refuseUpgrade(context);
    const request = context.facts.get(inferenceFact);
    if (request !== undefined) {
      this.#memory(context).gate = new ResponseGate(
        {
          mayStop: this.#rulings.mayStop,
          unparsable: (why) => this.#rulings.unparsable(why),
          rule: (asked, calls, view) => {
            const judged = calls.filter(({ name }) => !this.#isSkipped(name));
            if (judged.length === 0) return undefined;
            return this.#rulings.of(
              asked,
              judged.map(({ id = "", name, arguments: args = "{}" }) => ({
                id,
                name,
                arguments: args,
              })),
              conversationOf(view),
            );
          },
        },
        endpoint.dialect,
        request,
      );
      return undefined;
    }
    // What the parser could not read its server may, and would answer with calls that nobody judges.
    const json = requestJson(context);
    if (context.unread === undefined && json.kind !== "invalid") return undefined;
    const why = context.unread?.message ?? (json.kind === "invalid" ? json.reason : "");
    return this.#onCall(context, this.#rulings.unparsable(why));
  }

  /** Over another protocol than HTTP, calls would come that nobody judges. */
  #refuseUpgrade(context: RequestContext): Decision | undefined {
    if (context.upgrade === undefined) return undefined;
    const { readings } = readPath(context.path);
    const isModel = readings.some(
      (path) => isModelSocket(path) || endpointOf("POST", path) !== undefined,
    );
    if (!isModel) return undefined;
    return this.#onCall(context, this.#rulings.unparsable("a language model over an upgrade"));
  }

  #bypassOf({ path, destination: { host } }: RequestContext): string | undefined {
    if (this.#paths.matches(path)) return "path_bypass";
    return this.#hosts.some((glob) => glob.matches(host)) ? "host_bypass" : undefined;
  }

  #isSkipped(name: string): boolean {
    if (this.#skipped.some((glob) => glob.matches(name))) return true;
    return this.#chosen.length > 0 && !this.#chosen.some((glob) => glob.matches(name));
  }

  #memory(context: RequestContext): Memory {
    return context.stateOf<Memory>(this, () => ({}));
  }
}

/** A call of a tool, or why its server may read another one in it. */
function callOf({ params = {}, rpcId = "" }: McpFact): ToolCall | string {
  for (const name of Object.keys(params)) {
    const folded = foldedName(name);
    if (folded !== name && (folded === "name" || folded === "arguments")) {
      return `a parameter is spelled ${JSON.stringify(name.slice(0, 32))}`;
    }
  }
  const { name, arguments: args = {} } = params;
  if (typeof name !== "string") return "a call names no tool";
  return { id: String(rpcId), name, arguments: JSON.stringify(args) };
}
