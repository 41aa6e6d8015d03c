import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HeaderList } from "../../../../src/http/headers.ts";
import { ResponseHalf } from "../../../../src/pipeline/context.ts";
import type { Plugin } from "../../../../src/pipeline/plugin.ts";
import { opa } from "../../../../src/plugins/opa/plugin.ts";
import { eventually } from "../../../support/eventually.ts";
import { ask, decisionCases, fixture, readyPlugin } from "../../../support/opa-cases.ts";
import { BundleServer, StubOpa } from "../../../support/opa-server.ts";
import { message, PluginBench, problemsOf } from "../../../support/plugin-bench.ts";

decisionCases("a policy compiled to WebAssembly", async () => ({
  config: { bundle_path: fixture("cases").path },
  close: () => undefined,
}));

decisionCases("a server that speaks OPA's REST data API", async () => {
  const stub = await StubOpa.start();
  return { config: { server_url: stub.url }, close: () => stub.close() };
});

let folder: string;
let stub: StubOpa;
let bench: PluginBench;
const open: Plugin[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "opa-plugin-"));
  stub = await StubOpa.start();
  bench = new PluginBench();
});

afterEach(async () => {
  for (const plugin of open.splice(0)) await plugin.close?.();
  await stub.close();
  rmSync(folder, { recursive: true, force: true });
});

async function plugin(config: object = {}): Promise<Plugin> {
  const made = await readyPlugin(bench, { server_url: stub.url, ...config });
  open.push(made);
  return made;
}

/** The input that the policy saw last. */
function seen(): Readonly<Record<string, unknown>> {
  return stub.calls.at(-1)?.input ?? {};
}

