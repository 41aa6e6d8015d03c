/** The usage block of OpenAI's APIs, under the names of the chat API and of the responses API. */
import type { AnswerFold } from "./answer-fold.ts";
import { isObject, objectOf } from "../http/json-access.ts";

/** Takes a usage block over, if it is one. Gateways add what they charge as `cost`. */
export function openAiUsage(fold: AnswerFold, usage: unknown): void {
  if (!isObject(usage)) return;
  const given = objectOf(usage["prompt_tokens_details"] ?? usage["input_tokens_details"]);
  const made = objectOf(usage["completion_tokens_details"] ?? usage["output_tokens_details"]);
  fold.usage({
    promptTokens: usage["prompt_tokens"] ?? usage["input_tokens"],
    completionTokens: usage["completion_tokens"] ?? usage["output_tokens"],
    totalTokens: usage["total_tokens"],
    cacheReadTokens: given["cached_tokens"],
    reasoningTokens: made["reasoning_tokens"],
    costUsd: usage["cost"],
  });
}
