/** Which paths are calls of language models, whatever a gateway puts in front of them. */
import { anthropicMessages } from "./anthropic.ts";
import { bedrockConverse } from "./bedrock-converse.ts";
import { bedrockInvoke } from "./bedrock-invoke.ts";
import type { CallPlace, Dialect } from "./inference-dialect.ts";
import { cohereChat, cohereEmbed } from "./cohere.ts";
import { codeAssistGenerate, geminiEmbed, geminiGenerate } from "./gemini.ts";
import type { InferenceApi } from "./inference-view.ts";
import { mistralConversations, mistralFim } from "./mistral.ts";
import { ollamaChat, ollamaEmbed, ollamaGenerate } from "./ollama.ts";
import { openAiChat } from "./openai-chat.ts";
import { openAiCompletions, openAiEmbeddings } from "./openai-completions.ts";
import { openAiAudio, openAiImages } from "./openai-media.ts";
import { openAiResponses } from "./openai-responses.ts";
import { vertexPredict } from "./vertex-predict.ts";

/** A call that was recognised by its path. */
export interface Endpoint {
  readonly dialect: Dialect;
  readonly place: CallPlace;
  /** Pictures or sound: the request may be an upload, which nobody reads. */
  readonly isMedia?: true;
}

/** The dialect of each API, for endpoints that the file names. */
export const dialects: Readonly<Record<Exclude<InferenceApi, "openai.realtime">, Dialect>> = {
  "openai.chat": openAiChat,
  "openai.completions": openAiCompletions,
  "openai.responses": openAiResponses,
  "openai.embeddings": openAiEmbeddings,
  "openai.images": openAiImages,
  "openai.audio": openAiAudio,
  "anthropic.messages": anthropicMessages,
  "bedrock.invoke": bedrockInvoke,
  "bedrock.converse": bedrockConverse,
  "gemini.generate": geminiGenerate,
  "gemini.embed": geminiEmbed,
  "vertex.predict": vertexPredict,
  "mistral.fim": mistralFim,
  "mistral.conversations": mistralConversations,
  "cohere.chat": cohereChat,
  "cohere.embed": cohereEmbed,
  "ollama.chat": ollamaChat,
  "ollama.generate": ollamaGenerate,
  "ollama.embed": ollamaEmbed,
};

/** Whether calls of a dialect are of pictures or sound. */
export function isMedia(dialect: Dialect): boolean {
  return dialect === openAiImages || dialect === openAiAudio;
}

/**
 * What comes before the last segments: nothing, a version (`/v1`, `/api/v1`, `/v1beta/openai`), Azure's `/openai` and
 * `/openai/deployments/NAME`, the older `/engines/NAME`, Azure's `/models`, or the `/codex` of ChatGPT's own back end.
 */
const openAiBase = String.raw`(?:^|\/codex|\/v\d+\w*|\/openai|\/models|\/(?:deployments|engines)\/(?<model>[^/]+))`;

interface Route {
  readonly pattern: RegExp;
  /** Where the path says too little: the only host. */
  readonly host?: string;
  readonly dialect: Dialect;
  readonly isStream?: true;
}

