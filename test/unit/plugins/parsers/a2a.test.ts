/** What a2a-parser records, in the names of 0.3 and of 1.0 (contract 2.7 and 4.10). */
import { describe, expect, test } from "vitest";
import type { RequestContext } from "../../../../src/pipeline/context.ts";
import type { Answer } from "../../../../src/pipeline/plugin.ts";
import type { A2aView } from "../../../../src/protocols/a2a-message.ts";
import { a2aParser } from "../../../../src/plugins/parsers/a2a.ts";
import {
  answered,
  message,
  type MessageShape,
  PluginBench,
} from "../../../support/plugin-bench.ts";

interface Recorded {
  readonly context: RequestContext;
  readonly request: A2aView | undefined;
  readonly view: A2aView | undefined;
  readonly said: readonly Answer[];
}

async function record(
  shape: MessageShape,
  answer: {
    readonly body?: unknown;
    readonly events?: readonly unknown[];
    readonly cut?: true;
  } = {},
): Promise<Recorded> {
  const plugin = a2aParser.create(undefined, new PluginBench().deps);
  const context = message(shape);
  const said = [await plugin.onRequest?.(context)];
  const request = context.facts.get("a2a") as A2aView | undefined;
  if (plugin.wantsAnswer?.(context) === true) {
    const { body, events } = answer;
    answered(context, events === undefined ? "application/json" : "text/event-stream");
    const bytes = (value: unknown) =>
      Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
    for (const event of events ?? []) {
      said.push(await plugin.onFrame?.(context, { data: bytes(event), last: false }));
    }
    const last = body === undefined ? Buffer.alloc(0) : bytes(body);
    if (answer.cut !== true) said.push(await plugin.onFrame?.(context, { data: last, last: true }));
  }
  return { context, request, view: context.facts.get("a2a") as A2aView | undefined, said };
}

const rpc = (method: string, params: object = {}, id: string | number = 1) => ({
  jsonrpc: "2.0",
  id,
  method,
  params,
});
const result = (value: object) => ({ jsonrpc: "2.0", id: 1, result: value });
const text = (value: string) => ({ kind: "text", text: value });