describe("the input document", () => {
  test("N8: without anything included it is lean", async () => {
    await ask(await plugin(), {
      to: "api.example.com:80",
      path: "/true/a?secret=1",
      headers: { "X-A": "1", Authorization: "Bearer t", Cookie: "c=1", "Proxy-Authorization": "b" },
    });
    expect(seen()).toEqual({
      direction: "outbound",
      method: "GET",
      path: "/true/a",
      host: "api.example.com",
      headers: { "x-a": "1" },
    });
  });

  test("N8: the caller's identity and the agent's id are in it", async () => {
    const context = message({ direction: "inbound", path: "/true", host: "agent.example" });
    context.setIdentity({ subject: "alice", clientId: "web", scopes: ["a", "b"], claims: {} });
    await (await plugin({ agent_id: "spiffe://td/agent" })).onRequest?.(context);
    expect(seen()).toMatchObject({
      direction: "inbound",
      host: "agent.example",
      identity: { subject: "alice", client_id: "web", scopes: ["a", "b"] },
      agent: { client_id: "spiffe://td/agent" },
    });
  });

  test("a peer of mutual TLS is in it by its SPIFFE ID", async () => {
    const tls = {
      peer: {
        spiffeId: "spiffe://td/peer",
        version: "TLS 1.3",
        cipherSuite: "TLS_AES_128_GCM_SHA256",
      },
    };
    const client = { address: "127.0.0.1", port: 1, tls };
    await (await plugin()).onRequest?.(message({ direction: "inbound", path: "/true", client }));
    expect(seen()).toMatchObject({ peer: { spiffe_id: "spiffe://td/peer" } });
  });

  const facts = {
    a2a: {
      method: "message/send",
      sessionId: "s",
      taskId: "t",
      role: "user",
      messageId: "m",
      parts: [{ kind: "text", content: "hello" }],
      finalStatus: "completed",
    },
    mcp: {
      method: "tools/call",
      params: { name: "fetch", uri: "u", arguments: { url: "x" }, _meta: { a: 1 } },
      result: { ok: true },
      error: { code: -1, message: "no" },
    },
    inference: {
      model: "m1",
      stream: true,
      maxTokens: 9,
      tools: [{ name: "t1", description: "d", parameters: { type: "object" }, more: 1 }],
      messages: [{ role: "user", content: "hi", more: 1 }],
      completion: "done",
      toolCalls: [{ id: "1", name: "t1", arguments: "{}" }],
    },
  };

  async function parsed(include: readonly string[]): Promise<Readonly<Record<string, unknown>>> {
    const context = message({ path: "/true" });
    for (const [name, fact] of Object.entries(facts)) context.facts.set(name, fact);
    await (await plugin({ include })).onRequest?.(context);
    return seen();
  }

  test("N8: what parsers read is shown by its outline", async () => {
    const input = await parsed([]);
    expect(input["a2a"]).toEqual({
      method: "message/send",
      session_id: "s",
      task_id: "t",
      role: "user",
    });
    expect(input["mcp"]).toEqual({ method: "tools/call", params: { name: "fetch", uri: "u" } });
    expect(input["inference"]).toEqual({
      model: "m1",
      stream: true,
      max_tokens: 9,
      tools: ["t1"],
    });
  });

  test.each([
    [
      "a2a.content",
      "a2a",
      { parts: [{ kind: "text", content: "hello" }], message_id: "m", final_status: "completed" },
    ],
    ["mcp.params", "mcp", { params: facts.mcp.params }],
    [
      "mcp.params.arguments",
      "mcp",
      { params: { name: "fetch", uri: "u", arguments: { url: "x" } } },
    ],
    ["mcp.result", "mcp", { result: { ok: true } }],
    ["mcp.error", "mcp", { error: { code: -1, message: "no" } }],
    [
      "inference.tools.detail",
      "inference",
      { tools: [{ name: "t1", description: "d", parameters: { type: "object" } }] },
    ],
    ["inference.messages", "inference", { messages: [{ role: "user", content: "hi" }] }],
    ["inference.completion", "inference", { completion: "done" }],
    [
      "inference.tool_calls",
      "inference",
      { tool_calls: [{ id: "1", name: "t1", arguments: "{}" }] },
    ],
  ])("N8: include %s adds it", async (key, part, expected) => {
    const lean = (await parsed([]))[part] as object;
    expect((await parsed([key]))[part]).toEqual({ ...lean, ...expected });
  });

  test("N9: repeated fields are one value under the lower-case name", async () => {
    await ask(await plugin(), {
      path: "/true",
      headers: { Accept: ["text/html", "application/json"] },
    });
    expect(seen()["headers"]).toEqual({ accept: "text/html,application/json" });
  });

  test("a field cannot pose as a member of every object", async () => {
    await ask(await plugin(), { path: "/true", headers: { __proto__x: "1", __proto__: "2" } });
    expect(Object.keys(seen()["headers"] as object)).toContain("__proto__x");
  });

  test("an answer is shown with its status and fields, and with the request as it was judged", async () => {
    const judge = await plugin();
    const context = message({ path: "/true", headers: { "X-A": "1" } });
    await judge.onRequest?.(context);
    // A credential that was attached after the decision.
    context.headers.set("X-Api-Key", "real");
    context.response = new ResponseHalf(
      201,
      HeaderList.fromRecord({ "X-B": "2", "Set-Cookie": "s=1" }),
    );
    await judge.onResponse?.(context);
    expect(seen()).toMatchObject({
      headers: { "x-a": "1" },
      response: { status_code: 201, headers: { "x-b": "2" } },
    });
    expect(JSON.stringify(seen())).not.toMatch(/real|s=1/);
  });

  test("the results of calls are shown where they are included, for bodies and for frames", async () => {
    const judge = await plugin({ include: ["mcp.result"] });
    expect(judge.body).toEqual({ response: "read" });
    const context = message({ path: "/true" });
    expect(judge.wantsAnswerBody?.(context)).toBe(false);
    context.facts.set("mcp", { method: "tools/call", rpcId: 1 });
    expect(judge.wantsAnswerBody?.(context)).toBe(true);
    await judge.onRequest?.(context);
    context.response = new ResponseHalf(200, HeaderList.fromRecord({}));
    context.response.content.load(Buffer.from('{"jsonrpc":"2.0","id":1,"result":{"a":1}}'));
    await judge.onResponse?.(context);
    expect(seen()["mcp"]).toEqual({ method: "tools/call", result: { a: 1 } });
    await judge.onFrame?.(context, { data: Buffer.from('{"result":{"a":2}}'), last: false });
    expect(seen()["mcp"]).toEqual({ method: "tools/call", result: { a: 2 } });
    expect(await judge.onFrame?.(context, { data: Buffer.from("ping"), last: false })).toBe(
      undefined,
    );
    expect(stub.calls).toHaveLength(3);
    for (const odd of ['{"result":{"a":2},"result":{"a":3}}', '\uFEFF{"result":{"a":3}}']) {
      expect(await judge.onFrame?.(context, { data: Buffer.from(odd), last: false })).toMatchObject(
        {
          action: "deny",
          reason: "response_unreadable",
        },
      );
    }
    expect(Reflect.get(await plugin(), "onFrame")).toBeUndefined();
  });
});

