/** mcp-parser: records what messages of the Model Context Protocol say, for the session and for plugins that judge. */
import { z } from "zod";
import { classifyRpc, messagesOf, type RpcMessage } from "../../http/json-rpc.ts";
import { compilePathGlob, type PathGlob } from "../../pattern/path-pattern.ts";
import { readPath } from "../../http/path.ts";
import { messageOf } from "../../errors.ts";
import {
  type Answer,
  definePlugin,
  type Frame,
  observe,
  type Plugin,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import {
  factOf,
  isMcpMethod,
  type McpFact,
  mcpFact,
  outcomeOf,
} from "../../protocols/mcp-message.ts";
import { jsonOf, mayBeJson, requestJson, unreadOf } from "../../protocols/message-json.ts";

const mcpParserConfig = z.strictObject({
  paths: z
    .array(
      z.string().superRefine((pattern, context) => {
        try {
          compilePathGlob(pattern);
        } catch (error) {
          context.addIssue({ code: "custom", message: messageOf(error) });
        }
      }),
    )
    .default(["/mcp"])
    .describe(
      "Paths at which a GET or DELETE without a body is MCP (opening a stream, ending a session). Default /mcp.",
    ),
});

type McpParserConfig = z.output<typeof mcpParserConfig>;

/** The definition that a pipeline names. */
export const mcpParser = definePlugin<McpParserConfig>({
  name: "mcp-parser",
  description: "Records what MCP messages say",
  config: mcpParserConfig,
  body: { request: "read" },
  observes: true,
  create: (config) => new McpParser(config),
});

/** Answers of one message that are recorded one by one; a stream may have any number. */
const mostRecorded = 50;

interface ParserState {
  /** Notifications and responses to the server get an empty response. */
  readonly isAcknowledged: boolean;
  readonly name: string;
  recorded: number;
}

class McpParser implements Plugin {
  readonly #paths: readonly PathGlob[];

  constructor(config: McpParserConfig) {
    this.#paths = config.paths.map((pattern) => compilePathGlob(pattern));
  }

  wantsBody(context: RequestContext): boolean {
    return mayBeJson(context);
  }

  wantsAnswer(context: RequestContext): boolean {
    return this.#stateOf(context) !== undefined;
  }

  onRequest(context: RequestContext): Answer {
    const fact = context.hasBody ? messageFact(context) : this.#transportFact(context);
    if (fact === undefined) return unreadOf(context);
    context.facts.set(mcpFact, fact);
    const name = `matched_${fact.method ?? "response"}`;
    const messages = fact.batch ?? [fact];
    const isAcknowledged = !messages.some(
      (one) => one.method !== undefined && one.rpcId !== undefined,
    );
    const isStream = fact.method === streamMethod;
    context.stateOf<ParserState>(this, () => ({
      isAcknowledged: isAcknowledged && !isStream,
      name,
      recorded: 0,
    }));
    return observe(name, detailsOf(fact));
  }

  onFrame(context: RequestContext, { data, last }: Frame): Answer {
    const state = this.#stateOf(context);
    if (state === undefined) return undefined;
    if (data.length === 0)
      return last ? (unreadOf(context.response) ?? emptyResponse(state, context)) : undefined;
    let answer: Answer = last ? ackResponse(state, context) : undefined;
    // A notification has no id, and progress is most of what long streams carry.
    if (!data.includes('"id"')) return answer;
    const json = jsonOf(data);
    const messages = json.kind === "json" ? messagesOf(classifyRpc(json.value)) : [];
    for (const message of messages) answer = this.#record(context, state, message) ?? answer;
    return answer;
  }

  #record(context: RequestContext, state: ParserState, message: RpcMessage): Answer {
    if (message.kind === "invalid" || message.kind === "notification") return undefined;
    const fact = context.facts.get(mcpFact) ?? {};
    // Of a batch each response makes a copy as long as it is.
    const isKept = fact.batch === undefined || state.recorded < mostRecorded;
    if (message.kind === "response" && isKept) context.facts.set(mcpFact, answered(fact, message));
    if (state.recorded > mostRecorded) return undefined;
    state.recorded += 1;
    if (state.recorded > mostRecorded) return observe(`${state.name}_response_truncated`);
    if (message.kind === "request") return observe(`server_${message.method.slice(0, 128)}`);
    return observe(message.error === undefined ? `${state.name}_response` : "response_error");
  }

  #transportFact(context: RequestContext): McpFact | undefined {
    const { method, headers } = context;
    const { readings } = readPath(context.pathname);
    if (!this.#paths.some((glob) => readings.some((path) => glob.matches(path)))) return undefined;
    if (method === "GET" && context.upgrade === undefined) return { method: streamMethod };
    return method === "DELETE" && headers.has("mcp-session-id")
      ? { method: "$transport/terminate" }
      : undefined;
  }

  #stateOf(context: RequestContext): ParserState | undefined {
    return context.stateOf<ParserState | undefined>(this, () => undefined);
  }
}

const streamMethod = "$transport/stream";

/** Fields that only clients of MCP send. */
const transportFields = ["mcp-protocol-version", "mcp-session-id", "mcp-method"];

function messageFact(context: RequestContext): McpFact | undefined {
  const json = requestJson(context);
  if (json.kind !== "json") return undefined;
  const body = classifyRpc(json.value);
  const messages = messagesOf(body);
  const isOurs =
    messages.some((message) => "method" in message && isMcpMethod(message.method)) ||
    (messages.some(({ kind }) => kind !== "invalid") &&
      transportFields.some((name) => context.headers.has(name)));
  return isOurs ? factOf(messages, body.kind === "batch") : undefined;
}

function detailsOf({ params, batch }: McpFact): Record<string, string | number> {
  const name = params?.["name"] ?? params?.["uri"];
  return {
    ...(typeof name === "string" ? { name: name.slice(0, 256) } : {}),
    ...(batch === undefined ? {} : { batch: batch.length }),
  };
}

function emptyResponse(state: ParserState, context: RequestContext): Answer {
  if (state.recorded > 0) return undefined;
  if (context.response !== undefined && context.response.status >= 300) return undefined;
  return ackResponse(state, context) ?? skip("no_response_body");
}

/** Servers of the older transport acknowledge every message with 202 and any words; its response comes on their stream. */
function ackResponse({ isAcknowledged, name }: ParserState, { response }: RequestContext): Answer {
  const status = response?.status ?? 200;
  return status === 202 || (isAcknowledged && status < 300) ? observe(`${name}_ack`) : undefined;
}

/** A copy: the request's event holds the view as it was then. */
function answered(
  fact: McpFact,
  message: Extract<RpcMessage, { readonly kind: "response" }>,
): McpFact {
  const outcome = outcomeOf(message);
  const { result: _result, error: _error, ...request } = fact;
  if (fact.batch === undefined) {
    return fact.rpcId === undefined || fact.rpcId === message.id
      ? { ...request, ...outcome }
      : fact;
  }
  const batch = fact.batch.map((one) =>
    one.rpcId !== undefined && one.rpcId === message.id ? { ...one, ...outcome } : one,
  );
  return fact.rpcId === message.id ? { ...request, ...outcome, batch } : { ...fact, batch };
}
