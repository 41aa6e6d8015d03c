/** sparc at work: calls of tools and of language models pass a proxy, beside a service that judges whether they are grounded. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ClientFactory } from "@a2a-js/sdk/client";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { agentCard, userMessage, WeatherAgent } from "../support/a2a-agent.ts";
import { RawClient, request } from "../support/http-client.ts";
import { HttpOrigin, type OriginConnection, reply } from "../support/origin.ts";
import { eventually } from "../support/eventually.ts";
import { owner } from "../support/owner.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { rejected, StandInReflector } from "../support/reflector.ts";
import { eventOf } from "../support/session-events.ts";

const own = owner();
let reflector: StandInReflector;
let origin: HttpOrigin;

beforeAll(async () => {
  reflector = await own(StandInReflector.start());
  origin = await own(HttpOrigin.launch());
});

beforeEach(() => {
  reflector.forget();
  origin.requests.length = 0;
});

type Outcome = Awaited<ReturnType<typeof request>>;

const tools = [
  {
    type: "function",
    function: {
      name: "issue_refund",
      description: "Issue a refund",
      parameters: { type: "object", properties: { transaction_id: { type: "string" } } },
    },
  },
];
const chat = {
  model: "m",
  messages: [
    { role: "system", content: "You are a finance assistant." },
    { role: "user", content: "Refund my duplicate charge." },
  ],
  tools,
};
const refund = (id: number | string = 7) => ({
  jsonrpc: "2.0",
  id,
  method: "tools/call",
  params: { name: "issue_refund", arguments: { transaction_id: "TX9999" } },
});

async function start(config: object, sessions: object = {}): Promise<ProxyProcess> {
  const plugins = ["mcp-parser", "inference-parser"];
  const entry = { name: "sparc", config: { reflector_endpoint: reflector.url, ...config } };
  return own(ProxyProcess.start(settings({ ...outbound(...plugins, entry), ...sessions })));
}

function post(
  proxy: ProxyProcess,
  path: string,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): Promise<Outcome> {
  return request(proxy.forward, {
    method: "POST",
    target: `${origin.url}${path}`,
    headers: { "Content-Type": "application/json", Host: origin.authority, ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
}

const json = (body: unknown): string =>
  reply(200, JSON.stringify(body), { "Content-Type": "application/json" });

describe("calls of MCP tools", () => {
  /** A proxy whose agent has told its model something. */
  async function agentOf(config: object): Promise<ProxyProcess> {
    origin.on("/v1/chat/completions", () => json({ choices: [{ message: { content: "hm" } }] }));
    origin.on("/mcp", ({ text }) => {
      const sent = JSON.parse(text) as { id: unknown } | { id: unknown }[];
      const answer = ({ id }: { id: unknown }) => ({ jsonrpc: "2.0", id, result: { done: true } });
      return json(Array.isArray(sent) ? sent.map(answer) : answer(sent));
    });
    const proxy = await start(config);
    expect((await post(proxy, "/v1/chat/completions", chat)).status).toBe(200);
    return proxy;
  }

  const reached = (): number =>
    origin.requests.filter(({ target }) => target.endsWith("/mcp")).length;

  test("the service is shown a token that comes from a source", async () => {
    const command = [process.execPath, "-e", "console.log('of-a-command')"];
    const proxy = await agentOf({ reflector_bearer: { type: "exec", command, ttl: "1h" } });
    await post(proxy, "/mcp", refund());
    expect(reflector.requests[0]?.header("authorization")).toBe("Bearer of-a-command");
  });

  test("the token in reflector_bearer_file is shown as it is now; without one no call is judged", async () => {
    const directory = await mkdtemp(join(tmpdir(), "authbridge-sparc-"));
    const file = join(directory, "token");
    await writeFile(file, "of-a-file\n");
    const more = { reflector_bearer_file: file, cache_ttl_ms: 0, fail_policy: "closed" };
    const proxy = await agentOf(more);
    expect((await post(proxy, "/mcp", refund())).status).toBe(200);
    await writeFile(file, "of-another");
    expect((await post(proxy, "/mcp", refund())).status).toBe(200);
    expect(reflector.requests.map((asked) => asked.header("authorization"))).toEqual([
      "Bearer of-a-file",
      "Bearer of-another",
    ]);
    await rm(directory, { recursive: true });
    const refused = await post(proxy, "/mcp", refund());
    expect(refused.text).toContain("reflector_unavailable");
    expect(reflector.requests).toHaveLength(2);
  });

  test("a grounded call passes, and the service is shown the conversation, the tools and the call", async () => {
    const proxy = await agentOf({ reflector_bearer: "for-the-service", track: "slow_track" });
    const outcome = await post(proxy, "/mcp", refund());
    expect(JSON.parse(outcome.text)).toMatchObject({ id: 7, result: { done: true } });
    expect(reflector.requests[0]?.target).toBe("/reflect");
    expect(reflector.requests[0]?.header("authorization")).toBe("Bearer for-the-service");
    expect(reflector.questions).toEqual([
      {
        messages: chat.messages,
        tool_specs: tools,
        tool_calls: [
          {
            id: "7",
            type: "function",
            function: { name: "issue_refund", arguments: '{"transaction_id":"TX9999"}' },
          },
        ],
        track: "slow_track",
      },
    ]);
    const event = await eventOf(
      async (path) => (await proxy.sessions(path)).text,
      (one) => one.phase === "request" && one.mcp !== undefined,
    );
    expect(event).toMatchObject({
      plugins: {
        sparc: { tool: "issue_refund", decision: "approve", score: 0.9, executionMs: 12 },
      },
    });
    expect(event.invocations?.["outbound"]).toContainEqual(
      expect.objectContaining({ plugin: "sparc", action: "allow", reason: "grounded" }),
    );
  });

  test("reflect: a call that is not grounded is answered with what is wrong, as the tool's result", async () => {
    reflector.decide = () => rejected("TX9999 is not in the conversation");
    const proxy = await agentOf({});
    const outcome = await post(proxy, "/mcp", refund("a"));
    expect(outcome.status).toBe(200);
    const { result, ...rest } = JSON.parse(outcome.text) as {
      result: { content: { text: string }[] };
    };
    expect(rest).toEqual({ jsonrpc: "2.0", id: "a" });
    expect(result).toMatchObject({ isError: false, _meta: { sparc: { reflected: true } } });
    expect(result.content[0]?.text).toMatch(
      /^This tool call was not executed .*\n- TX9999 is not in the conversation \(suggested fix: .*\)\nAsk the user/s,
    );
    expect(reached()).toBe(0);
  });

  test("a client that reads events gets the result as one", async () => {
    reflector.decide = () => rejected("no");
    const proxy = await agentOf({});
    const outcome = await post(proxy, "/mcp", refund(), { Accept: "text/event-stream" });
    expect(outcome.text).toMatch(/^event: message\ndata: \{"jsonrpc":"2\.0","id":7,"result"/);
  });

  test("a batch is made whole or not at all", async () => {
    reflector.decide = ({ tool_calls: [call] }) =>
      call?.function.arguments.includes("TX9999") === true
        ? rejected("no")
        : { decision: "approve" };
    const proxy = await agentOf({});
    const good = { ...refund(8), params: { name: "issue_refund", arguments: {} } };
    const list = { jsonrpc: "2.0", id: 9, method: "tools/list" };
    const outcome = await post(proxy, "/mcp", [list, good, refund(10)]);
    expect(JSON.parse(outcome.text)).toMatchObject([
      { id: 9, error: { code: -32_000 } },
      { id: 8, result: { isError: false } },
      { id: 10, result: { isError: false } },
    ]);
    expect(reached()).toBe(0);
  });

  test("deny: the call is an error that the model reads", async () => {
    reflector.decide = () => rejected("invented");
    const proxy = await agentOf({ on_reject_action: "deny" });
    expect(JSON.parse((await post(proxy, "/mcp", refund())).text)).toMatchObject({
      id: 7,
      error: {
        code: -32_000,
        message: "invented",
        data: { error: "sparc.blocked", plugin: "sparc" },
      },
    });
    expect(reached()).toBe(0);
  });

  test("observe: the call passes and is recorded; a score at the threshold refuses it all the same", async () => {
    reflector.decide = () => rejected("invented", 0.8);
    const proxy = await agentOf({
      on_reject_action: "observe",
      deny_score_threshold: 0.5,
      cache_ttl_ms: 0,
    });
    expect((await post(proxy, "/mcp", refund())).text).toContain('"done":true');
    const event = await eventOf(
      async (path) => (await proxy.sessions(path)).text,
      (one) => one.phase === "request" && one.mcp !== undefined,
    );
    expect(event.invocations?.["outbound"]).toContainEqual(
      expect.objectContaining({ plugin: "sparc", action: "observe", reason: "reject_observed" }),
    );
    reflector.decide = () => rejected("invented", 0.5);
    expect((await post(proxy, "/mcp", refund())).text).toContain("sparc.blocked");
  });

  test("P18: skip_tools and reflect_tools say which calls are judged", async () => {
    const proxy = await agentOf({ skip_tools: ["list_*"], reflect_tools: ["list_*", "issue_*"] });
    const call = (name: string) => ({ ...refund(), params: { name, arguments: {} } });
    for (const name of ["list_accounts", "get_rate", "issue_refund"]) {
      expect((await post(proxy, "/mcp", call(name))).text).toContain('"done":true');
    }
    expect(reflector.tools).toEqual(["issue_refund"]);
  });

  test.each([
    ["the service is down", () => reply(500, "secret of the service")],
    ["the service gives no verdict", () => json({ decision: "error", issues: [] })],
    [
      "the service's answer is none",
      () => reply(200, '{"decision":"approve","decision":"reject"}'),
    ],
  ])("P18: %s: open lets the call pass, closed refuses it", async (_what, answer) => {
    reflector.answer = answer;
    const open = await agentOf({});
    expect((await post(open, "/mcp", refund())).text).toContain('"done":true');
    const closed = await agentOf({ fail_policy: "closed" });
    const refused = await post(closed, "/mcp", refund());
    expect(refused.text).toContain("sparc.reflector_unavailable");
    expect(refused.text).not.toContain("secret");
    expect(reached()).toBe(1);
    expect(await closed.metric("authbridge_flows_total", { outcome: "unavailable" })).toBe(1);
  });

  test("P18: without a conversation nothing is asked: open passes, closed refuses", async () => {
    for (const fail_policy of ["open", "closed"]) {
      const proxy = await start({ fail_policy });
      origin.on("/mcp", () => json({ jsonrpc: "2.0", id: 7, result: { done: true } }));
      const { text } = await post(proxy, "/mcp", refund());
      expect(text).toContain(fail_policy === "open" ? '"done":true' : "sparc.no_inference_context");
    }
    expect(reflector.requests).toHaveLength(0);
  });

  test("Z10: no header of the agent switches it off", async () => {
    reflector.decide = () => rejected("no");
    const proxy = await agentOf({ on_reject_action: "deny" });
    const headers = { "X-SPARC-Reflect": "1", "X-IBAC-Judge": "1" };
    expect((await post(proxy, "/mcp", refund(), headers)).text).toContain("sparc.blocked");
  });

  test.each([
    [
      "a key twice",
      '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"list_a","name":"b"}}',
    ],
    [
      "a name in another spelling",
      JSON.stringify({ ...refund(), params: { name: "list_a", Name: "issue_refund" } }),
    ],
    ["a call without a name", JSON.stringify({ ...refund(), params: { arguments: {} } })],
  ])("a call that servers read differently is not one that is skipped: %s", async (_what, body) => {
    const proxy = await agentOf({ skip_tools: ["list_*"], on_reject_action: "deny" });
    const { text } = await post(proxy, "/mcp", body);
    expect(text).toContain("sparc.blocked");
    expect(text).toContain("cannot be read");
    expect(reached()).toBe(0);
  });

  test("messages that are no calls of tools, and destinations of bypass_hosts, are not judged", async () => {
    const proxy = await agentOf({ bypass_hosts: ["127.0.0.1"] });
    await post(proxy, "/mcp", refund());
    const other = await agentOf({});
    await post(other, "/mcp", { jsonrpc: "2.0", id: 1, method: "tools/list" });
    await post(other, "/mcp", {
      jsonrpc: "2.0",
      id: 1,
      method: "prompts/get",
      params: { name: "p" },
    });
    expect(reflector.requests).toHaveLength(0);
    expect(reached()).toBe(3);
  });
});

