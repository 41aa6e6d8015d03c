/** Which paths are calls of language models, whatever a gateway puts in front of them. */
import { anthropicMessages } from "./anthropic.ts";
import { bedrockConverse } from "./bedrock-converse.ts";
import { bedrockInvoke } from "./bedrock-invoke.ts";
import type { CallPlace, Dialect } from "./inference-dialect.ts";
import { cohereChat } from "./cohere.ts";
import { codeAssistGenerate, geminiEmbed, geminiGenerate } from "./gemini.ts";
import { ollamaChat, ollamaEmbed, ollamaGenerate } from "./ollama.ts";
import { openAiChat } from "./openai-chat.ts";
import { openAiCompletions, openAiEmbeddings } from "./openai-completions.ts";
import { openAiResponses } from "./openai-responses.ts";

/** A call that was recognised by its path. */
export interface Endpoint {
  readonly dialect: Dialect;
  readonly place: CallPlace;
}

/**
 * What comes before the last segments: nothing, a version (`/v1`, `/api/v1`, `/v1beta/openai`), Azure's `/openai` and
 * `/openai/deployments/NAME`, the older `/engines/NAME`, or the `/codex` of ChatGPT's own back end.
 */
const openAiBase = String.raw`(?:^|\/codex|\/v\d+\w*|\/openai|\/(?:deployments|engines)\/(?<model>[^/]+))`;

interface Route {
  readonly pattern: RegExp;
  readonly dialect: Dialect;
  readonly isStream?: true;
}

/** The first that matches counts. Every pattern is linear: it has no quantifier inside another. */
const routes: readonly Route[] = [
  {
    pattern: /(?:\/(?:deployments|engines)\/(?<model>[^/]+))?\/chat\/completions$/,
    dialect: openAiChat,
  },
  { pattern: new RegExp(`${openAiBase}\\/completions$`), dialect: openAiCompletions },
  {
    pattern: new RegExp(`${openAiBase}\\/responses(?:\\/compact|\\/input_tokens)?$`),
    dialect: openAiResponses,
  },
  { pattern: new RegExp(`${openAiBase}\\/embeddings$`), dialect: openAiEmbeddings },
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
  { pattern: /\/v2\/chat$/, dialect: cohereChat },
  { pattern: /\/api\/chat$/, dialect: ollamaChat },
  { pattern: /\/api\/generate$/, dialect: ollamaGenerate },
  { pattern: /\/api\/embed(?:dings)?$/, dialect: ollamaEmbed },
  { pattern: /\/models\/(?<model>[^/:]+):(?:e|batchE)mbedContents?$/, dialect: geminiEmbed },
];

const maxPathChars = 2_048;

/** The call that a POST to this path is (query excluded); undefined when it is none. */
export function endpointOf(method: string, pathname: string): Endpoint | undefined {
  if (method !== "POST" || pathname.length > maxPathChars) return undefined;
  const path = pathname.replace(/\/$/, "");
  for (const { pattern, dialect, isStream } of routes) {
    const match = pattern.exec(path);
    if (match === null) continue;
    const model = match.groups?.["model"];
    return {
      dialect,
      place: {
        ...(model === undefined ? {} : { model: decoded(model) }),
        ...(isStream === true ? { stream: true } : {}),
      },
    };
  }
  return undefined;
}

/** Where providers take calls over a WebSocket, which no parser reads. */
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
