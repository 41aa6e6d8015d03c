/** One question to a language model that the operator named, over OpenAI's chat completions API. */
import { objectOf, objectsOf } from "../http/json-access.ts";
import { type JsonQuestion, postJson } from "../http/json-post.ts";
import { parseStrictJson } from "../http/strict-json.ts";
import type { OperatorFetch } from "../pipeline/plugin.ts";
import { contentText } from "./response-fold.ts";

/** A question; its address is as {@link chatUrl} gives it. */
export interface ChatQuestion extends Omit<JsonQuestion, "body"> {
  readonly body: object;
}

/** What the model said, or what it did in place of that, as the rest of a sentence. */
export type ChatAnswer =
  | { readonly kind: "text"; readonly text: string }
  /** It responded, and not with a text that is whole. */
  | { readonly kind: "unusable"; readonly why: string }
  | { readonly kind: "unavailable"; readonly why: string };

/** Where a model with this base address is asked. */
export function chatUrl(base: string): string {
  return `${base.replace(/\/+$/, "").replace(/\/v1$/, "")}/v1/chat/completions`;
}

/** Asks once. Never rejects; what went wrong is told without the service's own words. */
export async function askModel(fetch: OperatorFetch, question: ChatQuestion): Promise<ChatAnswer> {
  const answer = await postJson(fetch, { ...question, body: JSON.stringify(question.body) });
  if (answer.kind === "body") return readCompletion(answer.body);
  return { kind: answer.kind === "too-long" ? "unusable" : answer.kind, why: answer.why };
}

function readCompletion(body: Buffer): ChatAnswer {
  const unusable = (why: string): ChatAnswer => ({ kind: "unusable", why });
  const envelope = parseStrictJson(body);
  if (envelope.kind !== "json") return unusable("gave no chat completion");
  const choices = objectsOf(objectOf(envelope.value)["choices"]);
  const [choice] = choices;
  if (choice === undefined || choices.length > 1) return unusable("gave not one choice");
  if (choice["finish_reason"] === "length") return unusable("gave an answer that is cut off");
  const text = contentText(objectOf(choice["message"])["content"]);
  return text === undefined ? unusable("said nothing") : { kind: "text", text };
}
