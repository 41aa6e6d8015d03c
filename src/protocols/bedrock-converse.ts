/** Bedrock's converse API. */
import { isObject, type JsonObject, keyOf, objectOf, objectsOf } from "../http/json-access.ts";
import type { ResponseFold } from "./response-fold.ts";
import { boundedName, boundedTool, boundedTools } from "./inference-bounds.ts";
import { conversationOf, type Dialect, requestView } from "./inference-dialect.ts";

/** converse and converse-stream. */
export const bedrockConverse: Dialect = {
  request: (body, place) => {
    const conversation = conversationOf(body, body["system"]);
    if (conversation === undefined) return undefined;
    const sampling = objectOf(body["inferenceConfig"]);
    const config = objectOf(body["toolConfig"]);
    return requestView("bedrock.converse", {
      model: boundedName(place.model),
      stream: place.stream === true,
      messages: conversation.messages,
      tools: boundedTools(objectsOf(config["tools"]), (tool) => {
        const spec = objectOf(tool["toolSpec"]);
        return boundedTool(
          spec["name"],
          spec["description"],
          objectOf(spec["inputSchema"])["json"],
        );
      }),
      toolChoice: config["toolChoice"],
      sampling: {
        temperature: sampling["temperature"],
        topP: sampling["topP"],
        maxTokens: sampling["maxTokens"],
      },
    });
  },
  whole: (fold, body) => {
    if (readFault(fold, body)) return;
    for (const block of objectsOf(objectOf(objectOf(body["output"])["message"])["content"])) {
      fold.text(block["text"]);
      const call = block["toolUse"];
      if (isObject(call)) fold.wholeToolCall(call["toolUseId"], call["name"], call["input"] ?? {});
    }
    fold.finish(body["stopReason"]);
    readUsage(fold, body["usage"]);
  },
  event: (fold, body, event) => {
    readEvent(fold, body, event ?? "");
  },
  speech: {
    whole: (body, text) => ({
      ...body,
      output: { message: { role: "assistant", content: [{ text }] } },
      stopReason: "end_turn",
    }),
    events: (held, text) => {
      const contentBlockIndex = Number(held[0]?.body["contentBlockIndex"] ?? 0);
      return [
        { event: "contentBlockDelta", body: { contentBlockIndex, delta: { text } } },
        { event: "contentBlockStop", body: { contentBlockIndex } },
        { event: "messageStop", body: { stopReason: "end_turn" } },
        ...held.filter(({ event }) => event === "metadata"),
      ];
    },
  },
};

function readEvent(fold: ResponseFold, body: JsonObject, event: string): void {
  const key = keyOf(body["contentBlockIndex"]);
  switch (event) {
    case "contentBlockStart": {
      const call = objectOf(body["start"])["toolUse"];
      if (isObject(call)) fold.toolCall(key, call["toolUseId"], call["name"]);
      return;
    }
    case "contentBlockDelta": {
      const delta = objectOf(body["delta"]);
      fold.text(delta["text"]);
      fold.toolArguments(key, objectOf(delta["toolUse"])["input"]);
      return;
    }
    case "messageStop":
      fold.finish(body["stopReason"]);
      return;
    case "metadata":
      readUsage(fold, body["usage"]);
      return;
    default:
      if (event.endsWith("Exception")) readFault(fold, body);
  }
}

function readUsage(fold: ResponseFold, usage: unknown): void {
  if (!isObject(usage)) return;
  fold.usage({
    promptTokens: usage["inputTokens"],
    completionTokens: usage["outputTokens"],
    totalTokens: usage["totalTokens"],
    cacheReadTokens: usage["cacheReadInputTokens"],
    cacheWriteTokens: usage["cacheWriteInputTokens"],
  });
}

/** Faults of the service carry a bare message. */
export function readFault(fold: ResponseFold, body: JsonObject): boolean {
  const message = body["message"] ?? body["Message"];
  if (typeof message !== "string") return false;
  fold.fail(message);
  return true;
}
