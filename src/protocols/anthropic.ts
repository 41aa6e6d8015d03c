/** Anthropic's messages API, also as Bedrock and Vertex carry it. */
import {
  countOf,
  isObject,
  type JsonObject,
  keyOf,
  objectOf,
  objectsOf,
  textOf,
} from "../http/json-access.ts";
import type { ResponseFold } from "./response-fold.ts";
import { boundedName, boundedTool, boundedTools } from "./inference-bounds.ts";
import {
  conversationOf,
  type Dialect,
  type DialectEvent,
  readError,
  requestView,
} from "./inference-dialect.ts";

/** The messages API. */
export const anthropicMessages: Dialect = {
  request: (body, place) => {
    // The system prompt stands beside the messages here and in front of them everywhere else.
    const conversation = conversationOf(body, body["system"]);
    if (conversation === undefined) return undefined;
    return requestView("anthropic.messages", {
      model: boundedName(textOf(body["model"]) ?? place.model),
      stream: body["stream"] === true || place.stream === true,
      messages: conversation.messages,
      tools: boundedTools(objectsOf(body["tools"]), (tool) =>
        boundedTool(tool["name"], tool["description"], tool["input_schema"]),
      ),
      toolChoice: body["tool_choice"],
      sampling: {
        temperature: body["temperature"],
        topP: body["top_p"],
        maxTokens: body["max_tokens"],
      },
    });
  },
  whole: (fold, body) => {
    if (readError(fold, body["error"])) return;
    const texts: string[] = [];
    for (const block of objectsOf(body["content"])) {
      if (block["type"] === "text") texts.push(textOf(block["text"]) ?? "");
      else if (isToolUse(block)) fold.wholeToolCall(block["id"], block["name"], block["input"]);
    }
    fold.text(texts.filter((text) => text !== "").join("\n"));
    fold.finish(body["stop_reason"]);
    readUsage(fold, body["usage"]);
  },
  event: (fold, body, event) => {
    readEvent(fold, body, textOf(body["type"]) ?? event ?? "");
  },
  speech: {
    whole: (body, text) => ({
      ...body,
      content: [{ type: "text", text }],
      stop_reason: "end_turn",
      stop_sequence: null,
    }),
    events: spokenEvents,
  },
};

function spokenEvents(held: readonly DialectEvent[], text: string): readonly DialectEvent[] {
  const index = Number(held[0]?.body["index"] ?? 0);
  const event = (type: string, members: JsonObject): DialectEvent => ({
    event: type,
    body: { type, ...members },
  });
  const end = held.findLast(({ body }) => body["type"] === "message_delta")?.body;
  const delta = { ...objectOf(end?.["delta"]), stop_reason: "end_turn", stop_sequence: null };
  return [
    event("content_block_start", { index, content_block: { type: "text", text: "" } }),
    event("content_block_delta", { index, delta: { type: "text_delta", text } }),
    event("content_block_stop", { index }),
    event("message_delta", { usage: { output_tokens: 0 }, ...end, delta }),
    ...(end === undefined ? [event("message_stop", {})] : []),
  ];
}

function isToolUse(block: JsonObject): boolean {
  const kind = block["type"];
  return kind === "tool_use" || kind === "server_tool_use" || kind === "mcp_tool_use";
}

function readEvent(fold: ResponseFold, body: JsonObject, kind: string): void {
  const key = keyOf(body["index"]);
  switch (kind) {
    case "message_start":
      readUsage(fold, objectOf(body["message"])["usage"]);
      return;
    case "content_block_start": {
      const block = objectOf(body["content_block"]);
      if (!isToolUse(block)) fold.text(block["text"]);
      else {
        fold.toolCall(key, block["id"], block["name"]);
        // Some gateways send the input with the start, and no pieces of it.
        const input = objectOf(block["input"]);
        if (Object.keys(input).length > 0) fold.toolArguments(key, JSON.stringify(input));
      }
      return;
    }
    case "content_block_delta": {
      const delta = objectOf(body["delta"]);
      if (delta["type"] === "text_delta") fold.text(delta["text"]);
      else if (delta["type"] === "input_json_delta") fold.toolArguments(key, delta["partial_json"]);
      return;
    }
    case "message_delta":
      fold.finish(objectOf(body["delta"])["stop_reason"]);
      readUsage(fold, body["usage"]);
      return;
    case "error":
      readError(fold, body["error"]);
      return;
    default:
  }
}

/**
 * Input is reported in three disjoint counts, some with the first event and some with the last; a later zero does not
 * take an earlier figure back.
 */
function readUsage(fold: ResponseFold, usage: unknown): void {
  if (!isObject(usage)) return;
  const { view } = fold;
  const cached = (view.cacheReadTokens ?? 0) + (view.cacheWriteTokens ?? 0);
  const fresh = Math.max(0, (view.promptTokens ?? 0) - cached);
  const cacheRead = larger(usage["cache_read_input_tokens"], view.cacheReadTokens);
  const cacheWrite = larger(usage["cache_creation_input_tokens"], view.cacheWriteTokens);
  const input = larger(usage["input_tokens"], fresh);
  fold.usage({
    promptTokens: (input ?? 0) + (cacheRead ?? 0) + (cacheWrite ?? 0),
    completionTokens: larger(usage["output_tokens"], view.completionTokens),
    cacheReadTokens: cacheRead,
    cacheWriteTokens: cacheWrite,
    costUsd: usage["cost"],
  });
}

function larger(given: unknown, known: number | undefined): number | undefined {
  const count = countOf(given);
  if (count === undefined) return known;
  return Math.max(count, known ?? 0);
}
