/** context-guru as an agent and its model meet it: what is sent, what can be asked for, and what is left alone. */
import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { asTransport } from "../support/mcp-server.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { throughProxy } from "../support/proxied-fetch.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { ask, type Asked } from "../support/session-agent.ts";
import { StandInJudge } from "../support/judge.ts";
import { apiRows, outputs, requestsWith, serviceLog, sourceCode } from "../support/tool-outputs.ts";

const own = owner();
const field = { session: { header: "x-conversation" } };
const log = serviceLog(1_500);
let origin: HttpOrigin;
let proxy: ProxyProcess;

function start(config: object = {}, ...over: readonly Settings[]): Promise<ProxyProcess> {
  const chain = outbound("inference-parser", "mcp-parser", { name: "context-guru", config });
  const all = [chain, field, ...over];
  return own(ProxyProcess.start(all.reduce((sum, one) => merge(sum, one), settings())));
}

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  origin.answer = () => {
    const usage = { prompt_tokens: 6, completion_tokens: 4, total_tokens: 10 };
    return reply(200, JSON.stringify({ choices: [], usage }), {
      "content-type": "application/json",
    });
  };
  proxy = await start();
});
beforeEach(() => {
  origin.requests.length = 0;
});

interface Sent {
  readonly session?: string | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  readonly by?: ProxyProcess;
}

async function send(path: string, body: string | object, sent: Sent = {}): Promise<string> {
  const { session, headers = {}, by = proxy } = sent;
  const response = await ask(by.forward, origin.url + path, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      ...(session === undefined ? {} : { "x-conversation": session }),
      ...headers,
    },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  expect(response.status).toBe(200);
  const seen = origin.requests.at(-1);
  if (seen === undefined) throw new Error("nothing arrived");
  expect(seen.header("content-length")).toBe(String(seen.body.length));
  return seen.text;
}

const chat = (text: string): object => requestsWith(text)["openai chat"]?.body ?? {};
const chatPath = "/v1/chat/completions";

