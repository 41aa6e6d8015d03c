/** What clients read of the responses of every API that inference-parser knows, when a tool call in them was rejected. */
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { fetch, ProxyAgent } from "undici";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { frameReaderFor } from "../../src/http/frames.ts";
import { endpointOf } from "../../src/protocols/inference-endpoints.ts";
import { ResponseFold } from "../../src/protocols/response-fold.ts";
import { awsEvent } from "../support/aws-event-stream.ts";
import { RawClient } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { rejected, StandInReflector } from "../support/reflector.ts";

const own = owner();
let reflector: StandInReflector;
let origin: HttpOrigin;
let proxy: ProxyProcess;
let dispatcher: ProxyAgent;

beforeAll(async () => {
  reflector = await own(StandInReflector.start());
  reflector.decide = ({ tool_calls: [call] }) =>
    call?.function.arguments.includes("TX9999") === true
      ? rejected("not in the conversation")
      : { decision: "approve" };
  origin = await own(HttpOrigin.launch());
  const config = { reflector_endpoint: reflector.url, enforcement: "inference" };
  proxy = await own(
    ProxyProcess.start(settings(outbound("inference-parser", { name: "sparc", config }))),
  );
  dispatcher = new ProxyAgent({
    uri: `http://127.0.0.1:${proxy.forward.port}`,
    proxyTunnel: false,
  });
});
afterAll(() => dispatcher.close());

const sse = (event: object, name?: string): string =>
  `${name === undefined ? "" : `event: ${name}\n`}data: ${JSON.stringify(event)}\n\n`;
const typed = (event: { readonly type: string }): string => sse(event, event.type);

function answer(path: string, type: string, body: string | Buffer): void {
  const bytes = Buffer.from(body);
  const head = reply(200, "", { "Content-Type": type }).replace(
    "Content-Length: 0",
    `Content-Length: ${bytes.length}`,
  );
  origin.on(path, () => Buffer.concat([Buffer.from(head), bytes]));
}

const args = (id: string): string => `{"transaction_id":"${id}"}`;
const name = "issue_refund";
const user = { role: "user", content: "Refund it." };

interface Case {
  readonly path: string;
  readonly request: object;
  readonly type: string;
  /** The response with a call of this transaction, behind the words "Let me see." where it is a stream. */
  body(id: string): string | Buffer;
}

const jsonType = "application/json";
const eventType = "text/event-stream";
const awsType = "application/vnd.amazon.eventstream";
const anthropicRequest = { model: "claude", max_tokens: 9, messages: [user] };
const geminiRequest = { contents: [{ role: "user", parts: [{ text: "Refund it." }] }] };
const converseRequest = { messages: [{ role: "user", content: [{ text: "Refund it." }] }] };
const chunk = (delta: object, finish: string | null = null): object => ({
  id: "c",
  object: "chat.completion.chunk",
  created: 1,
  model: "m",
  choices: [{ index: 0, delta, finish_reason: finish }],
});
const gemini = (part: object, rest: object = {}): object => ({
  candidates: [{ content: { role: "model", parts: [part] }, ...rest }],
  usageMetadata: { totalTokenCount: 3 },
});
const call = (id: string): object => ({ functionCall: { name, args: { transaction_id: id } } });

function anthropicEvents(id: string): { readonly type: string }[] {
  const block = (index: number, start: object, delta: object): { readonly type: string }[] => [
    Object.assign({ type: "content_block_start", index, content_block: start }),
    Object.assign({ type: "content_block_delta", index, delta }),
    Object.assign({ type: "content_block_stop", index }),
  ];
  return [
    Object.assign({
      type: "message_start",
      message: {
        id: "m",
        type: "message",
        role: "assistant",
        model: "claude",
        content: [],
        stop_reason: null,
        stop_sequence: null,
        usage: { input_tokens: 3, output_tokens: 1 },
      },
    }),
    ...block(0, { type: "text", text: "" }, { type: "text_delta", text: "Let me see." }),
    ...block(
      1,
      { type: "tool_use", id: "t", name, input: {} },
      { type: "input_json_delta", partial_json: args(id) },
    ),
    Object.assign({
      type: "message_delta",
      delta: { stop_reason: "tool_use", stop_sequence: null },
      usage: { output_tokens: 9 },
    }),
    { type: "message_stop" },
  ];
}