test("outcomes of tasks are shown with the content of messages", async () => {
  const judge = await plugin({ include: ["a2a.content"] });
  const asked = message({ path: "/true", method: "POST" });
  asked.facts.set("a2a", { method: "message/send", role: "user", parts: [] });
  await judge.onRequest?.(asked);
  asked.response = new ResponseHalf(200, HeaderList.fromRecord({}));
  const task = { kind: "task", id: "t1", status: { state: "completed" } };
  asked.response.content.load(Buffer.from(JSON.stringify({ jsonrpc: "2.0", id: 1, result: task })));
  await judge.onResponse?.(asked);
  expect(seen()["a2a"]).toMatchObject({ method: "message/send", final_status: "completed" });
});

describe("answers of language models", () => {
  const path = "/v1/chat/completions";
  const context = (): ReturnType<typeof message> => {
    const asked = message({ path, method: "POST" });
    asked.facts.set("inference", { api: "openai.chat", model: "m" });
    return asked;
  };
  const answer = (asked: ReturnType<typeof message>): ResponseHalf => {
    asked.response = new ResponseHalf(
      200,
      HeaderList.fromRecord({ "Content-Type": "application/json" }),
    );
    return asked.response;
  };

  test("are shown whole", async () => {
    const judge = await plugin({ include: ["inference.completion", "inference.tool_calls"] });
    const asked = context();
    await judge.onRequest?.(asked);
    answer(asked).content.load(
      Buffer.from(
        JSON.stringify({
          choices: [
            {
              message: {
                content: "hello",
                tool_calls: [{ id: "1", function: { name: "rm", arguments: "{}" } }],
              },
            },
          ],
        }),
      ),
    );
    await judge.onResponse?.(asked);
    expect(seen()["inference"]).toEqual({
      model: "m",
      stream: false,
      completion: "hello",
      tool_calls: [{ id: "1", name: "rm", arguments: "{}" }],
    });
  });

  test("are refused when they are longer than a policy is shown", async () => {
    const judge = await plugin({ include: ["inference.completion"] });
    const asked = context();
    await judge.onRequest?.(asked);
    answer(asked);
    await judge.onResponse?.(asked);
    const say = (content: string) =>
      judge.onFrame?.(asked, {
        data: Buffer.from(JSON.stringify({ choices: [{ index: 0, delta: { content } }] })),
        last: false,
      });
    stub.answer = () => ({ result: true });
    expect(await say("a".repeat(200_000))).toMatchObject({ action: "allow" });
    for (const more of ["b".repeat(200_000), "hidden"]) {
      expect(await say(more)).toMatchObject({ action: "deny", reason: "response_unreadable" });
    }
  });

  test("are judged event by event as they grow", async () => {
    stub.answer = ({ input }) => ({
      result: !JSON.stringify(input["inference"] ?? {}).includes("secret plan"),
    });
    const judge = await plugin({ include: ["inference.completion"] });
    const asked = context();
    await judge.onRequest?.(asked);
    answer(asked);
    await judge.onResponse?.(asked);
    const say = (content: string) =>
      judge.onFrame?.(asked, {
        data: Buffer.from(JSON.stringify({ choices: [{ index: 0, delta: { content } }] })),
        last: false,
      });
    expect(await say("the secret ")).toMatchObject({ action: "allow" });
    expect(await say("")).toBeUndefined();
    expect(await say("plan")).toMatchObject({ action: "deny", reason: "response_policy_denied" });
  });

  test("the word that ends a stream says nothing to judge", async () => {
    const judge = await plugin({ include: ["inference.completion"] });
    const asked = context();
    await judge.onRequest?.(asked);
    answer(asked);
    await judge.onResponse?.(asked);
    const end = { data: Buffer.from("[DONE]"), last: false };
    expect(await judge.onFrame?.(asked, end)).toBeUndefined();
  });
});

