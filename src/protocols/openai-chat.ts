/** OpenAI chat completions, also of Azure, gateways and local servers. */
import {
  isObject,
  type JsonObject,
  keyOf,
  objectOf,
  objectsOf,
  textOf,
} from "../http/json-access.ts";
import { type ResponseFold, contentText } from "./response-fold.ts";
import { boundedName, boundedTool, boundedTools } from "./inference-bounds.ts";
import {
  conversationOf,
  type Dialect,
  type DialectEvent,
  readError,
  requestView,
} from "./inference-dialect.ts";

/** The chat API. */
export const openAiChat: Dialect = {
  request: (body, place) => {
    const conversation = conversationOf(body);
    if (conversation === undefined) return undefined;
    return requestView("openai.chat", {
      // Mistral's agents stand for a model.
      model: boundedName(textOf(body["model"]) ?? place.model ?? textOf(body["agent_id"])),
      stream: body["stream"] === true,
      messages: conversation.messages,
      tools: chatTools(body),
      toolChoice: body["tool_choice"],
      sampling: {
        temperature: body["temperature"],
        topP: body["top_p"],
        maxTokens: body["max_completion_tokens"] ?? body["max_tokens"],
      },
    });
  },
  whole: (fold, body) => {
    if (readError(fold, body["error"])) return;
    const choice = objectOf(objectsOf(body["choices"])[0]);
    const message = objectOf(choice["message"]);
    fold.text(contentText(message["content"]));
    fold.text(message["refusal"]);
    for (const call of objectsOf(message["tool_calls"])) {
      const called = objectOf(call["function"] ?? call["custom"]);
      fold.wholeToolCall(call["id"], called["name"], called["arguments"] ?? called["input"]);
    }
    const legacy = message["function_call"];
    if (isObject(legacy)) fold.wholeToolCall(undefined, legacy["name"], legacy["arguments"]);
    fold.finish(choice["finish_reason"]);
    openAiUsage(fold, body["usage"]);
  },
  event: (fold, body) => {
    if (readError(fold, body["error"])) return;
    for (const choice of objectsOf(body["choices"])) {
      // Of several alternatives the first is recorded, as with a response that is not streamed.
      if ((choice["index"] ?? 0) === 0) chatDelta(fold, choice);
    }
    openAiUsage(fold, body["usage"]);
  },
  speech: {
    whole: (body, text) => ({
      ...body,
      choices: [
        {
          ...withoutMessage(objectsOf(body["choices"])[0]),
          index: 0,
          message: { role: "assistant", content: text },
          finish_reason: "stop",
        },
      ],
    }),
    events: (held, text) => {
      const chunks = held.filter(({ body }) => objectsOf(body["choices"]).length > 0);
      const { usage: _usage, ...first } = chunks[0]?.body ?? {};
      const last = chunks.findLast(({ body }) =>
        objectsOf(body["choices"]).some((choice) => typeof choice["finish_reason"] === "string"),
      );
      const chunk = (body: JsonObject, delta: object, finish: string | null): DialectEvent => ({
        event: chunks[0]?.event,
        body: { ...body, choices: [{ index: 0, delta, finish_reason: finish }] },
      });
      return [
        chunk(first, { role: "assistant", content: text }, null),
        chunk(last?.body ?? first, {}, "stop"),
        // Usage comes in a chunk of its own.
        ...held.filter((event) => !chunks.includes(event)),
      ];
    },
  },
};

function withoutMessage(choice: JsonObject | undefined): JsonObject {
  const { message: _message, delta: _delta, logprobs: _logprobs, ...rest } = choice ?? {};
  return rest;
}

function chatDelta(fold: ResponseFold, choice: JsonObject): void {
  const delta = objectOf(choice["delta"]);
  fold.text(delta["content"]);
  fold.text(delta["refusal"]);
  for (const call of objectsOf(delta["tool_calls"])) {
    const key = keyOf(call["index"]);
    const called = objectOf(call["function"] ?? call["custom"]);
    fold.toolCall(key, call["id"], called["name"]);
    fold.toolArguments(key, called["arguments"] ?? called["input"]);
  }
  const legacy = delta["function_call"];
  if (isObject(legacy)) {
    fold.toolCall("function_call", undefined, legacy["name"]);
    fold.toolArguments("function_call", legacy["arguments"]);
  }
  fold.finish(choice["finish_reason"]);
}

/** The tools of a request, as this API and those that follow it declare them. */
export function chatTools(body: JsonObject): ReturnType<typeof boundedTools> {
  const tools = objectsOf(body["tools"]).map((tool) =>
    objectOf(tool["function"] ?? tool["custom"]),
  );
  const legacy = objectsOf(body["functions"]);
  return boundedTools([...tools, ...legacy], (tool) =>
    boundedTool(tool["name"], tool["description"], tool["parameters"]),
  );
}

/** Takes a usage block over, if it is one. Gateways add what they charge as `cost`. */
export function openAiUsage(fold: ResponseFold, usage: unknown): void {
  if (!isObject(usage)) return;
  const given = objectOf(
    usage["prompt_tokens_details"] ?? usage["input_tokens_details"] ?? usage["input_token_details"],
  );
  const made = objectOf(
    usage["completion_tokens_details"] ??
      usage["output_tokens_details"] ??
      usage["output_token_details"],
  );
  fold.usage({
    promptTokens: usage["prompt_tokens"] ?? usage["input_tokens"],
    completionTokens: usage["completion_tokens"] ?? usage["output_tokens"],
    totalTokens: usage["total_tokens"],
    cacheReadTokens: given["cached_tokens"],
    reasoningTokens: made["reasoning_tokens"],
    costUsd: usage["cost"],
  });
}
