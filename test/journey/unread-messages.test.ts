/** Messages that are too large to be read: whoever only records lets them pass as they are, whoever judges refuses them. */
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AttackedProxy } from "../support/attack-bench.ts";
import { request, type RequestShape, type RawResponse } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { eventOf } from "../support/session-events.ts";

const own = owner();
const limits = { max_body: "64KiB", max_buffered: "1MiB" };
const parsers = [{ name: "inference-parser" }, { name: "mcp-parser" }, { name: "a2a-parser" }];
const filler = "x".repeat(300_000);

let origin: HttpOrigin;
let recording: AttackedProxy;

async function start(plugins: readonly object[], over: object = {}): Promise<AttackedProxy> {
  const pipeline = { inbound: { plugins }, outbound: { plugins } };
  const listener = {
    roles: ["forward", "reverse"],
    reverse_proxy_addr: "127.0.0.1:0",
    reverse_proxy_backend: origin.url,
    session_api_addr: "127.0.0.1:0",
  };
  const blocks = { limits, pipeline, listener, session: { enabled: true }, ...over };
  const proxy = await AttackedProxy.start(blocks);
  return own(proxy);
}

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  recording = await start(parsers);
});

afterAll(() => expect(recording.faults).toEqual([]));

const callOf: Readonly<Record<string, (pad: string) => { path: string; body: string }>> = {
  inference: (pad) => ({
    path: "/v1/chat/completions",
    body: JSON.stringify({ model: "m", messages: [{ role: "user", content: `hi${pad}` }] }),
  }),
  mcp: (pad) => ({
    path: "/mcp",
    body: JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "tools/call",
      params: { name: "t", arguments: { pad } },
    }),
  }),
  a2a: (pad) => ({
    path: "/",
    body: JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "message/send",
      params: { message: { messageId: "m", role: "user", parts: [{ kind: "text", text: pad }] } },
    }),
  }),
};

type Surface = "forward" | "reverse";

function ask(
  proxy: AttackedProxy,
  surface: Surface,
  path: string,
  shape: Omit<RequestShape, "target">,
): Promise<RawResponse> {
  const target = surface === "forward" ? `${origin.url}${path}` : path;
  const given = (shape.headers ?? {}) as Readonly<Record<string, string>>;
  const headers = { Host: origin.authority, "Content-Type": "application/json", ...given };
  return request(proxy[surface], { method: "POST", ...shape, target, headers });
}

const chunked = (body: Buffer | string): Buffer => {
  const bytes = Buffer.from(body);
  const size = Buffer.from(`${bytes.length.toString(16)}\r\n`);
  return Buffer.concat([size, bytes, Buffer.from("\r\n0\r\n\r\n")]);
};

/** What the proxy sent on for the path, once. */
function sentFor(path: string): Buffer | undefined {
  return origin.requestFor(path).body;
}

let serial = 0;
/** The path in a folder of its own, so that each test finds its own requests. */
function fresh(path: string): string {
  serial += 1;
  return `/${serial}${path === "/" ? "/agent" : path}`;
}

describe.each(["forward", "reverse"] as const)("%s", (surface) => {
  describe.each(["inference", "mcp", "a2a"])("%s-parser", (protocol) => {
    const call = callOf[protocol] ?? (() => ({ path: "/", body: "" }));

    test("a request with a length", async () => {
      const { path, body } = call(filler);
      const at = fresh(path);
      expect((await ask(recording, surface, at, { body })).status).toBe(200);
      expect(sentFor(at)?.toString()).toBe(body);
    });

    test("a request in chunks, and one that unpacks to too much", async () => {
      const { path, body } = call(filler);
      const at = fresh(path);
      const headers = { "Transfer-Encoding": "chunked" };
      const answer = await ask(recording, surface, at, { body: chunked(body), headers });
      expect(answer.status).toBe(200);
      expect(sentFor(at)?.toString()).toBe(body);
      const packed = gzipSync(body);
      const other = fresh(path);
      const coded = { "Content-Encoding": "gzip" };
      expect((await ask(recording, surface, other, { body: packed, headers: coded })).status).toBe(
        200,
      );
      expect(sentFor(other)?.equals(packed)).toBe(true);
    });

    /** Asks in a way that the parser recognises, for this response. */
    async function responseTo(bytes: Buffer): Promise<RawResponse> {
      const { path, body } = call("");
      const at = fresh(path);
      origin.on(at, () => bytes);
      return ask(recording, surface, at, { body });
    }
    const head = (fields: string): Buffer =>
      Buffer.from(`HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n${fields}\r\n\r\n`);
    const large = JSON.stringify({ jsonrpc: "2.0", id: 1, result: { pad: filler } });

    test("a response with a length", async () => {
      const answer = await responseTo(
        Buffer.concat([head(`Content-Length: ${large.length}`), Buffer.from(large)]),
      );
      expect(answer.status).toBe(200);
      expect(answer.text).toBe(large);
      expect(answer.header("content-length")).toBe(String(large.length));
    });

    test("a response in chunks", async () => {
      const answer = await responseTo(
        Buffer.concat([head("Transfer-Encoding: chunked"), chunked(large)]),
      );
      expect(answer.text).toBe(large);
    });

    test.each([
      ["that unpacks to too much", "gzip", gzipSync(large)],
      ["in a coding that nobody knows", "x-ours", Buffer.from("{}")],
      ["that is not in the coding that it names", "gzip", Buffer.from('{"a":1}')],
    ])("a response %s", async (_what, coding, bytes) => {
      const fields = `Content-Encoding: ${coding}\r\nContent-Length: ${bytes.length}`;
      const answer = await responseTo(Buffer.concat([head(fields), bytes]));
      expect(answer.status).toBe(200);
      expect(answer.header("content-encoding")).toBe(coding);
      expect(answer.body.equals(bytes)).toBe(true);
    });

    test("an event of a stream", async () => {
      const text = `data: {"a":1}\n\ndata: ${large}\n\nevent: x\ndata: {"b":2}\n\n`;
      const stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
      const answer = await responseTo(
        Buffer.concat([Buffer.from(`${stream}Transfer-Encoding: chunked\r\n\r\n`), chunked(text)]),
      );
      expect(answer.status).toBe(200);
      expect(answer.text).toBe(text);
    });
  });
});

