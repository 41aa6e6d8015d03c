/** What inference-parser records of each API (contract 2.7 and 4.10). */
import { describe, expect, test } from "vitest";
import { truncated } from "../../../../src/http/json-access.ts";
import { message, PluginBench } from "../../../support/plugin-bench.ts";
import { inferenceParser } from "../../../../src/plugins/parsers/inference.ts";
import { record } from "../../../support/inference-bench.ts";

const chat = { model: "gpt-4o", messages: [{ role: "user", content: "hi" }] };

describe("requests", () => {
  test("P9: a chat completion", async () => {
    const { request, said } = await record("/v1/chat/completions", {
      ...chat,
      messages: [
        { role: "system", content: "be brief" },
        { role: "user", content: [{ type: "text", text: "a" }, { type: "image_url" }] },
        { role: "assistant", content: null, tool_calls: [] },
      ],
      temperature: 0.2,
      max_completion_tokens: 50,
      top_p: 0.9,
      stream: true,
      tools: [
        {
          type: "function",
          function: { name: "get", description: "gets", parameters: { type: "object" } },
        },
        { type: "function", function: {} },
      ],
      tool_choice: "auto",
    });
    expect(request).toEqual({
      api: "openai.chat",
      model: "gpt-4o",
      messages: [
        { role: "system", content: "be brief" },
        { role: "user", content: "a" },
        { role: "assistant" },
      ],
      temperature: 0.2,
      maxTokens: 50,
      topP: 0.9,
      stream: true,
      tools: [{ name: "get", description: "gets", parameters: { type: "object" } }],
      toolChoice: "auto",
    });
    expect(said).toEqual([{ action: "observe", reason: "matched_gpt-4o" }, expect.anything()]);
  });

  test("P9: a legacy completion", async () => {
    const { request } = await record("/v1/completions", {
      model: "davinci",
      prompt: ["one", "two"],
      max_tokens: 5,
    });
    expect(request).toEqual({
      api: "openai.completions",
      model: "davinci",
      messages: [
        { role: "user", content: "one" },
        { role: "user", content: "two" },
      ],
      maxTokens: 5,
    });
  });

  test("P9: Anthropic messages, the system prompt in front", async () => {
    const { request } = await record("/v1/messages?beta=true", {
      model: "claude",
      system: [{ type: "text", text: "be kind" }],
      messages: [
        { role: "user", content: "hello" },
        { role: "user", content: [{ type: "tool_result", content: "big" }] },
      ],
      max_tokens: 9,
      tools: [{ name: "t", input_schema: { type: "object" } }],
      tool_choice: { type: "any" },
    });
    expect(request).toEqual({
      api: "anthropic.messages",
      model: "claude",
      messages: [
        { role: "system", content: "be kind" },
        { role: "user", content: "hello" },
        { role: "user" },
      ],
      maxTokens: 9,
      tools: [{ name: "t", parameters: { type: "object" } }],
      toolChoice: { type: "any" },
    });
  });

  test("the responses API", async () => {
    const { request } = await record("/v1/responses", {
      model: "gpt-5",
      instructions: "short",
      input: [
        { role: "user", content: [{ type: "input_text", text: "go" }] },
        { type: "function_call", name: "f", arguments: "{}" },
        { type: "function_call_output", output: "42" },
      ],
      max_output_tokens: 7,
      tools: [{ type: "function", name: "f", parameters: {} }, { type: "web_search" }],
    });
    expect(request).toEqual({
      api: "openai.responses",
      model: "gpt-5",
      messages: [
        { role: "system", content: "short" },
        { role: "user", content: "go" },
        { role: "assistant" },
        { role: "tool", content: "42" },
      ],
      maxTokens: 7,
      tools: [{ name: "f", parameters: {} }, { name: "web_search" }],
    });
  });

  test.each([
    ["/v1/chat/completions", "openai.chat", "gpt-4o"],
    ["/chat/completions", "openai.chat", "gpt-4o"],
    ["/api/v1/chat/completions", "openai.chat", "gpt-4o"],
    ["/openai/v1/chat/completions/", "openai.chat", "gpt-4o"],
    ["/v1beta/openai/chat/completions", "openai.chat", "gpt-4o"],
    ["//v1/./chat//completions?api-version=1", "openai.chat", "gpt-4o"],
    ["/team-a/llm/v1/chat/completions", "openai.chat", "gpt-4o"],
    ["/v1/messages/count_tokens", "anthropic.messages", "gpt-4o"],
    ["/api/chat", "ollama.chat", "gpt-4o"],
    ["/ollama/api/chat", "ollama.chat", "gpt-4o"],
    ["/v2/chat", "cohere.chat", "gpt-4o"],
  ])("%s is %s", async (path, api, model) => {
    expect((await record(path, chat)).request).toMatchObject({ api, model });
  });

  test.each([
    ["/responses", "openai.responses"],
    ["/backend-api/codex/responses", "openai.responses"],
    ["/v1/responses/compact", "openai.responses"],
    ["/backend-api/codex/responses/compact", "openai.responses"],
    ["/v1/responses/input_tokens", "openai.responses"],
    ["/embeddings", "openai.embeddings"],
    ["/completions", "openai.completions"],
    ["/api/generate", "ollama.generate"],
    ["/api/embed", "ollama.embed"],
    ["/api/embeddings", "ollama.embed"],
  ])("%s is %s", async (path, api) => {
    const body = { model: "m", input: "hi", prompt: "hi" };
    const messages = [{ role: "user", content: "hi" }];
    expect((await record(path, body)).request).toMatchObject({ api, model: "m", messages });
  });

  test.each(["/v1internal:generateContent", "/v1internal:streamGenerateContent?alt=sse"])(
    "%s carries a call of Gemini in an envelope",
    async (path) => {
      const answer = {
        response: {
          candidates: [{ content: { parts: [{ text: "yes" }] }, finishReason: "STOP" }],
          usageMetadata: { promptTokenCount: 3, candidatesTokenCount: 1, totalTokenCount: 4 },
        },
      };
      const contents = [{ role: "user", parts: [{ text: "hi" }] }];
      const { view } = await record(
        path,
        { model: "gemini-2.5-pro", project: "p", request: { contents } },
        path.includes("stream") ? { events: [answer] } : { body: answer },
      );
      expect(view).toMatchObject({
        api: "gemini.generate",
        model: "gemini-2.5-pro",
        messages: [{ role: "user", content: "hi" }],
        completion: "yes",
        finishReason: "STOP",
        totalTokens: 4,
      });
    },
  );

  test("the paths of a chat of another program are no calls of Ollama or Cohere", async () => {
    const { messages } = chat;
    for (const path of ["/api/chat", "/v2/chat", "/api/generate"]) {
      expect((await record(path, { messages, prompt: "hi" })).request).toBeUndefined();
    }
  });

  test("a deployment of Azure names the model that the body does not", async () => {
    const { messages } = chat;
    const path = "/openai/deployments/prod-gpt/chat/completions?api-version=2024-10-21";
    expect((await record(path, { messages })).request).toMatchObject({ model: "prod-gpt" });
    const embed = "/openai/deployments/embed/embeddings";
    expect((await record(embed, { input: "x" })).request).toEqual({
      api: "openai.embeddings",
      model: "embed",
      messages: [{ role: "user", content: "x" }],
    });
  });

  test("Bedrock converse, and invoke with the bodies of several makers", async () => {
    const model = "arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Ainference-profile%2Feu.anthropic.claude";
    const converse = await record(`/model/${model}/converse`, {
      system: [{ text: "sys" }],
      messages: [{ role: "user", content: [{ text: "hi" }, { image: {} }] }],
      inferenceConfig: { maxTokens: 3, temperature: 1, topP: 0.5 },
      toolConfig: { tools: [{ toolSpec: { name: "t", inputSchema: { json: { a: 1 } } } }] },
    });
    expect(converse.request).toEqual({
      api: "bedrock.converse",
      model: "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.anthropic.claude",
      messages: [
        { role: "system", content: "sys" },
        { role: "user", content: "hi" },
      ],
      maxTokens: 3,
      temperature: 1,
      topP: 0.5,
      tools: [{ name: "t", parameters: { a: 1 } }],
    });
    const invoke = async (body: object) =>
      (await record("/model/m/invoke-with-response-stream", body)).request;
    const expected = { api: "bedrock.invoke", model: "m", stream: true };
    expect(
      await invoke({
        anthropic_version: "bedrock-2023-05-31",
        max_tokens: 4,
        messages: [{ role: "user", content: "hi" }],
      }),
    ).toEqual({ ...expected, maxTokens: 4, messages: [{ role: "user", content: "hi" }] });
    for (const body of [{ inputText: "hi" }, { prompt: "hi" }, { message: "hi" }]) {
      expect(await invoke(body)).toEqual({
        ...expected,
        messages: [{ role: "user", content: "hi" }],
      });
    }
  });

  test("Gemini, directly and in Vertex, and Anthropic in Vertex", async () => {
    const body = {
      systemInstruction: { parts: [{ text: "sys" }] },
      contents: [{ role: "user", parts: [{ text: "hi" }, { inlineData: {} }] }],
      generationConfig: { temperature: 0, maxOutputTokens: 8, topP: 1 },
      tools: [{ functionDeclarations: [{ name: "f", parameters: { type: "OBJECT" } }] }],
    };
    const expected = {
      api: "gemini.generate",
      model: "gemini-2.5-pro",
      messages: [
        { role: "system", content: "sys" },
        { role: "user", content: "hi" },
      ],
      temperature: 0,
      maxTokens: 8,
      topP: 1,
      tools: [{ name: "f", parameters: { type: "OBJECT" } }],
    };
    const direct = "/v1beta/models/gemini-2.5-pro:generateContent?key=secret";
    expect((await record(direct, body)).request).toEqual(expected);
    const vertex =
      "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:streamGenerateContent?alt=sse";
    expect((await record(vertex, body)).request).toEqual({ ...expected, stream: true });
    const claude =
      "/v1/projects/p/locations/l/publishers/anthropic/models/claude-x:streamRawPredict";
    expect(
      (await record(claude, { messages: [{ role: "user", content: "hi" }] })).request,
    ).toMatchObject({ api: "anthropic.messages", model: "claude-x", stream: true });
    expect(
      (await record("/v1beta/models/embed:embedContent", { content: { parts: [{ text: "x" }] } }))
        .request,
    ).toEqual({
      api: "gemini.embed",
      model: "embed",
      messages: [{ role: "user", content: "x" }],
    });
  });

  test.each([
    ["/v1/models", chat],
    ["/surveys/5/responses", { input: "x" }],
    ["/messages", chat],
    ["/v1/messages/batches", chat],
    ["/v1/chat/completions", { a: 1 }],
    ["/v1/chat/completions", [chat]],
    ["/v1/chat/completions", undefined],
  ])("P11: %s with %j is no call of a model", async (path, body) => {
    const { request, said } = await record(path, body);
    expect(request).toBeUndefined();
    expect(said).toEqual([undefined]);
  });

  test("a body that two readers could read in two ways is not recorded, and says so", async () => {
    const { request, said } = await record("/v1/messages", '{"model":"a","model":"b"}');
    expect(request).toBeUndefined();
    expect(said).toMatchObject([{ action: "skip", reason: "unparsable" }]);
  });

  test("only bodies of model calls are asked for, and only their answers", () => {
    const plugin = inferenceParser.create({ endpoints: [] }, new PluginBench().deps);
    const wants = (path: string) => plugin.wantsBody?.(message({ method: "POST", path }));
    expect(wants("/v1/messages")).toBe(true);
    expect(wants("/upload")).toBe(false);
    expect(plugin.wantsAnswer?.(message({ path: "/upload" }))).toBe(false);
  });

  test("a long conversation keeps its end, and a long message its beginning", async () => {
    const messages = Array.from({ length: 40 }, (_, index) => ({
      role: "user",
      content: `${index} ${"x".repeat(100_000)}`,
    }));
    const { request } = await record("/v1/chat/completions", { model: "m", messages });
    const kept = request?.messages ?? [];
    expect(kept.length).toBeLessThan(20);
    expect(kept.at(-1)?.content).toMatch(/^39 x+…\(truncated\)$/);
    expect(kept.at(-1)?.content?.endsWith(truncated)).toBe(true);
  });
});