test("Z9: of two users at once, each call is judged in the conversation that it follows from", async () => {
  const agent = await own(WeatherAgent.start());
  origin.on("/v1/chat/completions", () => json({ choices: [{ message: { content: "hm" } }] }));
  origin.on("/mcp", () => json({ jsonrpc: "2.0", id: 7, result: { done: true } }));
  const entry = {
    name: "sparc",
    config: { reflector_endpoint: reflector.url, fail_policy: "closed" },
  };
  const proxy = await own(
    ProxyProcess.start(
      settings({
        listener: { reverse_proxy_backend: agent.url },
        pipeline: {
          inbound: { plugins: ["a2a-parser"] },
          outbound: { plugins: ["mcp-parser", "inference-parser", entry] },
        },
      }),
    ),
  );
  const both = Promise.withResolvers<void>();
  let asked = 0;
  const outcomes: Record<string, string> = {};
  agent.work = async (headers) => {
    const who = String(headers["x-who"]);
    const traced = { traceparent: String(headers["traceparent"]) };
    const messages = [{ role: "user", content: `I am ${who}.` }];
    await post(proxy, "/v1/chat/completions", { ...chat, messages }, traced);
    asked += 1;
    if (asked === 2) both.resolve();
    await both.promise;
    const call = { ...refund(), params: { name: "issue_refund", arguments: { who } } };
    outcomes[who] = (await post(proxy, "/mcp", call, traced)).text;
    outcomes[`${who} untied`] = (await post(proxy, "/mcp", call)).text;
  };
  const client = await new ClientFactory().createFromAgentCard(
    agentCard(`http://127.0.0.1:${proxy.reverse.port}`),
  );
  const say = (who: string) =>
    client.sendMessage(userMessage("Refund it.", `ctx-${who}`), {
      serviceParameters: { "x-who": who },
    });
  await Promise.all([say("ann"), say("ben")]);
  for (const { messages, tool_calls: calls } of reflector.questions) {
    const who = (JSON.parse(calls[0]?.function.arguments ?? "") as { who: string }).who;
    expect(messages).toEqual([{ role: "user", content: `I am ${who}.` }]);
  }
  expect(outcomes["ann"]).toContain("done");
  expect(outcomes["ben"]).toContain("done");
  expect([outcomes["ann untied"], outcomes["ben untied"]].join()).toContain("no_inference_context");
});

