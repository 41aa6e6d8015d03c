/** tool-policy: which tools of MCP servers a caller may call, and with which arguments; what no rule allows is refused. */
import { messageOf } from "../../errors.ts";
import { readPath } from "../../http/path.ts";
import { classifyRpc, messagesOf, type RpcMessage } from "../../http/json-rpc.ts";
import {
  allow,
  type Answer,
  type ApprovalGate,
  askPerson,
  type Decision,
  type DecisionDetails,
  definePlugin,
  type Denial,
  deny,
  type Frame,
  type Plugin,
  type PluginDeps,
  replaceFrame,
  type RequestContext,
  type RpcRefusal,
} from "../../pipeline/plugin.ts";
import { GuardedServer } from "../../policy/tools/guarded-server.ts";
import { type Pins, ToolPins } from "../../policy/tools/tool-pins.ts";
import { AwaitedResponses } from "./awaited-responses.ts";
import { headerDisagreement, headerMismatch } from "../../protocols/mcp-headers.ts";
import { bodyProblem, callerOf, notRpc, transportProblem } from "./transport.ts";
import { strayProblem } from "./stray-message.ts";
import { exactJsonOf, jsonOf } from "../../protocols/message-json.ts";
import { type ResponseScope, filterResponse, tellRemoved } from "./response.ts";
import { idOf, malformedReason, nameOf, type Refusal } from "./malformed.ts";
import { isAboutTools, SharedPins } from "../parsers/shared-pins.ts";
import { inOneLine, isAcknowledgement, isEventStream, isRpc } from "./response-forms.ts";
import { judgesTokens, toolPolicyConfig, type ToolPolicyConfig } from "./config.ts";

/** The definition that a pipeline names. */
export const toolPolicy = definePlugin<ToolPolicyConfig>({
  name: "tool-policy",
  description: "Default-deny rules over the tools of MCP servers, callers and arguments",
  config: toolPolicyConfig,
  stages: ["connect", "request"],
  body: { request: "read" },
  requires: ["mcp-parser"],
  behind: (config) => (judgesTokens(config) ? ["jwt-validation"] : []),
  create: (config, deps) => new ToolPolicy(config, deps),
});

class ToolPolicy implements Plugin {
  readonly #config: ToolPolicyConfig;
  readonly #deps: PluginDeps;
  readonly #servers: readonly GuardedServer[];
  readonly #binaries: readonly string[];
  readonly #pins: Pins | undefined;
  readonly #awaited: AwaitedResponses;
  readonly #gate: ApprovalGate | undefined;

  constructor(config: ToolPolicyConfig, deps: PluginDeps) {
    this.#config = config;
    this.#gate = deps.approvals?.gate(JSON.stringify(config));
    this.#deps = deps;
    this.#servers = config.servers.map((server) => new GuardedServer(server));
    const rules = config.servers.flatMap((server) => server.rules);
    this.#binaries = rules.flatMap((rule) => rule.callers?.binaries ?? []);
    const makePins = (): Pins => (deps.state.isKept ? new SharedPins(deps) : new ToolPins());
    this.#pins = config.tools.pin ? deps.carry("pins", makePins) : undefined;
    this.#awaited = deps.carry("awaited", () => new AwaitedResponses(deps));
  }

  callerLinks(): readonly string[] | undefined {
    return this.#binaries.length === 0 ? undefined : this.#binaries;
  }

  wantsBody(context: RequestContext): boolean {
    return this.#serverOf(context) !== undefined;
  }

  wantsAnswer(context: RequestContext): boolean {
    return this.#scopeOf(context) !== undefined;
  }

  onRequest(context: RequestContext): Answer | Promise<Answer> {
    if (context.stage === "connect") return this.#judgeConnect(context);
    const server = this.#serverOf(context);
    if (server === undefined) return this.#judgeOther(context);
    if (!(server instanceof GuardedServer)) {
      const message = `the path can be read in more than one way: ${server.doubt}`;
      return this.#refuse("ambiguous_path", { code: "request.malformed", message, rpc: notRpc });
    }
    const problem = transportProblem(context);
    if (problem !== undefined) return this.#refuse(problem.reason, problem.denial);
    const scope = this.#makeScope(context, server);
    context.stateOf<ResponseScope>(this, () => scope);
    if (context.method !== "POST") return allow("transport", { server: server.name });
    return this.#withPins(context, scope, () => this.#judgeBody(context, scope));
  }