describe("answers", () => {
  test("P9: a chat completion with tool calls, tokens and cost", async () => {
    const { context, view, request, said } = await record("/v1/chat/completions", chat, {
      headers: { "x-litellm-response-cost": "0.0125" },
      body: {
        choices: [
          {
            message: {
              content: "hello",
              tool_calls: [{ id: "c1", function: { name: "get", arguments: '{"a":1}' } }],
            },
            finish_reason: "tool_calls",
          },
        ],
        usage: {
          prompt_tokens: 1500,
          completion_tokens: 400,
          total_tokens: 1900,
          prompt_tokens_details: { cached_tokens: 200 },
          completion_tokens_details: { reasoning_tokens: 50 },
        },
      },
    });
    expect(view).toEqual({
      api: "openai.chat",
      model: "gpt-4o",
      messages: [{ role: "user", content: "hi" }],
      completion: "hello",
      finishReason: "tool_calls",
      toolCalls: [{ id: "c1", name: "get", arguments: '{"a":1}' }],
      promptTokens: 1500,
      completionTokens: 400,
      totalTokens: 1900,
      cacheReadTokens: 200,
      reasoningTokens: 50,
      costUsd: 0.0125,
    });
    expect(request).not.toHaveProperty("completion");
    expect(context.facts.get("inference-parser/event")).toEqual({ costMicros: 12_500 });
    expect(said.at(-1)).toEqual({ action: "observe", reason: "matched_gpt-4o_response" });
  });

  test("a cost beyond all numbers does not make sums of it useless", async () => {
    const usage = { prompt_tokens: 1, completion_tokens: 1, cost: 1e300 };
    const { context } = await record("/v1/chat/completions", chat, {
      body: { choices: [], usage },
    });
    expect(context.facts.get("inference-parser/event")).toEqual({ costMicros: 9e12 });
  });

  test("P10: streamed text and tool calls are put together; the last event has tokens and cost", async () => {
    const delta = (fields: object, rest: object = {}) => ({
      choices: [{ index: 0, delta: fields, ...rest }],
    });
    const call = (index: number, fields: object, id?: string) => ({
      tool_calls: [{ index, ...(id === undefined ? {} : { id }), function: fields }],
    });
    const { view, said } = await record(
      "/v1/chat/completions",
      { ...chat, stream: true },
      {
        events: [
          delta({ role: "assistant", content: "" }),
          delta({ content: "hel" }),
          delta({ content: "lo" }),
          delta(call(0, { name: "get", arguments: "" }, "c1")),
          delta(call(1, { name: "put", arguments: '{"b"' }, "c2")),
          delta(call(0, { arguments: '{"a":' })),
          delta(call(1, { arguments: ":2}" })),
          delta(call(0, { arguments: "1}" })),
          { choices: [{ index: 1, delta: { content: "an alternative" } }] },
          delta({}, { finish_reason: "tool_calls" }),
          {
            choices: [],
            usage: { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7, cost: 0.5 },
          },
          "[DONE]",
        ],
      },
    );
    expect(view).toMatchObject({
      completion: "hello",
      finishReason: "tool_calls",
      toolCalls: [
        { id: "c1", name: "get", arguments: '{"a":1}' },
        { id: "c2", name: "put", arguments: '{"b":2}' },
      ],
      totalTokens: 7,
      costUsd: 0.5,
    });
    expect(said.slice(1, -1)).toEqual(Array.from({ length: 12 }, () => undefined));
    expect(said.at(-1)).toEqual({ action: "observe", reason: "matched_gpt-4o_response" });
  });

  test("P10: broken chunks and [DONE] are passed over", async () => {
    const { view } = await record("/v1/chat/completions", chat, {
      events: ["{not json", { choices: [{ delta: { content: "ok" } }] }, "[DONE]"],
    });
    expect(view?.completion).toBe("ok");
  });

  test("P10: Anthropic's events, tokens of both ends", async () => {
    const { view } = await record(
      "/v1/messages",
      { ...chat, stream: true },
      {
        events: [
          { type: "message_start", message: { usage: { input_tokens: 9, output_tokens: 0 } } },
          { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
          { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "ok" } },
          {
            type: "content_block_delta",
            index: 0,
            delta: { type: "thinking_delta", thinking: "no" },
          },
          {
            type: "content_block_start",
            index: 1,
            content_block: { type: "tool_use", id: "t1", name: "get", input: {} },
          },
          {
            type: "content_block_delta",
            index: 1,
            delta: { type: "input_json_delta", partial_json: '{"a"' },
          },
          { type: "ping" },
          {
            type: "content_block_delta",
            index: 1,
            delta: { type: "input_json_delta", partial_json: ":1}" },
          },
          { type: "content_block_stop", index: 1 },
          {
            type: "message_delta",
            delta: { stop_reason: "tool_use" },
            usage: {
              input_tokens: 9,
              cache_creation_input_tokens: 1234,
              cache_read_input_tokens: 32_529,
              output_tokens: 399,
            },
          },
          { type: "message_stop" },
        ],
      },
    );
    expect(view).toMatchObject({
      completion: "ok",
      finishReason: "tool_use",
      toolCalls: [{ id: "t1", name: "get", arguments: '{"a":1}' }],
      promptTokens: 33_772,
      completionTokens: 399,
      totalTokens: 34_171,
      cacheReadTokens: 32_529,
      cacheWriteTokens: 1234,
    });
  });

  test("P10: Anthropic's counts of the first event stay when the last has none of them", async () => {
    const { view } = await record("/v1/messages", chat, {
      events: [
        {
          type: "message_start",
          message: {
            usage: {
              input_tokens: 40,
              cache_creation_input_tokens: 10,
              cache_read_input_tokens: 30,
              output_tokens: 0,
            },
          },
        },
        { type: "message_delta", delta: {}, usage: { output_tokens: 12 } },
      ],
    });
    expect(view).toMatchObject({ promptTokens: 80, completionTokens: 12, totalTokens: 92 });
  });

  test("Anthropic's whole answer, and its errors", async () => {
    const { view } = await record("/v1/messages", chat, {
      body: {
        content: [
          { type: "text", text: "a" },
          { type: "tool_use", id: "t", name: "get", input: { a: 1 } },
          { type: "text", text: "b" },
        ],
        stop_reason: "end_turn",
        usage: { input_tokens: 8, output_tokens: 2 },
      },
    });
    expect(view).toMatchObject({
      completion: "a\nb",
      finishReason: "end_turn",
      toolCalls: [{ id: "t", name: "get", arguments: '{"a":1}' }],
      totalTokens: 10,
    });
    const failed = await record("/v1/messages", chat, {
      body: { type: "error", error: { type: "overloaded_error", message: "later" } },
    });
    expect(failed.view?.errorMessage).toBe("later");
  });

  test("the responses API, whole and streamed", async () => {
    const output = [
      { type: "reasoning", summary: [] },
      { type: "message", content: [{ type: "output_text", text: "done" }] },
      { type: "function_call", call_id: "c", id: "i", name: "f", arguments: '{"a":1}' },
    ];
    const usage = {
      input_tokens: 5,
      input_tokens_details: { cached_tokens: 1 },
      output_tokens: 6,
      output_tokens_details: { reasoning_tokens: 2 },
      total_tokens: 11,
    };
    const expected = {
      completion: "done",
      finishReason: "completed",
      toolCalls: [{ id: "c", name: "f", arguments: '{"a":1}' }],
      promptTokens: 5,
      completionTokens: 6,
      totalTokens: 11,
      cacheReadTokens: 1,
      reasoningTokens: 2,
    };
    const response = { status: "completed", output, usage };
    const asked = { model: "m", input: "x" };
    expect((await record("/v1/responses", asked, { body: response })).view).toMatchObject(expected);
    const events = [
      { type: "response.created", response: { status: "in_progress" } },
      { type: "response.output_text.delta", output_index: 1, delta: "do" },
      { type: "response.output_text.delta", output_index: 1, delta: "ne" },
      {
        type: "response.output_item.added",
        output_index: 2,
        item: { ...output[2], arguments: "" },
      },
      { type: "response.function_call_arguments.delta", output_index: 2, delta: '{"a"' },
      { type: "response.function_call_arguments.delta", output_index: 2, delta: ":1}" },
      { type: "response.completed", response },
    ];
    expect((await record("/v1/responses", asked, { events })).view).toMatchObject(expected);
    const end = await record("/v1/responses", asked, { events: [events.at(-1) ?? {}] });
    expect(end.view).toMatchObject(expected);
  });

  test("Gemini, whole, as events, and as an array", async () => {
    const part = (text: string, rest: object = {}) => ({
      candidates: [{ content: { parts: [{ text }] }, ...rest }],
    });
    const last = {
      candidates: [
        {
          content: {
            parts: [{ text: "hm", thought: true }, { functionCall: { name: "f", args: { a: 1 } } }],
          },
          finishReason: "STOP",
        },
      ],
      usageMetadata: {
        promptTokenCount: 3,
        candidatesTokenCount: 4,
        thoughtsTokenCount: 2,
        totalTokenCount: 9,
      },
    };
    const expected = {
      completion: "hello",
      finishReason: "STOP",
      toolCalls: [{ name: "f", arguments: '{"a":1}' }],
      promptTokens: 3,
      completionTokens: 6,
      totalTokens: 9,
      reasoningTokens: 2,
    };
    const asked = { contents: [{ parts: [{ text: "x" }] }] };
    const path = "/v1beta/models/g:streamGenerateContent";
    const pieces = [part("hel"), part("lo"), last];
    expect((await record(path, asked, { events: pieces })).view).toMatchObject(expected);
    expect((await record(path, asked, { body: pieces })).view).toMatchObject(expected);
  });

  test("a stream that breaks off leaves what came of it", async () => {
    const { view, said } = await record("/v1/chat/completions", chat, {
      events: [{ choices: [{ delta: { content: "half" } }] }],
      cut: true,
    });
    expect(view?.completion).toBe("half");
    expect(said).toHaveLength(2);
  });

  test("P5: an answer without anything to record is said to be one", async () => {
    const empty = await record("/v1/chat/completions", chat, {});
    expect(empty.said.at(-1)).toEqual({ action: "skip", reason: "no_response_body" });
    const html = await record("/v1/chat/completions", chat, { body: "<html>" });
    expect(html.said.at(-1)).toEqual({ action: "skip", reason: "unparsable_response" });
  });

  test("an endless answer is kept up to a bound", async () => {
    const events = Array.from({ length: 40 }, () => ({
      choices: [{ delta: { content: "x".repeat(10_000), tool_calls: [] } }],
    }));
    const { view } = await record("/v1/chat/completions", chat, { events });
    expect(view?.completion?.length).toBeLessThan(270_000);
    expect(view?.completion?.endsWith(truncated)).toBe(true);
  });

  test("strange shapes of every member are passed over", async () => {
    const odd = [null, 1, "x", [], {}, [null, 1, [{}]], { choices: [null, { delta: 5 }] }];
    for (const path of ["/v1/chat/completions", "/v1/messages", "/v1/responses"]) {
      for (const value of odd) {
        const events = [{ choices: value, usage: value, type: value, output: value }];
        const asked = { ...chat, input: "x", tools: value, messages: [value] };
        expect((await record(path, asked, { events })).said.length).toBeGreaterThan(1);
        expect((await record(path, asked, { body: { ...events[0] } })).said).toHaveLength(2);
      }
    }
  });
});