describe("requests", () => {
  test("P6: the conversation inside the message, and the one beside it before it", async () => {
    const inner = { role: "user", messageId: "m1", contextId: "inner", parts: [text("hi")] };
    const { request, said } = await record({
      body: rpc("message/stream", { message: inner }, "a"),
    });
    expect(request).toEqual({
      isAction: true,
      method: "message/stream",
      rpcId: "a",
      sessionId: "inner",
      messageId: "m1",
      role: "user",
      parts: [{ kind: "text", content: "hi" }],
    });
    expect(said[0]).toEqual({ action: "observe", reason: "matched_message/stream" });
    for (const name of ["contextId", "sessionId"]) {
      const params = { [name]: "outer", message: inner };
      expect((await record({ body: rpc("message/send", params) })).request?.sessionId).toBe(
        "outer",
      );
    }
  });

  test("P7: parts of every kind keep their kind", async () => {
    const parts = [
      text("words"),
      { kind: "file", file: { uri: "https://a/b", name: "b" } },
      { kind: "file", file: { bytes: "aGk=" } },
      { kind: "file", uri: "https://old/draft" },
      { kind: "data", data: { a: 1 } },
      { kind: "later", x: 1 },
      { none: 1 },
      7,
    ];
    const { request } = await record({ body: rpc("message/send", { message: { parts } }) });
    expect(request?.parts).toEqual([
      { kind: "text", content: "words" },
      { kind: "file", content: "https://a/b" },
      { kind: "file", content: "aGk=" },
      { kind: "file", content: "https://old/draft" },
      { kind: "data", content: '{"a":1}' },
      { kind: "later" },
    ]);
  });

  test("messages of 1.0 are recorded in the names of 0.3", async () => {
    const params = {
      message: {
        messageId: "m",
        contextId: "c",
        taskId: "t",
        role: "ROLE_USER",
        parts: [{ text: "hi" }, { url: "https://a/b" }, { raw: "aGk=" }, { data: { a: 1 } }],
      },
      configuration: {
        taskPushNotificationConfig: { url: "https://u:p@hook.test/x?token=secret" },
      },
    };
    expect((await record({ body: rpc("SendMessage", params) })).request).toEqual({
      isAction: true,
      method: "message/send",
      rpcId: 1,
      sessionId: "c",
      messageId: "m",
      taskId: "t",
      role: "user",
      parts: [
        { kind: "text", content: "hi" },
        { kind: "file", content: "https://a/b" },
        { kind: "file", content: "aGk=" },
        { kind: "data", content: '{"a":1}' },
      ],
      pushUrl: "https://hook.test/x",
    });
  });

  test.each([
    ["tasks/get", { id: "t1" }, { method: "tasks/get", taskId: "t1" }],
    ["tasks/cancel", { id: "t1" }, { method: "tasks/cancel", taskId: "t1" }],
    ["tasks/resubscribe", { id: "t1" }, { method: "tasks/resubscribe", taskId: "t1" }],
    [
      "tasks/pushNotificationConfig/set",
      { taskId: "t1", pushNotificationConfig: { url: "https://hook/x", token: "secret" } },
      { method: "tasks/pushNotificationConfig/set", taskId: "t1", pushUrl: "https://hook/x" },
    ],
    [
      "CreateTaskPushNotificationConfig",
      { taskId: "t1", id: "c1", url: "https://hook/x" },
      { method: "tasks/pushNotificationConfig/set", taskId: "t1", pushUrl: "https://hook/x" },
    ],
    ["GetTask", { id: "t1" }, { method: "tasks/get", taskId: "t1" }],
    ["agent/getAuthenticatedExtendedCard", {}, { method: "agent/getAuthenticatedExtendedCard" }],
  ])("%s", async (method, params, expected) => {
    const { request } = await record({ body: rpc(method, params) });
    expect(request).toEqual({ rpcId: 1, ...expected });
  });

  test("the REST binding", async () => {
    const body = { message: { role: "ROLE_USER", contextId: "c", parts: [{ text: "hi" }] } };
    for (const path of ["/message:send", "/v1/message:send", "/agent/v1/message%3Asend"]) {
      expect((await record({ path, body })).request).toEqual({
        isAction: true,
        method: "message/send",
        sessionId: "c",
        role: "user",
        parts: [{ kind: "text", content: "hi" }],
      });
    }
    const headers = { "A2A-Version": "1.0" };
    expect((await record({ path: "/v1/tasks/t9:subscribe", headers })).request).toEqual({
      method: "tasks/resubscribe",
      taskId: "t9",
    });
    expect((await record({ path: "/v1/tasks/t9" })).request).toBeUndefined();
  });

  test("a batch shows every message, and what somebody said in front", async () => {
    const said = rpc("message/send", { message: { role: "user", parts: [text("do it")] } }, 2);
    const { request } = await record({ body: [rpc("tasks/get", { id: "t" }), said] });
    expect(request).toMatchObject({
      method: "message/send",
      rpcId: 2,
      parts: [{ content: "do it" }],
      batch: [{ method: "tasks/get" }, { method: "message/send" }],
    });
  });

  test.each<[string, MessageShape]>([
    ["a method of MCP", { body: rpc("tools/call") }],
    ["no JSON-RPC", { body: { a: 1 } }],
    ["no JSON", { body: "hello" }],
    ["keys that come twice", { body: '{"jsonrpc":"2.0","method":"message/send","method":"x"}' }],
    ["no body", { method: "POST" }],
    ["another HTTP method", { method: "PUT", body: rpc("message/send") }],
    [
      "a task of MCP",
      {
        body: rpc("tasks/get", { taskId: "t" }),
        headers: { "MCP-Protocol-Version": "2025-11-25" },
      },
    ],
  ])("P2: not claimed: %s", async (_why, shape) => {
    const { request, said } = await record(shape);
    expect(request).toBeUndefined();
    expect(said).toEqual([undefined]);
  });

  test("odd parameters are passed over", async () => {
    for (const params of [[], [1], { message: 5 }, { message: { parts: [null, { kind: 5 }] } }]) {
      const { request } = await record({ body: rpc("message/send", params) });
      expect(request).toEqual({ method: "message/send", rpcId: 1, isAction: true });
    }
  });
});

