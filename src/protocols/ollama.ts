/** Ollama's own API; it streams a JSON value a line, each with the shape of a whole response. */
import { type JsonObject, objectOf, objectsOf, textOf } from "../http/json-access.ts";
import type { ResponseFold } from "./response-fold.ts";
import { boundedName, Conversation } from "./inference-bounds.ts";
import {
  conversationOf,
  type Dialect,
  readError,
  type RequestParts,
  requestView,
} from "./inference-dialect.ts";
import type { InferenceApi, InferenceRequest } from "./inference-view.ts";
import { addTexts } from "./openai-completions.ts";
import { chatTools } from "./openai-chat.ts";

/** /api/chat. Other programs have this path as well: a call of Ollama's names its model. */
export const ollamaChat: Dialect = {
  request: (body) => {
    const conversation = conversationOf(body);
    if (conversation === undefined) return undefined;
    return viewOf("ollama.chat", body, { conversation, tools: chatTools(body) });
  },
  whole: readResponse,
  event: readResponse,
  speech: {
    whole: spokenBody,
    events: (held, text) => {
      const { done_reason: _reason, ...first } = objectOf(held[0]?.body);
      const last = objectOf(held.at(-1)?.body);
      return [
        { body: { ...spokenBody(first, text), done: false } },
        { body: { ...spokenBody(last, ""), done: true, done_reason: "stop" } },
      ];
    },
  },
};

function spokenBody(body: JsonObject, text: string): JsonObject {
  return { ...body, message: { role: "assistant", content: text } };
}

/** /api/generate: a prompt without a conversation. */
export const ollamaGenerate: Dialect = {
  request: (body) => {
    if (body["prompt"] === undefined) return undefined;
    const conversation = new Conversation();
    const system = textOf(body["system"]);
    if (system !== undefined) conversation.add("system", system);
    addTexts(conversation, body["prompt"]);
    return viewOf("ollama.generate", body, { conversation });
  },
  whole: readResponse,
  event: readResponse,
};

/** /api/embed and the older /api/embeddings; vectors are not kept. */
export const ollamaEmbed: Dialect = {
  request: (body) => {
    const given = body["input"] ?? body["prompt"];
    if (given === undefined) return undefined;
    const conversation = new Conversation();
    addTexts(conversation, given);
    return viewOf("ollama.embed", { ...body, stream: false }, { conversation });
  },
  whole: readResponse,
  event: () => undefined,
};

function viewOf(
  api: InferenceApi,
  body: JsonObject,
  said: Pick<RequestParts, "tools"> & { readonly conversation: Conversation },
): InferenceRequest | undefined {
  const model = boundedName(textOf(body["model"]));
  if (model === undefined) return undefined;
  const options = objectOf(body["options"]);
  return requestView(api, {
    model,
    // Ollama streams unless `stream` is false.
    stream: body["stream"] !== false,
    messages: said.conversation.messages,
    tools: said.tools,
    sampling: {
      temperature: options["temperature"],
      topP: options["top_p"],
      maxTokens: options["num_predict"],
    },
  });
}

function readResponse(fold: ResponseFold, body: JsonObject): void {
  if (readError(fold, body["error"])) return;
  const message = objectOf(body["message"]);
  fold.text(message["content"] ?? body["response"]);
  for (const call of objectsOf(message["tool_calls"])) {
    const called = objectOf(call["function"]);
    fold.wholeToolCall(call["id"], called["name"], called["arguments"]);
  }
  fold.finish(body["done_reason"]);
  fold.usage({ promptTokens: body["prompt_eval_count"], completionTokens: body["eval_count"] });
}
