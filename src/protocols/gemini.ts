/** Google's Gemini API, also as Vertex carries it. */
import {
  countOf,
  isObject,
  type JsonObject,
  objectOf,
  objectsOf,
  textOf,
} from "../http/json-access.ts";
import { type ResponseFold, contentText } from "./response-fold.ts";
import { boundedName, boundedTool, boundedTools, Conversation } from "./inference-bounds.ts";
import { addMessage, type Dialect, readError, requestView } from "./inference-dialect.ts";

/** generateContent and streamGenerateContent. */
export const geminiGenerate: Dialect = {
  request: (body, place) => {
    if (!Array.isArray(body["contents"]) && !isObject(body["contents"])) return undefined;
    const conversation = new Conversation();
    const system = body["systemInstruction"] ?? body["system_instruction"];
    const instruction = contentText(objectOf(system)["parts"]);
    if (instruction !== undefined) conversation.add("system", instruction);
    for (const content of [body["contents"]].flat().filter(isObject)) {
      addMessage(conversation, textOf(content["role"]) ?? "user", content["parts"]);
    }
    const sampling = objectOf(body["generationConfig"] ?? body["generation_config"]);
    return requestView("gemini.generate", {
      model: boundedName(place.model),
      stream: place.stream === true,
      messages: conversation.messages,
      tools: toolsOf(body),
      toolChoice: body["toolConfig"] ?? body["tool_config"],
      sampling: {
        temperature: sampling["temperature"],
        topP: sampling["topP"] ?? sampling["top_p"],
        maxTokens: sampling["maxOutputTokens"] ?? sampling["max_output_tokens"],
      },
    });
  },
  whole: readResponse,
  event: readResponse,
  speech: {
    whole: spokenBody,
    events: (held, text) => [
      { event: held[0]?.event, body: spokenBody(objectOf(held.at(-1)?.body), text) },
    ],
  },
};

function spokenBody(body: JsonObject, text: string): JsonObject {
  const [candidate] = objectsOf(body["candidates"]);
  const content = { role: "model", parts: [{ text }] };
  return { ...body, candidates: [{ ...candidate, index: 0, content, finishReason: "STOP" }] };
}

/** The same as Code Assist carries it: `request` has the call beside its model, and `response` the result. */
export const codeAssistGenerate: Dialect = {
  request: (body, place) => {
    const model = textOf(body["model"]);
    return geminiGenerate.request(objectOf(body["request"]), {
      ...place,
      ...(model === undefined ? {} : { model }),
    });
  },
  whole: readEnvelope,
  event: readEnvelope,
  speech: {
    whole: spokenEnvelope,
    events: (held, text) => [
      { event: held[0]?.event, body: spokenEnvelope(objectOf(held.at(-1)?.body), text) },
    ],
  },
};

function spokenEnvelope(body: JsonObject, text: string): JsonObject {
  return isObject(body["response"])
    ? { ...body, response: spokenBody(body["response"], text) }
    : spokenBody(body, text);
}

/** embedContent and batchEmbedContents; vectors are not kept. */
export const geminiEmbed: Dialect = {
  request: (body, place) => {
    const requests = body["requests"] === undefined ? [body] : objectsOf(body["requests"]);
    const conversation = new Conversation();
    for (const { content } of requests) {
      conversation.add("user", contentText(objectOf(content)["parts"]));
    }
    return requestView("gemini.embed", {
      model: boundedName(place.model),
      stream: false,
      messages: conversation.messages,
    });
  },
  whole: (fold, body) => {
    if (!readError(fold, body["error"])) readUsage(fold, body["usageMetadata"]);
  },
  event: () => undefined,
};

function toolsOf(body: JsonObject): ReturnType<typeof boundedTools> {
  const declared = objectsOf(body["tools"]).flatMap((tool) =>
    objectsOf(tool["functionDeclarations"] ?? tool["function_declarations"]),
  );
  return boundedTools(declared, (tool) =>
    boundedTool(
      tool["name"],
      tool["description"],
      tool["parametersJsonSchema"] ?? tool["parameters"],
    ),
  );
}

function readEnvelope(fold: ResponseFold, body: JsonObject): void {
  readResponse(fold, isObject(body["response"]) ? body["response"] : body);
}

/** An event of a stream has the shape of a whole response, and its usage is the total so far. */
function readResponse(fold: ResponseFold, body: JsonObject): void {
  if (readError(fold, body["error"])) return;
  const candidate = objectOf(objectsOf(body["candidates"])[0]);
  for (const part of objectsOf(objectOf(candidate["content"])["parts"])) {
    if (part["thought"] !== true) fold.text(part["text"]);
    const call = part["functionCall"];
    if (isObject(call)) fold.wholeToolCall(call["id"], call["name"], call["args"] ?? {});
  }
  fold.finish(candidate["finishReason"] ?? objectOf(body["promptFeedback"])["blockReason"]);
  readUsage(fold, body["usageMetadata"]);
}

function readUsage(fold: ResponseFold, usage: unknown): void {
  if (!isObject(usage)) return;
  const answered = countOf(usage["candidatesTokenCount"]);
  const thought = countOf(usage["thoughtsTokenCount"]);
  const made = answered === undefined ? thought : answered + (thought ?? 0);
  fold.usage({
    promptTokens: usage["promptTokenCount"],
    completionTokens: made,
    totalTokens: usage["totalTokenCount"],
    cacheReadTokens: usage["cachedContentTokenCount"],
    reasoningTokens: thought,
  });
}