function responsesEvents(id: string): { readonly type: string }[] {
  let sequence = 0;
  const event = (type: string, rest: object): { readonly type: string } =>
    Object.assign({ type, sequence_number: sequence++ }, rest);
  const said = {
    id: "m1",
    type: "message",
    role: "assistant",
    status: "completed",
    content: [{ type: "output_text", text: "Let me see.", annotations: [] }],
  };
  const asked = { id: "f1", type: "function_call", call_id: "c1", name, arguments: args(id) };
  const response = {
    id: "r",
    object: "response",
    created_at: 1,
    model: "m",
    status: "in_progress",
  };
  return [
    event("response.created", { response: { ...response, output: [] } }),
    event("response.output_item.added", { output_index: 0, item: { ...said, content: [] } }),
    event("response.content_part.added", {
      output_index: 0,
      item_id: "m1",
      content_index: 0,
      part: { type: "output_text", text: "", annotations: [] },
    }),
    event("response.output_text.delta", {
      output_index: 0,
      item_id: "m1",
      content_index: 0,
      delta: "Let me see.",
    }),
    event("response.output_item.done", { output_index: 0, item: said }),
    event("response.output_item.added", { output_index: 1, item: { ...asked, arguments: "" } }),
    event("response.function_call_arguments.delta", {
      output_index: 1,
      item_id: "f1",
      delta: args(id),
    }),
    event("response.output_item.done", { output_index: 1, item: asked }),
    event("response.completed", {
      response: {
        ...response,
        status: "completed",
        output: [said, asked],
        usage: { input_tokens: 1, output_tokens: 2, total_tokens: 3 },
      },
    }),
  ];
}

const converseEvents = (id: string): [string, object][] => [
  ["messageStart", { role: "assistant" }],
  ["contentBlockDelta", { contentBlockIndex: 0, delta: { text: "Let me see." } }],
  ["contentBlockStop", { contentBlockIndex: 0 }],
  ["contentBlockStart", { contentBlockIndex: 1, start: { toolUse: { toolUseId: "t", name } } }],
  ["contentBlockDelta", { contentBlockIndex: 1, delta: { toolUse: { input: args(id) } } }],
  ["contentBlockStop", { contentBlockIndex: 1 }],
  ["messageStop", { stopReason: "tool_use" }],
  ["metadata", { usage: { inputTokens: 1, outputTokens: 2, totalTokens: 3 } }],
];

const chunkEvent = (event: object): Buffer =>
  awsEvent("chunk", { bytes: Buffer.from(JSON.stringify(event)).toString("base64") });

