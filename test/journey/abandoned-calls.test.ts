/** Budgets of calls that did not end well: streams that are left, calls that are left unanswered, calls over sockets. */
import { request as httpRequest, type ClientRequest, type IncomingMessage } from "node:http";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { request } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { ask } from "../support/session-agent.ts";

const own = owner();
const json = { "content-type": "application/json" };
const head =
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
let origin: HttpOrigin;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
});

function start(limits: readonly object[], rest: object = {}): Promise<ProxyProcess> {
  const budgets = { name: "budgets", config: { limits, ...rest } };
  const chain = outbound("inference-parser", "mcp-parser", budgets);
  return own(ProxyProcess.start(merge(settings(), chain)));
}

/** A call whose client decides when it leaves. */
function begin(proxy: ProxyProcess, path: string, body: object): ClientRequest {
  const sent = httpRequest({
    host: "127.0.0.1",
    port: proxy.forward.port,
    path: origin.url + path,
    method: "POST",
    headers: { ...json, host: origin.authority },
    agent: false,
  });
  sent.on("error", () => undefined);
  sent.end(JSON.stringify(body));
  return sent;
}

interface Shown {
  readonly instances: readonly {
    readonly budgets: {
      readonly limits: readonly { readonly budget: string; readonly used: number }[];
    };
  }[];
}

async function used(proxy: ProxyProcess, budget: string): Promise<number | undefined> {
  const { instances } = JSON.parse((await proxy.sessions("/v1/budgets")).text) as Shown;
  return instances[0]?.budgets.limits.find((one) => one.budget === budget)?.used;
}

const chunk = (text: string): string => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;
const event = (value: { readonly type?: string }): string =>
  chunk(
    `${value.type === undefined ? "" : `event: ${value.type}\n`}data: ${JSON.stringify(value)}\n\n`,
  );

/** Reads until the text came, and leaves. */
function leaveAfter(sent: ClientRequest, text: string): Promise<void> {
  return new Promise((resolve) => {
    sent.on("response", (response: IncomingMessage) => {
      let got = "";
      response.on("error", () => undefined);
      response.on("data", (piece: Buffer) => {
        got += piece.toString();
        if (!got.includes(text)) return;
        sent.destroy();
        resolve();
      });
    });
  });
}

describe("a stream that its client leaves is counted with what came of it", () => {
  const word = "measured words of the model ".repeat(40);
  test.each([
    [
      "anthropic, whose first event has figures of an empty answer",
      "/v1/messages",
      [
        {
          type: "message_start",
          message: { model: "m", usage: { input_tokens: 20, output_tokens: 1 } },
        },
        { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
        { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: word } },
        { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "END" } },
      ],
    ],
    [
      "anthropic, a tool call",
      "/v1/messages",
      [
        {
          type: "message_start",
          message: { model: "m", usage: { input_tokens: 20, output_tokens: 1 } },
        },
        {
          type: "content_block_start",
          index: 0,
          content_block: { type: "tool_use", id: "t", name: "x", input: {} },
        },
        {
          type: "content_block_delta",
          index: 0,
          delta: { type: "input_json_delta", partial_json: `{"a":"${word}` },
        },
        {
          type: "content_block_delta",
          index: 0,
          delta: { type: "input_json_delta", partial_json: "END" },
        },
      ],
    ],
    [
      "openai, which has none before the end",
      "/v1/chat/completions",
      [{ choices: [{ delta: { content: word } }] }, { choices: [{ delta: { content: "END" } }] }],
    ],
  ])("%s", async (_name, path, events) => {
    origin.on(path, async ({ connection }) => {
      await connection.send(head + events.map(event).join(""));
    });
    const proxy = await start([{ name: "t", unit: "tokens", limit: 1_000_000, window: "day" }]);
    const body = {
      model: "m",
      stream: true,
      max_tokens: 9_000,
      messages: [{ role: "user", content: "hi" }],
    };
    await leaveAfter(begin(proxy, path, body), "END");
    await eventually(async () => ((await used(proxy, "t")) ?? 0) < 9_000);
    const counted = (await used(proxy, "t")) ?? 0;
    expect(counted).toBeGreaterThanOrEqual(word.length / 4 + 20);
    expect(counted).toBeLessThan(word.length);
  });
});