describe("paths that servers read differently", () => {
  test("the canonical path is judged, and the spelling is sent", async () => {
    const context = message({ path: "/%74rue/%40x?a=%74" });
    await (await plugin()).onRequest?.(context);
    expect(seen()["path"]).toBe("/true/@x");
    expect(context.path).toBe("/%74rue/%40x?a=%74");
  });

  test.each([
    ["//x/mcp", ["//x/mcp", "/x/mcp", "/mcp"]],
    ["/a//b;c/d", ["/a//b;c/d", "/a/b;c/d", "/a//b/d", "/a/b/d"]],
    ["/a%3Bb", ["/a%3Bb"]],
  ])("every reading of %s is asked about, of the response too", async (path, readings) => {
    stub.answer = () => ({ result: true });
    const judge = await plugin();
    const context = message({ path });
    expect(await judge.onRequest?.(context)).toMatchObject({ action: "allow" });
    context.response = new ResponseHalf(200, new HeaderList([]));
    expect(await judge.onResponse?.(context)).toMatchObject({ action: "allow" });
    expect(stub.calls.map(({ input }) => input["path"])).toEqual([...readings, ...readings]);
  });

  test("one reading that is refused refuses", async () => {
    stub.answer = ({ input }) => ({ result: input["path"] !== "/mcp" });
    for (const path of ["//x/mcp", "//mcp", "/mcp;x"]) {
      expect(await ask(await plugin(), { path })).toMatchObject({ action: "deny" });
    }
  });

  test("an ambiguous one is refused unasked", async () => {
    const decision = await ask(await plugin(), { path: "/true/../admin" });
    expect(decision).toMatchObject({ action: "deny", denial: { code: "request.malformed" } });
    expect(stub.calls).toEqual([]);
  });

  test("an encoded slash stays one", async () => {
    await ask(await plugin(), { path: "/true/a%2Fb" });
    expect(seen()["path"]).toBe("/true/a%2Fb");
  });

  test("the reading without parameters has to be allowed too", async () => {
    stub.answer = ({ input }) => ({ result: input["path"] !== "/admin/x" });
    expect(await ask(await plugin(), { path: "/admin;a=1/x" })).toMatchObject({ action: "deny" });
    expect(await ask(await plugin(), { path: "/other;a=1/x" })).toMatchObject({ action: "allow" });
  });
});

describe("batches", () => {
  const batch = (...names: string[]) => {
    const context = message({ path: "/mcp" });
    const calls = names.map((name, rpcId) => ({ method: "tools/call", rpcId, params: { name } }));
    context.facts.set("mcp", { ...calls[0], batch: calls });
    return context;
  };
  const nameIn = (input: Readonly<Record<string, unknown>>): string =>
    (input["mcp"] as { params: { name: string } }).params.name;

  beforeEach(() => {
    stub.answer = ({ input }) => {
      const name = nameIn(input);
      return name === "unknown" ? {} : { result: name !== "bad" };
    };
  });

  test.each([
    [["good", "good"], "allow"],
    [["good", "bad"], "deny"],
    [["unknown", "bad"], "deny"],
    [["good", "unknown"], "skip"],
  ] as const)("%j is %s", async (names, action) => {
    expect(await (await plugin()).onRequest?.(batch(...names))).toMatchObject({ action });
  });

  test("a very long one is refused", async () => {
    const long = Array.from({ length: 101 }, () => "good");
    expect(await (await plugin()).onRequest?.(batch(...long))).toMatchObject({
      action: "deny",
      reason: "batch_too_large",
    });
  });

  test("each answer is judged with the call that it answers", async () => {
    const judge = await plugin({ include: ["mcp.result"] });
    const context = batch("good", "other");
    await judge.onRequest?.(context);
    stub.calls.length = 0;
    context.response = new ResponseHalf(200, HeaderList.fromRecord({}));
    context.response.content.load(
      Buffer.from('[{"id":1,"result":{"n":1}},{"id":0,"result":{"n":0}}]'),
    );
    await judge.onResponse?.(context);
    expect(stub.calls.map(({ input }) => input["mcp"])).toEqual([
      { method: "tools/call", params: { name: "other" }, result: { n: 1 } },
      { method: "tools/call", params: { name: "good" }, result: { n: 0 } },
    ]);
  });
});

