/** The SDKs of OpenAI and Anthropic through the bridge, and what inference-parser recorded of their calls. */
import { readFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { gzipSync } from "node:zlib";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { fetch, ProxyAgent } from "undici";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { eventOf, type SeenEvent } from "../support/session-events.ts";
import { readAll, TlsOrigin } from "../support/tls-origin.ts";

const host = "api.allowed.test";
const recipeFile = new URL("../../examples/policy/model-key.yaml", import.meta.url);

interface Recipe {
  readonly pipeline: {
    readonly outbound: {
      readonly plugins: readonly {
        readonly name: string;
        readonly config: Readonly<Record<string, unknown>>;
      }[];
    };
  };
}

let authority: TestAuthority;
let origin: TlsOrigin;
let proxy: BridgeProxy;
let dispatcher: ProxyAgent;
let base: string;

beforeAll(async () => {
  authority = await TestAuthority.create();
  origin = await TlsOrigin.start(await authority.server([host]), "both");
  proxy = await BridgeProxy.start({
    ports: [origin.port],
    originCa: authority.caPem,
    plugins: ["mcp-parser", "a2a-parser", "inference-parser"],
  });
  dispatcher = new ProxyAgent({ uri: proxy.url, requestTls: { ca: proxy.ca } });
  base = `https://${origin.at(host)}`;
});
afterAll(async () => {
  await dispatcher.close();
  await proxy.close();
  await origin.close();
});

/** Both SDKs take a fetch; this one goes through the proxy. */
const proxied = ((url: string, options: object) =>
  fetch(url, { ...options, dispatcher })) as unknown as typeof globalThis.fetch;
const openai = () => new OpenAI({ apiKey: "sk-agent", baseURL: `${base}/v1`, fetch: proxied });
const anthropic = () => new Anthropic({ apiKey: "sk-agent", baseURL: base, fetch: proxied });

const answered = (path: string, more: (event: SeenEvent) => boolean = () => true) =>
  eventOf(
    async (url) => (await proxy.sessions(url)).text,
    (event) => event.phase === "response" && event.httpPath === path && more(event),
  );

function json(path: string, body: object): void {
  origin.on(path, async (request, response, seen) => {
    await readAll(request, seen);
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(body));
  });
}

/** Answers with events, one write each. */
function stream(path: string, events: readonly string[]): void {
  origin.on(path, async (request, response, seen) => {
    await readAll(request, seen);
    response.setHeader("content-type", "text/event-stream");
    for (const event of events) {
      response.write(event);
      await new Promise((resolve) => setImmediate(resolve));
    }
    response.end();
  });
}

const data = (value: object | string): string =>
  `data: ${typeof value === "string" ? value : JSON.stringify(value)}\n\n`;
const named = (value: { readonly type: string; readonly [name: string]: unknown }): string =>
  `event: ${value.type}\n${data(value)}`;

const weather = {
  type: "function",
  function: { name: "get_weather", parameters: { type: "object", properties: {} } },
} as const;

