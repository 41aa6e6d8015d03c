/** Endpoints of language models that the file names are read, counted and judged as the known ones. */
import { afterEach, expect, test } from "vitest";
import {
  createProxy,
  type EmbeddedProxy,
  type ProxyEvent,
  type ProxyOptions,
} from "../../src/embed/proxy.ts";
import type { InferenceView } from "../../src/protocols/inference-view.ts";
import { request } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function serve(plugins: unknown[]): Promise<{
  readonly origin: HttpOrigin;
  readonly proxy: EmbeddedProxy;
  readonly call: (path: string, body: object) => Promise<number>;
}> {
  const origin = await HttpOrigin.launch();
  closing.push(() => origin.close());
  const proxy = createProxy({
    egress: { allow_ips: ["127.0.0.0/8"] },
    pipeline: { outbound: { plugins } },
  } as ProxyOptions);
  closing.push(() => proxy.close({ timeout: 0 }));
  const { forward } = await proxy.listen();
  const call = async (path: string, body: object): Promise<number> => {
    const headers = { "content-type": "application/json" };
    const shape = {
      method: "POST",
      target: `${origin.url}${path}`,
      headers,
      body: JSON.stringify(body),
    };
    return (await request(forward!, shape)).status;
  };
  return { origin, proxy, call };
}

const endpoints = [
  { host: "127.0.0.1", path: "/gateway/*/say", api: "openai.chat" },
  { host: "127.0.0.1", path: "/lines", api: "ollama.chat" },
  { host: "*.elsewhere.example", path: "/other", api: "openai.chat" },
];
const parser = { name: "inference-parser", config: { endpoints } };
const chat = { model: "m", messages: [{ role: "user", content: "hi" }] };

test("a mapped path is a call: its stream is put together and its tokens are counted", async () => {
  const { origin, proxy, call } = await serve([parser]);
  const seen = collected(proxy);
  const usage = { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 };
  const chunks = [{ choices: [{ index: 0, delta: { content: "hello" } }] }, { choices: [], usage }];
  const events = [...chunks.map((one) => JSON.stringify(one)), "[DONE]"];
  origin.on("/gateway/eu/say", () =>
    reply(200, events.map((one) => `data: ${one}\n\n`).join(""), {
      "Content-Type": "text/event-stream",
    }),
  );
  const lines = [
    { message: { content: "a" }, done: false },
    { message: { content: "b" }, done: true, prompt_eval_count: 5, eval_count: 6 },
  ];
  origin.on("/lines", () =>
    reply(200, lines.map((one) => `${JSON.stringify(one)}\n`).join(""), {
      "Content-Type": "application/x-ndjson",
    }),
  );
  expect(await call("/gateway/eu/say", { ...chat, stream: true })).toBe(200);
  expect(await call("/lines", chat)).toBe(200);
  expect(await call("/other", chat)).toBe(200);
  await proxy.close();
  const views = (await seen)
    .filter(({ phase }) => phase === "response")
    .map(({ inference }) => inference as InferenceView | undefined);
  expect(views[0]).toMatchObject({ api: "openai.chat", completion: "hello", totalTokens: 7 });
  expect(views[1]).toMatchObject({ api: "ollama.chat", completion: "ab", totalTokens: 11 });
  expect(views[2]).toBeUndefined();
});

test("a budget counts what the file names", async () => {
  const limit = { name: "few", unit: "calls", limit: 1, window: "day" };
  const { call } = await serve([parser, { name: "budgets", config: { limits: [limit] } }]);
  expect(await call("/gateway/eu/say", chat)).toBe(200);
  expect(await call("/gateway/us/say", chat)).toBe(429);
  expect(await call("/other", chat)).toBe(200);
});

async function collected({ events }: EmbeddedProxy): Promise<ProxyEvent[]> {
  const seen: ProxyEvent[] = [];
  for await (const event of events) seen.push(event);
  return seen;
}
