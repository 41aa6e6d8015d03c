/** What inference-parser records of providers that differ from those whose API they speak. */
import { expect, test } from "vitest";
import { inferenceConfig } from "../../../../src/plugins/parsers/endpoint-map.ts";
import { endpointOf } from "../../../../src/protocols/inference-endpoints.ts";
import { record } from "../../../support/inference-bench.ts";

const messages = [{ role: "user", content: "hi" }];

test.each([
  // Azure OpenAI: deployments, the v1 API, and the inference API of its other models.
  ["/openai/deployments/gpt-4o/chat/completions", "gpt-4o"],
  ["/openai/v1/chat/completions", undefined],
  ["/models/chat/completions", undefined],
  // OpenRouter, Vertex with models of others, Ollama's and Cohere's compatible doors.
  ["/api/v1/chat/completions", undefined],
  ["/v1/projects/p/locations/l/endpoints/openapi/chat/completions", undefined],
  [
    "/v1/projects/p/locations/l/publishers/mistralai/models/codestral-2501:rawPredict",
    "codestral-2501",
  ],
  ["/v1/projects/p/locations/l/publishers/mistralai/models/m:streamRawPredict", "m"],
  ["/compatibility/v1/chat/completions", undefined],
  ["/v1/agents/completions", undefined],
])("%s is a chat", async (path, model) => {
  const { request } = await record(path, { messages });
  expect([request?.api, request?.model]).toEqual(["openai.chat", model]);
});

test.each([
  ["publishers/google/models/gemini-2.5-pro:generateContent", "gemini.generate"],
  ["publishers/google/models/gemini-2.5-pro:streamGenerateContent", "gemini.generate"],
  ["publishers/anthropic/models/claude-x:rawPredict", "anthropic.messages"],
  ["publishers/anthropic/models/claude-x:streamRawPredict", "anthropic.messages"],
])("Vertex: %s is %s", async (path, api) => {
  const body = { contents: [{ role: "user", parts: [{ text: "hi" }] }], messages, max_tokens: 9 };
  const { request } = await record(`/v1/projects/p/locations/global/${path}`, body);
  expect(request?.api).toBe(api);
});

test("OpenRouter: the last chunk of a stream has usage and what it cost", async () => {
  const { view } = await record(
    "/api/v1/chat/completions",
    { model: "openai/gpt-4o", messages, stream: true },
    {
      stream: Buffer.from(
        [
          ": OPENROUTER PROCESSING",
          `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: "hello" } }] })}`,
          `data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] })}`,
          `data: ${JSON.stringify({
            choices: [],
            usage: {
              prompt_tokens: 10,
              completion_tokens: 5,
              total_tokens: 15,
              cost: 0.00025,
              cost_details: { upstream_inference_cost: null },
            },
          })}`,
          "data: [DONE]",
          "",
        ].join("\n\n"),
      ),
      type: "text/event-stream",
    },
  );
  expect(view).toMatchObject({ completion: "hello", totalTokens: 15, costUsd: 0.00025 });
});

test("Mistral: code between a prompt and a suffix", async () => {
  const { view } = await record(
    "/v1/fim/completions",
    { model: "codestral-latest", prompt: "def f(", suffix: "return a", max_tokens: 64 },
    {
      body: {
        choices: [
          { index: 0, message: { role: "assistant", content: "a):" }, finish_reason: "stop" },
        ],
        usage: { prompt_tokens: 8, completion_tokens: 3, total_tokens: 11 },
      },
    },
  );
  expect(view).toEqual({
    api: "mistral.fim",
    model: "codestral-latest",
    messages: [
      { role: "user", content: "def f(" },
      { role: "user", content: "return a" },
    ],
    maxTokens: 64,
    completion: "a):",
    finishReason: "stop",
    promptTokens: 8,
    completionTokens: 3,
    totalTokens: 11,
  });
});

test("Mistral: an agent stands for the model", async () => {
  const { request } = await record("/v1/agents/completions", { agent_id: "ag:1", messages });
  expect(request?.model).toBe("ag:1");
});

