/** What policies of services are shown of what the parsers read. */
import { isObject } from "../../http/json-access.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import { a2aFact } from "../../protocols/a2a-message.ts";
import { inferenceFact } from "../../protocols/inference-view.ts";
import { mcpFact } from "../../protocols/mcp-message.ts";

/** A JSON object under construction. */
export type JsonObject = Record<string, unknown>;

/** Who finds what policies are shown, besides the fields of the message. */
export const shownFindings: readonly string[] = [
  "jwt-validation",
  "mcp-parser",
  "a2a-parser",
  "inference-parser",
];

/** The parsers that find these parts. */
export function parsersOf(include: readonly string[]): string[] {
  return [...new Set(include.map((key) => `${key.split(".", 1)[0] ?? ""}-parser`))];
}

/** Which heavy parts the file asks for. */
export class IncludedParts {
  readonly #keys: ReadonlySet<string>;

  constructor(keys: readonly string[]) {
    this.#keys = new Set(keys);
  }

  has(key: string): boolean {
    return this.#keys.has(key);
  }

  hasParameter(name: string): boolean {
    if (name === "name" || name === "uri") return true;
    return this.#keys.has("mcp.params") || this.#keys.has(`mcp.params.${name}`);
  }

  /** True when responses to MCP calls have to be read. */
  get readsResults(): boolean {
    return this.#keys.has("mcp.result") || this.#keys.has("mcp.error");
  }

  /** True when responses of language models have to be read. */
  get readsCompletions(): boolean {
    return this.#keys.has("inference.completion") || this.#keys.has("inference.tool_calls");
  }

  /** True when responses of agents have to be read. */
  get readsTasks(): boolean {
    return this.#keys.has("a2a.content");
  }
}

/**
 * What parsers earlier in the pipeline read of the message, as far as it is included: one document for each message of a
 * batch, else one.
 */
export function parsedInputs(
  context: RequestContext,
  parts: IncludedParts,
  { inference, a2a }: Partial<ResponseFacts> = {},
): JsonObject[] {
  if (!context.hasFacts) return [{}];
  const { facts } = context;
  const model = part("inference", inference ?? facts.get(inferenceFact), parts, inferenceInput);
  const tools = messagesOf(facts.get(mcpFact)).map((one) => part("mcp", one, parts, mcpInput));
  const agents = messagesOf(a2a ?? facts.get(a2aFact)).map((one) =>
    part("a2a", one, parts, a2aInput),
  );
  // One body is a batch of one protocol at most.
  const longer = tools.length > 1 ? tools : agents;
  return longer.map((each) => ({ ...model, ...tools[0], ...agents[0], ...each }));
}

/** What is known of a response's body besides what was asked. */
export interface ResponseFacts {
  /** JSON-RPC responses. */
  readonly results: readonly JsonObject[];
  /** Views of a call and its response so far, in place of those of the call alone. */
  readonly inference?: unknown;
  readonly a2a?: unknown;
  /** Why not all of the response can be shown: what a policy does not see it does not allow. */
  readonly problem?: string | undefined;
}

/** The same for a response: one document for each result in it, else as for the request. */
export function answeredInputs(
  context: RequestContext,
  facts: ResponseFacts,
  parts: IncludedParts,
): JsonObject[] {
  const inputs = parsedInputs(context, parts, facts);
  if (facts.results.length === 0) return inputs;
  const calls = messagesOf(context.facts.get(mcpFact));
  return facts.results.map(({ id, result, error }) => {
    const call = calls.find((one) => one?.["rpcId"] === id) ?? calls[0];
    return { ...inputs[0], mcp: mcpInput({ ...call, result, error }, parts) };
  });
}

function messagesOf(fact: unknown): readonly (JsonObject | undefined)[] {
  if (!isObject(fact)) return [undefined];
  const { batch } = fact;
  return Array.isArray(batch) && batch.length > 0 ? (batch as unknown[]).filter(isObject) : [fact];
}

function part(
  name: string,
  fact: unknown,
  parts: IncludedParts,
  make: (fact: JsonObject, parts: IncludedParts) => JsonObject,
): JsonObject {
  return isObject(fact) ? { [name]: make(fact, parts) } : {};
}

function a2aInput(fact: JsonObject, parts: IncludedParts): JsonObject {
  return {
    method: text(fact["method"]),
    session_id: text(fact["sessionId"]),
    task_id: text(fact["taskId"]),
    role: text(fact["role"]),
    ...(parts.has("a2a.content")
      ? {
          ...present("message_id", fact["messageId"]),
          ...list("parts", fact["parts"], ["kind", "content"]),
          ...present("final_status", fact["finalStatus"]),
          ...present("artifact", fact["artifact"]),
          ...present("error_message", fact["errorMessage"]),
        }
      : {}),
  };
}

function mcpInput(fact: JsonObject, parts: IncludedParts): JsonObject {
  const { params } = fact;
  const shown = isObject(params)
    ? Object.entries(params).filter(([name]) => parts.hasParameter(name))
    : [];
  return {
    method: text(fact["method"]),
    ...(shown.length === 0 ? {} : { params: Object.fromEntries(shown) }),
    ...(parts.has("mcp.result") ? present("result", fact["result"]) : {}),
    ...(parts.has("mcp.error") ? present("error", fact["error"] ?? fact["err"]) : {}),
  };
}

function inferenceInput(fact: JsonObject, parts: IncludedParts): JsonObject {
  const { maxTokens, tools } = fact;
  const names = Array.isArray(tools)
    ? (tools as unknown[]).map((tool) => (isObject(tool) ? text(tool["name"]) : text(tool)))
    : [];
  return {
    model: text(fact["model"]),
    stream: fact["stream"] === true,
    ...(typeof maxTokens === "number" ? { max_tokens: maxTokens } : {}),
    ...(names.length === 0
      ? {}
      : parts.has("inference.tools.detail")
        ? list("tools", tools, ["name", "description", "parameters"])
        : { tools: names }),
    ...(parts.has("inference.messages")
      ? list("messages", fact["messages"], ["role", "content"])
      : {}),
    ...(parts.has("inference.completion") ? present("completion", fact["completion"]) : {}),
    ...(parts.has("inference.tool_calls")
      ? list("tool_calls", fact["toolCalls"], ["id", "name", "arguments"])
      : {}),
  };
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function present(name: string, value: unknown): JsonObject {
  return value === undefined || value === null || value === "" ? {} : { [name]: value };
}

function list(name: string, value: unknown, keys: readonly string[]): JsonObject {
  if (!Array.isArray(value) || value.length === 0) return {};
  const items = (value as unknown[]).map((item) => {
    if (!isObject(item)) return item;
    return Object.fromEntries(
      keys.filter((key) => item[key] !== undefined).map((key) => [key, item[key]]),
    );
  });
  return { [name]: items };
}