/** The first that matches counts. Every pattern is linear: it has no quantifier inside another. */
const routes: readonly Route[] = [
  {
    pattern: /(?:\/(?:deployments|engines)\/(?<model>[^/]+))?\/chat\/completions$/,
    dialect: openAiChat,
  },
  { pattern: /\/v\d+\w*\/agents\/completions$/, dialect: openAiChat },
  { pattern: /\/v\d+\w*\/fim\/completions$/, dialect: mistralFim },
  {
    host: "api.mistral.ai",
    pattern: /^\/v\d+\w*\/conversations(?:\/[^/]+(?:\/restart)?)?$/,
    dialect: mistralConversations,
  },
  { pattern: new RegExp(`${openAiBase}\\/completions$`), dialect: openAiCompletions },
  {
    pattern: new RegExp(`${openAiBase}\\/responses(?:\\/compact|\\/input_tokens)?$`),
    dialect: openAiResponses,
  },
  { pattern: new RegExp(`${openAiBase}\\/embeddings$`), dialect: openAiEmbeddings },
  {
    pattern: new RegExp(`${openAiBase}\\/images\\/(?:generations|edits|variations)$`),
    dialect: openAiImages,
  },
  {
    pattern: new RegExp(`${openAiBase}\\/audio\\/(?:speech|transcriptions|translations)$`),
    dialect: openAiAudio,
  },
  { pattern: /\/v\d+\w*\/messages(?:\/count_tokens)?$/, dialect: anthropicMessages },
  { pattern: /\/anthropic\/models\/(?<model>[^/:]+):rawPredict$/, dialect: anthropicMessages },
  {
    pattern: /\/anthropic\/models\/(?<model>[^/:]+):streamRawPredict$/,
    dialect: anthropicMessages,
    isStream: true,
  },
  { pattern: /\/model\/(?<model>[^/]+)\/converse$/, dialect: bedrockConverse },
  {
    pattern: /\/model\/(?<model>[^/]+)\/converse-stream$/,
    dialect: bedrockConverse,
    isStream: true,
  },
  { pattern: /\/model\/(?<model>[^/]+)\/invoke$/, dialect: bedrockInvoke },
  {
    pattern: /\/model\/(?<model>[^/]+)\/invoke-with-response-stream$/,
    dialect: bedrockInvoke,
    isStream: true,
  },
  {
    pattern: /\/(?:tunedM|m)odels\/(?<model>[^/:]+):(?:generateContent|countTokens)$/,
    dialect: geminiGenerate,
  },
  {
    pattern: /\/(?:tunedM|m)odels\/(?<model>[^/:]+):streamGenerateContent$/,
    dialect: geminiGenerate,
    isStream: true,
  },
  {
    pattern: /\/v\d+\w*:(?:generateContent|countTokens)$/,
    dialect: codeAssistGenerate,
  },
  {
    pattern: /\/v\d+\w*:streamGenerateContent$/,
    dialect: codeAssistGenerate,
    isStream: true,
  },
  {
    pattern: /\/publishers\/mistralai\/models\/(?<model>[^/:]+):rawPredict$/,
    dialect: openAiChat,
  },
  {
    pattern: /\/publishers\/mistralai\/models\/(?<model>[^/:]+):streamRawPredict$/,
    dialect: openAiChat,
    isStream: true,
  },
  {
    pattern: /\/publishers\/google\/models\/(?<model>[^/:]+):predict$/,
    dialect: vertexPredict,
  },
  { pattern: /\/v2\/chat$/, dialect: cohereChat },
  { pattern: /\/v[12]\/embed$/, dialect: cohereEmbed },
  { pattern: /\/api\/chat$/, dialect: ollamaChat },
  { pattern: /\/api\/generate$/, dialect: ollamaGenerate },
  { pattern: /\/api\/embed(?:dings)?$/, dialect: ollamaEmbed },
  { pattern: /\/models\/(?<model>[^/:]+):(?:e|batchE)mbedContents?$/, dialect: geminiEmbed },
];

const maxPathChars = 2_048;

/** The call that a POST to this path (query excluded) of a host is; undefined when it is none. */
export function endpointOf(method: string, pathname: string, host?: string): Endpoint | undefined {
  if (method !== "POST" || pathname.length > maxPathChars) return undefined;
  const path = pathname.replace(/\/$/, "");
  for (const { pattern, host: only, dialect, isStream } of routes) {
    const match = only === undefined || only === host ? pattern.exec(path) : null;
    if (match === null) continue;
    const model = match.groups?.["model"];
    return {
      dialect,
      ...(isMedia(dialect) ? { isMedia: true } : {}),
      place: {
        ...(model === undefined ? {} : { model: decoded(model) }),
        ...(isStream === true ? { stream: true } : {}),
      },
    };
  }
  return undefined;
}

/** Where providers take calls over a WebSocket. */
const sockets =
  /(?:^|\/v\d+\w*|\/openai|\/codex)\/(?:realtime|responses)$|\.BidiGenerateContent\w*$/;

/** Whether an upgrade at this path (query excluded) leads to a language model. */
export function isModelSocket(pathname: string): boolean {
  return pathname.length <= maxPathChars && sockets.test(pathname.replace(/\/$/, ""));
}

/** Bedrock's ARNs come percent-encoded. */
function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
