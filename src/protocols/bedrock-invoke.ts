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
import { bedrockConverse, readFault } from "./bedrock-converse.ts";
import { boundedName, Conversation } from "./inference-bounds.ts";
import {
  type CallPlace,
  type Dialect,
  type DialectEvent,
  requestView,
} from "./inference-dialect.ts";
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
  speech: {
    whole: (body, text) => bodiesOf(body).speech?.whole(body, text) ?? body,
    events: (held, text) => {
      const inner = held.map(({ body }) => novaEvent(chunkOf(body)));
      const { speech } = eventsOf(inner[0]?.body ?? {}, inner[0]?.event);
      return (speech?.events(inner, text) ?? []).map(({ event, body }) => {
        const isNova = inner[0]?.event !== undefined;
        const chunk = isNova ? { [event ?? ""]: body } : body;
        const bytes = Buffer.from(JSON.stringify(chunk)).toString("base64");
        return { event: "chunk", body: { bytes } };
      });
    },
  },
};

/** In whose words a whole body is; the models whose makers have no tools are not asked for them. */
function bodiesOf(body: JsonObject): Pick<Dialect, "speech"> {
  if (Array.isArray(body["choices"])) return openAiChat;
  if (Array.isArray(body["content"])) return anthropicMessages;
  return isObject(body["output"]) ? bedrockConverse : cohereInvoke;
}

function eventsOf(body: JsonObject, event: string | undefined): Pick<Dialect, "speech"> {
  if (event !== undefined) return bedrockConverse;
  if (Array.isArray(body["choices"])) return openAiChat;
  return typeof body["type"] === "string" ? anthropicMessages : cohereInvoke;
}

/** Nova has the events of the converse API as members of its chunks. */
function novaEvent(chunk: JsonObject): DialectEvent {
  const [name = ""] = Object.keys(chunk);
  const isNova = /^(?:contentBlock(?:Start|Delta|Stop)|message(?:Start|Stop)|metadata)$/.test(name);
  return isNova ? { event: name, body: objectOf(chunk[name]) } : { body: chunk };
}

/** Command R of Cohere: a text and the calls beside it. */
const cohereInvoke: Pick<Dialect, "speech"> = {
  speech: {
    whole: ({ tool_calls: _calls, ...body }, text) => ({
      ...body,
      text,
      finish_reason: "COMPLETE",
    }),
    events: (held, text) => [
      { body: { is_finished: false, event_type: "text-generation", text } },
      {
        body: {
          ...objectOf(held.at(-1)?.body),
          tool_calls: undefined,
          response: undefined,
          is_finished: true,
          event_type: "stream-end",
          finish_reason: "COMPLETE",
        },
      },
    ],
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

/** What the makers of models other than Claude say, whole or in chunks. */
function readOther(fold: ResponseFold, body: JsonObject): void {
  const { event, body: inner } = novaEvent(body);
  if (event !== undefined) bedrockConverse.event(fold, inner, event);
  else if (isObject(body["output"])) bedrockConverse.whole(fold, body);
  else readPlain(fold, body);
}

/** Llama, Titan, Mistral and Cohere. */
function readPlain(fold: ResponseFold, body: JsonObject): void {
  const [result] = objectsOf(body["results"] ?? body["outputs"] ?? body["generations"]);
  for (const call of objectsOf(body["tool_calls"])) {
    fold.wholeToolCall(undefined, call["name"], call["parameters"]);
  }
  fold.text(body["generation"] ?? body["outputText"] ?? body["text"]);
  fold.text(result?.["outputText"] ?? result?.["text"]);
  fold.finish(body["stop_reason"] ?? body["completionReason"] ?? body["finish_reason"]);
  fold.finish(result?.["completionReason"] ?? result?.["stop_reason"]);
  fold.usage({
    promptTokens: body["prompt_token_count"] ?? body["inputTextTokenCount"],
    completionTokens:
      countOf(body["generation_token_count"]) ??
      body["totalOutputTextTokenCount"] ??
      result?.["tokenCount"],
  });
  readMetrics(fold, body["amazon-bedrock-invocationMetrics"]);
}

/** What Bedrock counts for models that do not. */
function readMetrics(fold: ResponseFold, metrics: unknown): void {
  if (!isObject(metrics)) return;
  fold.usage({
    promptTokens: metrics["inputTokenCount"],
    completionTokens: metrics["outputTokenCount"],
    cacheReadTokens: metrics["cacheReadInputTokenCount"],
    cacheWriteTokens: metrics["cacheWriteInputTokenCount"],
  });
}
