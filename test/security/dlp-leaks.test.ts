/** The proxy's own secrets do not leave: encodings, places of a request, and protocols. */
import { createServer, type Server } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocketServer } from "ws";
import { clientFrame } from "../../src/http/web-socket-frame.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { within } from "../support/eventually.ts";
import { RawClient, type RawResponse, renderRequest } from "../support/http-client.ts";
import { toBase32 } from "../support/base32.ts";
import { spellings } from "../support/secret-spellings.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const host = "api.allowed.test";
const secret = "Zk7-Qw_93rTbXv5LmN8pYd2Hs6Fg";
/** As a header field or a host name can carry it whole. */
const name = Buffer.from(secret).toString("hex");

let authority: TestAuthority;
let origin: TlsOrigin;
let plain: Server;
let proxy: BridgeProxy;
let reached = 0;

beforeAll(async () => {
  authority = await TestAuthority.create();
  origin = await TlsOrigin.start(await authority.server([host]), "both");
  const sockets = new WebSocketServer({ noServer: true });
  plain = createServer((request, response) => {
    reached += 1;
    request.resume();
    if (request.url === "/echo") response.setHeader("content-type", "text/plain");
    response.end(request.url === "/echo" ? `you sent ${secret}` : "ok");
  });
  plain.on("upgrade", (request, socket, head) => {
    sockets.handleUpgrade(request, socket, head, (accepted) => {
      accepted.on("message", (data: Buffer) => {
        reached += 1;
        accepted.send(data);
      });
      accepted.on("error", () => undefined);
    });
  });
  plain.listen(0, "127.0.0.1");
  await once(plain, "listening");
  proxy = await BridgeProxy.start({
    ports: [origin.port],
    originCa: authority.caPem,
    otherwise: "allow",
    names: [],
    plugins: [
      "mcp-parser",
      { name: "dlp", config: {} },
      {
        name: "static-inject",
        config: { source: "mappings", mappings: { "x.test": secret }, hosts: ["x.test"] },
      },
    ],
  });
});
afterAll(async () => {
  await proxy?.close();
  await origin?.close();
  plain?.closeAllConnections();
  plain?.close();
});

const at = (): string => `${host}:${(plain.address() as AddressInfo).port}`;

interface Shape {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: readonly (readonly [string, string])[];
  readonly body?: string | Buffer;
}

async function ask({ path = "/", headers = [], ...rest }: Shape): Promise<RawResponse> {
  const client = new RawClient(await proxy.dial());
  const shape = { method: "POST", ...rest };
  return client.ask({
    ...shape,
    target: `http://${at()}${path}`,
    headers: [["Host", at()], ...headers],
  });
}

const typed = (type: string) => [["Content-Type", type]] as const;

const places: Readonly<Record<string, (value: string) => Shape>> = {
  "a query": (value) => ({ path: `/search?q=${encodeURIComponent(value)}` }),
  "a path": (value) => ({ path: `/files/${encodeURIComponent(value)}/x` }),
  "a field": (value) => ({ headers: [["X-Note", value]] }),
  Authorization: (value) => ({ headers: [["Authorization", `Bearer ${value}`]] }),
  JSON: (value) => ({
    headers: typed("application/json"),
    body: JSON.stringify({ a: [{ b: value }] }),
  }),
  "the name of a member": (value) => ({ body: JSON.stringify({ [value]: 1 }) }),
  "JSON in JSON": (value) => ({ body: JSON.stringify({ a: JSON.stringify({ b: value }) }) }),
  "a form": (value) => ({
    headers: typed("application/x-www-form-urlencoded"),
    body: `a=1&b=${encodeURIComponent(value)}`,
  }),
  "a part of multipart": (value) => ({
    headers: typed("multipart/form-data; boundary=b"),
    body: `--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n${value}\r\n--b--\r\n`,
  }),
  "an argument of a tool": (value) => ({
    headers: typed("application/json"),
    body: JSON.stringify({
      jsonrpc: "2.0",
      id: 7,
      method: "tools/call",
      params: { name: "post", arguments: { text: value } },
    }),
  }),
};

describe.each(Object.entries(places))("in %s", (place, shape) => {
  test.each(Object.entries(spellings))("%s is refused", async (_name, spell) => {
    const before = reached;
    const answer = await ask(shape(spell(secret)));
    const isRpc = place === "an argument of a tool";
    expect(answer.status).toBe(isRpc ? 200 : 403);
    expect(answer.text).toContain("own_secrets");
    expect(answer.text).not.toContain(secret);
    expect(reached).toBe(before);
  });
});