describe("the SDK of OpenAI", () => {
  test("a chat completion", async () => {
    json("/v1/chat/completions", {
      id: "c",
      object: "chat.completion",
      model: "gpt-4o",
      choices: [
        { index: 0, finish_reason: "stop", message: { role: "assistant", content: "Hello!" } },
      ],
      usage: { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 },
    });
    const answer = await openai().chat.completions.create({
      model: "gpt-4o",
      messages: [{ role: "user", content: "say hello" }],
      tools: [weather],
    });
    expect(answer.choices[0]?.message.content).toBe("Hello!");
    const event = await answered("/v1/chat/completions");
    expect(event.inference).toEqual({
      isAction: true,
      api: "openai.chat",
      model: "gpt-4o",
      messages: [{ role: "user", content: "say hello" }],
      tools: [{ name: "get_weather", parameters: { type: "object", properties: {} } }],
      completion: "Hello!",
      finishReason: "stop",
      promptTokens: 5,
      completionTokens: 2,
      totalTokens: 7,
    });
    expect(event.invocations?.["outbound"]).toEqual([
      expect.objectContaining({ action: "observe", reason: "matched_gpt-4o_response" }),
    ]);
  });

  test("H1, H8: a streamed answer with a tool call, put together by both sides alike", async () => {
    const chunk = (delta: object, rest: object = {}) =>
      data({
        id: "c",
        object: "chat.completion.chunk",
        created: 1,
        model: "gpt-4o",
        choices: [{ index: 0, delta, finish_reason: null, ...rest }],
      });
    const call = (args: string, more: object = {}) =>
      chunk({ tool_calls: [{ index: 0, ...more, function: { arguments: args } }] });
    stream("/stream/v1/chat/completions", [
      ": keep-alive\n\n",
      chunk({ role: "assistant", content: "" }),
      chunk({ content: "Let me " }),
      chunk({ content: "look." }),
      chunk({
        tool_calls: [
          {
            index: 0,
            id: "call_1",
            type: "function",
            function: { name: "get_weather", arguments: "" },
          },
        ],
      }),
      call('{"city"'),
      call(':"Bern"}'),
      chunk({}, { finish_reason: "tool_calls" }),
      data({
        id: "c",
        object: "chat.completion.chunk",
        created: 1,
        model: "gpt-4o",
        choices: [],
        usage: { prompt_tokens: 9, completion_tokens: 8, total_tokens: 17, cost: 0.001 },
      }),
      data("[DONE]"),
    ]);
    const client = new OpenAI({
      apiKey: "sk-agent",
      baseURL: `${base}/stream/v1`,
      fetch: proxied,
    });
    const run = client.chat.completions.stream({
      model: "gpt-4o",
      messages: [{ role: "user", content: "weather in Bern?" }],
      tools: [weather],
      stream_options: { include_usage: true },
    });
    const whole = await run.finalChatCompletion();
    const [choice] = whole.choices;
    const [called] = choice?.message.tool_calls ?? [];
    expect(choice?.message.content).toBe("Let me look.");
    expect(called?.type === "function" && called.function.arguments).toBe('{"city":"Bern"}');
    const { inference } = await answered("/stream/v1/chat/completions");
    expect(inference).toMatchObject({
      stream: true,
      completion: "Let me look.",
      finishReason: "tool_calls",
      toolCalls: [{ id: "call_1", name: "get_weather", arguments: '{"city":"Bern"}' }],
      totalTokens: whole.usage?.total_tokens,
      costUsd: 0.001,
    });
  });

  test("the responses API, streamed", async () => {
    const response = {
      id: "r",
      object: "response",
      model: "gpt-5",
      status: "completed",
      output: [
        {
          id: "m",
          type: "message",
          role: "assistant",
          status: "completed",
          content: [{ type: "output_text", text: "done", annotations: [] }],
        },
      ],
      usage: { input_tokens: 1, output_tokens: 2, total_tokens: 3 },
    };
    const delta = (text: string, sequence: number) =>
      named({
        type: "response.output_text.delta",
        item_id: "m",
        output_index: 0,
        content_index: 0,
        delta: text,
        sequence_number: sequence,
      });
    stream("/v1/responses", [
      named({ type: "response.created", response: { ...response, output: [] } }),
      delta("do", 1),
      delta("ne", 2),
      named({ type: "response.completed", response }),
    ]);
    const events = await openai().responses.create({ model: "gpt-5", input: "go", stream: true });
    let text = "";
    for await (const event of events) {
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    expect(text).toBe("done");
    expect((await answered("/v1/responses")).inference).toEqual({
      isAction: true,
      api: "openai.responses",
      model: "gpt-5",
      messages: [{ role: "user", content: "go" }],
      stream: true,
      completion: "done",
      finishReason: "completed",
      promptTokens: 1,
      completionTokens: 2,
      totalTokens: 3,
    });
  });

  test("embeddings, recognised and without vectors", async () => {
    json("/v1/embeddings", {
      object: "list",
      model: "embed",
      data: [{ object: "embedding", index: 0, embedding: [0.5, 0.25] }],
      usage: { prompt_tokens: 4, total_tokens: 4 },
    });
    const answer = await openai().embeddings.create({
      model: "embed",
      input: "some text",
      encoding_format: "float",
    });
    expect(answer.data[0]?.embedding).toEqual([0.5, 0.25]);
    expect((await answered("/v1/embeddings")).inference).toEqual({
      isAction: true,
      api: "openai.embeddings",
      model: "embed",
      messages: [{ role: "user", content: "some text" }],
      promptTokens: 4,
      totalTokens: 4,
    });
  });

  test("an error of the provider reaches the SDK and the record", async () => {
    origin.on("/broken/v1/chat/completions", async (request, response, seen) => {
      await readAll(request, seen);
      response.writeHead(400, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: { message: "no such model", type: "invalid" } }));
    });
    const client = new OpenAI({ apiKey: "k", baseURL: `${base}/broken/v1`, fetch: proxied });
    const failed = client.chat.completions.create({ model: "x", messages: [] });
    await expect(failed).rejects.toThrow(/no such model/);
    const event = await answered("/broken/v1/chat/completions");
    expect(event).toMatchObject({ statusCode: 400, inference: { errorMessage: "no such model" } });
  });
});

