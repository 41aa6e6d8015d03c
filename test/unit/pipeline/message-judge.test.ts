/** Messages of an upgraded connection: who is asked, what ends the connection, and how much is kept of it. */
import { expect, test } from "vitest";
import { BodyBudget } from "../../../src/http/body.ts";
import {
  allow,
  deny,
  type HeardMessage,
  type Plugin,
  replaceMessage,
  respond,
} from "../../../src/pipeline/plugin.ts";
import { pipelineOf } from "../../support/pipeline-of.ts";
import { message } from "../../support/plugin-bench.ts";

const denial = { code: "policy.forbidden", message: "no" };
const hello: HeardMessage = { from: "client", kind: "text", data: Buffer.from("hello") };

test("messages are needed where a plugin that judges them says so of the connection", () => {
  const judging: Plugin = { onMessage: () => undefined };
  const choosy: Plugin = { ...judging, needsMessages: ({ pathname }) => pathname === "/mine" };
  expect(pipelineOf([{}]).messages.areNeeded(message(), "client")).toBe(false);
  expect(pipelineOf([judging]).messages.areNeeded(message(), "client")).toBe(true);
  expect(pipelineOf([choosy]).messages.areNeeded(message({ path: "/mine" }), "client")).toBe(true);
  expect(pipelineOf([choosy]).messages.areNeeded(message({ path: "/other" }), "client")).toBe(
    false,
  );
});

test("plugins are asked in the order of the file until one refuses", async () => {
  const asked: string[] = [];
  const asking = (name: string, over: Plugin = {}): Plugin => ({
    onMessage: async (_context, { data }) => {
      asked.push(`${name} ${data.toString()}`);
      return undefined;
    },
    ...over,
  });
  const { messages } = pipelineOf([
    asking("a"),
    asking("not asked", { needsMessages: () => false }),
    { onMessage: ({ path }) => (path === "/bad" ? deny("word", denial) : undefined) },
    asking("b"),
  ]);
  expect(await messages.judge(message({ path: "/bad" }), hello)).toEqual({
    denial: { ...denial, plugin: "step-2" },
  });
  expect(asked.splice(0)).toEqual(["a hello"]);
  expect(await messages.judge(message({ path: "/good" }), hello)).toBeUndefined();
  expect(asked).toEqual(["a hello", "b hello"]);
});

test("what the server says is judged last plugin first, and only where somebody says that it is needed", async () => {
  const said: HeardMessage = { ...hello, from: "server" };
  const changing = (mark: string): Plugin => ({
    needsServerMessages: () => true,
    onServerMessage: (_context, { data }) =>
      replaceMessage("changed", Buffer.from(`${data.toString()}${mark}`)),
  });
  const indifferent: Plugin = { onServerMessage: () => deny("word", denial) };
  expect(pipelineOf([indifferent]).messages.areNeeded(message(), "server")).toBe(false);
  const { messages } = pipelineOf([changing("1"), indifferent, changing("2")]);
  expect(messages.areNeeded(message(), "server")).toBe(true);
  expect(messages.areNeeded(message(), "client")).toBe(false);
  const context = message();
  expect(await messages.judge(context, said)).toEqual({ instead: Buffer.from("hello21") });
  expect(await messages.judge(context, hello)).toBeUndefined();
  expect(context.invocations.map(({ phase }) => phase)).toEqual(["response", "response"]);
});

test("where nobody has to be waited for the verdict is there at once", () => {
  const { messages } = pipelineOf([{ onMessage: () => undefined }]);
  expect(messages.judge(message(), hello)).toBeUndefined();
});

test("a message cannot be answered, and a fault refuses it", async () => {
  const reply = { status: 200, headers: {}, body: Buffer.alloc(0) };
  const answering = pipelineOf([{ onMessage: () => respond("mine", reply) }]);
  expect(await answering.messages.judge(message(), hello)).toMatchObject({
    denial: { code: "plugin.fault" },
  });
  const faulty = pipelineOf([{ onMessage: () => Promise.reject(new Error("fault")) }]);
  expect(await faulty.messages.judge(message(), hello)).toMatchObject({
    denial: { code: "plugin.fault" },
  });
});

test("a plugin that only observes is recorded and refuses nothing", async () => {
  const context = message();
  const plugin: Plugin = { onMessage: () => deny("word", denial) };
  const { messages } = pipelineOf([{ plugin, onError: "observe" }]);
  expect(await messages.judge(context, hello)).toBeUndefined();
  expect(context.invocations).toMatchObject([{ action: "deny", reason: "word", shadow: true }]);
});

test("a connection keeps its first records and the one that ended it", async () => {
  const context = message();
  let count = 0;
  const { messages } = pipelineOf([
    { onMessage: () => ((count += 1) === 1_000 ? deny("word", denial) : allow(`${count}`)) },
  ]);
  for (let at = 0; at < 999; at += 1) expect(messages.judge(context, hello)).toBeUndefined();
  expect(messages.judge(context, hello)).toMatchObject({ denial });
  const reasons = context.invocations.map(({ reason }) => reason);
  expect(reasons).toHaveLength(64);
  expect([reasons[0], reasons[62], reasons[63]]).toEqual(["1", "63", "word"]);
});

test("who cannot refuse is shown so many messages at a time, and those that are not are counted", async () => {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  let shown = 0;
  const slow: Plugin = {
    onMessage: () => {
      shown += 1;
      return promise;
    },
  };
  const counted: string[] = [];
  const { messages } = pipelineOf([{ plugin: slow, onError: "observe" }], {
    onInvocation: (_direction, { action, phase, reason }) =>
      counted.push(`${action} ${phase} ${reason}`),
  });
  const hear = messages.hearers(message(), () => false, new BodyBudget(1_000));
  for (let sent = 0; sent < 100; sent += 1) hear?.(hello);
  expect(shown).toBe(1);
  expect(counted).toEqual(Array.from({ length: 84 }, () => "skip request not_shown"));
  resolve(undefined);
  await new Promise((settled) => setImmediate(settled));
  expect(shown).toBe(16);
  hear?.(hello);
  expect(shown).toBe(17);
});

test("what waits for those who cannot refuse is counted, and without memory for it not shown", async () => {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const budget = new BodyBudget(hello.data.length * 2);
  let shown = 0;
  const slow: Plugin = {
    onMessage: () => {
      shown += 1;
      return promise;
    },
  };
  const { messages } = pipelineOf([{ plugin: slow, onError: "observe" }]);
  const hear = messages.hearers(message(), () => false, budget);
  for (let sent = 0; sent < 3; sent += 1) hear?.(hello);
  expect(budget.usedBytes).toBe(hello.data.length * 2);
  resolve(undefined);
  await new Promise((settled) => setImmediate(settled));
  expect(shown).toBe(2);
  expect(budget.usedBytes).toBe(0);
});
