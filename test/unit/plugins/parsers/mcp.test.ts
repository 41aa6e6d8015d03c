import { describe, expect, test } from "vitest";
import { HeaderList } from "../../../../src/http/headers.ts";
import { type RequestContext, ResponseHalf } from "../../../../src/pipeline/context.ts";
import { isMcpAction, mcpFact } from "../../../../src/protocols/mcp-message.ts";
import { mcpParser } from "../../../../src/plugins/parsers/mcp.ts";
import { message, type MessageShape, PluginBench } from "../../../support/plugin-bench.ts";

const parser = new PluginBench().create(mcpParser, {});

const call = (id: unknown, name = "echo") => ({
  jsonrpc: "2.0",
  id,
  method: "tools/call",
  params: { name, arguments: { text: "hi" } },
});

async function asked(shape: MessageShape) {
  const context = message(shape);
  const decision = await parser.onRequest?.(context);
  return { context, reason: decision?.reason, mcp: context.facts.get("mcp") };
}

async function frame(context: RequestContext, data: string, last = false) {
  const decision = await parser.onFrame?.(context, { data: Buffer.from(data), last });
  return decision?.reason;
}

describe("requests", () => {
  test.each([1, "call-abc", 0, -1.5])(
    "a call with the id %j is recorded with its type",
    async (id) => {
      expect(await asked({ path: "/any", body: call(id) })).toMatchObject({
        reason: "matched_tools/call",
        mcp: {
          method: "tools/call",
          rpcId: id,
          params: { name: "echo", arguments: { text: "hi" } },
        },
      });
    },
  );

  test("a notification has no rpcId", async () => {
    const { mcp } = await asked({ body: { jsonrpc: "2.0", method: "notifications/initialized" } });
    expect(mcp).toEqual({ method: "notifications/initialized" });
  });

  test.each([
    "initialize",
    "ping",
    "notifications/cancelled",
    "tools/list",
    "resources/templates/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "sampling/createMessage",
    "roots/list",
    "elicitation/create",
    "server/discover",
    "subscriptions/listen",
  ])("%s is a method of the protocol", async (method) => {
    const { reason } = await asked({ body: { jsonrpc: "2.0", id: 1, method } });
    expect(reason).toBe(`matched_${method}`);
  });

  test.each([
    { jsonrpc: "2.0", id: 1, method: "message/send" },
    { jsonrpc: "2.0", id: 1, method: "tasks/get", params: { id: "t" } },
    { jsonrpc: "2.0", id: 1, method: "eth_call" },
    { a: 1 },
    "garbage",
    '{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}',
    "",
  ])("P2: %j is not claimed", async (body) => {
    expect(await asked({ path: "/mcp", body })).toMatchObject({
      reason: undefined,
      mcp: undefined,
    });
  });

  test("a method that others have too is claimed from a client of MCP", async () => {
    const { reason } = await asked({
      headers: { "MCP-Protocol-Version": "2025-11-25" },
      body: { jsonrpc: "2.0", id: 1, method: "tasks/get", params: { taskId: "t" } },
    });
    expect(reason).toBe("matched_tasks/get");
  });

  test("Z11: a batch is recorded whole, under its first action", async () => {
    const ping = { jsonrpc: "2.0", id: 1, method: "ping" };
    const { reason, mcp } = await asked({ body: [ping, call("b")] });
    expect(reason).toBe("matched_tools/call");
    expect(mcp).toMatchObject({
      method: "tools/call",
      rpcId: "b",
      batch: [
        { method: "ping", rpcId: 1 },
        { method: "tools/call", rpcId: "b" },
      ],
    });
  });

  test.each<[string, MessageShape, string | undefined]>([
    ["a GET of the stream", { path: "/mcp" }, "$transport/stream"],
    [
      "a DELETE of a session",
      { path: "/mcp", method: "DELETE", headers: { "Mcp-Session-Id": "s" } },
      "$transport/terminate",
    ],
    ["a DELETE without a session", { path: "/mcp", method: "DELETE" }, undefined],
    ["a GET of another path", { path: "/other" }, undefined],
    ["an alias of the path", { path: "/%6dcp" }, "$transport/stream"],
    ["a POST without a body", { path: "/mcp", method: "POST" }, undefined],
    ["a WebSocket", { path: "/mcp", upgrade: "websocket" }, undefined],
  ])("P3: %s", async (_name, shape, method) => {
    const { mcp } = await asked(shape);
    expect(mcp).toEqual(method === undefined ? undefined : { method });
  });

  test("uploads are not wanted in memory, everything that may be JSON is", () => {
    const wanted = (type: string | undefined) =>
      parser.wantsBody?.(message(type === undefined ? {} : { headers: { "Content-Type": type } }));
    expect(
      ["application/json", "text/plain", undefined, "application/a2a+json"].map(wanted),
    ).toEqual([true, true, true, true]);
    expect(
      [
        "image/png",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "application/grpc+proto",
      ].map(wanted),
    ).toEqual([false, false, false, false]);
  });
});