const cases: Record<string, Case> = {
  "OpenAI chat, streamed": {
    path: "/v1/chat/completions",
    request: { model: "m", stream: true, messages: [user] },
    type: eventType,
    body: (id) =>
      [
        chunk({ role: "assistant", content: "Let me see." }),
        chunk({
          tool_calls: [
            { index: 0, id: "c", type: "function", function: { name, arguments: args(id) } },
          ],
        }),
        chunk({}, "tool_calls"),
      ]
        .map((event) => sse(event))
        .join("") + "data: [DONE]\n\n",
  },
  "OpenAI chat whose stream ends without a word": {
    path: "/v1/chat/completions",
    request: { model: "m", stream: true, messages: [user] },
    type: eventType,
    body: (id) =>
      sse(chunk({ content: "Let me see." })) +
      sse(chunk({ function_call: { name, arguments: args(id) } })),
  },
  "OpenAI chat, events of a type that is none": {
    path: "/v1/chat/completions",
    request: { model: "m", stream: true, messages: [user] },
    type: "text/plain",
    body: (id) =>
      sse(chunk({ content: "Let me see." })) +
      sse(chunk({ function_call: { name, arguments: args(id) } }, "function_call")),
  },
  "OpenAI responses": {
    path: "/v1/responses",
    request: { model: "m", input: "Refund it." },
    type: jsonType,
    body: (id) =>
      JSON.stringify({
        id: "r",
        status: "completed",
        output: [{ id: "f", type: "function_call", call_id: "c", name, arguments: args(id) }],
      }),
  },
  "OpenAI responses, a tool of the API": {
    path: "/v1/responses",
    request: { model: "m", input: "Refund it." },
    type: jsonType,
    body: (id) =>
      JSON.stringify({
        id: "r",
        status: "completed",
        output: [{ id: "f", type: "local_shell_call", call_id: "c", action: { command: [id] } }],
      }),
  },
  "OpenAI responses, streamed": {
    path: "/v1/responses",
    request: { model: "m", input: "Refund it.", stream: true },
    type: eventType,
    body: (id) => responsesEvents(id).map(typed).join(""),
  },
  "OpenAI responses, a stream that says the call only as it ends": {
    path: "/v1/responses",
    request: { model: "m", input: "Refund it.", stream: true },
    type: eventType,
    body: (id) =>
      responsesEvents(id)
        .filter(({ type }) => !/added|arguments/.test(type))
        .map(typed)
        .join(""),
  },
  "Anthropic messages": {
    path: "/v1/messages",
    request: anthropicRequest,
    type: jsonType,
    body: (id) =>
      JSON.stringify({
        id: "m",
        type: "message",
        role: "assistant",
        content: [
          { type: "text", text: "Let me see." },
          { type: "tool_use", id: "t", name, input: { transaction_id: id } },
        ],
        stop_reason: "tool_use",
      }),
  },
  "Anthropic messages, streamed": {
    path: "/v1/messages",
    request: { ...anthropicRequest, stream: true },
    type: eventType,
    body: (id) => anthropicEvents(id).map(typed).join(""),
  },
  "Bedrock converse": {
    path: "/model/m/converse",
    request: converseRequest,
    type: jsonType,
    body: (id) =>
      JSON.stringify({
        output: {
          message: {
            role: "assistant",
            content: [{ toolUse: { toolUseId: "t", name, input: { transaction_id: id } } }],
          },
        },
        stopReason: "tool_use",
      }),
  },
  "Bedrock converse, streamed": {
    path: "/model/m/converse-stream",
    request: converseRequest,
    type: awsType,
    body: (id) => Buffer.concat(converseEvents(id).map(([event, data]) => awsEvent(event, data))),
  },
  "Bedrock invoke of Claude, streamed": {
    path: "/model/m/invoke-with-response-stream",
    request: { ...anthropicRequest, anthropic_version: "bedrock-2023-05-31" },
    type: awsType,
    body: (id) => Buffer.concat(anthropicEvents(id).map(chunkEvent)),
  },
  "Bedrock invoke of Nova": {
    path: "/model/m/invoke",
    request: converseRequest,
    type: jsonType,
    body: (id) =>
      JSON.stringify({
        output: {
          message: { content: [{ toolUse: { toolUseId: "t", name, input: { a: id } } }] },
        },
        stopReason: "tool_use",
      }),
  },
  "Bedrock invoke of Nova, streamed": {
    path: "/model/m/invoke-with-response-stream",
    request: converseRequest,
    type: awsType,
    body: (id) =>
      Buffer.concat(converseEvents(id).map(([event, data]) => chunkEvent({ [event]: data }))),
  },
  "Bedrock invoke of Command R": {
    path: "/model/m/invoke",
    request: { message: "Refund it." },
    type: jsonType,
    body: (id) =>
      JSON.stringify({
        text: "I will.",
        tool_calls: [{ name, parameters: { transaction_id: id } }],
        finish_reason: "COMPLETE",
      }),
  },
  Gemini: {
    path: "/v1beta/models/g:generateContent",
    request: geminiRequest,
    type: jsonType,
    body: (id) => JSON.stringify(gemini(call(id), { finishReason: "STOP" })),
  },
  "Gemini, streamed": {
    path: "/v1beta/models/g:streamGenerateContent",
    request: geminiRequest,
    type: eventType,
    body: (id) =>
      sse(gemini({ text: "Let me see." })) + sse(gemini(call(id), { finishReason: "STOP" })),
  },
  "Gemini, streamed as an array": {
    path: "/v1beta/models/g:streamGenerateContent",
    request: geminiRequest,
    type: jsonType,
    body: (id) =>
      JSON.stringify([
        gemini({ text: "Let me see." }),
        gemini({ ...call(id), thought: true }, { finishReason: "STOP" }),
      ]),
  },
  "Code Assist, streamed": {
    path: "/v1internal:streamGenerateContent",
    request: { model: "g", request: geminiRequest },
    type: eventType,
    body: (id) =>
      sse({ response: gemini({ text: "Let me see." }) }) +
      sse({ response: gemini(call(id), { finishReason: "STOP" }) }),
  },
  Cohere: {
    path: "/v2/chat",
    request: { model: "m", messages: [user] },
    type: jsonType,
    body: (id) =>
      JSON.stringify({
        message: {
          role: "assistant",
          tool_calls: [{ id: "t", type: "function", function: { name, arguments: args(id) } }],
        },
        finish_reason: "TOOL_CALL",
      }),
  },
  "Cohere, streamed": {
    path: "/v2/chat",
    request: { model: "m", messages: [user], stream: true },
    type: eventType,
    body: (id) =>
      [
        { type: "message-start" },
        {
          type: "content-delta",
          index: 0,
          delta: { message: { content: { text: "Let me see." } } },
        },
        {
          type: "tool-call-start",
          index: 0,
          delta: { message: { tool_calls: { id: "t", function: { name, arguments: "" } } } },
        },
        {
          type: "tool-call-delta",
          index: 0,
          delta: { message: { tool_calls: { function: { arguments: args(id) } } } },
        },
        { type: "tool-call-end", index: 0 },
        { type: "message-end", delta: { finish_reason: "TOOL_CALL" } },
      ]
        .map(typed)
        .join(""),
  },
  Ollama: {
    path: "/api/chat",
    request: { model: "m", messages: [user], stream: false },
    type: jsonType,
    body: (id) =>
      JSON.stringify({
        model: "m",
        message: {
          role: "assistant",
          content: "",
          tool_calls: [{ function: { name, arguments: { transaction_id: id } } }],
        },
        done: true,
        done_reason: "stop",
      }),
  },
  "Ollama, streamed": {
    path: "/api/chat",
    request: { model: "m", messages: [user] },
    type: "application/x-ndjson",
    body: (id) =>
      [
        { model: "m", message: { role: "assistant", content: "Let me see." }, done: false },
        {
          model: "m",
          message: {
            role: "assistant",
            content: "",
            tool_calls: [{ function: { name, arguments: { transaction_id: id } } }],
          },
          done: false,
        },
        {
          model: "m",
          message: { role: "assistant", content: "" },
          done: true,
          done_reason: "stop",
        },
      ]
        .map((line) => `${JSON.stringify(line)}\n`)
        .join(""),
  },
};

