/** Budgets as users meet them: what is counted, what is refused, and what two proxies share. */
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { openTunnel, RawClient, type RawResponse, request } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { oneThread, type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { hasRedis, RedisServer } from "../support/redis.ts";
import { ask, type Asked } from "../support/session-agent.ts";

const own = owner();
const json = { "content-type": "application/json" };
const path = "/v1/chat/completions";
let origin: HttpOrigin;
let served = 0;
let headers: Readonly<Record<string, string>> = {};
let model = 0;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
});
beforeEach(() => {
  served = 0;
  headers = {};
  // What calls of a model took is remembered: tests do not share it.
  model += 1;
  origin.on(path, () => {
    served += 1;
    const usage = { prompt_tokens: 60, completion_tokens: 40, total_tokens: 100 };
    const choices = [{ message: { role: "assistant", content: "yes" }, finish_reason: "stop" }];
    return reply(200, JSON.stringify({ choices, usage }), { ...json, ...headers });
  });
});

/** A chain whose budgets come after the parsers. */
function chain(limits: readonly object[], rest: object = {}): Settings {
  return outbound("inference-parser", "mcp-parser", {
    name: "budgets",
    config: { limits, ...rest },
  });
}

function start(...over: readonly Settings[]): Promise<ProxyProcess> {
  return own(ProxyProcess.start(over.reduce((sum, one) => merge(sum, one), settings())));
}

function call(proxy: ProxyProcess, body: object = {}, fields: object = {}): Promise<Asked> {
  const asked = { model: `m${model}`, messages: [{ role: "user", content: "hi" }], ...body };
  const sent = { ...json, ...(fields as Record<string, string>) };
  return ask(proxy.forward, origin.url + path, {
    method: "POST",
    headers: sent,
    body: JSON.stringify(asked),
  });
}

function connect(proxy: ProxyProcess): Promise<RawResponse> {
  const target = origin.authority;
  return request(proxy.forward, { method: "CONNECT", target, headers: { Host: target } });
}

const count = (all: readonly Asked[], status: number): number =>
  all.filter((one) => one.status === status).length;

function burst(
  proxies: readonly ProxyProcess[],
  times: number,
  body: object = {},
): Promise<Asked[]> {
  return Promise.all(
    Array.from({ length: times }, async (_, at) => {
      const proxy = proxies[at % proxies.length];
      if (proxy === undefined) throw new Error("no proxy");
      return call(proxy, body);
    }),
  );
}