describe("failures", () => {
  test("N6: without a policy every message is 503 and the instance is not ready", async () => {
    const made = bench.create(opa, { bundle_url: "http://127.0.0.1:1", agent_id: "a" });
    open.push(made);
    expect(made.ready?.()).toMatch(/no policy has been loaded yet/);
    expect(await ask(made, { path: "/true" })).toMatchObject({
      action: "deny",
      reason: "opa_not_ready",
      denial: { code: "upstream.unreachable", message: "opa policy engine not initialized" },
    });
  });

  test.each([
    ["a server that does not answer in time", "hang", "decision_timeout"],
    ["a server that breaks the connection", "reset", "decision_error"],
    ["an error of the API", { status: 400, body: "{}" }, "decision_error"],
    ["an answer that is not JSON", { status: 200, body: "<html>" }, "decision_error"],
    ["an answer that is no object", { status: 200, body: "[]" }, "decision_error"],
  ] as const)("%s refuses", async (_name, answer, reason) => {
    stub.answer = () => answer;
    const judge = await plugin({ decision_timeout: answer === "hang" ? "100ms" : "30s" });
    expect(await ask(judge, { path: "/true" })).toMatchObject({
      action: "deny",
      reason,
      denial: { code: "policy.forbidden" },
    });
  });

  test("a body that nobody could read refuses: the policy would judge another message", async () => {
    const context = message({ path: "/true" });
    context.unread = { code: "request.body-too-large", message: "too large" };
    const judge = await plugin({});
    expect(await judge.onRequest?.(context)).toMatchObject({
      action: "deny",
      reason: "body_unread",
      denial: { code: "request.body-too-large" },
    });
  });

  test("a server that is not healthy keeps the instance from being ready", async () => {
    stub.isHealthy = false;
    const made = bench.create(opa, { server_url: stub.url });
    open.push(made);
    await made.start?.(new AbortController().signal);
    await eventually(() => made.ready?.() === "the OPA server is not ready (it answered 500)");
    stub.isHealthy = true;
    await eventually(() => made.ready?.() === true);
  });
});

describe("the decision log", () => {
  const lines = () =>
    bench.logged
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ msg }) => msg === "opa decision");

  test("has id, path, result and latency, and nothing of the message", async () => {
    stub.answer = () => ({ result: { allow: false, reason: "no" }, decision_id: "from-opa" });
    await ask(await plugin(), { path: "/private", headers: { "X-Note": "quiet" } });
    const [line] = lines();
    expect(line).toMatchObject({
      decision_id: "from-opa",
      path: "authbridge/outbound/request",
      result: "deny",
      reason: "policy_denied",
      message: "no",
    });
    expect(line?.["latencyMs"]).toBeTypeOf("number");
    expect(JSON.stringify(line)).not.toMatch(/quiet|private/);
  });

  test("shows fields where it should, without credentials", async () => {
    const config = { decision_log: { include: ["headers"] } };
    await ask(await plugin(config), {
      path: "/true",
      headers: {
        "X-Note": "seen",
        "X-Api-Key": "sesame-1",
        "X-Session-Token": "sesame-2",
        Authorization: "sesame-3",
      },
    });
    expect(lines()[0]?.["headers"]).toEqual({
      "x-note": "seen",
      "x-api-key": "[redacted]",
      "x-session-token": "[redacted]",
    });
    expect(bench.logged.join()).not.toMatch(/sesame/);
  });

  test("is off where the file says so", async () => {
    await ask(await plugin({ decision_log: { enabled: false } }), { path: "/true" });
    expect(lines()).toEqual([]);
  });
});

