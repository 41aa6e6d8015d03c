/** Cohere's chat API, version 2. */
import {
  isObject,
  type JsonObject,
  keyOf,
  objectOf,
  objectsOf,
  textOf,
} from "../http/json-access.ts";
import { type ResponseFold, contentText } from "./response-fold.ts";
import { boundedName, Conversation } from "./inference-bounds.ts";
import {
  conversationOf,
  type Dialect,
  type DialectEvent,
  readError,
  requestView,
} from "./inference-dialect.ts";
import { chatTools } from "./openai-chat.ts";
import { addTexts } from "./openai-completions.ts";

/** /v2/chat: messages and tools as OpenAI has them, responses and events of its own. */
export const cohereChat: Dialect = {
  request: (body) => {
    const model = boundedName(textOf(body["model"]));
    const conversation = conversationOf(body);
    if (conversation === undefined || model === undefined) return undefined;
    return requestView("cohere.chat", {
      model,
      stream: body["stream"] === true,
      messages: conversation.messages,
      tools: chatTools(body),
      toolChoice: body["tool_choice"],
      sampling: {
        temperature: body["temperature"],
        topP: body["p"],
        maxTokens: body["max_tokens"],
      },
    });
  },
  whole: (fold, body) => {
    // An error has a text where a response has its message.
    if (!isObject(body["message"])) {
      readError(fold, body["message"]);
      return;
    }
    fold.text(contentText(body["message"]["content"]));
    for (const call of objectsOf(body["message"]["tool_calls"])) {
      const called = objectOf(call["function"]);
      fold.wholeToolCall(call["id"], called["name"], called["arguments"]);
    }
    readEnd(fold, body);
  },
  event: (fold, body, event) => {
    const delta = objectOf(body["delta"]);
    const message = objectOf(delta["message"]);
    const key = keyOf(body["index"]);
    const call = objectOf(message["tool_calls"]);
    const called = objectOf(call["function"]);
    switch (textOf(body["type"]) ?? event ?? "") {
      case "content-start":
      case "content-delta":
        fold.text(objectOf(message["content"])["text"]);
        return;
      case "tool-call-start":
        fold.toolCall(key, call["id"], called["name"]);
        fold.toolArguments(key, called["arguments"]);
        return;
      case "tool-call-delta":
        fold.toolArguments(key, called["arguments"]);
        return;
      case "message-end":
        readError(fold, delta["error"]);
        readEnd(fold, delta);
        return;
      default:
    }
  },
  speech: {
    whole: (body, text) => ({
      ...body,
      message: { role: "assistant", content: [{ type: "text", text }] },
      finish_reason: "COMPLETE",
    }),
    events: (held, text) => {
      const event = (type: string, members: JsonObject): DialectEvent => ({
        event: type,
        body: { type, ...members },
      });
      const content = (members: object) => ({ index: 0, delta: { message: { content: members } } });
      const end = objectOf(held.findLast(({ body }) => body["type"] === "message-end")?.body);
      const delta = { ...objectOf(end["delta"]), finish_reason: "COMPLETE" };
      return [
        event("content-start", content({ type: "text", text: "" })),
        event("content-delta", content({ text })),
        event("content-end", { index: 0 }),
        event("message-end", { ...end, delta }),
      ];
    },
  },
};

/** /v2/embed and the older /v1/embed; vectors are not kept. */
export const cohereEmbed: Dialect = {
  request: (body) => {
    const model = boundedName(textOf(body["model"]));
    const { texts, inputs, images } = body;
    if (texts === undefined && inputs === undefined && images === undefined) return undefined;
    const conversation = new Conversation();
    addTexts(conversation, texts);
    for (const input of objectsOf(inputs)) conversation.add("user", contentText(input["content"]));
    return requestView("cohere.embed", { model, stream: false, messages: conversation.messages });
  },
  whole: (fold, body) => {
    if (readError(fold, body["message"])) return;
    const units = objectOf(objectOf(body["meta"])["billed_units"]);
    fold.usage({ promptTokens: units["input_tokens"] });
  },
  event: () => undefined,
};

function readEnd(fold: ResponseFold, said: JsonObject): void {
  fold.finish(said["finish_reason"]);
  const usage = objectOf(said["usage"]);
  const tokens = objectOf(usage["tokens"] ?? usage["billed_units"]);
  fold.usage({ promptTokens: tokens["input_tokens"], completionTokens: tokens["output_tokens"] });
}