describe("the SDK of Anthropic", () => {
  const tools: Anthropic.Tool[] = [{ name: "get", input_schema: { type: "object" } }];
  const asked = {
    model: "claude-x",
    max_tokens: 100,
    system: "be brief",
    messages: [{ role: "user", content: "hi" }],
    tools,
  } satisfies Anthropic.MessageCreateParamsNonStreaming;

  test("a message", async () => {
    json("/v1/messages", {
      id: "m",
      type: "message",
      role: "assistant",
      model: "claude-x",
      content: [
        { type: "text", text: "Hello" },
        { type: "tool_use", id: "t", name: "get", input: { a: 1 } },
      ],
      stop_reason: "tool_use",
      usage: { input_tokens: 10, output_tokens: 4, cache_read_input_tokens: 90 },
    });
    const answer = await anthropic().messages.create(asked);
    expect(answer.stop_reason).toBe("tool_use");
    expect((await answered("/v1/messages")).inference).toEqual({
      isAction: true,
      api: "anthropic.messages",
      model: "claude-x",
      messages: [
        { role: "system", content: "be brief" },
        { role: "user", content: "hi" },
      ],
      maxTokens: 100,
      tools: [{ name: "get", parameters: { type: "object" } }],
      completion: "Hello",
      finishReason: "tool_use",
      toolCalls: [{ id: "t", name: "get", arguments: '{"a":1}' }],
      promptTokens: 100,
      completionTokens: 4,
      totalTokens: 104,
      cacheReadTokens: 90,
    });
  });

  const events = [
    named({
      type: "message_start",
      message: {
        id: "m",
        type: "message",
        role: "assistant",
        model: "claude-x",
        content: [],
        stop_reason: null,
        usage: { input_tokens: 3, output_tokens: 1 },
      },
    }),
    named({
      type: "content_block_start",
      index: 0,
      content_block: { type: "text", text: "" },
    }),
    named({ type: "ping" }),
    named({
      type: "content_block_delta",
      index: 0,
      delta: { type: "text_delta", text: "Hel" },
    }),
    named({
      type: "content_block_delta",
      index: 0,
      delta: { type: "text_delta", text: "lo" },
    }),
    named({ type: "content_block_stop", index: 0 }),
    named({
      type: "content_block_start",
      index: 1,
      content_block: { type: "tool_use", id: "t", name: "get", input: {} },
    }),
    named({
      type: "content_block_delta",
      index: 1,
      delta: { type: "input_json_delta", partial_json: '{"a":' },
    }),
    named({
      type: "content_block_delta",
      index: 1,
      delta: { type: "input_json_delta", partial_json: "1}" },
    }),
    named({ type: "content_block_stop", index: 1 }),
    named({
      type: "message_delta",
      delta: { stop_reason: "tool_use" },
      usage: { output_tokens: 12 },
    }),
    named({ type: "message_stop" }),
  ];
  const expected = {
    stream: true,
    completion: "Hello",
    finishReason: "tool_use",
    toolCalls: [{ id: "t", name: "get", arguments: '{"a":1}' }],
    promptTokens: 3,
    completionTokens: 12,
    totalTokens: 15,
  };

  test("H7: a stream, whose event lines the SDK needs", async () => {
    stream("/claude/v1/messages", events);
    const client = new Anthropic({ apiKey: "k", baseURL: `${base}/claude`, fetch: proxied });
    const whole = await client.messages.stream(asked).finalMessage();
    expect(whole.content).toMatchObject([
      { type: "text", text: "Hello" },
      { type: "tool_use", id: "t", input: { a: 1 } },
    ]);
    expect((await answered("/claude/v1/messages")).inference).toMatchObject(expected);
  });

  test("Z13: a compressed stream is decoded, recorded and delivered", async () => {
    origin.on("/gzip/v1/messages", async (request, response, seen) => {
      await readAll(request, seen);
      expect(seen.headers["accept-encoding"]).toBeUndefined();
      response.writeHead(200, {
        "content-type": "text/event-stream",
        "content-encoding": "gzip",
      });
      response.end(gzipSync(events.join("")));
    });
    const client = new Anthropic({ apiKey: "k", baseURL: `${base}/gzip`, fetch: proxied });
    const whole = await client.messages.stream(asked).finalMessage();
    expect(whole.content[0]).toMatchObject({ text: "Hello" });
    expect((await answered("/gzip/v1/messages")).inference).toMatchObject(expected);
  });

  test("H2: each piece is delivered before the next one is sent", async () => {
    let writer: ServerResponse | undefined;
    origin.on("/live/v1/messages", async (request, response, seen) => {
      await readAll(request, seen);
      response.writeHead(200, { "content-type": "text/event-stream" });
      for (const event of events.slice(0, 4)) response.write(event);
      writer = response;
    });
    const client = new Anthropic({ apiKey: "k", baseURL: `${base}/live`, fetch: proxied });
    const run = client.messages.stream(asked);
    let text = "";
    run.on("text", (piece) => {
      text += piece;
      // The origin goes on only when the client has what came before.
      if (text === "Hel") writer?.write(events[4]);
      if (text === "Hello") writer?.end(events.slice(5).join(""));
    });
    await run.finalMessage();
    expect(text).toBe("Hello");
  });
});

