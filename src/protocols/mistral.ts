/** What Mistral has beside the chat API that it shares with OpenAI. */
import { type JsonObject, keyOf, objectOf, objectsOf, textOf } from "../http/json-access.ts";
import { boundedName, boundedTool, boundedTools, Conversation } from "./inference-bounds.ts";
import { addMessage, type Dialect, readError, requestView } from "./inference-dialect.ts";
import { openAiChat, openAiUsage } from "./openai-chat.ts";
import { type ResponseFold, contentText } from "./response-fold.ts";

/** /fim/completions: code between a prompt and a suffix; the response is that of a chat. */
export const mistralFim: Dialect = {
  request: (body, place) => {
    const prompt = textOf(body["prompt"]);
    if (prompt === undefined) return undefined;
    const conversation = new Conversation();
    conversation.add("user", prompt);
    const suffix = textOf(body["suffix"]);
    if (suffix !== undefined && suffix !== "") conversation.add("user", suffix);
    return requestView("mistral.fim", {
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
  whole: (fold, body) => openAiChat.whole(fold, body),
  event: (fold, body, event) => openAiChat.event(fold, body, event),
};

/** /conversations: the agents API; what was said before is kept by the provider. */
export const mistralConversations: Dialect = {
  request: (body) => {
    const { inputs } = body;
    if (inputs === undefined) return undefined;
    const conversation = new Conversation();
    const instructions = textOf(body["instructions"]);
    if (instructions !== undefined) conversation.add("system", instructions);
    if (typeof inputs === "string") conversation.add("user", inputs);
    for (const entry of objectsOf(inputs)) {
      if (entry["type"] === "function.result")
        conversation.add("tool", contentText(entry["result"]));
      else addMessage(conversation, textOf(entry["role"]) ?? "user", entry["content"]);
    }
    const sampling = objectOf(body["completion_args"]);
    return requestView("mistral.conversations", {
      model: boundedName(textOf(body["model"]) ?? textOf(body["agent_id"])),
      stream: body["stream"] === true,
      messages: conversation.messages,
      tools: boundedTools(objectsOf(body["tools"]), (tool) => {
        const declared = objectOf(tool["function"]);
        const name = declared["name"] ?? tool["type"];
        return boundedTool(name, declared["description"], declared["parameters"]);
      }),
      toolChoice: sampling["tool_choice"],
      sampling: {
        temperature: sampling["temperature"],
        topP: sampling["top_p"],
        maxTokens: sampling["max_tokens"],
      },
    });
  },
  whole: (fold, body) => {
    if (readError(fold, body["error"])) return;
    for (const entry of objectsOf(body["outputs"])) {
      if (entry["type"] === "message.output") fold.text(contentText(entry["content"]));
      else if (entry["type"] === "function.call")
        fold.wholeToolCall(entry["tool_call_id"], entry["name"], entry["arguments"]);
    }
    readEnd(fold, body);
  },
  event: (fold, body, event) => {
    const key = keyOf(body["output_index"], body["id"]);
    switch (textOf(body["type"]) ?? event ?? "") {
      case "message.output.delta":
        fold.text(contentText(body["content"]) ?? objectOf(body["content"])["text"]);
        return;
      case "function.call.delta":
        fold.toolCall(key, body["tool_call_id"], body["name"]);
        fold.toolArguments(key, body["arguments"]);
        return;
      case "conversation.response.done":
        readEnd(fold, body);
        return;
      case "conversation.response.error":
        fold.fail(body["message"]);
        return;
      default:
    }
  },
};

function readEnd(fold: ResponseFold, body: JsonObject): void {
  fold.finish(body["finish_reason"] ?? "stop");
  openAiUsage(fold, body["usage"]);
}