describe("answers", () => {
  const sent = { body: rpc("message/send", { message: { role: "user", parts: [text("hi")] } }) };

  test("a task: state, artifacts, ids that the request had not", async () => {
    const { view, request, said } = await record(sent, {
      body: result({
        kind: "task",
        id: "t1",
        contextId: "ctx",
        status: { state: "completed" },
        artifacts: [{ parts: [text("one")] }, { parts: [text("two")] }],
      }),
    });
    expect(view).toMatchObject({
      taskId: "t1",
      sessionId: "ctx",
      finalStatus: "completed",
      artifact: "one\ntwo",
    });
    expect(request).not.toHaveProperty("finalStatus");
    expect(said.at(-1)).toEqual({ action: "observe", reason: "matched_message/send_response" });
  });

  test("the request's conversation stays when the answer names another", async () => {
    const body = rpc("message/send", { contextId: "mine", message: {} });
    const answer = { body: result({ kind: "message", contextId: "other", parts: [text("yes")] }) };
    expect((await record({ body }, answer)).view).toMatchObject({
      sessionId: "mine",
      artifact: "yes",
    });
  });

  test("P8: artifacts and the final state of a stream", async () => {
    const { view, said } = await record(sent, {
      events: [
        result({ kind: "task", id: "t", contextId: "c", status: { state: "submitted" } }),
        result({ kind: "status-update", status: { state: "working" }, final: false }),
        "{junk",
        result({ kind: "artifact-update", artifact: { parts: [text("hel")] } }),
        result({ kind: "artifact-update", artifact: { parts: [text("lo")] }, append: true }),
        result({ kind: "status-update", status: { state: "completed" }, final: true }),
      ],
    });
    expect(view).toMatchObject({
      sessionId: "c",
      taskId: "t",
      artifact: "hello",
      finalStatus: "completed",
    });
    expect(said.slice(1, -1).every((one) => one === undefined)).toBe(true);
    expect(said.at(-1)).toMatchObject({ reason: "matched_message/send_response" });
  });

  test("P8: a failed task gives its words as the error", async () => {
    const status = { state: "failed", message: { parts: [text("it broke")] } };
    const { view } = await record(sent, {
      events: [result({ kind: "status-update", status, final: true })],
    });
    expect(view).toMatchObject({ finalStatus: "failed", errorMessage: "it broke" });
    expect(view).not.toHaveProperty("artifact");
  });

  test("the events of 1.0, whose last has no mark", async () => {
    const body = rpc("SendStreamingMessage", { message: { role: "ROLE_USER" } });
    const { view } = await record(
      { body },
      {
        events: [
          result({ task: { id: "t", contextId: "c", status: { state: "TASK_STATE_SUBMITTED" } } }),
          result({ artifactUpdate: { taskId: "t", artifact: { parts: [{ text: "ok" }] } } }),
          result({ statusUpdate: { taskId: "t", status: { state: "TASK_STATE_INPUT_REQUIRED" } } }),
        ],
      },
    );
    expect(view).toMatchObject({ artifact: "ok", finalStatus: "input-required", sessionId: "c" });
    const message = { message: { contextId: "c2", parts: [{ text: "hello" }] } };
    expect((await record({ body }, { body: result(message) })).view).toMatchObject({
      sessionId: "c2",
      artifact: "hello",
    });
    const rest = { path: "/message:send", body: { message: { role: "ROLE_USER" } } };
    expect((await record(rest, { body: message })).view?.artifact).toBe("hello");
  });

  test("the last words stand in for an artifact", async () => {
    const status = { state: "input-required", message: { parts: [text("which one?")] } };
    const { view } = await record(sent, { body: result({ kind: "task", id: "t", status }) });
    expect(view).toMatchObject({ finalStatus: "input-required", artifact: "which one?" });
  });

  test("an error of the protocol", async () => {
    const body = { jsonrpc: "2.0", id: 1, error: { code: -32001, message: "task not found" } };
    const { view, said } = await record(sent, { body });
    expect(view?.errorMessage).toBe("task not found");
    expect(said.at(-1)).toEqual({ action: "observe", reason: "response_error" });
  });

  test("an artifact is kept up to 64 KiB, as in the Go program", async () => {
    const piece = { kind: "artifact-update", artifact: { parts: [text("x".repeat(20_000))] } };
    const { view } = await record(sent, { events: Array.from({ length: 9 }, () => result(piece)) });
    expect(view?.artifact).toMatch(/^x{65536}…\(truncated\)$/);
  });

  test("P5: an empty answer, and one that is no JSON", async () => {
    expect((await record(sent)).said.at(-1)).toMatchObject({ reason: "no_response_body" });
    expect((await record(sent, { body: "<html>" })).said.at(-1)).toMatchObject({
      action: "skip",
      reason: "unparsable_response",
    });
  });

  test("a stream that breaks off leaves what came of it", async () => {
    const event = result({ kind: "artifact-update", artifact: { parts: [text("half")] } });
    expect((await record(sent, { events: [event], cut: true })).view?.artifact).toBe("half");
  });
});
