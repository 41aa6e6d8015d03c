/** OpenAI's responses API. */
import { type JsonObject, keyOf, objectOf, objectsOf, textOf } from "../http/json-access.ts";
import { openAiUsage } from "./openai-chat.ts";
import { type ResponseFold, contentText } from "./response-fold.ts";
import { boundedName, boundedTool, boundedTools, Conversation } from "./inference-bounds.ts";
import { type Dialect, readError, requestView } from "./inference-dialect.ts";

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
};

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
    case "function_call":
    case "custom_tool_call":
    case "mcp_call":
      fold.wholeToolCall(
        item["call_id"] ?? item["id"],
        item["name"],
        item["arguments"] ?? item["input"],
      );
      return;
    default:
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
      if (isCall(item)) fold.toolCall(key, item["call_id"] ?? item["id"], item["name"]);
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
      if (fold.isSilent) for (const item of objectsOf(response["output"])) readItem(fold, item);
      readEnd(fold, response);
      return;
    }
    case "error":
      fold.fail(body["message"] ?? objectOf(body["error"])["message"]);
      return;
    default:
  }
}

function isCall(item: JsonObject): boolean {
  const kind = item["type"];
  return kind === "function_call" || kind === "custom_tool_call" || kind === "mcp_call";
}
