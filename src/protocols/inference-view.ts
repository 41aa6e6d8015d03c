/**
 * The request and the response of one call of a language model, in the shape of the session API.
 *
 * The names are those that clients of the Go program decode; absent means empty.
 */
import type { JsonObject } from "../http/json-access.ts";
import { factKey } from "../pipeline/facts.ts";

/** One message of the conversation; what is not text (images, tool results) is left out of `content`. */
export interface InferenceMessage {
  readonly role: string;
  readonly content?: string;
}

/** A tool that the model may call. */
export interface InferenceTool {
  readonly name: string;
  readonly description?: string;
  /** JSON Schema of the arguments. */
  readonly parameters?: JsonObject;
}

/** A call that the model asked for. */
export interface InferenceToolCall {
  id?: string;
  name: string;
  /** JSON as the model spelled it, which may be broken. */
  arguments?: string;
}

/** The APIs that calls are made in. */
export const inferenceApis = [
  "openai.chat",
  "openai.completions",
  "openai.responses",
  "openai.embeddings",
  "openai.realtime",
  "openai.images",
  "openai.audio",
  "anthropic.messages",
  "bedrock.invoke",
  "bedrock.converse",
  "gemini.generate",
  "gemini.embed",
  "vertex.predict",
  "mistral.fim",
  "mistral.conversations",
  "cohere.chat",
  "cohere.embed",
  "ollama.chat",
  "ollama.generate",
  "ollama.embed",
] as const;

/** One of them. */
export type InferenceApi = (typeof inferenceApis)[number];

/** The half of a view that the request gives. */
export interface InferenceRequest {
  api: InferenceApi;
  model?: string;
  messages?: readonly InferenceMessage[];
  temperature?: number;
  maxTokens?: number;
  topP?: number;
  stream?: true;
  tools?: readonly InferenceTool[];
  toolChoice?: unknown;
}

/** Tokens and money, as far as the provider reports them. */
export interface InferenceUsage {
  /** Everything that went in, cached tokens included. */
  promptTokens?: number;
  /** Everything that came out, reasoning included. */
  completionTokens?: number;
  totalTokens?: number;
  cacheReadTokens?: number;
  cacheWriteTokens?: number;
  reasoningTokens?: number;
  /** US dollars, where a gateway reports what it charges. */
  costUsd?: number;
}

/** A call and, as soon as there is one, its response. */
export interface InferenceView extends InferenceRequest, InferenceUsage {
  completion?: string;
  finishReason?: string;
  toolCalls?: InferenceToolCall[];
  /** What the provider said went wrong. */
  errorMessage?: string;
}

/** Where inference-parser leaves the view. */
export const inferenceFact = factKey<InferenceView>("inference");

/** What tokens are taken to be where nobody says: about four bytes of text each. */
const bytesPerToken = 4;

/** Tokens of so many bytes, about. */
export function tokensIn(bytes: number): number {
  return Math.ceil(bytes / bytesPerToken);
}