describe("tool calls that a language model asks for", () => {
  const asked = {
    id: "x",
    object: "chat.completion",
    model: "m",
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: "",
          tool_calls: [
            {
              id: "c1",
              type: "function",
              function: { name: "issue_refund", arguments: '{"transaction_id":"TX9999"}' },
            },
          ],
        },
        finish_reason: "tool_calls",
      },
    ],
    usage: { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 },
  };

  test("P19: a completion with a rejected call says what is wrong and asks for nothing", async () => {
    reflector.decide = () => rejected("ungrounded id");
    origin.on("/v1/chat/completions", () => json(asked));
    const proxy = await start({ enforcement: "inference" });
    const { status, text } = await post(proxy, "/v1/chat/completions", chat);
    expect(status).toBe(200);
    expect(text).not.toContain("TX9999");
    expect(JSON.parse(text)).toMatchObject({
      id: "x",
      usage: asked.usage,
      choices: [{ finish_reason: "stop", message: { role: "assistant" } }],
    });
    expect(text).toContain("ungrounded id");
    expect(reflector.questions).toMatchObject([
      { messages: chat.messages, tool_specs: tools, tool_calls: [{ id: "c1" }] },
    ]);
  });

  test("a grounded call, and a completion without calls, pass as they came", async () => {
    origin.on("/v1/chat/completions", () => json(asked));
    const proxy = await start({ enforcement: "inference" });
    expect(JSON.parse((await post(proxy, "/v1/chat/completions", chat)).text)).toEqual(asked);
    origin.on("/v1/chat/completions", () => json({ choices: [{ message: { content: "hi" } }] }));
    expect((await post(proxy, "/v1/chat/completions", chat)).text).toContain("hi");
    expect(reflector.requests).toHaveLength(1);
  });

  test.each([
    [
      "deny",
      { on_reject_action: "deny" },
      () => json(rejected("no")),
      /Tool call blocked by policy: no/,
    ],
    [
      "closed",
      { fail_policy: "closed" },
      () => reply(503, ""),
      /Tool call blocked: reflection service unavailable\./,
    ],
  ])("%s: the completion says so", async (_what, config, answer, words) => {
    reflector.answer = answer;
    origin.on("/v1/chat/completions", () => json(asked));
    const proxy = await start({ enforcement: "inference", ...config });
    const { text } = await post(proxy, "/v1/chat/completions", chat);
    expect(text).toMatch(words);
    expect(text).not.toContain("TX9999");
  });

  test("open: a call that nobody could judge passes", async () => {
    reflector.answer = () => reply(503, "");
    origin.on("/v1/chat/completions", () => json(asked));
    const proxy = await start({ enforcement: "inference" });
    expect((await post(proxy, "/v1/chat/completions", chat)).text).toContain("TX9999");
  });

  test("a call in another alternative, or beside an error, is judged as well", async () => {
    reflector.decide = () => rejected("no");
    const text = { index: 0, message: { role: "assistant", content: "hi" } };
    const [choice] = asked.choices;
    const proxy = await start({ enforcement: "inference" });
    for (const body of [
      { ...asked, choices: [text, { ...choice, index: 1 }] },
      { ...asked, error: { message: "but" } },
    ]) {
      origin.on("/v1/chat/completions", () => json(body));
      expect((await post(proxy, "/v1/chat/completions", chat)).text).not.toContain("TX9999");
    }
  });

  test("a request that its server reads and the parser does not is refused", async () => {
    const proxy = await start({ enforcement: "inference" });
    const twice = `{"model":"m","messages":[],"messages":${JSON.stringify(chat.messages)}}`;
    const { status, text } = await post(proxy, "/v1/chat/completions", twice);
    expect(status).toBe(403);
    expect(text).toContain("sparc.blocked");
    expect(origin.requests).toHaveLength(0);
  });

  test("of a stream, words come at once and calls when they are judged", async () => {
    const head =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    const sent = (data: unknown): string => {
      const event = `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
      return `${Buffer.byteLength(event).toString(16)}\r\n${event}\r\n`;
    };
    const delta = (given: object, finish: string | null = null) => ({
      id: "x",
      choices: [{ index: 0, delta: given, finish_reason: finish }],
    });
    const called = (piece: string, rest: object = {}) =>
      delta({ tool_calls: [{ index: 0, function: { arguments: piece, ...rest } }] });
    const held = Promise.withResolvers<object>();
    reflector.decide = () => held.promise;
    let owed: OriginConnection | undefined;
    origin.on("/v1/chat/completions", ({ connection }) => void (owed = connection));
    const proxy = await start({ enforcement: "inference" });
    const client = await own(RawClient.connect(proxy.forward));
    client.write({
      method: "POST",
      target: `${origin.url}/v1/chat/completions`,
      headers: { "Content-Type": "application/json", Host: origin.authority },
      body: JSON.stringify({ ...chat, stream: true }),
    });
    const model = await eventually(() => owed ?? false);
    await model.send(head + sent(delta({ role: "assistant", content: "Let me see." })));
    await client.reader.until("Let me see.");
    await model.send(
      sent(called('{"transaction_id":', { name: "issue_refund" })) +
        sent(called('"TX9999"}')) +
        sent(delta({}, "tool_calls")) +
        sent({ id: "x", choices: [], usage: { total_tokens: 9 } }) +
        sent("[DONE]") +
        "0\r\n\r\n",
    );
    await eventually(() => reflector.requests.length === 1);
    held.resolve(rejected("not in the conversation"));
    const rest = await client.reader.until("[DONE]");
    expect(rest).not.toMatch(/TX9999|issue_refund|tool_calls/);
    expect(rest).toContain("not in the conversation");
    expect(rest).toContain('"finish_reason":"stop"');
    expect(rest).toContain('"total_tokens":9');
  });

  test("observe with a threshold: a stream is kept back, because a low score refuses its calls", async () => {
    reflector.decide = () => rejected("invented", 0.1);
    const [{ message, ...choice } = {}] = asked.choices;
    const event = (one: object): string =>
      `data: ${JSON.stringify({ id: "x", choices: [one] })}\n\n`;
    const [called] = message?.tool_calls ?? [];
    const calls = [{ index: 0, ...called }];
    const stream =
      event({ index: 0, delta: { tool_calls: calls }, finish_reason: null }) +
      event({ ...choice, delta: {} });
    origin.on("/v1/chat/completions", () =>
      reply(200, stream, { "Content-Type": "text/event-stream" }),
    );
    const proxy = await start({
      enforcement: "inference",
      on_reject_action: "observe",
      deny_score_threshold: 0.5,
    });
    const { text } = await post(proxy, "/v1/chat/completions", { ...chat, stream: true });
    expect(text).not.toContain("TX9999");
    expect(text).toContain("Tool call blocked by policy: invented");
  });

  test("on_error: observe keeps nothing back", async () => {
    reflector.decide = () => rejected("no");
    origin.on("/v1/chat/completions", () => json(asked));
    const config = { reflector_endpoint: reflector.url, enforcement: "inference" };
    const entry = { name: "sparc", on_error: "observe", config };
    const proxy = await own(ProxyProcess.start(settings(outbound("inference-parser", entry))));
    expect(JSON.parse((await post(proxy, "/v1/chat/completions", chat)).text)).toEqual(asked);
    const event = await eventOf(
      async (path) => (await proxy.sessions(path)).text,
      (one) => one.phase === "response" && one.inference !== undefined,
    );
    expect(event.invocations?.["outbound"]).toContainEqual(
      expect.objectContaining({ plugin: "sparc", reason: "reflected" }),
    );
  });
});
