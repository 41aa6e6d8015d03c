import { expect, onTestFinished, test, vi } from "vitest";
import { AwsEventStreamReader } from "../../../src/http/aws-event-stream.ts";
import { awsEvent, awsMessage } from "../../support/aws-event-stream.ts";
import { record } from "../../support/inference-bench.ts";

const one = awsEvent("first", { a: 1 });
const two = awsMessage({ ":exception-type": "throttlingException" }, { message: "slow down" });
const read = (limitBytes = 1_024) => new AwsEventStreamReader({ limitBytes });

test("messages that arrive byte by byte come out whole, with their bytes", () => {
  const reader = read();
  const events = Array.from(Buffer.concat([one, two])).flatMap((byte) =>
    reader.push(Buffer.from([byte])),
  );
  expect(events.map(({ event, data }) => [event, data.toString()])).toEqual([
    ["first", '{"a":1}'],
    ["throttlingException", '{"message":"slow down"}'],
  ]);
  expect(Buffer.concat(events.map(({ raw }) => raw))).toEqual(Buffer.concat([one, two]));
  expect(reader.end()).toEqual([]);
});

test("bytes that come one by one behind a long beginning cost no more than themselves", () => {
  const reader = new AwsEventStreamReader({ limitBytes: 8_000_000 });
  const long = awsEvent("long", { text: "x".repeat(4_000_000) });
  const begun = long.length - 5_000;
  expect(reader.push(long.subarray(0, begun))).toEqual([]);
  const copied = vi.spyOn(Buffer, "concat");
  onTestFinished(() => copied.mockRestore());
  for (let at = begun; at < begun + 100; at += 1) reader.push(long.subarray(at, at + 1));
  const parts = copied.mock.calls.flatMap(([list]) => list);
  expect(parts.filter(({ length }) => length > 1_000_000)).toEqual([]);
  expect(reader.push(long.subarray(begun + 100))).toHaveLength(1);
});

test("a message that is damaged anywhere is a fault", () => {
  for (let at = 0; at < one.length; at += 1) {
    const damaged = Buffer.from(one);
    damaged[at] = (damaged[at] ?? 0) ^ 0x01;
    expect(() => read().push(damaged)).toThrow(/damaged/);
  }
});

test("a stream that ends inside a message, or a message over the limit, is a fault", () => {
  const reader = read();
  reader.push(one.subarray(0, -1));
  expect(() => reader.end()).toThrow(/inside a message/);
  expect(() => read(32).push(one)).toThrow(/longer than 32 bytes/);
});

test("Bedrock's streams are put together: converse, and each model's own events in base64", async () => {
  const type = "application/vnd.amazon.eventstream";
  const asked = { messages: [{ role: "user", content: [{ text: "hi" }] }] };
  const converse = await record("/model/m/converse-stream", asked, {
    type,
    stream: Buffer.concat([
      awsEvent("messageStart", { role: "assistant" }),
      awsEvent("contentBlockDelta", { contentBlockIndex: 0, delta: { text: "hel" } }),
      awsEvent("contentBlockDelta", { contentBlockIndex: 0, delta: { text: "lo" } }),
      awsEvent("contentBlockStart", {
        contentBlockIndex: 1,
        start: { toolUse: { toolUseId: "t", name: "get" } },
      }),
      awsEvent("contentBlockDelta", {
        contentBlockIndex: 1,
        delta: { toolUse: { input: '{"a":1}' } },
      }),
      awsEvent("messageStop", { stopReason: "tool_use" }),
      awsEvent("metadata", { usage: { inputTokens: 2, outputTokens: 3, totalTokens: 5 } }),
    ]),
  });
  expect(converse.view).toMatchObject({
    api: "bedrock.converse",
    stream: true,
    completion: "hello",
    finishReason: "tool_use",
    toolCalls: [{ id: "t", name: "get", arguments: '{"a":1}' }],
    totalTokens: 5,
  });
  const chunk = (value: object) =>
    awsEvent("chunk", { bytes: Buffer.from(JSON.stringify(value)).toString("base64") });
  const invoke = await record("/model/m/invoke-with-response-stream", asked, {
    type,
    stream: Buffer.concat([
      chunk({ type: "content_block_delta", delta: { type: "text_delta", text: "ok" } }),
      chunk({
        generation: "!",
        generation_token_count: 2,
        prompt_token_count: 1,
        stop_reason: "stop",
      }),
      awsMessage({ ":exception-type": "modelStreamErrorException" }, { message: "broke" }),
    ]),
  });
  expect(invoke.view).toMatchObject({
    completion: "ok!",
    finishReason: "stop",
    totalTokens: 3,
    errorMessage: "broke",
  });
});
