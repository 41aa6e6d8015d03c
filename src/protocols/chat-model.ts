/** One question to a language model that the operator named, over OpenAI's chat completions API. */
import { ProxyError } from "../errors.ts";
import { objectOf, objectsOf } from "../http/json-access.ts";
import { parseStrictJson } from "../http/strict-json.ts";
import type { OperatorFetch } from "../pipeline/plugin.ts";
import { contentText } from "./response-fold.ts";

/** A question. */
export interface ChatQuestion {
  /** As {@link chatUrl} gives it. */
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: object;
  readonly timeoutMs: number;
  readonly maxBytes: number;
  readonly signal?: AbortSignal;
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
  const { url, headers, body, timeoutMs, maxBytes, signal } = question;
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json", ...headers },
      body: JSON.stringify(body),
      timeoutMs: Math.max(1, timeoutMs),
      maxBytes,
      ...(signal === undefined ? {} : { signal }),
    });
    const { status } = response;
    return status < 200 || status > 299
      ? { kind: "unavailable", why: `answered ${status}` }
      : readCompletion(response.body);
  } catch (error) {
    if (!(error instanceof ProxyError)) return { kind: "unavailable", why: "cannot be asked" };
    return error.code === "upstream.response-too-large"
      ? { kind: "unusable", why: "gave an answer that is too long" }
      : { kind: "unavailable", why: `cannot be asked: ${error.code}` };
  }
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