describe("a body", () => {
  const body = `{"a":"${Buffer.from(secret).toString("base64")}"}`;
  test.each([
    ["gzip", gzipSync(body)],
    ["zstd", zstdCompressSync(body)],
  ])("in %s is looked into", async (coding, bytes) => {
    const answer = await ask({ headers: [["Content-Encoding", coding]], body: bytes });
    expect(answer.status).toBe(403);
  });

  test("in chunks of one byte", async () => {
    const client = new RawClient(await proxy.dial());
    client.send(
      `POST http://${at()}/ HTTP/1.1\r\nHost: ${at()}\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    for (const byte of body) client.send(`1\r\n${byte}\r\n`);
    client.send("0\r\n\r\n");
    expect((await client.response()).status).toBe(403);
  });

  test("that is a gzip file without saying so", async () => {
    expect((await ask({ body: gzipSync(body) })).status).toBe(403);
  });

  test("in a coding that nobody knows", async () => {
    const answer = await ask({ headers: [["Content-Encoding", "x-own"]], body });
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({ error: "dlp.unread" });
  });
});

describe("through the bridge", () => {
  async function over2(path: string, body = ""): Promise<number> {
    const session = await proxy.http2(origin.at(host));
    const stream = session.request({ ":method": "POST", ":path": path });
    stream.end(body);
    const [head] = (await within("a response", once(stream, "response"))) as [
      Record<string, unknown>,
    ];
    stream.resume();
    return Number(head[":status"]);
  }

  test("HTTP/2: a query, a body", async () => {
    expect(await over2(`/?q=${secret}`)).toBe(403);
    expect(
      await over2(
        "/",
        JSON.stringify({
          a: spellings["unicode escapes"]?.(secret),
        }),
      ),
    ).toBe(403);
    expect(origin.seen).toHaveLength(0);
  });

  test("HTTP/1.1 in TLS", async () => {
    const socket = await proxy.tls(origin.at(host));
    const answer = await new RawClient(socket).ask({
      method: "POST",
      target: "/",
      headers: [["Host", origin.at(host)]],
      body: JSON.stringify({ a: secret }),
    });
    expect(answer.status).toBe(403);
    expect(origin.seen).toHaveLength(0);
  });

  test("HTTP in a CONNECT", async () => {
    const { socket } = await proxy.connect(at());
    const wire = new RawClient(socket);
    wire.send(
      renderRequest({ method: "POST", target: "/", headers: [["Host", at()]], body: secret }),
    );
    expect((await wire.response()).status).toBe(403);
  });
});

describe("in the name of a host", () => {
  const labels: Readonly<Record<string, string>> = {
    hex: name,
    "hex over two labels": `${name.slice(0, 30)}.${name.slice(30)}`,
    base32: toBase32(Buffer.from(secret)).toLowerCase(),
    "base64, which lost its case": Buffer.from(secret).toString("base64url").toLowerCase(),
  };

  test.each(Object.entries(labels))("%s, as the target of a CONNECT", async (_name, label) => {
    const { status, answer } = await proxy.connect(`${label}.${host}:443`);
    expect(status).toBe(403);
    expect(answer?.text).toContain("own_secrets");
  });

  test("hex, in absolute form", async () => {
    const client = new RawClient(await proxy.dial());
    const to = `${name}.${host}`;
    const answer = await client.ask({ target: `http://${to}/`, headers: [["Host", to]] });
    expect(answer.status).toBe(403);
  });
});

describe("in the messages of a WebSocket", () => {
  async function open(): Promise<RawClient> {
    const wire = new RawClient(await proxy.dial());
    wire.send(
      `GET http://${at()}/ws HTTP/1.1\r\nHost: ${at()}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    );
    expect(await wire.reader.until("\r\n\r\n")).toMatch(/^HTTP\/1.1 101 /);
    return wire;
  }
  async function closeCode(wire: RawClient): Promise<number> {
    const [first = 0, length = 0] = await within("a frame", wire.reader.exactly(2));
    expect(first & 0x0f).toBe(8);
    return (await wire.reader.exactly(length)).readUInt16BE(0);
  }

  test("a text", async () => {
    const wire = await open();
    wire.send(clientFrame(1, Buffer.from(`{"a":"${secret}"}`)));
    expect(await closeCode(wire)).toBe(1008);
  });

  test("fragments of one message", async () => {
    const wire = await open();
    const [first, second] = [
      clientFrame(1, Buffer.from(secret.slice(0, 9))),
      clientFrame(0, Buffer.from(secret.slice(9))),
    ];
    first[0] = 0x01;
    wire.send(first).send(second);
    expect(await closeCode(wire)).toBe(1008);
  });

  test("two messages, of which the second one completes it", async () => {
    const wire = await open();
    wire.send(clientFrame(2, Buffer.from(secret.slice(0, 9))));
    const [first] = await within("the echo", wire.reader.exactly(11));
    expect((first ?? 0) & 0x0f).toBe(2);
    wire.send(clientFrame(2, Buffer.from(secret.slice(9))));
    expect(await closeCode(wire)).toBe(1008);
  });
});

test("a response that repeats a secret is refused, and one of another type is passed", async () => {
  const answer = await ask({ method: "GET", path: "/echo" });
  expect(answer.status).toBe(502);
  expect(answer.text).not.toContain(secret);
  expect((await ask({ method: "GET", path: "/" })).text).toBe("ok");
});

test("neither the log nor the sessions nor the metrics hold the secret", async () => {
  const { text } = await proxy.sessions("/v1/sessions/default");
  expect(text).toContain("dlp");
  expect(text + proxy.stderr).not.toContain(secret);
  expect((await proxy.stats("/metrics")).text).toContain('event="refuse_own_secrets"');
});

test("a request that holds nothing goes through, with a body", async () => {
  const before = reached;
  const answer = await ask({ body: JSON.stringify({ a: "nothing to see" }), path: "/ok?a=b" });
  expect([answer.status, reached]).toEqual([200, before + 1]);
});