test("what could not be read is in the record", async () => {
  const { path, body = "" } = callOf["inference"]?.(filler) ?? { path: "/" };
  const at = fresh(path);
  await ask(recording, "forward", at, { body });
  const port = recording.address("sessions").port;
  const read = async (of: string): Promise<string> =>
    (await fetch(`http://127.0.0.1:${port}${of}`)).text();
  const event = await eventOf(read, (one) => one.httpPath === at && one.phase === "request");
  const steps = Object.values(event.invocations ?? {}).flat();
  expect(steps).toContainEqual(
    expect.objectContaining({ plugin: "inference-parser", action: "skip", reason: "unread" }),
  );
});

test("no room for bodies: whoever only records does without", async () => {
  const proxy = await start(parsers, { limits: { max_body: "1MiB", max_buffered: "1KiB" } });
  const { path, body = "" } = callOf["inference"]?.("y".repeat(20_000)) ?? { path: "/" };
  const at = fresh(path);
  const text = JSON.stringify({ choices: [], pad: "z".repeat(20_000) });
  const head = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${text.length}`;
  origin.on(at, () => `${head}\r\n\r\n${text}`);
  const answer = await ask(proxy, "forward", at, { body });
  expect(answer.text).toBe(text);
  expect(sentFor(at)?.toString()).toBe(body);
});

test("a client that waits for 100 Continue gets it once", async () => {
  const { path, body = "" } = callOf["mcp"]?.(filler) ?? { path: "/" };
  const at = fresh(path);
  const headers = { Expect: "100-continue" };
  const answer = await ask(recording, "forward", at, { body, headers });
  expect(answer.interim).toHaveLength(1);
  expect(sentFor(at)?.toString()).toBe(body);
});

describe("whoever judges refuses what cannot be read", () => {
  const rules = [{ name: "r", tools: ["t"] }];
  const toolPolicy = (over: object = {}): object => ({
    name: "tool-policy",
    config: { servers: [{ name: "s", hosts: ["127.0.0.1"], paths: ["/guarded/mcp"], rules }] },
    ...over,
  });
  const calling = callOf["mcp"] ?? (() => ({ path: "/", body: "" }));

  test("a guarded path, and another one that could be a server that nobody guards", async () => {
    const proxy = await start([{ name: "mcp-parser" }, toolPolicy()]);
    const { body } = calling(filler);
    for (const path of ["/guarded/mcp", "/other"]) {
      const answer = await ask(proxy, "forward", path, { body });
      expect(answer.status).toBe(413);
      expect(answer.text).toContain("limits.max_body");
      expect(origin.requestsFor(path)).toEqual([]);
    }
  });

  test("its answers, while others stream", async () => {
    const proxy = await start([{ name: "mcp-parser" }, toolPolicy()]);
    const { body } = calling("");
    const text = JSON.stringify({ jsonrpc: "2.0", id: 1, result: { pad: filler } });
    const head = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${text.length}`;
    origin.on("/guarded/mcp", () => `${head}\r\n\r\n${text}`);
    const answer = await ask(proxy, "forward", "/guarded/mcp", { body });
    expect(answer.status).toBe(502);
  });

  test("not under on_error: observe", async () => {
    const proxy = await start([{ name: "mcp-parser" }, toolPolicy({ on_error: "observe" })]);
    const { body } = calling(filler);
    const at = "/guarded/mcp";
    const before = origin.requestsFor(at).length;
    origin.on(at, () => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    expect((await ask(proxy, "forward", at, { body })).status).toBe(200);
    expect(origin.requestsFor(at).slice(before)[0]?.body.toString()).toBe(body);
  });
});
