/** OpenAI over a WebSocket: what both sides say is recorded and counted, and passes as it is. */
import { Agent } from "node:http";
import type { AddressInfo } from "node:net";
import { connect, type Socket } from "node:net";
import { once } from "node:events";
import { afterEach, beforeEach, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { createProxy, type EmbeddedProxy, type ProxyEvent } from "../../src/embed/proxy.ts";
import { eventually } from "../support/eventually.ts";
import { request } from "../support/http-client.ts";
import type { InferenceView } from "../../src/protocols/inference-view.ts";

let origin: WebSocketServer;
let proxy: EmbeddedProxy;
let events: Promise<readonly ProxyEvent[]>;

const tool = {
  type: "function",
  name: "look",
  description: "looks",
  parameters: { type: "object" },
};

function usage(input: number, output: number): object {
  return {
    input_tokens: input,
    output_tokens: output,
    total_tokens: input + output,
    input_token_details: { cached_tokens: 1, text_tokens: input - 1 },
  };
}

/** What the model says to each event of its client. */
function answersTo(
  event: Record<string, unknown>,
  path: string,
): readonly (object | Buffer | string)[] {
  if (event["type"] !== "response.create") return [];
  if (path === "/v1/responses") {
    const response = { status: "completed", usage: usage(4, 2) };
    return [
      { type: "response.output_text.delta", delta: "hello" },
      { type: "response.completed", response },
    ];
  }
  return [
    Buffer.from([0, 1, 2]),
    "no JSON",
    { type: "response.output_audio_transcript.delta", delta: "look" },
    { type: "response.output_audio_transcript.delta", delta: "ing" },
    {
      type: "response.function_call_arguments.done",
      call_id: "c1",
      name: "look",
      arguments: '{"at":1}',
    },
    {
      type: "response.done",
      response: {
        status: "completed",
        output: [{ type: "function_call", call_id: "c1", name: "look", arguments: '{"at":1}' }],
        usage: usage(10, 5),
      },
    },
  ];
}

beforeEach(async () => {
  origin = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: true });
  origin.on("connection", (socket, request) => {
    const path = String(request.url).replace(/\?.*/, "");
    if (path === "/v1/realtime")
      socket.send(JSON.stringify({ type: "session.created", session: { model: "gpt-realtime" } }));
    socket.on("message", (data: Buffer) => {
      const event = JSON.parse(data.toString()) as Record<string, unknown>;
      for (const answer of answersTo(event, path))
        socket.send(
          Buffer.isBuffer(answer) || typeof answer === "string" ? answer : JSON.stringify(answer),
        );
    });
  });
  await once(origin, "listening");
  proxy = createProxy({
    egress: { allow_ips: ["127.0.0.0/8"] },
    pipeline: { outbound: { plugins: ["inference-parser"] } },
  });
  await proxy.listen();
  events = collected(proxy);
});

afterEach(async () => {
  await proxy.close({ timeout: 0 });
  for (const client of origin.clients) client.terminate();
  origin.close();
});

/** Opens a WebSocket through a CONNECT. */
async function opened(path: string): Promise<WebSocket> {
  const { port } = origin.address() as AddressInfo;
  const agent = new Agent();
  agent.createConnection = (_options, done) => {
    const { host, port: at } = proxy.address.forward!;
    const socket: Socket = connect({ host, port: at });
    socket.write(`CONNECT 127.0.0.1:${port} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`);
    socket.once("data", () => done?.(null, socket));
    return undefined;
  };
  const client = new WebSocket(`ws://127.0.0.1:${port}${path}`, { agent });
  await once(client, "open");
  return client;
}

/** Asks once; resolves with everything that came until the response was over. */
async function ask(client: WebSocket, ...asked: readonly object[]): Promise<readonly string[]> {
  const seen: string[] = [];
  const done = Promise.withResolvers<void>();
  const hear = (data: Buffer): void => {
    seen.push(data.toString());
    if (/"response\.(?:done|completed)"/.test(data.toString())) done.resolve();
  };
  client.on("message", hear);
  for (const event of asked) client.send(JSON.stringify(event));
  await done.promise;
  client.off("message", hear);
  return seen;
}

