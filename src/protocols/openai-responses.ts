/** OpenAI's responses API. */
import {
  isObject,
  type JsonObject,
  keyOf,
  objectOf,
  objectsOf,
  textOf,
} from "../http/json-access.ts";
import { openAiUsage } from "./openai-chat.ts";
import { type ResponseFold, contentText } from "./response-fold.ts";
import { boundedName, boundedTool, boundedTools, Conversation } from "./inference-bounds.ts";
import { type Dialect, type DialectEvent, readError, requestView } from "./inference-dialect.ts";

/** The responses API; a conversation may also be named by an id, and is then not in the request. */
export const openAiResponses: Dialect = {
  request: (body, place) => {
    const { input, prompt } = body;
    const isStored = "previous_response_id" in body || "conversation" in body;
    if (input === undefined && prompt === undefined && !isStored) return undefined;
    return requestView("openai.responses", {
      model: boundedName(textOf(body["model"]) ?? place.model),
      stream: body["stream"] === true,
      messages: conversationOf(body).messages,
      tools: boundedTools(objectsOf(body["tools"]), (tool) =>
        boundedTool(tool["name"] ?? tool["type"], tool["description"], tool["parameters"]),
      ),
      toolChoice: body["tool_choice"],
      sampling: {
        temperature: body["temperature"],
        topP: body["top_p"],
        maxTokens: body["max_output_tokens"],
      },
    });
  },
  whole: (fold, body) => {
    if (readError(fold, body["error"])) return;
    for (const item of objectsOf(body["output"])) readItem(fold, item);
    readEnd(fold, body);
  },
  event: (fold, body, event) => {
    readEvent(fold, body, textOf(body["type"]) ?? event ?? "");
  },
  speech: { whole: (body, text) => spokenResponse(body, [], text), events: spokenEvents },
};

const spokenId = "msg_proxy";

function spokenItem(text: string, status = "completed"): JsonObject {
  const content =
    status === "completed" ? [{ type: "output_text", text, annotations: [], logprobs: [] }] : [];
  return { id: spokenId, type: "message", role: "assistant", status, content };
}

function spokenResponse(body: JsonObject, before: readonly JsonObject[], text: string): JsonObject {
  return {
    ...body,
    status: "completed",
    incomplete_details: null,
    output: [...before, spokenItem(text)],
  };
}

function spokenEvents(held: readonly DialectEvent[], text: string): readonly DialectEvent[] {
  const first = objectOf(held[0]?.body);
  const index = Number(first["output_index"] ?? 0);
  const end = held.findLast(({ body }) => isObject(body["response"]));
  const whole = objectOf(end?.body["response"]);
  // Items in front of the first call have been forwarded.
  const before = objectsOf(whole["output"])
    .slice(0, index)
    .filter((item) => !isCall(item));
  let sequence = Number(first["sequence_number"] ?? 0);
  const event = (type: string, members: JsonObject): DialectEvent => ({
    event: type,
    body: { type, sequence_number: sequence++, ...members },
  });
  const at = { item_id: spokenId, output_index: index, content_index: 0 };
  const part = { type: "output_text", text: "", annotations: [], logprobs: [] };
  return [
    event("response.output_item.added", {
      output_index: index,
      item: spokenItem(text, "in_progress"),
    }),
    event("response.content_part.added", { ...at, part }),
    event("response.output_text.delta", { ...at, delta: text, logprobs: [] }),
    event("response.output_text.done", { ...at, text, logprobs: [] }),
    event("response.content_part.done", { ...at, part: { ...part, text } }),
    event("response.output_item.done", { output_index: index, item: spokenItem(text) }),
    event("response.completed", { response: spokenResponse(whole, before, text) }),
  ];
}

function conversationOf(body: JsonObject): Conversation {
  const conversation = new Conversation();
  const instructions = textOf(body["instructions"]);
  if (instructions !== undefined) conversation.add("system", instructions);
  const { input } = body;
  if (typeof input === "string") conversation.add("user", input);
  for (const item of objectsOf(input)) {
    const kind = item["type"];
    if (kind === "function_call_output") conversation.add("tool", contentText(item["output"]));
    else if (kind === "function_call") conversation.add("assistant", undefined);
    else if (typeof item["role"] === "string") {
      conversation.add(item["role"], contentText(item["content"]));
    }
  }
  return conversation;
}

function readItem(fold: ResponseFold, item: JsonObject): void {
  switch (item["type"]) {
    case "message":
      fold.text(contentText(item["content"]));
      for (const part of objectsOf(item["content"])) fold.text(part["refusal"]);
      return;
    default: {
      if (!isCall(item)) return;
      const { id, name, args } = callOf(item);
      fold.wholeToolCall(id, name, args);
    }
  }
}

/** Status and usage, which stand in the whole response and in the last event of a stream. */
function readEnd(fold: ResponseFold, response: JsonObject): void {
  const { reason } = objectOf(response["incomplete_details"]);
  fold.finish(reason ?? response["status"]);
  readError(fold, response["error"]);
  openAiUsage(fold, response["usage"]);
}

function readEvent(fold: ResponseFold, body: JsonObject, kind: string): void {
  const key = keyOf(body["output_index"], body["item_id"]);
  switch (kind) {
    case "response.output_text.delta":
    case "response.refusal.delta":
      fold.text(body["delta"]);
      return;
    case "response.output_item.added": {
      const item = objectOf(body["item"]);
      if (!isCall(item)) return;
      const { id, name } = callOf(item);
      fold.toolCall(key, id, name);
      return;
    }
    case "response.output_item.done": {
      const item = objectOf(body["item"]);
      if (isCall(item)) fold.settledToolCall(key, callOf(item));
      return;
    }
    case "response.function_call_arguments.delta":
    case "response.custom_tool_call_input.delta":
    case "response.mcp_call_arguments.delta":
      fold.toolArguments(key, body["delta"]);
      return;
    case "response.completed":
    case "response.incomplete":
    case "response.failed": {
      const response = objectOf(body["response"]);
      // Some gateways send the end alone.
      const items = objectsOf(response["output"]);
      if (fold.isSilent) for (const item of items) readItem(fold, item);
      else {
        // What clients act on in the end, whether its events came or not.
        for (const [at, item] of items.entries()) {
          if (isCall(item)) fold.settledToolCall(String(at), callOf(item));
        }
      }
      readEnd(fold, response);
      return;
    }
    case "error":
      fold.fail(body["message"] ?? objectOf(body["error"])["message"]);
      return;
    default:
  }
}

/** Calls that clients answer, or that the provider has made itself. */
const calls: ReadonlySet<unknown> = new Set([
  "function_call",
  "custom_tool_call",
  "mcp_call",
  "computer_call",
  "local_shell_call",
  "shell_call",
  "apply_patch_call",
]);

function isCall(item: JsonObject): boolean {
  return calls.has(item["type"]);
}

/** Tools that are part of the API have no name but their type, and say what to do under names of their own. */
function callOf(item: JsonObject): { id: unknown; name: unknown; args: unknown } {
  const kind = textOf(item["type"]) ?? "";
  return {
    id: item["call_id"] ?? item["id"],
    name: item["name"] ?? kind.replace(/_call$/, ""),
    args: item["arguments"] ?? item["input"] ?? item["action"] ?? item["operation"],
  };
}