describe("configuration", () => {
  test.each([
    ["N11: no engine", {}, ": bundle_url is required (or bundle_path, or server_url)"],
    [
      "two engines",
      { bundle_url: "http://b", server_url: "http://s" },
      "server_url: is another engine than bundle_url: keep one of them",
    ],
    ["N11: an unknown key", { bundle_url: "http://b", bogus: true }, ': Unrecognized key: "bogus"'],
    [
      "delays the wrong way round",
      { bundle_url: "http://b", polling_min_delay: 5, polling_max_delay: 1 },
      "polling_max_delay: must be at least polling_min_delay (5)",
    ],
    [
      "an unknown group",
      { bundle_url: "http://b", include: ["mcp.everything"] },
      /^include\.0: must be one of a2a\.content,/,
    ],
    ["a server that is none", { server_url: "ftp://x" }, /^server_url: must be an http/],
    ["a relative socket", { server_url: "unix://opa.sock" }, /^server_url: must be/],
    [
      "a token in the clear",
      { server_url: "http://opa:8181", bearer_token_file: "t" },
      "bearer_token_file: would be sent in the clear: use https",
    ],
    [
      "a source of a token in the clear",
      { server_url: "http://opa:8181", bearer_token: { type: "file", path: "t" } },
      "bearer_token: would be sent in the clear: use https",
    ],
    [
      "a token twice",
      { server_url: "https://opa:8181", bearer_token: "t", bearer_token_file: "t" },
      "bearer_token_file: has no effect with bearer_token",
    ],
    [
      "a resource of nothing",
      { bundle_path: "b", bundle_resource: "r" },
      "bundle_resource: has no effect without bundle_url",
    ],
    [
      "a bad time-out",
      { bundle_url: "http://b", decision_timeout: "soon" },
      /^decision_timeout: must be a duration/,
    ],
  ])("%s is refused", (_name, config, problem) => {
    const [first] = problemsOf(opa, config);
    if (typeof problem === "string") expect(first).toBe(problem);
    else expect(first).toMatch(problem);
  });

  test("N11: the Go program's keys and defaults", () => {
    expect(opa.config?.parse({ bundle_url: "http://server:8080" })).toMatchObject({
      polling_min_delay: 10,
      polling_max_delay: 120,
      include: [],
      on_undefined: "allow",
    });
    const all = {
      bundle_url: "http://server:8080",
      agent_id: "a",
      agent_id_file: "/f",
      polling_min_delay: 5,
      polling_max_delay: 60,
      include: ["a2a.content", "mcp.params"],
    };
    expect(opa.config?.parse(all)).toMatchObject(all);
  });

  test.each([
    [
      "rego",
      /carries only Rego source \(allow\/policy\.rego\).*`opa build -t wasm -e authbridge\/inbound\/request/,
    ],
    ["clock", /the policy calls time\.now_ns\(\)/],
  ])("the bundle %s is refused with what to do about it", (name, problem) => {
    expect(() => bench.create(opa, { bundle_path: fixture(name).path })).toThrow(problem);
  });

  test("a bundle that is not there is refused by its path", () => {
    const path = join(folder, "none.tar.gz");
    expect(() => bench.create(opa, { bundle_path: path })).toThrow(
      `${path}: there is no bundle at this path`,
    );
  });
});

describe("a bundle server", () => {
  test("N10: is asked for the bundle of the agent's id, escaped, without the scheme", async () => {
    const server = await new BundleServer(fixture("cases").bytes, '"1"').listen();
    writeFileSync(join(folder, "id"), "spiffe://example.org/ns/team 1/sa/agent\n");
    open.push(
      await readyPlugin(bench, { bundle_url: `${server.url}/`, agent_id_file: join(folder, "id") }),
    );
    expect(server.asked[0]?.url).toBe("/bundles?spiffe=example.org%2Fns%2Fteam+1%2Fsa%2Fagent");
    await server.close();
  });

  test("N12: two entries share one engine, which ends with the last of them", async () => {
    const server = await new BundleServer(fixture("cases").bytes, '"1"').listen();
    const config = { bundle_url: server.url, agent_id: "a" };
    const first = await readyPlugin(bench, config);
    const second = await readyPlugin(bench, { ...config, on_undefined: "deny" });
    expect(server.asked).toHaveLength(1);
    await first.close?.();
    expect(await ask(second, { path: "/true" })).toMatchObject({ action: "allow" });
    await second.close?.();
    await server.close();
  });

  test("shows its token to the server and to nobody else", async () => {
    const server = await new BundleServer(fixture("cases").bytes, '"1"').listen();
    writeFileSync(join(folder, "token"), "t0ken\n");
    const config = {
      bundle_url: server.url,
      bundle_resource: "/b.tar.gz",
      bearer_token_file: join(folder, "token"),
    };
    open.push(await readyPlugin(bench, config));
    expect(server.asked[0]).toMatchObject({
      url: "/b.tar.gz",
      headers: { authorization: "Bearer t0ken" },
    });
    expect(bench.logged.join()).not.toContain("t0ken");
    await server.close();
  });
});