  /** Judges by what all replicas have pinned, as far as the message is about tools. */
  #withPins(
    context: RequestContext,
    scope: ResponseScope,
    judge: () => Decision | Promise<Decision>,
  ): Decision | Promise<Decision> {
    const pins = this.#pins;
    if (!(pins instanceof SharedPins) || !isAboutTools(context)) return judge();
    const away = (error: unknown): Decision | Promise<Decision> => {
      this.#deps.count("state_away");
      return this.#config.tools.pins_when_away === "local" ? judge() : this.#refusePinless(error);
    };
    return Promise.resolve(pins.load(scope.serverKey)).then(judge, away);
  }

  #refusePinless(error: unknown): Decision {
    const message = `it cannot be seen whether tools have changed: ${messageOf(error)} (tools.pins_when_away: local lets what this process has seen count)`;
    return this.#refuse("state_away", { code: "state.unavailable", message, unavailable: true });
  }

  /** A tunnel to a guarded server is opened by the bridge, or not at all. */
  #judgeConnect({ destination, tunnelTerms }: RequestContext): Answer {
    const server = this.#servers.find((candidate) => candidate.isAt(destination));
    if (server !== undefined) tunnelTerms.mustInspect = `tool-policy server '${server.name}'`;
    return undefined;
  }

  /** The server that guards the request's path, or why that cannot be said. */
  #serverOf(context: RequestContext): GuardedServer | { readonly doubt: string } | undefined {
    const servers = this.#servers.filter((server) => server.isAt(context.destination));
    if (servers.length === 0) return undefined;
    const { readings, remote, ambiguous } = readPath(context.pathname);
    if (ambiguous !== undefined) return { doubt: ambiguous };
    const found = new Set(
      [...readings, ...remote].map((path) => servers.find((server) => server.guards(path))),
    );
    found.delete(undefined);
    const names = [...found].map((server) => `'${server?.name}'`).join(" and ");
    return found.size > 1 ? { doubt: `it is a path of ${names}` } : [...found][0];
  }

  #judgeOther(context: RequestContext): Answer {
    if (this.#config.other_servers === "ignore") return undefined;
    const problem = strayProblem(context);
    return problem && this.#refuse(problem.reason, problem.denial);
  }

  #judgeBody(context: RequestContext, scope: ResponseScope): Decision | Promise<Decision> {
    const problem = bodyProblem(context);
    if (problem !== undefined) return this.#refuse(problem.reason, problem.denial);
    const clear = context.clearBody;
    const json = clear?.kind === "body" ? exactJsonOf(clear.bytes) : undefined;
    if (json?.kind !== "json") {
      const message = `the body is ${json?.reason ?? "not there"}`;
      return this.#refuse("unparsable", { code: "request.malformed", message, rpc: notRpc });
    }
    const body = classifyRpc(json.value);
    const isBatch = body.kind === "batch";
    const messages = messagesOf(body);
    const ids = messages.flatMap((message) => (message.kind === "request" ? [message.id] : []));
    const rpc = { ids: isBatch ? ids : messages.flatMap(idOf), isBatch };
    scope.rpc = rpc;
    const malformed = malformedReason(messages);
    if (malformed !== undefined) {
      const denial: Denial = { code: "request.malformed", message: malformed };
      return this.#refuse("malformed", { ...denial, rpc: { ...rpc, status: 400 } });
    }
    const disagreement = headerDisagreement(context.headers, body);
    if (disagreement !== undefined) {
      const denial: Denial = { code: "request.malformed", message: disagreement };
      const said = { ...rpc, status: 400, code: headerMismatch };
      return this.#refuse("header_mismatch", { ...denial, rpc: said });
    }
    for (const message of messages) {
      const refusal = this.#judgeMessage(scope, message);
      if (refusal === undefined) continue;
      if (refusal.isAsked !== true) return this.#refuseMessage(refusal, rpc);
      if (messages.length === 1) return this.#ask(context, scope, { message, refusal });
      const why = `${refusal.message}, which is not asked for in a batch: send the calls one by one`;
      return this.#refuseMessage({ ...refusal, reason: "approval_in_batch", message: why }, rpc);
    }
    return allow("tool_allowed", { server: scope.server.name, calls: messages.length });
  }

  /** A person decides; the caller gets a refusal as an error of JSON-RPC. */
  async #ask(
    context: RequestContext,
    scope: ResponseScope,
    asked: { readonly message: RpcMessage; readonly refusal: Refusal },
  ): Promise<Decision> {
    const { rule, message: reason } = asked.refusal;
    const { rpc } = scope;
    const decision = await askPerson(this.#gate, context, { rule, reason });
    if (decision.action === "deny")
      return this.#refuse(decision.reason, { ...decision.denial, rpc }, decision.details);
    // Somebody may have listed it otherwise while it waited.
    return this.#withPins(context, scope, () => {
      const again = this.#judgeMessage(scope, asked.message);
      return again === undefined || again.isAsked === true
        ? decision
        : this.#refuseMessage(again, rpc);
    });
  }

  #refuseMessage(refusal: Refusal, rpc: RpcRefusal): Decision {
    const { reason, details, isAsked: _, ...denial } = refusal;
    return this.#refuse(reason, { ...denial, rpc }, details);
  }

  /** Why one message is refused; undefined when it may go on. */
  #judgeMessage(scope: ResponseScope, message: RpcMessage): Refusal | undefined {
    const { server, caller } = scope;
    if (message.kind === "invalid") return undefined;
    if (message.kind === "response") {
      if (this.#awaited.take(scope.conversation, message.id)) return undefined;
      const text = "this answers no request that the server was allowed to send";
      return { reason: "unasked_answer", code: "policy.forbidden", message: text };
    }
    const { method, params } = message;
    const verdict = server.judge(caller, method, params);
    const name = nameOf(params);
    const isChanged = name !== undefined && this.#pins?.isChanged(scope.serverKey, name) === true;
    if (method === "tools/call" && isChanged && (verdict.isAllowed || verdict.isAsked === true)) {
      const text = `The tool ${JSON.stringify(name.slice(0, 128))} has changed its description or schema since it was first seen and is refused. Use another tool, and tell the operator.`;
      return {
        reason: "tool_changed",
        code: "policy.forbidden",
        message: text,
        details: { tool: name },
      };
    }
    if (verdict.isAllowed) return undefined;
    return {
      reason: verdict.reason,
      code: "policy.forbidden",
      message: verdict.message,
      rule: verdict.rule,
      ...(verdict.isAsked === true && { isAsked: true }),
      details: {
        server: server.name,
        method: method.slice(0, 128),
        ...(name === undefined ? {} : { tool: name.slice(0, 128) }),
        ...(verdict.rule === undefined ? {} : { rule: verdict.rule }),
      },
    };
  }

  onFrame(context: RequestContext, frame: Frame): Answer {
    const scope = this.#scopeOf(context);
    if (scope === undefined || frame.data.length === 0) return undefined;
    scope.isStream ??= isEventStream(context);
    return scope.isStream
      ? this.#judgeEvent(scope, frame)
      : this.#judgeResponse(context, scope, frame.data);
  }

  #judgeEvent(scope: ResponseScope, { data, event }: Frame): Answer {
    // Events of other types are not read by clients, unless they look like messages.
    const isMessage = event === undefined || event === "message";
    const json = jsonOf(data);
    if (json.kind === "invalid") {
      if (!isMessage) return undefined;
      // Somebody waits for the response that this may have been.
      return scope.rpc.ids.length > 0
        ? this.#refuseResponse(scope, `the server's event is ${json.reason}`)
        : this.#dropFrame(scope);
    }
    if (!isMessage && (typeof json.value !== "object" || json.value === null)) return undefined;
    const filtered = filterResponse(json.value, data, scope);
    if (filtered === undefined) return inOneLine(data);
    const text = filtered.json;
    return text === undefined
      ? replaceFrame("answer_removed", undefined)
      : (inOneLine(Buffer.from(text)) ?? replaceFrame("answer_filtered", Buffer.from(text)));
  }

  /** An error of HTTP may have any body; what succeeds must be JSON-RPC, unless it only acknowledges. */
  #judgeResponse(context: RequestContext, scope: ResponseScope, data: Buffer): Answer {
    const { status = 200 } = context.response ?? {};
    const json = jsonOf(data);
    if (status >= 300 && (json.kind === "invalid" || !isRpc(json.value))) return undefined;
    // What acknowledges carries no message: the status is all that its client reads.
    const nothing = isAcknowledgement(context, scope, status)
      ? replaceFrame("acknowledgement_emptied", Buffer.alloc(0))
      : undefined;
    if (json.kind === "invalid") {
      return nothing ?? this.#refuseResponse(scope, `the server's answer is ${json.reason}`);
    }
    const filtered = filterResponse(json.value, data, scope);
    if (filtered === undefined) return undefined;
    const text = filtered.json;
    return text === undefined
      ? (nothing ?? this.#refuseResponse(scope, "the server sent nothing that its client may get"))
      : replaceFrame("answer_filtered", Buffer.from(text));
  }

  #dropFrame(scope: ResponseScope): Decision {
    scope.onRemoved({ kind: "malformed" });
    return replaceFrame("unparsable_event", undefined);
  }

  #refuseResponse({ rpc }: ResponseScope, message: string): Decision {
    return this.#refuse("answer_refused", { code: "upstream.bad-response", message, rpc });
  }

  #refuse(reason: string, denial: Denial, details: DecisionDetails = {}): Decision {
    this.#deps.count("denied");
    return deny(reason, denial, details);
  }

  #scopeOf(context: RequestContext): ResponseScope | undefined {
    return context.stateOf<ResponseScope | undefined>(this, () => undefined);
  }

  #makeScope(context: RequestContext, server: GuardedServer): ResponseScope {
    const { authority } = context.destination;
    const session = context.headers.get("mcp-session-id") ?? "";
    const conversation = JSON.stringify([server.name, authority, session]);
    const scope: ResponseScope = {
      server,
      caller: callerOf(context),
      conversation,
      serverKey: `${server.name} ${authority}`,
      pins: this.#pins,
      rpc: notRpc,
      onServerRequest: (id) => this.#awaited.add(conversation, id),
      isTold: false,
      onRemoved: (what) => tellRemoved(scope, what, this.#deps),
    };
    return scope;
  }
}