test("a client that leaves at the last event pays what the provider says", async () => {
  const path = "/v1/messages";
  const events = [
    {
      type: "message_start",
      message: { model: "m", usage: { input_tokens: 20, output_tokens: 1 } },
    },
    { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "x".repeat(900) } },
    { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 30 } },
    { type: "message_stop" },
  ];
  origin.on(path, async ({ connection }) => {
    await connection.send(head + events.map(event).join(""));
  });
  const proxy = await start([{ name: "t", unit: "tokens", limit: 1_000_000, window: "day" }]);
  const body = { model: "m", stream: true, messages: [{ role: "user", content: "hi" }] };
  await leaveAfter(begin(proxy, path, body), "message_stop");
  await eventually(async () => (await used(proxy, "t")) === 50);
});

describe("a call that its client leaves before the response", () => {
  test("is counted as if it had been answered: leaving is no way around a budget", async () => {
    const path = "/v1/chat/completions";
    const { promise: arrived, resolve } = Promise.withResolvers<void>();
    origin.on(path, () => resolve());
    const limits = [{ name: "t", unit: "tokens", limit: 500, window: "day" }];
    const proxy = await start(limits, { reserve_tokens: 600, wait: "0s" });
    const body = { model: "m", max_tokens: 64_000, messages: [{ role: "user", content: "hi" }] };
    const sent = begin(proxy, path, body);
    await arrived;
    sent.destroy();
    await eventually(async () => ((await used(proxy, "t")) ?? 64_000) < 64_000);
    const counted = (await used(proxy, "t")) ?? 0;
    // The prompt, and what is kept for an answer, but not all that it might have been.
    expect(counted).toBeGreaterThanOrEqual(600);
    expect(counted).toBeLessThan(700);
    const again = await ask(proxy.forward, origin.url + path, {
      method: "POST",
      headers: json,
      body: JSON.stringify(body),
    });
    expect(again.status).toBe(429);
  });
});

test("an answer without figures and without a text that is understood is counted by its length", async () => {
  const path = "/v1/chat/completions";
  origin.on(path, () => reply(200, JSON.stringify({ odd: "x".repeat(8_000) }), json));
  const proxy = await start([{ name: "t", unit: "tokens", limit: 1_000_000, window: "day" }]);
  const body = JSON.stringify({ model: "m", messages: [{ role: "user", content: "hi" }] });
  await ask(proxy.forward, origin.url + path, { method: "POST", headers: json, body });
  await eventually(async () => ((await used(proxy, "t")) ?? 0) < 4_000);
  expect(await used(proxy, "t")).toBeGreaterThanOrEqual(2_000);
});

describe("a model behind a socket", () => {
  const upgrade = (proxy: ProxyProcess, path: string) =>
    request(proxy.forward, {
      method: "GET",
      target: origin.url + path,
      headers: {
        Host: origin.authority,
        Connection: "Upgrade",
        Upgrade: "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
      },
    });

  test.each([
    "/v1/realtime?model=m",
    "/openai/v1/realtime",
    "/v1/responses",
    "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
  ])("%s is refused by a hard limit of tokens, which could not count it", async (path) => {
    const proxy = await start([{ name: "t", unit: "tokens", limit: 1_000, window: "day" }]);
    const refused = await upgrade(proxy, path);
    expect([refused.status, refused.body.toString()]).toEqual([
      403,
      expect.stringMatching(/policy\.forbidden.*budget \\"t\\"/),
    ]);
  });

  test("a soft limit, and one of requests, let it pass", async () => {
    origin.on("/v1/realtime", () => reply(426, "no"));
    const limits = [
      { name: "t", unit: "tokens", limit: 1_000, window: "day", mode: "soft" },
      { name: "n", unit: "requests", limit: 1_000, window: "day" },
    ];
    const proxy = await start(limits);
    expect((await upgrade(proxy, "/v1/realtime")).status).toBe(426);
  });
});