test("Mistral: conversations, at its own host alone", async () => {
  expect(endpointOf("POST", "/v1/conversations")).toBeUndefined();
  const mistral = "api.mistral.ai";
  for (const path of ["/v1/conversations", "/v1/conversations/c1", "/v1/conversations/c1/restart"])
    expect(endpointOf("POST", path, mistral)?.dialect).toBeDefined();
  expect(endpointOf("POST", "/v1/conversations/c1/other", mistral)).toBeUndefined();
  const call = { tool_call_id: "t1", name: "look", output_index: 1 };
  const inputs = [
    { role: "user", content: "where?" },
    { type: "function.result", tool_call_id: "t0", result: "there" },
  ];
  const { view } = await record(
    "/v1/conversations",
    { agent_id: "ag:1", inputs, stream: true, completion_args: { temperature: 0.1 } },
    {
      events: [
        ["conversation.response.started", { type: "conversation.response.started" }],
        ["message.output.delta", { type: "message.output.delta", content: "I " }],
        [
          "message.output.delta",
          { type: "message.output.delta", content: { type: "text", text: "look" } },
        ],
        ["function.call.delta", { type: "function.call.delta", ...call, arguments: '{"a":' }],
        ["function.call.delta", { type: "function.call.delta", ...call, arguments: "1}" }],
        [
          "conversation.response.done",
          {
            type: "conversation.response.done",
            usage: { prompt_tokens: 7, completion_tokens: 2, total_tokens: 9 },
          },
        ],
      ],
    },
    mistral,
  );
  expect(view).toMatchObject({
    api: "mistral.conversations",
    model: "ag:1",
    temperature: 0.1,
    messages: [
      { role: "user", content: "where?" },
      { role: "tool", content: "there" },
    ],
    completion: "I look",
    toolCalls: [{ id: "t1", name: "look", arguments: '{"a":1}' }],
    totalTokens: 9,
  });
  const whole = await record(
    "/v1/conversations",
    { model: "m", inputs: "hi" },
    {
      body: {
        outputs: [
          { type: "message.output", content: "hello" },
          { type: "function.call", tool_call_id: "t", name: "f", arguments: "{}" },
        ],
        usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 },
      },
    },
    mistral,
  );
  expect(whole.view).toMatchObject({
    completion: "hello",
    toolCalls: [{ name: "f" }],
    totalTokens: 3,
  });
});

test("Cohere: embeddings are billed by their input", async () => {
  const { view } = await record(
    "/v2/embed",
    { model: "embed-v4.0", texts: ["one", "two"], input_type: "search_document" },
    { body: { embeddings: { float: [[0.1]] }, meta: { billed_units: { input_tokens: 4 } } } },
  );
  expect(view).toEqual({
    api: "cohere.embed",
    model: "embed-v4.0",
    messages: [
      { role: "user", content: "one" },
      { role: "user", content: "two" },
    ],
    promptTokens: 4,
    totalTokens: 4,
  });
});

test("Vertex: predictions say how many tokens each instance had", async () => {
  const { view } = await record(
    "/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict",
    { instances: [{ content: "one" }, { content: "two" }] },
    {
      body: {
        predictions: [1, 2].map((token_count) => ({
          embeddings: { values: [0.1], statistics: { token_count, truncated: false } },
        })),
      },
    },
  );
  expect(view).toMatchObject({
    api: "vertex.predict",
    model: "text-embedding-005",
    promptTokens: 3,
  });
});

test("images and audio are counted, and uploads are not read", async () => {
  const drawn = await record(
    "/v1/images/generations",
    { model: "gpt-image-1", prompt: "a cat" },
    {
      body: {
        data: [{ b64_json: "AAAA" }],
        usage: { input_tokens: 5, output_tokens: 100, total_tokens: 105 },
      },
    },
  );
  expect(drawn.view).toMatchObject({
    api: "openai.images",
    model: "gpt-image-1",
    totalTokens: 105,
  });
  const heard = await record(
    "/openai/deployments/whisper/audio/transcriptions",
    "--x\r\nContent-Disposition: form-data; name=file\r\n\r\nRIFF\r\n--x--\r\n",
    {
      body: {
        text: "hello",
        usage: { type: "tokens", input_tokens: 14, output_tokens: 2, total_tokens: 16 },
      },
    },
    undefined,
    { "content-type": "multipart/form-data; boundary=x" },
  );
  expect(heard.view).toEqual({
    api: "openai.audio",
    model: "whisper",
    completion: "hello",
    promptTokens: 14,
    completionTokens: 2,
    totalTokens: 16,
  });
});

test.each([
  [{ host: "a", path: "[", api: "openai.chat" }],
  [{ host: "[", path: "/", api: "openai.chat" }],
  [{ host: "a", path: "/", api: "openai.chats" }],
  [{ host: "a", path: "/" }],
])("an endpoint that cannot be is refused: %j", (endpoint) => {
  expect(inferenceConfig.safeParse({ endpoints: [endpoint] }).success).toBe(false);
});