async function left(client: WebSocket): Promise<void> {
  client.close();
  await once(client, "close");
}

async function views(): Promise<readonly InferenceView[]> {
  await proxy.close();
  return (await events).flatMap(({ phase, inference }) =>
    phase === "response" && inference !== undefined ? [inference as InferenceView] : [],
  );
}

test("a realtime session is one view, and its responses add up", async () => {
  const client = await opened("/v1/realtime?model=gpt-realtime-mini");
  expect(client.extensions).toBe("");
  const session = { type: "session.update", session: { instructions: "be brief", tools: [tool] } };
  const item = { type: "message", role: "user", content: [{ type: "input_text", text: "where?" }] };
  const first = await ask(
    client,
    session,
    { type: "conversation.item.create", item },
    { type: "response.create" },
  );
  expect(first.filter((one) => !one.includes("session.created"))).toHaveLength(6);
  const output = { type: "function_call_output", call_id: "c1", output: "there" };
  await ask(
    client,
    { type: "conversation.item.create", item: output },
    { type: "response.create" },
  );
  await left(client);
  expect(await views()).toEqual([
    {
      api: "openai.realtime",
      model: "gpt-realtime",
      stream: true,
      messages: [
        { role: "system", content: "be brief" },
        { role: "user", content: "where?" },
        { role: "tool", content: "there" },
      ],
      tools: [{ name: "look", description: "looks", parameters: { type: "object" } }],
      completion: "lookinglooking",
      finishReason: "completed",
      toolCalls: [{ id: "c1", name: "look", arguments: '{"at":1}' }],
      promptTokens: 20,
      completionTokens: 10,
      totalTokens: 30,
      cacheReadTokens: 2,
    },
  ]);
});

test("the responses API over a WebSocket is counted in the same way", async () => {
  const client = await opened("/v1/responses");
  await ask(client, { type: "response.create", model: "gpt-5", input: "hi" });
  await left(client);
  expect(await views()).toMatchObject([
    {
      model: "gpt-5",
      messages: [{ role: "user", content: "hi" }],
      completion: "hello",
      totalTokens: 6,
    },
  ]);
});

test("a hundred at once are a hundred views", async () => {
  await Promise.all(
    Array.from({ length: 100 }, async (_, at) => {
      const client = await opened(`/v1/responses?n=${at}`);
      await ask(client, { type: "response.create", model: `m${at}`, input: "hi" });
      await left(client);
    }),
  );
  const seen = await views();
  expect(new Set(seen.map(({ model }) => model)).size).toBe(100);
  expect(seen.every(({ totalTokens }) => totalTokens === 6)).toBe(true);
});

test("a soft budget counts the tokens of a connection when it is over", async () => {
  await proxy.close();
  const limit = { name: "few", unit: "tokens", limit: 5, window: "lifetime", mode: "soft" };
  proxy = createProxy({
    egress: { allow_ips: ["127.0.0.0/8"] },
    listener: { session_api_addr: "127.0.0.1:0" },
    pipeline: {
      outbound: {
        plugins: ["inference-parser", { name: "budgets", config: { limits: [limit] } }],
      },
    },
  });
  const { sessions } = await proxy.listen();
  const client = await opened("/v1/responses");
  await ask(client, { type: "response.create", model: "m", input: "hi" });
  await left(client);
  const shown = { target: "/v1/budgets", headers: { host: "127.0.0.1" } };
  await eventually(async () => /"used":6\b/.test((await request(sessions!, shown)).text));
});

test("a WebSocket that is no model's keeps its extensions, and has no view", async () => {
  const client = await opened("/chat");
  expect(client.extensions).toBe("permessage-deflate");
  await left(client);
  expect(await views()).toEqual([]);
});

async function collected({ events: all }: EmbeddedProxy): Promise<ProxyEvent[]> {
  const seen: ProxyEvent[] = [];
  for await (const event of all) seen.push(event);
  return seen;
}