describe("one proxy", () => {
  test("requests: a hundred at once get as many as there are, and the rest are told why", async () => {
    const limit = { name: "daily", unit: "requests", limit: 10, window: "day" };
    const proxy = await start(chain([limit]));
    const all = await burst([proxy], 100);
    expect([count(all, 200), count(all, 429), served]).toEqual([10, 90, 10]);
    const refused = all.find(({ status }) => status === 429);
    expect(JSON.parse(refused?.body ?? "")).toMatchObject({
      error: "budget.exceeded",
      plugin: "budgets",
      message: expect.stringMatching(
        /^the budget "daily" is used up: 10 of 10 requests \(day\); it begins anew at 20..-..-..T00:00:00.000Z$/,
      ),
      details: { budget: "daily", unit: "requests", used: 10, limit: 10 },
    });
    expect(await proxy.metric("authbridge_plugin_events_total", { event: "exceeded" })).toBe(90);
  });

  test("tokens: calls at once wait for what those under way leave, and take no more than one too many", async () => {
    const limit = { name: "t", unit: "tokens", limit: 1_050, window: "hour" };
    const why = "calls wait for those of their own thread";
    const proxy = await start(oneThread(why, chain([limit], { wait: "1m" })));
    const all = await burst([proxy], 40);
    expect([count(all, 200), count(all, 429), served]).toEqual([11, 29, 11]);
    const { text } = await proxy.sessions("/v1/budgets");
    expect(JSON.parse(text)).toMatchObject({
      instances: [
        { plugin: "budgets", budgets: { limits: [{ budget: "t", used: 1_100, limit: 1_050 }] } },
      ],
    });
  });

  test("each model, caller and route has its own, and a limit is only for what it names", async () => {
    const proxy = await start(
      chain([
        { name: "each", unit: "calls", limit: 1, window: "lifetime", by: ["model"] },
        { name: "big", unit: "requests", limit: 1, window: "day", models: ["big-*"] },
      ]),
    );
    const first = [await call(proxy, { model: "a" }), await call(proxy, { model: "big-b" })];
    const again = [await call(proxy, { model: "a" }), await call(proxy, { model: "big-c" })];
    expect([...first, ...again].map(({ status }) => status)).toEqual([200, 200, 429, 429]);
    const other = await ask(proxy.forward, `${origin.url}/other`);
    expect(other.status).toBe(200);
  });

  test("what never reached the origin, and what it refused, costs nothing", async () => {
    const limit = { name: "t", unit: "tokens", limit: 150, window: "hour" };
    const proxy = await start(chain([limit]));
    origin.on(path, () => reply(500, "{}", json));
    for (let at = 0; at < 3; at += 1) expect((await call(proxy)).status).toBe(500);
    const gone = `http://127.0.0.1:1${path}`;
    const unsent = { method: "POST", headers: json, body: '{"model":"m","messages":[]}' };
    expect((await ask(proxy.forward, gone, unsent)).status).toBe(502);
    await eventually(async () => {
      const { text } = await proxy.sessions("/v1/budgets");
      return /"used":0,/.test(text);
    });
  });

  test("a stream is counted when it is over", async () => {
    const limit = { name: "t", unit: "tokens", limit: 1, window: "hour" };
    const proxy = await start(chain([limit]));
    const event = (value: object): string => `data: ${JSON.stringify(value)}\n\n`;
    const text =
      event({ choices: [{ delta: { content: "yes" } }] }) +
      event({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 } });
    origin.on(path, () => reply(200, text, { "content-type": "text/event-stream" }));
    expect((await call(proxy, { stream: true })).body).toBe(text);
    expect((await call(proxy, { stream: true })).status).toBe(429);
    await eventually(async () => /"used":7,/.test((await proxy.sessions("/v1/budgets")).text));
  });

  test("soft: it passes, and the response says so", async () => {
    const limit = { name: "s", unit: "requests", limit: 1, window: "hour", mode: "soft" };
    const proxy = await start(chain([limit]));
    const get = { method: "GET", target: `${origin.url}/x`, headers: { Host: origin.authority } };
    const first = await request(proxy.forward, get);
    const second = await request(proxy.forward, get);
    expect([first.status, first.header("x-budget-exceeded")]).toEqual([200, undefined]);
    expect([second.status, second.header("x-budget-exceeded")]).toEqual([200, "s"]);
  });

  test("tool calls: whoever calls a tool gets an error of JSON-RPC", async () => {
    const limit = { name: "tools", unit: "tool_calls", limit: 1, window: "hour" };
    const proxy = await start(chain([limit]));
    origin.on("/mcp", () => reply(200, '{"jsonrpc":"2.0","id":1,"result":{}}', json));
    const rpc = (method: string): Promise<Asked> =>
      ask(proxy.forward, `${origin.url}/mcp`, {
        method: "POST",
        headers: json,
        body: JSON.stringify({ jsonrpc: "2.0", id: 7, method, params: { name: "x" } }),
      });
    expect((await rpc("tools/call")).body).toContain('"result"');
    const refused = await rpc("tools/call");
    expect(refused.status).toBe(200);
    expect(JSON.parse(refused.body)).toMatchObject({
      id: 7,
      error: { code: -32_000, data: { error: "budget.exceeded" } },
    });
    // Looking at the list is no call.
    expect((await rpc("tools/list")).body).toContain('"result"');
  });

  test("bytes count in both directions, and those of a tunnel when it is over", async () => {
    const limit = { name: "b", unit: "bytes", limit: 1_000, window: "hour" };
    const proxy = await start(chain([limit], { reserve_bytes: 0 }));
    origin.on("/big", () => reply(200, "x".repeat(5_000)));
    expect((await ask(proxy.forward, `${origin.url}/big`)).status).toBe(200);
    await eventually(async () => (await ask(proxy.forward, `${origin.url}/big`)).status === 429);
    expect((await connect(proxy)).status).toBe(429);
  });

  test("bytes of requests in a tunnel count once", async () => {
    const limit = { name: "b", unit: "bytes", limit: 100_000, window: "hour" };
    const proxy = await start(chain([limit], { reserve_bytes: 0 }));
    origin.on("/big", () => reply(200, "x".repeat(5_000)));
    const { client } = await openTunnel(proxy.forward, origin.authority);
    await own(client);
    for (let at = 0; at < 3; at += 1)
      expect(
        (await client.ask({ target: "/big", headers: { Host: origin.authority } })).status,
      ).toBe(200);
    client.socket.destroy();
    const closed = { reason: "closed" };
    await eventually(
      async () => (await proxy.metric("authbridge_tunnels_closed_total", closed)) === 1,
    );
    await eventually(async () =>
      expect((await proxy.sessions("/v1/budgets")).text).toContain('"used":15000,'),
    );
  });

  test("in a tunnel to a host that a limit names nothing passes but what can be counted", async () => {
    const limit = { name: "t", unit: "tokens", limit: 9, window: "hour", hosts: ["127.0.0.1"] };
    const proxy = await start(chain([limit]));
    const { length } = origin.heads;
    const { client } = await openTunnel(proxy.forward, origin.authority);
    await own(client);
    client.send("EHLO there\r\n");
    expect(await client.reader.toEnd()).toHaveLength(0);
    expect(origin.heads).toHaveLength(length);
  });

  test("cost: by the table, in /v1/usage as well; a model without a price is refused and named", async () => {
    const limit = { name: "usd", unit: "cost", limit: 0.001, window: "month" };
    const proxy = await start(chain([limit]));
    // 60 at 2.5 and 40 at 10 dollars a million.
    expect((await call(proxy, { model: "openai/gpt-4o-2024-08-06" })).status).toBe(200);
    await eventually(async () => {
      const { text } = await proxy.sessions("/v1/budgets");
      expect(text).toContain('"used":0.00055,"limit":0.001');
      return true;
    });
    const usage = JSON.parse((await proxy.sessions("/v1/usage")).text) as object;
    expect(usage).toMatchObject({ totals: { costMicros: 550 } });
    const unknown = await call(proxy, { model: "nobody-knows" });
    expect([unknown.status, unknown.body]).toEqual([
      403,
      expect.stringMatching(/\\"nobody-knows\\" has no price.*unknown_models: allow/),
    ]);
    expect((await proxy.sessions("/v1/budgets")).text).toContain('"nobody-knows":1');
  });

  test("a call that was not read is refused by a hard limit of tokens", async () => {
    const limit = { name: "t", unit: "tokens", limit: 9, window: "hour" };
    const proxy = await start(chain([limit]), { limits: { max_body: "1KiB" } });
    const large = await call(proxy, { more: "x".repeat(4_096) });
    expect([large.status, served]).toEqual([413, 0]);
  });

  test("requests and bytes need no parser; what only a parser knows is asked for at the start", async () => {
    const limits = [
      { name: "n", unit: "requests", limit: 1, window: "day" },
      { name: "b", unit: "bytes", limit: 1_000_000, window: "day" },
    ];
    const bare = (all: readonly object[], ...before: string[]): Settings =>
      outbound(...before, { name: "budgets", config: { limits: all } });
    const proxy = await start(bare(limits));
    expect([(await call(proxy)).status, (await call(proxy)).status]).toEqual([200, 429]);
    const tokens = [{ name: "t", unit: "tokens", limit: 1, window: "day" }];
    await expect(start(bare(tokens, "mcp-parser"))).rejects.toThrow(
      /"budgets" requires "inference-parser", which is not configured/,
    );
    const each = [{ name: "m", unit: "requests", limit: 1, window: "day", by: ["model"] }];
    await expect(start(bare(each))).rejects.toThrow(/"budgets" requires "inference-parser"/);
    const tools = [{ name: "c", unit: "tool_calls", limit: 1, window: "day" }];
    await expect(start(bare(tools, "inference-parser"))).rejects.toThrow(
      /"budgets" requires "mcp-parser", which is not configured/,
    );
  });

  test("with state in a file, a budget is still used up after kill -9", async () => {
    const limit = { name: "l", unit: "requests", limit: 3, window: "lifetime" };
    const file = merge(chain([limit]), { state: { store: "file", path: "state.log" } });
    const first = await start(file);
    for (let at = 0; at < 3; at += 1) expect((await call(first)).status).toBe(200);
    const text = await readFile(first.path("state.log"), "utf8");
    first.signal("SIGKILL");
    await first.ended;
    const files = { "state.log": text };
    const second = await own(ProxyProcess.start(merge(settings(), file), { files }));
    expect((await call(second)).status).toBe(429);
  });
});

