/** MCP-17 and its kin: what a hostile server makes of an event stream, on the wire, with tool-policy in the chain. */
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { RawClient } from "../support/http-client.ts";
import { readChunk } from "../support/http-message.ts";
import { HttpOrigin, type OriginConnection, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const head =
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const chunk = (bytes: string | Buffer): Buffer =>
  Buffer.concat([
    Buffer.from(`${Buffer.byteLength(bytes).toString(16)}\r\n`),
    Buffer.from(bytes),
    Buffer.from("\r\n"),
  ]);

let origin: HttpOrigin;
let proxy: ProxyProcess;
/** The connection on which the origin owes an answer. */
let owed: OriginConnection | undefined;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch(({ connection }) => void (owed = connection)));
  const rules = [{ name: "r", tools: ["ok"] }];
  const config = { servers: [{ name: "s", paths: ["/mcp"], rules }] };
  const plugins = ["mcp-parser", { name: "tool-policy", config }];
  proxy = await own(
    ProxyProcess.start(
      settings({
        limits: { max_body: "256KiB" },
        pipeline: { outbound: { default: "deny", plugins } },
      }),
    ),
  );
});

const list = { jsonrpc: "2.0", id: 1, result: { tools: [{ name: "ok" }, { name: "evil" }] } };
const cleaned = { jsonrpc: "2.0", id: 1, result: { tools: [{ name: "ok" }] } };
const note = { jsonrpc: "2.0", method: "notifications/progress", params: { progress: 1 } };

/** Sends a request and says what the client reads of the pieces that the server answers with. */
async function ask(
  method = "tools/list",
): Promise<{ client: RawClient; server: OriginConnection }> {
  owed = undefined;
  const client = await own(RawClient.connect(proxy.forward));
  client.write({
    method: "POST",
    target: `${origin.url}/mcp`,
    headers: { "Content-Type": "application/json", Accept: "application/json, text/event-stream" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method }),
  });
  return { client, server: await eventually(() => owed ?? false) };
}

async function answered(pieces: readonly (string | Buffer)[], opening = head): Promise<string> {
  const { client, server } = await ask();
  await server.send(opening);
  for (const piece of pieces) await server.send(chunk(piece));
  await server.send("0\r\n\r\n");
  return (await client.response()).text;
}

const ends = [
  ["LF", "\n"],
  ["CRLF", "\r\n"],
  ["CR", "\r"],
] as const;

describe.each(ends)("MCP-17: lines that end in %s", (_name, end) => {
  const lines = [
    ": note",
    "event: message",
    "id: 5",
    "retry: 10",
    `data: ${JSON.stringify(list)}`,
    "",
    "",
  ];
  const event = lines.join(end);

  test("whole, in halves and byte by byte, the event is judged, and its other fields survive", async () => {
    const halves = [event.slice(0, 60), event.slice(60)];
    for (const pieces of [[event], halves, event.split("")]) {
      expect(await answered(pieces)).toBe(
        `: note\nevent: message\nid: 5\nretry: 10\ndata: ${JSON.stringify(cleaned)}\n\n`,
      );
    }
  });
});

test("MCP-17: data in several lines is one message", async () => {
  const lines = JSON.stringify(list, undefined, 1)
    .split("\n")
    .map((line) => `data: ${line}`);
  const ends = ["\n", "\r\n", "\r"];
  const event = lines.map((line, at) => `${line}${ends[at % 3]}`).join("");
  expect(await answered([`${event}\n`])).toBe(`data: ${JSON.stringify(cleaned)}\n\n`);
});

test("MCP-17: an event without a blank line at the end of the stream is judged", async () => {
  expect(await answered([`data: ${JSON.stringify(list)}`])).toBe(
    `data: ${JSON.stringify(cleaned)}\n\n`,
  );
});

test("MCP-17: an event that is longer than limits.max_body ends the stream", async () => {
  const { client, server } = await ask();
  await server.send(head);
  void (async () => {
    let left = 32;
    while (left > 0 && (await server.send(chunk("x".repeat(0x4000))))) left -= 1;
  })();
  await expect(client.response()).rejects.toThrow(/ended before/);
  expect((await proxy.health("/healthz")).status).toBe(200);
});

test("nothing waits for what comes after it", async () => {
  const { client, server } = await ask();
  await server.send(head);
  await client.head();
  for (const event of [`data: ${JSON.stringify(note)}\n\n`, ": ping\n\n", "id: 7\ndata: \n\n"]) {
    await server.send(chunk(event));
    expect((await readChunk(client.reader)).toString()).toBe(event);
  }
});

test("MCP-14: what the server may not ask is taken out, its id stays for resumption", async () => {
  const ask = { jsonrpc: "2.0", id: 9, method: "sampling/createMessage", params: {} };
  const text = await answered([
    `id: 1\nevent: message\ndata: ${JSON.stringify(ask)}\n\n`,
    `data: ${JSON.stringify(note)}\n\n`,
  ]);
  expect(text).toBe(`id: 1\n\ndata: ${JSON.stringify(note)}\n\n`);
});

test.each([
  [
    "that has a key twice",
    '{"jsonrpc":"2.0","id":1,"result":{"tools":[]},"result":{"tools":[{"name":"evil"}]}}',
  ],
  ["that is no JSON", "{"],
])("an event %s ends the call with an error that its client reads", async (_name, data) => {
  const text = await answered([
    `data: ${JSON.stringify(note)}\n\n`,
    `data: ${data}\n\n`,
    "data: 1\n\n",
  ]);
  expect(text).toMatch(
    /^data: .*progress.*\n\nevent: message\ndata: \{"jsonrpc":"2\.0","id":1,"error":\{"code":-32000,.*"upstream\.bad-response".*\}\n\n$/,
  );
});

test("Z13: events that come compressed although nobody asked are judged", async () => {
  const opening = head.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n");
  const coded = gzipSync(`data: ${JSON.stringify(list)}\n\n`);
  expect(await answered([coded], opening)).toBe(`data: ${JSON.stringify(cleaned)}\n\n`);
});

test("lines of JSON are judged one by one, and one that cannot be judged cuts the stream", async () => {
  const opening = head.replace("text/event-stream", "application/x-ndjson");
  const lines = [JSON.stringify(note), JSON.stringify(list)];
  expect(await answered([`${lines.join("\n")}\n`], opening)).toBe(
    `${JSON.stringify(note)}\n${JSON.stringify(cleaned)}\n`,
  );
  await expect(answered(["no json\n"], opening)).rejects.toThrow(/ended before/);
});

test("an answer of JSON is judged as a whole, and one that cannot be judged is an error", async () => {
  const json = async (body: string) => {
    const { client, server } = await ask();
    await server.send(reply(200, body, { "Content-Type": "application/json" }));
    const { status, text } = await client.response();
    return [status, text];
  };
  expect(await json(JSON.stringify(list))).toEqual([200, JSON.stringify(cleaned)]);
  const [status, text] = await json('{"jsonrpc":"2.0","id":1,"result":{},"result":{}}');
  expect(status).toBe(200);
  expect(JSON.parse(String(text))).toMatchObject({ id: 1, error: { code: -32_000 } });
});

test("an error of the server passes as it came", async () => {
  const { client, server } = await ask();
  await server.send(reply(503, "busy", { "Content-Type": "text/plain", "Retry-After": "3" }));
  const answer = await client.response();
  expect([answer.status, answer.text, answer.header("retry-after")]).toEqual([503, "busy", "3"]);
});
