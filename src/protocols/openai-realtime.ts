/** OpenAI over a WebSocket: the Realtime API, and the responses API in the same words. */
import { isObject, type JsonObject, objectOf, objectsOf, textOf } from "../http/json-access.ts";
import { boundedName, boundedTool, boundedTools, Conversation } from "./inference-bounds.ts";
import { readError, requestView } from "./inference-dialect.ts";
import type { InferenceRequest, InferenceUsage, InferenceView } from "./inference-view.ts";
import { openAiUsage } from "./openai-chat.ts";
import { ResponseFold } from "./response-fold.ts";

const texts: ReadonlySet<string> = new Set([
  "response.output_text.delta",
  "response.text.delta",
  "response.output_audio_transcript.delta",
  "response.audio_transcript.delta",
  "response.refusal.delta",
]);
const ends: ReadonlySet<string> = new Set([
  "response.done",
  "response.completed",
  "response.incomplete",
  "response.failed",
]);
const counted = [
  "promptTokens",
  "completionTokens",
  "totalTokens",
  "cacheReadTokens",
  "reasoningTokens",
  "costUsd",
] as const satisfies readonly (keyof InferenceUsage)[];

/** One connection, with everything that is asked and said on it in one view; usage is the sum of its responses. */
export class RealtimeSession {
  readonly #asked: InferenceRequest;
  readonly #fold: ResponseFold;
  #conversation = new Conversation();

  constructor(model: string | undefined) {
    this.#asked = requestView("openai.realtime", { model, stream: true, messages: undefined });
    this.#fold = new ResponseFold(this.#asked);
  }

  /** As far as the connection has come. */
  get view(): InferenceView {
    return this.#fold.view;
  }

  /** Reads an event of the client. */
  asked(event: JsonObject): void {
    switch (event["type"]) {
      case "session.update":
        this.#configure(objectOf(event["session"]));
        return;
      case "conversation.item.create":
        this.#add(objectOf(event["item"]));
        return;
      case "response.create": {
        // Realtime has the request in a member, the responses API beside the type.
        const request = isObject(event["response"]) ? event["response"] : event;
        this.#configure(request);
        const { input } = request;
        if (typeof input === "string") this.#say("user", input);
        for (const item of objectsOf(input)) this.#add(item);
        return;
      }
      default:
    }
  }

  /** Reads an event of the server. */
  said(event: JsonObject): void {
    const kind = textOf(event["type"]) ?? "";
    if (texts.has(kind)) this.#fold.text(event["delta"]);
    else if (ends.has(kind)) this.#end(objectOf(event["response"]));
    else if (kind === "session.created" || kind === "session.updated")
      this.#configure(objectOf(event["session"]));
    else if (kind === "response.function_call_arguments.done") {
      const { call_id: id, name, arguments: args } = event;
      this.#fold.settledToolCall(keyOf(id, event["item_id"]), { id, name, args });
    } else if (kind === "error") readError(this.#fold, event["error"] ?? event["message"]);
  }

  #configure(session: JsonObject): void {
    const { view } = this.#fold;
    const model = boundedName(textOf(session["model"]));
    if (model !== undefined) view.model = model;
    const instructions = textOf(session["instructions"]);
    if (instructions !== undefined) this.#say("system", instructions);
    const tools = boundedTools(objectsOf(session["tools"]), (tool) =>
      boundedTool(tool["name"] ?? tool["type"], tool["description"], tool["parameters"]),
    );
    if (tools !== undefined) view.tools = tools;
  }

  #add(item: JsonObject): void {
    if (item["type"] === "function_call_output") this.#say("tool", textOf(item["output"]));
    else if (typeof item["role"] === "string") {
      const parts = objectsOf(item["content"]);
      const said = parts.flatMap(
        (part) => textOf(part["text"]) ?? textOf(part["transcript"]) ?? [],
      );
      this.#say(item["role"], textOf(item["content"]) ?? said.join("\n"));
    }
  }

  #say(role: string, text: string | undefined): void {
    this.#conversation.add(role, text);
    const { messages } = this.#conversation;
    if (messages === undefined) return;
    // What is kept is what a view keeps: a connection lasts for hours.
    this.#conversation = new Conversation(messages);
    this.#fold.view.messages = messages;
  }

  #end(response: JsonObject): void {
    const { view } = this.#fold;
    for (const item of objectsOf(response["output"])) {
      if (item["type"] !== "function_call") continue;
      const { call_id: id, name, arguments: args } = item;
      this.#fold.settledToolCall(keyOf(id, item["id"]), { id, name, args });
    }
    const details = objectOf(response["status_details"]);
    this.#fold.finish(details["reason"] ?? response["status"]);
    readError(this.#fold, response["error"] ?? details["error"]);
    const one = new ResponseFold(this.#asked);
    openAiUsage(one, response["usage"]);
    for (const name of counted) {
      const more = one.view[name];
      if (more !== undefined) view[name] = (view[name] ?? 0) + more;
    }
  }
}

function keyOf(callId: unknown, itemId: unknown): string {
  return textOf(callId) ?? textOf(itemId) ?? "";
}