describe.skipIf(!hasRedis)("two proxies on one server", () => {
  async function two(server: RedisServer, limits: readonly object[], rest: object = {}) {
    const state = {
      store: "redis",
      url: server.url,
      timeout: "5s",
      ...(rest as { state?: object }).state,
    };
    const { state: _, ...config } = rest as { state?: object };
    const file = merge(chain(limits, config), { state });
    return Promise.all([start(file), start(file)]);
  }

  test("a hundred at once: no request more than there are", async () => {
    const server = await own(RedisServer.start());
    const limit = { name: "n", unit: "requests", limit: 25, window: "day" };
    const proxies = await two(server, [limit]);
    const all = await burst(proxies, 100);
    expect([count(all, 200), count(all, 429), served]).toEqual([25, 75, 25]);
  });

  test("leased: no request more than there are, and in the end as many", async () => {
    const server = await own(RedisServer.start());
    const limit = { name: "n", unit: "requests", limit: 60, window: "day" };
    const proxies = await two(server, [limit], { lease: 0.2 });
    for (let round = 0; round < 3; round += 1) await burst(proxies, 20);
    expect(served).toBeLessThanOrEqual(60);
    await eventually(async () => {
      await burst(proxies, 2);
      return served >= 60;
    });
    const all = await burst(proxies, 20);
    expect([count(all, 429), served]).toEqual([20, 60]);
  });

  test("leased and killed: what is leased is used, then it is refused", async () => {
    const server = await own(RedisServer.start());
    const limit = { name: "n", unit: "requests", limit: 1_000, window: "day" };
    const [one] = await two(server, [limit], { lease: 0.02 });
    for (const _ of [1, 2]) expect((await call(one)).status).toBe(200);
    await server.kill();
    await one.log(({ msg }) => msg === "the state store is away");
    const all: Asked[] = [];
    for (let at = 0; at < 25; at += 1) all.push(await call(one));
    expect(all.at(-1)?.status).toBe(503);
    expect(served).toBeLessThanOrEqual(22);
  });

  test("tokens: what they take together is at most one call too many", async () => {
    const server = await own(RedisServer.start());
    const limit = { name: "t", unit: "tokens", limit: 2_000, window: "day" };
    const proxies = await two(server, [limit], { reserve_tokens: 200 });
    let all: Asked[] = [];
    for (let round = 0; round < 4; round += 1) all = [...all, ...(await burst(proxies, 100))];
    expect(served * 100).toBeLessThanOrEqual(2_100);
    // Refused while the other proxy's calls hold the rest, however slow these are.
    expect(served).toBeGreaterThanOrEqual(5);
    expect(count(all, 200)).toBe(served);
  });

  test("emptied in the middle: what was used stays used", async () => {
    const server = await own(RedisServer.start());
    const limit = { name: "n", unit: "requests", limit: 20, window: "day" };
    const proxies = await two(server, [limit]);
    await burst(proxies, 12);
    await server.flush();
    await burst(proxies, 40);
    // Twelve more would be what an empty server allows; a machine that is busy may be late in telling what one of them saw.
    expect(served).toBeGreaterThanOrEqual(20);
    expect(served).toBeLessThanOrEqual(26);
    const restored = await Promise.all(
      proxies.map((proxy) => proxy.metric("authbridge_state_restored_total")),
    );
    expect(restored.reduce((sum, one) => sum + one)).toBeGreaterThanOrEqual(1);
  });

  test("killed: refused with the key that would let it pass, and used again when it is back", async () => {
    const server = await own(RedisServer.start());
    const limit = { name: "n", unit: "requests", limit: 2, window: "day" };
    const [proxy] = await two(server, [limit]);
    expect((await call(proxy)).status).toBe(200);
    await server.kill();
    const refused = await eventually(async () => {
      const answer = await call(proxy);
      return answer.status === 503 && answer;
    });
    expect(JSON.parse(refused.body)).toMatchObject({
      error: "state.unavailable",
      message: expect.stringContaining("when_away: allow"),
    });
    const events = (await proxy.sessions("/v1/sessions/default")).text;
    expect(events).toContain('"reason":"state_away"');
    await server.restart();
    await eventually(async () => (await call(proxy)).status === 200);
    await eventually(async () => (await call(proxy)).status === 429);
    expect(served).toBe(2);
  });

  test("whoever leaves while the server is asked takes nothing along", async () => {
    const server = await own(RedisServer.start());
    const limit = { name: "n", unit: "requests", limit: 1, window: "day" };
    const state = { store: "redis", url: server.url, timeout: "30s" };
    const proxy = await start(merge(chain([limit]), { state }));
    await eventually(async () => (await proxy.sessions("/v1/budgets")).status === 200);
    server.hang();
    const client = await own(RawClient.connect(proxy.forward));
    client.write({ target: `${origin.url}/`, headers: { Host: origin.authority } });
    await eventually(async () => (await proxy.metric("authbridge_active_flows", {})) === 1);
    client.socket.destroy();
    const left = { outcome: "cancelled" };
    await eventually(async () => (await proxy.metric("authbridge_flows_total", left)) === 1);
    server.goOn();
    await eventually(async () => (await call(proxy)).status === 200);
    expect((await call(proxy)).status).toBe(429);
  });

  test("hung, with when_away: allow: it passes, and is counted when the server goes on", async () => {
    const server = await own(RedisServer.start());
    const limit = { name: "n", unit: "requests", limit: 5, window: "day" };
    const rest = { when_away: "allow", state: { timeout: "300ms" } };
    const [proxy, other] = await two(server, [limit], rest);
    expect((await call(proxy)).status).toBe(200);
    server.hang();
    const all = await burst([proxy], 20);
    expect(count(all, 200)).toBe(20);
    server.goOn();
    await eventually(async () => (await call(other)).status === 429);
  });
});