describe("Ollama", () => {
  const call = { function: { name: "get", arguments: { city: "Bern" } } };
  const lines = [
    { model: "qwen3", message: { role: "assistant", content: "", thinking: "hm" }, done: false },
    { model: "qwen3", message: { role: "assistant", content: "Hel" }, done: false },
    { model: "qwen3", message: { role: "assistant", content: "lo", tool_calls: [call] } },
    {
      model: "qwen3",
      message: {},
      done: true,
      done_reason: "stop",
      prompt_eval_count: 9,
      eval_count: 2,
    },
  ];
  const told = {
    api: "ollama.chat",
    completion: "Hello",
    finishReason: "stop",
    toolCalls: [{ name: "get", arguments: '{"city":"Bern"}' }],
    promptTokens: 9,
    completionTokens: 2,
    totalTokens: 11,
  };

  test("streams unless it is told not to, a line for each piece", async () => {
    const { view } = await record(
      "/api/chat",
      { model: "qwen3", messages: chat.messages, options: { temperature: 0, num_predict: 5 } },
      {
        type: "application/x-ndjson",
        stream: Buffer.from(lines.map((line) => JSON.stringify(line)).join("\n")),
      },
    );
    expect(view).toMatchObject({ ...told, stream: true, temperature: 0, maxTokens: 5 });
  });

  test("answers whole, and says what went wrong", async () => {
    const body = { model: "qwen3", prompt: "hi", system: "be brief", stream: false };
    const whole = { response: "Hello", done: true, done_reason: "stop", prompt_eval_count: 9 };
    const { request, view } = await record("/api/generate", body, { body: whole });
    expect(request).toEqual({
      api: "ollama.generate",
      model: "qwen3",
      messages: [
        { role: "system", content: "be brief" },
        { role: "user", content: "hi" },
      ],
    });
    expect(view).toMatchObject({ completion: "Hello", promptTokens: 9 });
    const failed = await record("/api/generate", body, { body: { error: "model not found" } });
    expect(failed.view?.errorMessage).toBe("model not found");
  });
});