test("P1: only calls of tools, prompts and resources are actions", () => {
  const methods = [
    "initialize",
    "ping",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "resources/subscribe",
    "completion/complete",
    "logging/setLevel",
    "roots/list",
    "sampling/createMessage",
    "notifications/initialized",
  ];
  expect(methods.filter(isMcpAction)).toEqual(["tools/call", "prompts/get", "resources/read"]);
});

describe("answers", () => {
  const result = (id: unknown, value: unknown) =>
    JSON.stringify({ jsonrpc: "2.0", id, result: value });

  test("P4, H16: a result is recorded beside the request, which stays as it was", async () => {
    const { context, mcp } = await asked({ body: call(7) });
    expect(await frame(context, result(7, { content: [] }))).toBe("matched_tools/call_response");
    expect(context.facts.get("mcp")).toMatchObject({
      method: "tools/call",
      rpcId: 7,
      result: { content: [] },
    });
    expect(mcp).not.toHaveProperty("result");
  });

  test("P4: an error is recorded with its code", async () => {
    const { context } = await asked({ body: call(7) });
    const error = { code: -32_602, message: "no", data: { a: 1 } };
    expect(await frame(context, JSON.stringify({ jsonrpc: "2.0", id: 7, error }))).toBe(
      "response_error",
    );
    expect(context.facts.get("mcp")).toMatchObject({ error });
  });

  test("P4: junk before a good frame does not hide it, and other ids are others' answers", async () => {
    const { context } = await asked({ body: call(7) });
    expect(await frame(context, "junk")).toBeUndefined();
    await frame(context, result(8, { other: true }));
    expect(context.facts.get("mcp")).not.toHaveProperty("result");
    await frame(context, result(7, { mine: true }));
    expect(context.facts.get("mcp")).toMatchObject({ result: { mine: true } });
  });

  test("the answers to a batch go to its calls", async () => {
    const { context } = await asked({ body: [call(1), call(2)] });
    await frame(context, `[${result(2, { b: 1 })},${result(1, { a: 1 })}]`, true);
    expect(context.facts.get("mcp")).toMatchObject({
      result: { a: 1 },
      batch: [
        { rpcId: 1, result: { a: 1 } },
        { rpcId: 2, result: { b: 1 } },
      ],
    });
  });

  test("a request of the server is told", async () => {
    const { context } = await asked({ path: "/mcp" });
    const request = { jsonrpc: "2.0", id: 1, method: "sampling/createMessage" };
    expect(await frame(context, JSON.stringify(request))).toBe("server_sampling/createMessage");
  });

  test("P5: an empty answer acknowledges a notification, and is none to a request", async () => {
    const note = await asked({ body: { jsonrpc: "2.0", method: "notifications/initialized" } });
    note.context.response = new ResponseHalf(202, new HeaderList());
    expect(await frame(note.context, "", true)).toBe("matched_notifications/initialized_ack");
    const { context } = await asked({ body: call(1) });
    expect(await frame(context, "", true)).toBe("no_response_body");
  });

  test("the older transport acknowledges in words, and its answers come on the stream", async () => {
    for (const body of [{ jsonrpc: "2.0", method: "notifications/initialized" }, call(1)]) {
      const { context } = await asked({ body });
      context.response = new ResponseHalf(202, new HeaderList());
      expect(await frame(context, "Accepted", true)).toBe(`matched_${body.method}_ack`);
    }
    const { context } = await asked({ body: call(1) });
    context.response = new ResponseHalf(200, new HeaderList());
    expect(await frame(context, "Accepted", true)).toBeUndefined();
  });

  test("fifty answers are recorded one by one, and then no more", async () => {
    const { context } = await asked({ path: "/mcp" });
    const reasons: (string | undefined)[] = [];
    for (let at = 0; at < 60; at += 1) reasons.push(await frame(context, result(at, {})));
    expect(reasons.slice(49, 53)).toEqual([
      "matched_$transport/stream_response",
      "matched_$transport/stream_response_truncated",
      undefined,
      undefined,
    ]);
  });

  test("of a batch, as many are kept: each is another copy of it", async () => {
    const ids = Array.from({ length: 60 }, (_, id) => id);
    const { context } = await asked({ body: ids.map((id) => call(id)) });
    await frame(context, `[${ids.map((id) => result(id, { id })).join(",")}]`, true);
    const batch = context.facts.get(mcpFact)?.batch ?? [];
    expect(batch.filter((one) => one.result !== undefined)).toHaveLength(50);
  });

  test("notifications do not count, and the result after them is recorded", async () => {
    const { context } = await asked({ body: call(7) });
    const note = JSON.stringify({ jsonrpc: "2.0", method: "notifications/progress", params: {} });
    for (let at = 0; at < 60; at += 1) expect(await frame(context, note)).toBeUndefined();
    expect(await frame(context, result(7, { done: true }))).toBe("matched_tools/call_response");
    expect(context.facts.get("mcp")).toMatchObject({ result: { done: true } });
  });

  test("answers to anything else are not wanted", async () => {
    const { context } = await asked({ body: { a: 1 } });
    expect(parser.wantsAnswer?.(context)).toBe(false);
    expect(await frame(context, result(1, {}))).toBeUndefined();
  });
});
