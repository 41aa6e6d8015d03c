/** Event streams behind parsers, in both directions: what the format and other plugins keep (cases H, Z17). */
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { RawClient, request } from "../support/http-client.ts";
import { readChunk } from "../support/http-message.ts";
import { HttpOrigin, type OriginConnection } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";
import { eventOf } from "../support/session-events.ts";

const own = owner();
const parsers = ["mcp-parser", "a2a-parser", "inference-parser"];
let origin: HttpOrigin;
let proxy: ProxyProcess;
let denying: ProxyProcess;

const head =
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const chunked = (text: string): string =>
  `${head}${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n0\r\n\r\n`;

function start(...plugins: readonly unknown[]): Promise<ProxyProcess> {
  const listener = { reverse_proxy_backend: origin.url, roles: ["forward", "reverse"] };
  const pipeline = { inbound: { plugins }, outbound: { plugins } };
  return ProxyProcess.start(merge(settings({ listener }), { pipeline }));
}

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  proxy = await own(start(...parsers));
  denying = await own(
    start(...parsers, { name: "denier", config: { phase: "response", code: "policy.forbidden" } }),
  );
});

const body = JSON.stringify({
  model: "claude-x",
  stream: true,
  messages: [{ role: "user", content: "hi" }],
});

describe.each(["forward", "reverse"] as const)("%s", (surface) => {
  /** What the client gets of a stream that the origin sends. */
  async function passed(text: string, through = proxy): Promise<{ status: number; text: string }> {
    const path = `/${surface}-${Math.random().toString(36).slice(2)}/v1/messages`;
    origin.on(path, () => chunked(text));
    const target = surface === "forward" ? `${origin.url}${path}` : path;
    const address = surface === "forward" ? through.forward : through.reverse;
    const headers = { "Content-Type": "application/json", Host: origin.authority };
    return request(address, { method: "POST", target, headers, body });
  }

  const anthropic = (type: string, rest: object = {}): string =>
    `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`;

  test("H7, H14: event lines of typed events are kept, each with its data", async () => {
    const text =
      anthropic("message_start", { message: { usage: { input_tokens: 1 } } }) +
      anthropic("message_stop");
    const answer = await passed(text);
    expect(answer.text).toBe(text);
    expect(answer.text.match(/^event: /gm)).toHaveLength(2);
    expect(answer.text.match(/^data: /gm)).toHaveLength(2);
  });

  test.each([
    ["H8: data without an event line gets none", 'data: {"choices":[]}\n\ndata: [DONE]\n\n'],
    ["H9: a type inside the data makes no event line", 'data: {"type":"foo\\r\\nevent: bar"}\n\n'],
    ["H10: several data lines stay several", "data: line-a\ndata: line-b\n\n"],
    [
      "H11: CRLF, comments, and fields without a space",
      ": hello\r\ndata:hi\r\n\r\ndata: x\r\n\r\n",
    ],
    ["H11: id and retry", "id: 7\nretry: 10\ndata: x\n\nid: 8\n\n"],
    ["H12: a frame without a blank line at the end", "data: one\n\ndata: only\n"],
    ["H12: nothing but comments", ": a\n\n: b\n\n"],
    ["H13: a long line", `data: ${"x".repeat(8_192)}\n\n`],
  ])("%s", async (_what, text) => {
    expect((await passed(text)).text).toBe(text);
  });

  test("Z17: a refusal of the answer's head comes before the first byte of the stream", async () => {
    const answer = await passed("data: secret\n\n", denying);
    expect(answer.status).toBe(403);
    expect(answer.text).not.toContain("secret");
  });

  test("a line of JSON does not wait for the next one", async () => {
    const path = `/${surface}/api/chat`;
    let owed: OriginConnection | undefined;
    origin.on(path, ({ connection }) => void (owed = connection));
    const client = await own(
      RawClient.connect(surface === "forward" ? proxy.forward : proxy.reverse),
    );
    client.write({
      method: "POST",
      target: surface === "forward" ? `${origin.url}${path}` : path,
      headers: { "Content-Type": "application/json", Host: origin.authority },
      body,
    });
    const server = await eventually(() => owed ?? false);
    await server.send(head.replace("text/event-stream", "application/x-ndjson"));
    await client.head();
    for (const content of ["one", "two"]) {
      const line = `${JSON.stringify({ message: { content } })}\n`;
      await server.send(`${line.length.toString(16)}\r\n${line}\r\n`);
      expect((await readChunk(client.reader)).toString()).toBe(line);
    }
  });

  test("P10: what came over the stream is in the record of its direction", async () => {
    await passed(
      anthropic("content_block_delta", { delta: { type: "text_delta", text: `for ${surface}` } }),
    );
    const event = await eventOf(
      async (path) => (await proxy.sessions(path)).text,
      (one) => one.phase === "response" && one.inference?.["completion"] === `for ${surface}`,
    );
    expect(event.direction).toBe(surface === "forward" ? "outbound" : "inbound");
  });
});
