/** Bedrock's invoke API, whose bodies are those of each model's own maker. */
import {
  countOf,
  isObject,
  type JsonObject,
  objectOf,
  objectsOf,
  textOf,
  parseJsonObject,
} from "../http/json-access.ts";
import { type ResponseFold, contentText } from "./response-fold.ts";
import { anthropicMessages } from "./anthropic.ts";
import { readFault } from "./bedrock-converse.ts";
import { boundedName, Conversation } from "./inference-bounds.ts";
import { type CallPlace, type Dialect, requestView } from "./inference-dialect.ts";
import type { InferenceRequest } from "./inference-view.ts";
import { openAiChat } from "./openai-chat.ts";

/** invoke and invoke-with-response-stream. */
export const bedrockInvoke: Dialect = {
  request: (body, place) => {
    const view = requestOf(body, place);
    const stream = place.stream === true ? { stream: true as const } : {};
    return { ...view, api: "bedrock.invoke", ...stream };
  },
  whole: (fold, body) => {
    if (readFault(fold, body)) return;
    if (Array.isArray(body["choices"])) openAiChat.whole(fold, body);
    else if (Array.isArray(body["content"])) anthropicMessages.whole(fold, body);
    else readOther(fold, body);
  },
  event: (fold, body, event) => {
    if (event !== undefined && event.endsWith("Exception")) {
      readFault(fold, body);
      return;
    }
    const chunk = chunkOf(body);
    if (Array.isArray(chunk["choices"])) openAiChat.event(fold, chunk, undefined);
    else if (typeof chunk["type"] === "string") anthropicMessages.event(fold, chunk, undefined);
    else readOther(fold, chunk);
  },
};

function requestOf(body: JsonObject, place: CallPlace): InferenceRequest {
  if (Array.isArray(body["messages"])) {
    const read = "anthropic_version" in body ? anthropicMessages : openAiChat;
    const view = read.request(body, place);
    if (view !== undefined) return view;
  }
  const conversation = new Conversation();
  const system = contentText(body["system"]);
  if (system !== undefined) conversation.add("system", system);
  // Titan, Llama and Mistral, Cohere.
  const prompt = body["inputText"] ?? body["prompt"] ?? body["message"];
  if (typeof prompt === "string") conversation.add("user", prompt);
  for (const text of Array.isArray(body["texts"]) ? body["texts"] : []) {
    if (typeof text === "string") conversation.add("user", text);
  }
  const titan = objectOf(body["textGenerationConfig"]);
  return requestView("bedrock.invoke", {
    model: boundedName(place.model),
    stream: place.stream === true,
    messages: conversation.messages,
    sampling: {
      temperature: body["temperature"] ?? titan["temperature"],
      topP: body["top_p"] ?? body["p"] ?? titan["topP"],
      maxTokens: body["max_gen_len"] ?? body["max_tokens"] ?? titan["maxTokenCount"],
    },
  });
}

/** A chunk of the stream is the model's own event, in base64. */
function chunkOf(body: JsonObject): JsonObject {
  const bytes = textOf(body["bytes"]);
  if (bytes === undefined) return body;
  // What is no object the client will not understand either; there is nothing to record.
  return parseJsonObject(Buffer.from(bytes, "base64").toString("utf8")) ?? {};
}

/** Llama, Titan, Mistral, Cohere and Nova, whole or in chunks. */
function readOther(fold: ResponseFold, body: JsonObject): void {
  const [result] = objectsOf(body["results"] ?? body["outputs"] ?? body["generations"]);
  const nova = objectOf(objectOf(body["output"])["message"]);
  fold.text(body["generation"] ?? body["outputText"] ?? body["text"]);
  fold.text(result?.["outputText"] ?? result?.["text"]);
  fold.text(contentText(nova["content"]));
  fold.text(objectOf(objectOf(body["contentBlockDelta"])["delta"])["text"]);
  fold.finish(
    body["stop_reason"] ??
      body["stopReason"] ??
      body["completionReason"] ??
      body["finish_reason"] ??
      result?.["completionReason"] ??
      result?.["stop_reason"],
  );
  fold.usage({
    promptTokens: body["prompt_token_count"] ?? body["inputTextTokenCount"],
    completionTokens:
      countOf(body["generation_token_count"]) ??
      body["totalOutputTextTokenCount"] ??
      result?.["tokenCount"],
  });
  const metrics = body["amazon-bedrock-invocationMetrics"];
  if (!isObject(metrics)) return;
  fold.usage({
    promptTokens: metrics["inputTokenCount"],
    completionTokens: metrics["outputTokenCount"],
    cacheReadTokens: metrics["cacheReadInputTokenCount"],
    cacheWriteTokens: metrics["cacheWriteInputTokenCount"],
  });
}