describe("Cohere", () => {
  const body = {
    ...chat,
    p: 0.5,
    tools: [{ type: "function", function: { name: "get", parameters: {} } }],
  };
  const told = {
    api: "cohere.chat",
    topP: 0.5,
    tools: [{ name: "get", parameters: {} }],
    completion: "Hello",
    finishReason: "TOOL_CALL",
    toolCalls: [{ id: "t1", name: "get", arguments: '{"a":1}' }],
    promptTokens: 7,
    completionTokens: 3,
    totalTokens: 10,
  };
  const usage = { tokens: { input_tokens: 7, output_tokens: 3 } };

  test("a whole answer", async () => {
    const { view } = await record("/v2/chat", body, {
      body: {
        finish_reason: "TOOL_CALL",
        message: {
          role: "assistant",
          content: [{ type: "text", text: "Hello" }],
          tool_calls: [
            { id: "t1", type: "function", function: { name: "get", arguments: '{"a":1}' } },
          ],
        },
        usage,
      },
    });
    expect(view).toMatchObject(told);
  });

  test("a streamed answer, and an error", async () => {
    const started = { id: "t1", type: "function", function: { name: "get", arguments: "" } };
    const { view } = await record("/v2/chat", body, {
      events: [
        { type: "message-start", delta: { message: { role: "assistant" } } },
        { type: "content-start", index: 0, delta: { message: { content: { text: "" } } } },
        { type: "content-delta", index: 0, delta: { message: { content: { text: "Hello" } } } },
        { type: "tool-call-start", index: 0, delta: { message: { tool_calls: started } } },
        {
          type: "tool-call-delta",
          index: 0,
          delta: { message: { tool_calls: { function: { arguments: '{"a":1}' } } } },
        },
        { type: "message-end", delta: { finish_reason: "TOOL_CALL", usage } },
      ],
    });
    expect(view).toMatchObject(told);
    const failed = await record("/v2/chat", body, { body: { message: "invalid model" } });
    expect(failed.view?.errorMessage).toBe("invalid model");
  });
});