/** What the client gets, and what a reader of the API makes of it. */
async function got(path: string, request: object): Promise<{ bytes: Buffer; type: string }> {
  const response = await fetch(`${origin.url}${path}`, {
    method: "POST",
    headers: { "content-type": jsonType },
    body: JSON.stringify(request),
    dispatcher,
  });
  expect(response.status).toBe(200);
  const type = response.headers.get("content-type") ?? "";
  return { bytes: Buffer.from(await response.arrayBuffer()), type };
}

function read({ path, request }: Case, bytes: Buffer, type: string): ResponseFold["view"] {
  const endpoint = endpointOf("POST", path);
  const view = endpoint?.dialect.request({ ...request }, endpoint.place);
  if (endpoint === undefined || view === undefined) throw new Error("no call of a model");
  const fold = new ResponseFold(view);
  const isEvents = bytes.toString("latin1", 0, 5) === "data:";
  const reader = frameReaderFor(isEvents ? eventType : type, 1 << 20);
  if (reader === undefined) {
    const value = JSON.parse(bytes.toString()) as object;
    if (Array.isArray(value)) for (const one of value) endpoint.dialect.event(fold, one, undefined);
    else endpoint.dialect.whole(fold, { ...value });
  } else {
    for (const { data, event } of [...reader.push(bytes), ...reader.end()]) {
      if (data === undefined || data.toString() === "[DONE]") continue;
      endpoint.dialect.event(fold, JSON.parse(data.toString()) as Record<string, unknown>, event);
    }
  }
  return fold.view;
}

describe.each(Object.entries(cases))("%s", (_api, one) => {
  test("a rejected call is not there: the model says why instead, and ends its turn", async () => {
    answer(one.path, one.type, one.body("TX9999"));
    const { bytes, type } = await got(one.path, one.request);
    expect(bytes.toString()).not.toMatch(/TX9999/);
    const view = read(one, bytes, type);
    expect(view.toolCalls).toBeUndefined();
    expect(view.completion).toContain("not in the conversation");
    expect(view.finishReason).toMatch(/^(?:stop|completed|end_turn|complete)$/i);
    const isStream = frameReaderFor(one.type, 1) !== undefined;
    if (isStream) expect(view.completion).toMatch(/^Let me see\./);
  });

  test("a grounded call passes byte for byte", async () => {
    const sent = Buffer.from(one.body("TX1"));
    answer(one.path, one.type, sent);
    const { bytes } = await got(one.path, one.request);
    expect(bytes.equals(sent)).toBe(true);
    expect(reflector.questions.at(-1)?.tool_calls[0]?.function.arguments).toContain("TX1");
  });
});