describe("the spellings of the Go program", () => {
  test("litellm-budget-track: the response's cost counts, the request's does not, and the ledger is kept", async () => {
    headers = { "x-litellm-response-cost": "0.3" };
    const config = { spend_file: "spend.json", max_budget: 0.5 };
    const file = outbound({ name: "litellm-budget-track", config });
    const proxy = await start(file);
    const lie = { "x-litellm-response-cost": "100" };
    expect((await call(proxy, {}, lie)).status).toBe(200);
    const ledger = async (): Promise<unknown> =>
      JSON.parse(await readFile(proxy.path("spend.json"), "utf8"));
    const date = new Date().toISOString().slice(0, 10);
    await eventually(async () => {
      expect(await ledger()).toEqual({ date, total_spend: 0.3, total_calls: 1 });
      return true;
    });
    expect((await call(proxy)).status).toBe(200);
    const refused = await eventually(async () => {
      const answer = await call(proxy);
      return answer.status === 429 && answer;
    });
    expect(JSON.parse(refused.body)).toMatchObject({
      error: "budget.exceeded",
      message:
        "Cortex ExceededTokenBudget: daily spend $0.6000 exceeds budget $0.50. Reset at midnight UTC.",
      plugin: "litellm-budget-track",
    });
    // Everything is refused then, and after a restart as well.
    expect((await ask(proxy.forward, `${origin.url}/other`)).status).toBe(429);
    await eventually(async () => {
      expect(await ledger()).toEqual({ date, total_spend: 0.6, total_calls: 2 });
      return true;
    });
    const files = { "spend.json": JSON.stringify(await ledger()) };
    const next = await own(ProxyProcess.start(merge(settings(), file), { files }));
    expect((await call(next)).status).toBe(429);
  });

  test("litellm-budget-track: a file that is no ledger is said, and not written over", async () => {
    const config = { spend_file: "spend.json", max_budget: 0.5 };
    const file = merge(settings(), outbound({ name: "litellm-budget-track", config }));
    const started = ProxyProcess.start(file, { files: { "spend.json": "{{{" } });
    await expect(started).rejects.toThrow(/spend_file: is no ledger/);
  });

  describe.skipIf(!hasRedis)("session-budget", () => {
    const named = { "x-session": "s-1" };

    async function withBudget(config: object): Promise<ProxyProcess> {
      const server = await own(RedisServer.start());
      const plugin = { name: "session-budget", config: { redis_url: server.url, ...config } };
      // In the order that the Go program wants.
      const file = outbound(plugin, "inference-parser");
      return start(file, { session: { header: "x-session" } });
    }

    test("deny: 403 with what was spent, for everything of that session and for nobody else", async () => {
      const proxy = await withBudget({ max_calls: 2, max_tokens: 100_000 });
      for (let at = 0; at < 2; at += 1) expect((await call(proxy, {}, named)).status).toBe(200);
      const refused = await call(proxy, {}, named);
      expect(refused.status).toBe(403);
      expect(JSON.parse(refused.body)).toMatchObject({
        error: "budget.exceeded",
        message: "call limit reached: 2/2",
        details: { spent_calls: 2, spent_tokens: 200, call_limit: 2, token_limit: 100_000 },
      });
      const other = await ask(proxy.forward, `${origin.url}/other`, { headers: named });
      expect(other.status).toBe(403);
      expect((await call(proxy, {}, { "x-session": "s-2" })).status).toBe(200);
      expect((await call(proxy)).status).toBe(200);
    });

    test("observe: recorded, and let through", async () => {
      const proxy = await withBudget({ max_calls: 1, on_exceed: "observe" });
      for (let at = 0; at < 3; at += 1) expect((await call(proxy, {}, named)).status).toBe(200);
      const events = (await proxy.sessions("/v1/sessions/s-1")).text;
      expect(events).toContain('"reason":"budget_exceeded"');
    });

    test("pause: the webhook is asked once for all that wait, and its answer holds", async () => {
      const asked: unknown[] = [];
      let action = "deny";
      const server = createServer((question, answer) => {
        let text = "";
        question.on("data", (chunk) => (text += String(chunk)));
        question.on("end", () => {
          asked.push(JSON.parse(text));
          answer.end(JSON.stringify({ action }));
        });
      });
      await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
      await own({ close: () => void server.close() });
      const { port } = server.address() as AddressInfo;
      const url = `http://127.0.0.1:${port}/approve`;
      const proxy = await withBudget({ max_calls: 1, on_exceed: "pause", pause_webhook: url });
      expect((await call(proxy, {}, named)).status).toBe(200);
      const denied = await call(proxy, {}, named);
      expect([denied.status, denied.body]).toEqual([
        403,
        expect.stringContaining("call limit reached: 1/1 (approval denied)"),
      ]);
      expect(asked).toEqual([
        expect.objectContaining({ session_id: "s-1", spent_calls: 1, call_limit: 1 }),
      ]);
      action = "approve";
      for (let at = 0; at < 3; at += 1) expect((await call(proxy, {}, named)).status).toBe(200);
      expect(asked).toHaveLength(2);
    });

    test("a session that is too old is refused", async () => {
      const proxy = await withBudget({ max_duration_seconds: 1 });
      await eventually(async () => {
        const answer = await call(proxy, {}, named);
        expect(answer.body).toMatch(/duration limit reached: \d+s\/1s/);
        return answer.status === 403;
      });
    });
  });

  test("keys that contradict each other are said", async () => {
    const plugin = {
      name: "session-budget",
      config: { redis_url: "redis://localhost", on_exceed: "pause", session_ttl_seconds: 1 },
    };
    const started = ProxyProcess.start(merge(settings(), outbound(plugin)));
    await expect(started).rejects.toThrow(/at least one of max_tokens, max_calls/);
  });
});

test("prices of the user's own are read again when the file changes", async () => {
  const table = (price: number): string =>
    `as_of: 2026-01-01\nmodels:\n  own: { input: ${price}, output: 0 }\n`;
  const limit = { name: "usd", unit: "cost", limit: 1_000, window: "day" };
  const file = merge(settings(), chain([limit], { prices_file: "prices.yaml" }));
  const files = { "prices.yaml": table(1_000) };
  const proxy = await own(ProxyProcess.start(file, { files }));
  expect((await call(proxy, { model: "own" })).status).toBe(200);
  await eventually(async () => (await proxy.sessions("/v1/budgets")).text.includes('"used":0.06,'));
  await writeFile(proxy.path("prices.yaml"), table(10_000));
  await eventually(async () => {
    await call(proxy, { model: "own" });
    const [, used = "0"] = /"used":([\d.]+)/.exec((await proxy.sessions("/v1/budgets")).text) ?? [];
    return Number(used) > 0.06 * served + 0.5;
  });
});
