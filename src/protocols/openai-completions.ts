/** OpenAI's older text completions, and its embeddings. */
import { boundedName, Conversation } from "./inference-bounds.ts";
import { type Dialect, readError, requestView } from "./inference-dialect.ts";
import { objectOf, objectsOf, textOf } from "../http/json-access.ts";
import { openAiUsage } from "./openai-chat.ts";

/** Adds a text, or each text of a list; token numbers say nothing to a reader. */
export function addTexts(conversation: Conversation, given: unknown): void {
  for (const text of Array.isArray(given) ? given : [given]) {
    if (typeof text === "string") conversation.add("user", text);
  }
}

/** The completions API. */
export const openAiCompletions: Dialect = {
  request: (body, place) => {
    if (body["prompt"] === undefined) return undefined;
    const conversation = new Conversation();
    addTexts(conversation, body["prompt"]);
    return requestView("openai.completions", {
      model: boundedName(textOf(body["model"]) ?? place.model),
      stream: body["stream"] === true,
      messages: conversation.messages,
      sampling: {
        temperature: body["temperature"],
        topP: body["top_p"],
        maxTokens: body["max_tokens"],
      },
    });
  },
  whole: (fold, body) => {
    if (readError(fold, body["error"])) return;
    const choice = objectOf(objectsOf(body["choices"])[0]);
    fold.text(choice["text"]);
    fold.finish(choice["finish_reason"]);
    openAiUsage(fold, body["usage"]);
  },
  event: (fold, body) => {
    if (readError(fold, body["error"])) return;
    for (const choice of objectsOf(body["choices"])) {
      if ((choice["index"] ?? 0) !== 0) continue;
      fold.text(choice["text"]);
      fold.finish(choice["finish_reason"]);
    }
    openAiUsage(fold, body["usage"]);
  },
};

/** The embeddings API: what was embedded and what it cost; vectors are not kept. */
export const openAiEmbeddings: Dialect = {
  request: (body, place) => {
    if (body["input"] === undefined) return undefined;
    const conversation = new Conversation();
    addTexts(conversation, body["input"]);
    return requestView("openai.embeddings", {
      model: boundedName(textOf(body["model"]) ?? place.model),
      stream: false,
      messages: conversation.messages,
    });
  },
  whole: (fold, body) => {
    if (!readError(fold, body["error"])) openAiUsage(fold, body["usage"]);
  },
  event: () => undefined,
};