function idIn(text: string): string {
  return /\[context-guru ([0-9a-f]{20}):/.exec(text)?.[1] ?? "";
}

function expand(id: string, session: string | undefined, by = proxy): Promise<Asked> {
  return ask(by.forward, `http://context-guru.internal/texts/${id}`, {
    headers: session === undefined ? {} : { "x-conversation": session },
  });
}

describe("P20", () => {
  test("a large output of a tool is shortened, in every API that is known, and nothing else is touched", async () => {
    for (const [name, { path, body }] of Object.entries(requestsWith(log))) {
      const sent = JSON.stringify(body);
      const seen = await send(path, sent, { session: "every" });
      expect([name, seen.length < sent.length / 5]).toEqual([name, true]);
      expect(seen).toContain("ERROR db.pool: connection to 10.0.3.7:5432 refused");
      // Everything around the output is the same byte for byte.
      const at = sent.indexOf("2026-");
      expect([name, seen.slice(0, at)]).toEqual([name, sent.slice(0, at)]);
      const end = sent.slice(sent.lastIndexOf("ms") + 2);
      expect([name, seen.endsWith(end.replace(/^[^"]*/, ""))]).toEqual([name, true]);
    }
  });

  test("a path that is no call of a language model is passed on as it is", async () => {
    const body = JSON.stringify(chat(log));
    expect(await send("/v1/orders", body, { session: "a" })).toBe(body);
  });

  test("paths: only calls whose path ends like that", async () => {
    const only = await start({ paths: ["/v1/messages"] });
    const body = JSON.stringify(chat(log));
    expect(await send(chatPath, body, { session: "a", by: only })).toBe(body);
    const other = requestsWith(log)["anthropic"]?.body ?? {};
    const seen = await send("/gateway/v1/messages", other, { session: "a", by: only });
    expect(seen.length).toBeLessThan(body.length / 5);
  });

  test("without a session nothing is shortened, unless the file says that callers have theirs", async () => {
    const body = JSON.stringify(chat(log));
    expect(await send(chatPath, body)).toBe(body);
    const own = await start({ without_session: "caller" });
    const seen = await send(chatPath, body, { by: own });
    expect(seen.length).toBeLessThan(body.length / 5);
    expect((await expand(idIn(seen), undefined, own)).body).toContain(log);
  });

  test("a call that has the sentinel is another shortener's own", async () => {
    const body = JSON.stringify(chat(log));
    const headers = { "X-Context-Guru-LLM": "1" };
    expect(await send(chatPath, body, { session: "a", headers })).toBe(body);
  });

  test("outputs of every kind", async () => {
    for (const [name, text] of Object.entries(outputs)) {
      const sent = JSON.stringify(chat(text));
      const seen = await send(chatPath, sent, { session: "kinds" });
      expect([name, seen.length < sent.length / 3]).toEqual([name, true]);
    }
  });
});

describe("what a provider caches stays the same", () => {
  test("the same output has the same bytes at every turn, and after a restart", async () => {
    const first = chat(log) as { messages: object[] };
    const once = await send(chatPath, first, { session: "turns" });
    const later = {
      ...first,
      messages: [
        ...first.messages,
        { role: "assistant", content: "So." },
        { role: "user", content: "And?" },
      ],
    };
    const twice = await send(chatPath, later, { session: "turns" });
    expect(twice.startsWith(once.slice(0, once.lastIndexOf("]")))).toBe(true);
    const again = await start();
    expect(await send(chatPath, first, { session: "others", by: again })).toBe(once);
  });

  test("what the user wrote is never shortened, and a short output neither", async () => {
    const body = JSON.stringify({
      model: "m",
      messages: [
        { role: "user", content: log },
        { role: "tool", content: "done" },
        { role: "user", content: [{ type: "text", text: apiRows(200) }] },
      ],
    });
    expect(await send(chatPath, body, { session: "a" })).toBe(body);
  });

  test("numbers and texts around an output keep their spelling", async () => {
    const rest = `"seed": 12345678901234567890, "temperature": 1.0, "note": "\\u00e9\\/"`;
    const body = `{ ${rest},\n "model":"m","messages":[{"role":"tool","content":${JSON.stringify(log)}}]}`;
    const seen = await send(chatPath, body, { session: "a" });
    expect(seen).toContain(rest);
    expect(seen.length).toBeLessThan(body.length / 5);
  });

  test("numbers in an output keep their digits", async () => {
    const rows = apiRows(300).replaceAll('"status"', '"serial": 12345678901234567890,\n"status"');
    const seen = await send(chatPath, chat(rows), { session: "a" });
    expect(seen).toContain(String.raw`\"serial\":12345678901234567890,`);
  });
});

describe("what was left out can be asked for", () => {
  test("with GET, by the session that it came in and by no other", async () => {
    const seen = await send(chatPath, chat(log), { session: "mine" });
    const id = idIn(seen);
    expect(id).toBe(createHash("sha256").update(log).digest("hex").slice(0, 20));
    expect(await expand(id, "mine")).toMatchObject({
      status: 200,
      body: expect.stringContaining(log),
    });
    expect((await expand(id, "another")).status).toBe(404);
    expect((await expand(id, undefined)).status).toBe(404);
    expect((await expand("0".repeat(20), "mine")).status).toBe(404);
  });

  test("with the tool of an MCP client, whole or in part, and it is not shortened again", async () => {
    const seen = await send(chatPath, chat(log), { session: "mcp" });
    const { fetch } = await own(
      Promise.resolve(throughProxy(`http://127.0.0.1:${proxy.forward.port}`)),
    );
    const client = new Client({ name: "agent", version: "1" });
    const url = new URL("http://context-guru.internal/mcp");
    const requestInit = { headers: { "x-conversation": "mcp" } };
    await client.connect(
      asTransport(new StreamableHTTPClientTransport(url, { fetch, requestInit })),
    );
    const { tools } = await client.listTools();
    expect(tools.map(({ name }) => name)).toEqual(["context_guru_expand"]);
    const call = async (args: object): Promise<{ isError?: unknown; text: string }> => {
      const given = await client.callTool({ name: "context_guru_expand", arguments: { ...args } });
      const [part] = given.content as { text: string }[];
      return { isError: given.isError, text: part?.text ?? "" };
    };
    const whole = await call({ id: idIn(seen) });
    expect(whole.text).toContain(log);
    const part = await call({ id: idIn(seen), from_line: 501, lines: 1 });
    expect(part.text).toMatch(/^\[context-guru [0-9a-f]{20}: .*\]\n.*ERROR db\.pool.*$/);
    expect(await call({ id: "nothing" })).toMatchObject({ isError: true });
    await client.close();
    const body = JSON.stringify(chat(whole.text));
    expect(await send(chatPath, body, { session: "mcp" })).toBe(body);
  });

  test("an agent that asks before everything that is judged gets no further than the file lets it", async () => {
    const chain = outbound(
      { name: "egress-policy", config: { allow: ["127.0.0.1"] } },
      "inference-parser",
      "context-guru",
    );
    const guarded = await own(ProxyProcess.start(merge(settings(), merge(chain, field))));
    expect((await expand("0".repeat(20), "a", guarded)).status).toBe(403);
  });

  test("bounds: texts beyond them are forgotten, the oldest first, and counted", async () => {
    const small = await start({ store: { max_texts: 2 } });
    const texts = [3, 4, 5].map((seed) => serviceLog(600 + seed));
    const ids: string[] = [];
    for (const text of texts) {
      ids.push(idIn(await send(chatPath, chat(text), { session: "s", by: small })));
    }
    const found = await Promise.all(ids.map((id) => expand(id, "s", small)));
    expect(found.map(({ status }) => status)).toEqual([404, 200, 200]);
    expect(await small.metric("authbridge_plugin_events_total", { event: "evicted" })).toBe(1);
  });

  test("a text that finds no room is not shortened: nothing is lost", async () => {
    const small = await start({ store: { max_bytes: 65_536 } });
    const body = JSON.stringify(chat(log));
    expect(await send(chatPath, body, { session: "s", by: small })).toBe(body);
  });
});

describe("what is left as it is", () => {
  test.each<[string, Readonly<Record<string, string>>]>([
    [
      "a signature",
      { authorization: "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=c" },
    ],
    ["a digest", { "content-digest": "sha-256=:AAAA:" }],
  ])("a body under %s", async (_name, headers) => {
    const body = JSON.stringify(chat(log));
    expect(await send(chatPath, body, { session: "a", headers })).toBe(body);
  });

  test("a body that two readers could read differently", async () => {
    const body = `{"model":"m","model":"n","messages":[{"role":"tool","content":${JSON.stringify(log)}}]}`;
    expect(await send(chatPath, body, { session: "a" })).toBe(body);
  });

  test("a body that is too large to be read, which is passed on", async () => {
    const bounded = await start({}, { limits: { max_body: "16KiB" } });
    const body = JSON.stringify(chat(log));
    expect(await send(chatPath, body, { session: "a", by: bounded })).toBe(body);
  });

  test("images, files and what providers sealed, wherever they stand", async () => {
    const data = Buffer.from(sourceCode(400)).toString("base64");
    const bodies: readonly [string, object][] = [
      [
        "/v1/messages",
        {
          model: "m",
          max_tokens: 9,
          messages: [
            {
              role: "user",
              content: [
                {
                  type: "tool_result",
                  tool_use_id: "c",
                  content: [
                    { type: "image", source: { type: "base64", media_type: "image/png", data } },
                  ],
                },
              ],
            },
            {
              role: "assistant",
              content: [
                { type: "thinking", thinking: log, signature: data },
                {
                  type: "web_search_tool_result",
                  tool_use_id: "s",
                  content: [
                    { type: "web_search_result", url: "https://a", encrypted_content: data },
                  ],
                },
              ],
            },
          ],
        },
      ],
      [
        "/v1/responses",
        {
          model: "m",
          input: [
            { type: "reasoning", encrypted_content: data, summary: [] },
            {
              type: "computer_call_output",
              call_id: "c",
              output: { type: "computer_screenshot", image_url: `data:image/png;base64,${data}` },
            },
            { type: "function_call", call_id: "d", name: "write", arguments: log },
          ],
        },
      ],
      [
        chatPath,
        {
          model: "m",
          messages: [
            {
              role: "tool",
              tool_call_id: "c",
              content: [{ type: "image_url", image_url: { url: `data:image/png;base64,${data}` } }],
            },
            {
              role: "assistant",
              tool_calls: [{ id: "c", function: { name: "w", arguments: log } }],
            },
          ],
        },
      ],
    ];
    for (const [path, body] of bodies) {
      const sent = JSON.stringify(body);
      expect((await send(path, sent, { session: "a" })) === sent).toBe(true);
    }
  });

  test("engine.preset: off leaves everything, safe what the output says", async () => {
    const off = await start({ engine: { preset: "off" } });
    const body = JSON.stringify(chat(log));
    expect(await send(chatPath, body, { session: "a", by: off })).toBe(body);
    const safe = await start({ engine: { preset: "safe" } });
    const rows = apiRows(100);
    const seen = await send(chatPath, chat(rows), { session: "a", by: safe });
    const sent = JSON.parse(seen) as { messages: { content: string }[] };
    const output = sent.messages.at(-1)?.content ?? "";
    expect(output.length).toBeLessThan(rows.length * 0.8);
    expect(JSON.parse(output)).toEqual(JSON.parse(rows));
  });
});

test("a compressed request is shortened as well", async () => {
  const body = gzipSync(JSON.stringify(chat(log)));
  const { fetch } = await own(
    Promise.resolve(throughProxy(`http://127.0.0.1:${proxy.forward.port}`)),
  );
  const headers = {
    "content-type": "application/json",
    "content-encoding": "gzip",
    "x-conversation": "gzip",
  };
  await fetch(origin.url + chatPath, { method: "POST", headers, body });
  const seen = origin.requests.at(-1);
  expect(seen?.header("content-encoding")).toBeUndefined();
  expect(seen?.text).toContain("[context-guru ");
});

test("savings are in events, in /v1/usage and in the counters", async () => {
  const fresh = await start();
  const body = JSON.stringify(chat(log));
  const seen = await send(chatPath, body, { session: "saved", by: fresh });
  const tokens = (text: string): number => Math.ceil(Buffer.byteLength(text) / 4);
  const saved = tokens(body) - tokens(seen);
  const events = await eventually(async () => {
    const { text } = await fresh.sessions("/v1/sessions/saved?view=summary");
    return text.includes("tokensSaved") && text;
  });
  const published = /"context-guru":(\{[^}]*\})/.exec(events)?.[1] ?? "{}";
  expect(JSON.parse(published)).toEqual({
    tokensBefore: tokens(body),
    tokensAfter: tokens(seen),
    tokensSaved: saved,
    outputs: 1,
  });
  const usage = await eventually(async () => {
    const { text } = await fresh.sessions("/v1/usage");
    return text.includes("tokensSaved") && text;
  });
  expect(JSON.parse(usage)).toMatchObject({ totals: { tokens: 10, tokensSaved: saved } });
  expect(await fresh.metric("authbridge_plugin_events_total", { event: "shortened" })).toBe(1);
});

test("on_error: observe sends what the agent sent, and says what would have been saved", async () => {
  const chain = outbound("inference-parser", { name: "context-guru", on_error: "observe" });
  const watching = await own(ProxyProcess.start(merge(settings(), merge(chain, field))));
  const body = JSON.stringify(chat(log));
  expect(await send(chatPath, body, { session: "a", by: watching })).toBe(body);
  const events = await eventually(async () => {
    const { text } = await watching.sessions("/v1/sessions/a");
    return text.includes("would_shorten") && text;
  });
  expect(events).not.toContain("tokensSaved");
});

describe("a model", () => {
  const code = sourceCode(600);
  async function withModel(rest: object = {}): Promise<[ProxyProcess, StandInJudge]> {
    const model = await own(StandInJudge.start());
    const named = { base_url: model.url, model: "cheap", api_key: "k-1", ...rest };
    return [await start({ model: named }), model];
  }

  test("summarises what the rules would cut, once for all turns; rules come first", async () => {
    const [asking, model] = await withModel();
    model.decide = () => "six hundred small functions";
    const first = await send(chatPath, chat(code), { session: "m", by: asking });
    expect(first).toContain("six hundred small functions");
    expect(await send(chatPath, chat(code), { session: "m", by: asking })).toBe(first);
    await send(chatPath, chat(log), { session: "m", by: asking });
    expect(model.questions).toMatchObject([{ model: "cheap", temperature: 0, max_tokens: 4_096 }]);
    const [asked] = model.requests;
    expect(asked?.header("authorization")).toBe("Bearer k-1");
    expect(asked?.header("x-context-guru-llm")).toBe("1");
    expect((await expand(idIn(first), "m", asking)).body).toContain(code);
  });

  test("is shown a key that comes from a source", async () => {
    const command = [process.execPath, "-e", "console.log('k-2')"];
    const [asking, model] = await withModel({ api_key: { type: "exec", command, ttl: "1h" } });
    await send(chatPath, chat(code), { session: "k", by: asking });
    expect(model.requests[0]?.header("authorization")).toBe("Bearer k-2");
  });

  test("is shown the key in api_key_file as it is now; without one it is not asked", async () => {
    const directory = await mkdtemp(join(tmpdir(), "authbridge-guru-"));
    await own({ close: () => rm(directory, { recursive: true }) });
    const file = join(directory, "key");
    await writeFile(file, "k-3\n");
    const [asking, model] = await withModel({ api_key: undefined, api_key_file: file });
    const shown = () => model.requests.map((request) => request.header("authorization"));
    await send(chatPath, chat(code), { session: "f1", by: asking });
    expect(shown()).toEqual(["Bearer k-3"]);
    await writeFile(file, "k-4");
    await send(chatPath, chat(code), { session: "f2", by: asking });
    expect(shown()).toEqual(["Bearer k-3", "Bearer k-4"]);
    await rm(file);
    const body = JSON.stringify(chat(code));
    const seen = await send(chatPath, body, { session: "f3", by: asking });
    expect(seen.length).toBeLessThan(body.length / 3);
    expect(shown()).toHaveLength(2);
  });

  test("is asked once for calls at once that carry the same output", async () => {
    const [asking, model] = await withModel();
    let said = 0;
    model.decide = () => `summary ${(said += 1)}`;
    const all = [1, 2, 3].map(() => send(chatPath, chat(code), { session: "m", by: asking }));
    await Promise.all(all);
    const seen = origin.requests.map(({ text }) => /summary \d+/.exec(text)?.[0]);
    expect(new Set(seen).size).toBe(1);
  });

  test.each<[string, string]>([
    ["is down", reply(503, "no")],
    ["says nothing that is a completion", reply(200, "{}")],
    [
      "says more than was there",
      reply(200, JSON.stringify({ choices: [{ message: { content: "x".repeat(90_000) } }] })),
    ],
  ])("that %s: the rules count, and no call is lost", async (_name, answer) => {
    const [asking, model] = await withModel();
    model.answer = () => answer;
    const body = JSON.stringify(chat(code));
    const seen = await send(chatPath, body, { session: "m", by: asking });
    expect(seen.length).toBeLessThan(body.length / 3);
    expect(seen).toContain("lines left out]");
    expect(await asking.metric("authbridge_plugin_events_total", { event: "model_failed" })).toBe(
      1,
    );
    // The bytes of the first turn stay, although the model is back.
    model.answer = undefined;
    expect(await send(chatPath, chat(code), { session: "m", by: asking })).toBe(seen);
  });

  test("that does not answer in time: the rules count", async () => {
    const [asking, model] = await withModel({ timeout_ms: 50 });
    const { promise, resolve } = Promise.withResolvers<string>();
    model.answer = () => promise;
    const seen = await send(chatPath, chat(code), { session: "m", by: asking });
    expect(seen).toContain("lines left out]");
    resolve(reply(200, "{}"));
  });
});

describe("the file", () => {
  const plugin = (config: object): object => ({ name: "context-guru", config });
  test.each<[string, unknown[], RegExp]>([
    [
      "B8: before the parser",
      [plugin({}), "inference-parser"],
      /requires "inference-parser" \(position 2\) to appear earlier/,
    ],
    ["without a parser", [plugin({})], /requires "inference-parser", which is not configured/],
    [
      "before one who reads",
      ["inference-parser", plugin({}), "mcp-parser"],
      /"mcp-parser" reads bodies after "context-guru" has rewritten them/,
    ],
    [
      "half a model",
      ["inference-parser", plugin({ model: { model: "m" } })],
      /base_url.*has to be set with model/,
    ],
    [
      "the other half",
      ["inference-parser", plugin({ model: { base_url: "http://m.example" } })],
      /model.*has to be set with base_url/,
    ],
    [
      "a preset that is none",
      ["inference-parser", plugin({ engine: { preset: "all" } })],
      /preset/,
    ],
  ])("%s", async (_name, plugins, message) => {
    const started = ProxyProcess.start(merge(settings(), outbound(...plugins)));
    await expect(started).rejects.toThrow(message);
  });

  test("what files for the Go program say loads: an empty model is none", async () => {
    const config = {
      paths: ["/v1/chat/completions", "/v1/completions", "/v1/messages"],
      engine: { preset: "balanced" },
      model: { base_url: "", model: "", api_key: "", max_tokens: 0, timeout_ms: 0 },
    };
    const started = await start(config);
    const seen = await send(chatPath, chat(log), { session: "go", by: started });
    expect(seen).toContain("[context-guru ");
  });
});