test.each<[string, string, object]>([
  [
    "Anthropic",
    "/v1/messages",
    {
      ...anthropicRequest,
      messages: [
        user,
        { role: "assistant", content: [{ type: "tool_use", id: "t", name: "find", input: {} }] },
        {
          role: "user",
          content: [
            { type: "tool_result", tool_use_id: "t", content: [{ type: "text", text: "TX1" }] },
            { type: "text", text: "Go on." },
          ],
        },
      ],
    },
  ],
  [
    "Bedrock converse",
    "/model/m/converse",
    {
      messages: [
        { role: "user", content: [{ text: "Refund it." }] },
        { role: "assistant", content: [{ toolUse: { toolUseId: "t", name: "find", input: {} } }] },
        {
          role: "user",
          content: [
            { toolResult: { toolUseId: "t", content: [{ text: "TX1" }] } },
            { text: "Go on." },
          ],
        },
      ],
    },
  ],
  [
    "Gemini",
    "/v1beta/models/g:generateContent",
    {
      contents: [
        { role: "user", parts: [{ text: "Refund it." }] },
        { role: "model", parts: [{ functionCall: { name: "find", args: {} } }] },
        {
          role: "user",
          parts: [
            { functionResponse: { name: "find", response: { id: "TX1" } } },
            { text: "Go on." },
          ],
        },
      ],
    },
  ],
])("what tools gave back before is part of the conversation: %s", async (api, path, request) => {
  const [, given] =
    Object.entries(cases).find(([name, one]) => name.startsWith(api) && one.path === path) ?? [];
  if (given === undefined) throw new Error("no such case");
  answer(path, given.type, given.body("TX2"));
  await got(path, request);
  const { messages = [] } = reflector.questions.at(-1) ?? {};
  expect(messages.map(({ role }) => role.replace("model", "assistant"))).toEqual([
    "user",
    "assistant",
    "tool",
    "user",
  ]);
  expect(messages[2]?.content).toContain("TX1");
});

test("a call whose name comes in two pieces is stopped: clients do not agree on what it is", async () => {
  const named = (index: number, name: string): string =>
    sse(chunk({ tool_calls: [{ index, id: "t", function: { name, arguments: "{}" } }] }));
  for (const body of [
    named(0, "issue") + named(0, "_refund") + sse(chunk({}, "tool_calls")),
    // Behind the verdict on what came before.
    named(0, "issue") + sse(chunk({}, "tool_calls")) + named(0, "_refund"),
  ]) {
    answer("/v1/chat/completions", eventType, body);
    const { bytes } = await got("/v1/chat/completions", { model: "m", messages: [user] });
    expect(bytes.toString()).not.toContain("_refund");
    expect(bytes.toString()).toContain("two names");
  }
});

test("a language model over an upgrade is refused: nobody could judge its calls", async () => {
  for (const path of ["/v1/responses", "/v1/realtime?model=m", "/openai/realtime"])
    await refusedUpgrade(path);
});

async function refusedUpgrade(path: string): Promise<void> {
  const client = await own(RawClient.connect(proxy.forward));
  client.send(
    `GET ${origin.url}${path} HTTP/1.1\r\nHost: ${origin.authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
  );
  const response = await client.response();
  expect(response.status).toBe(403);
  expect(response.text).toContain("sparc.blocked");
}

describe("the SDKs read what stands in place of a call", () => {
  const proxied = ((url: string, options: object) =>
    fetch(url, { ...options, dispatcher })) as unknown as typeof globalThis.fetch;

  test("OpenAI's", async () => {
    const client = new OpenAI({ apiKey: "k", baseURL: `${origin.url}/v1`, fetch: proxied });
    const chat = cases["OpenAI chat, streamed"];
    answer("/v1/chat/completions", eventType, chat?.body("TX9999") ?? "");
    const run = client.chat.completions.stream({
      model: "m",
      messages: [{ role: "user", content: "Refund it." }],
    });
    const [choice] = (await run.finalChatCompletion()).choices;
    expect(choice?.finish_reason).toBe("stop");
    expect(choice?.message.tool_calls ?? []).toEqual([]);
    expect(choice?.message.content).toMatch(/^Let me see\..*not in the conversation/s);
    answer("/v1/responses", eventType, responsesEvents("TX9999").map(typed).join(""));
    const stream = client.responses.stream({ model: "m", input: "Refund it." });
    const final = await stream.finalResponse();
    expect(final.output.map(({ type }) => type)).toEqual(["message", "message"]);
    expect(final.output_text).toContain("not in the conversation");
  });

  test("Anthropic's", async () => {
    const client = new Anthropic({ apiKey: "k", baseURL: origin.url, fetch: proxied });
    answer("/v1/messages", eventType, anthropicEvents("TX9999").map(typed).join(""));
    const stream = client.messages.stream({
      model: "claude",
      max_tokens: 9,
      messages: [{ role: "user", content: "Refund it." }],
    });
    const final = await stream.finalMessage();
    expect(final.stop_reason).toBe("end_turn");
    expect(final.content.map(({ type }) => type)).toEqual(["text", "text"]);
    expect(final.usage.output_tokens).toBe(9);
  });
});