describe("the key of the recipe", () => {
  test.each(["anthropic", "x-api-key", "openai"] as const)(
    "takes the place of what %s sends",
    async (which) => {
      const recipe = parse(await readFile(recipeFile, "utf8")) as Recipe;
      const injecting = recipe.pipeline.outbound.plugins.find(
        ({ name }) => name === "static-inject",
      );
      const mappings = { [host]: "sk-real" };
      // OpenAI's SDK sends a bearer token, so that no field of Anthropic's is named for it.
      const { inject_header: _header, ...anywhere } = injecting?.config ?? {};
      const config = {
        ...(which === "openai" ? anywhere : injecting?.config),
        mappings,
        hosts: [host],
      };
      const here = await BridgeProxy.start({
        ports: [origin.port],
        originCa: authority.caPem,
        plugins: [{ name: "static-inject", config }],
      });
      const through = new ProxyAgent({ uri: here.url, requestTls: { ca: here.ca } });
      const send = ((url: string, options: object) =>
        fetch(url, { ...options, dispatcher: through })) as unknown as typeof globalThis.fetch;
      try {
        const apiKey = "model-key";
        const messages = [{ role: "user" as const, content: "hi" }];
        if (which !== "openai") {
          json("/recipe/v1/messages", { type: "message", role: "assistant", content: [] });
          // Versions of the SDK differ in the field that they send the key in.
          const old = {
            authToken: null,
            defaultHeaders: { "x-api-key": apiKey, authorization: null },
          };
          const client = new Anthropic({
            apiKey,
            baseURL: `${base}/recipe`,
            fetch: send,
            ...(which === "x-api-key" ? old : {}),
          });
          await client.messages.create({ model: "m", max_tokens: 1, messages });
          expect(origin.seen.at(-1)?.headers["x-api-key"]).toBe("sk-real");
        } else {
          json("/recipe/v1/chat/completions", { choices: [] });
          const client = new OpenAI({ apiKey, baseURL: `${base}/recipe/v1`, fetch: send });
          await client.chat.completions.create({ model: "m", messages });
          expect(origin.seen.at(-1)?.headers["authorization"]).toBe("Bearer sk-real");
        }
        expect(JSON.stringify(origin.seen.at(-1)?.headers)).not.toContain("model-key");
      } finally {
        await through.close();
        await here.close();
      }
    },
  );
});

test("a client that leaves in the middle leaves what it was told", async () => {
  origin.on("/left/v1/chat/completions", async (request, response, seen) => {
    await readAll(request, seen);
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(data({ choices: [{ index: 0, delta: { content: "half an" } }] }));
  });
  const client = new OpenAI({ apiKey: "k", baseURL: `${base}/left/v1`, fetch: proxied });
  const chunks = await client.chat.completions.create({
    model: "gpt-4o",
    messages: [{ role: "user", content: "hi" }],
    stream: true,
  });
  for await (const _chunk of chunks) break;
  chunks.controller.abort();
  expect((await answered("/left/v1/chat/completions")).inference).toMatchObject({
    completion: "half an",
  });
});

test("an upload and a download that are no calls pass, however large, while parsers stand in the chain", async () => {
  const bytes = Buffer.alloc(12 * 1_024 * 1_024, 7);
  origin.on("/blob", async (request, response, seen) => {
    const size = (await readAll(request, seen)).length;
    response.setHeader("content-type", "application/octet-stream");
    response.setHeader("x-size", String(size));
    response.end(bytes);
  });
  const answer = await fetch(`${base}/blob`, {
    method: "PUT",
    body: bytes,
    headers: { "content-type": "application/octet-stream" },
    dispatcher,
  });
  expect(answer.headers.get("x-size")).toBe(String(bytes.length));
  expect((await answer.arrayBuffer()).byteLength).toBe(bytes.length);
});
