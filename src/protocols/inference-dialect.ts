/** What every API of language models is to this program: a reader of its requests and of its responses. */
import { type ResponseFold, contentText } from "./response-fold.ts";
import { isObject, type JsonObject, objectsOf, textOf } from "../http/json-access.ts";
import { Conversation } from "./inference-bounds.ts";
import type { InferenceRequest } from "./inference-view.ts";

/** What the path of a request says about the call. */
export interface CallPlace {
  /** The model, where the path names it. */
  readonly model?: string;
  /** True when the path asks for a stream. */
  readonly stream?: true;
}

/** One event of a streamed response, its data read. */
export interface DialectEvent {
  readonly event?: string | undefined;
  readonly body: JsonObject;
}

/** One API. Nothing in here throws: what is not understood is passed over. */
export interface Dialect {
  /** The view of a request; undefined where the body is none of this API. */
  request(body: JsonObject, place: CallPlace): InferenceRequest | undefined;
  /** Reads a whole response. */
  whole(fold: ResponseFold, body: JsonObject): void;
  /** Reads one event of a streamed response; `event` is its name, where the stream has names. */
  event(fold: ResponseFold, body: JsonObject, event: string | undefined): void;
  /** Writes responses that ask for no tools; absent where the API has none. */
  readonly speech?: Speech;
}

/** How a response says a text in place of the tool calls that its model asked for. */
export interface Speech {
  whole(body: JsonObject, text: string): JsonObject;
  /**
   * What takes the place of these events of a stream. The first of them opens a tool call, and the last one ends the
   * response, if its provider has ended it.
   */
  events(held: readonly DialectEvent[], text: string): readonly DialectEvent[];
}

/** The `messages` of a body, behind the system prompt where it stands beside them; undefined without the list. */
export function conversationOf(body: JsonObject, system?: unknown): Conversation | undefined {
  if (!Array.isArray(body["messages"])) return undefined;
  const conversation = new Conversation();
  const prompt = contentText(system);
  if (prompt !== undefined) conversation.add("system", prompt);
  for (const message of objectsOf(body["messages"])) {
    addMessage(conversation, textOf(message["role"]) ?? "user", message["content"]);
  }
  return conversation;
}

/** Adds what a message says, with the results of tools that are parts of it. */
export function addMessage(conversation: Conversation, role: string, content: unknown): void {
  const results = objectsOf(content).flatMap((part) => toolResult(part) ?? []);
  conversation.add(role, contentText(content), results);
}

/** The result of a tool in the words of Anthropic, of Bedrock's converse API or of Gemini. */
function toolResult(part: JsonObject): string | undefined {
  const { toolResult: converse, functionResponse: gemini } = part;
  if (part["type"] === "tool_result") return resultText(part["content"]);
  if (isObject(converse)) return resultText(converse["content"]);
  return isObject(gemini) ? resultText(gemini["response"]) : undefined;
}

function resultText(content: unknown): string {
  return contentText(content) ?? (isBlank(content) ? "" : JSON.stringify(content));
}

/** Nothing, or images and the like alone. */
function isBlank(content: unknown): boolean {
  if (content === undefined || content === null || content === "") return true;
  return Array.isArray(content) && objectsOf(content).every((part) => !("json" in part));
}

/** The numbers that sampling is steered with, under the names of an API. */
export interface Sampling {
  readonly temperature?: unknown;
  readonly topP?: unknown;
  readonly maxTokens?: unknown;
}

/** The members of a view that are there only when the request has them. */
export function samplingOf(given: Sampling): Partial<InferenceRequest> {
  const members: { -readonly [Name in keyof Sampling]: number } = {};
  for (const name of ["temperature", "topP", "maxTokens"] as const) {
    const value = given[name];
    if (typeof value === "number" && Number.isFinite(value)) members[name] = value;
  }
  return members;
}

/** The parts of a request that most dialects find in different places. */
export interface RequestParts {
  readonly model: string | undefined;
  readonly stream: boolean;
  readonly messages: InferenceRequest["messages"];
  readonly tools?: InferenceRequest["tools"];
  readonly toolChoice?: unknown;
  readonly sampling?: Sampling;
}

/** Puts a view together; absent stays absent. */
export function requestView(api: InferenceRequest["api"], parts: RequestParts): InferenceRequest {
  const { model, stream, messages, tools, toolChoice, sampling = {} } = parts;
  return {
    api,
    ...(model === undefined ? {} : { model }),
    ...(messages === undefined ? {} : { messages }),
    ...samplingOf(sampling),
    ...(stream ? { stream: true as const } : {}),
    ...(tools === undefined ? {} : { tools }),
    ...(toolChoice === undefined || toolChoice === null ? {} : { toolChoice }),
  };
}

/** Fails the fold with the message of an `error` member, which is an object or a text. True when there was one. */
export function readError(fold: ResponseFold, error: unknown): boolean {
  if (error === undefined || error === null) return false;
  if (typeof error === "object" && "message" in error) fold.fail(error.message);
  else fold.fail(error);
  return true;
}
