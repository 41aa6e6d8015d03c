/** WebSocket through the bridge, over HTTP/1.1 and over HTTP/2 (RFC 8441). */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Duplex } from "node:stream";
import type { IncomingMessage } from "node:http";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import { RawClient } from "../support/http-client.ts";
import { eventually, within } from "../support/eventually.ts";

const allowed = "api.allowed.test";

let origin: TlsOrigin;
let proxy: BridgeProxy;
let at: string;
let sockets: WebSocketServer;
const upgrades: IncomingMessage[] = [];
const clients: WebSocket[] = [];

beforeAll(async () => {
  const authority = await TestAuthority.create();
  origin = await TlsOrigin.start(await authority.server([allowed, "evil.test"]));
  sockets = new WebSocketServer({
    noServer: true,
    handleProtocols: (offered) => [...offered][0] ?? false,
  });
  origin.server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    upgrades.push(request);
    if (request.url === "/refused") {
      socket.end("HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope");
      return;
    }
    sockets.handleUpgrade(request, socket, head, (accepted) => {
      accepted.on("error", () => undefined);
      accepted.send(`welcome ${request.headers.host ?? ""}`);
      accepted.on("message", (data, isBinary) => accepted.send(data, { binary: isBinary }));
    });
  });
  at = origin.at(allowed);
  proxy = await BridgeProxy.start({
    ports: [origin.port],
    originCa: authority.caPem,
    plugins: [
      { name: "bridge-witness", config: { file: "seen.jsonl" } },
      { name: "deny-paths", config: { prefix: "/denied" } },
    ],
  });
});
afterEach(() => {
  for (const client of clients.splice(0)) client.terminate();
});
afterAll(async () => {
  await proxy.close();
  await origin.close();
});

/** A `ws` client in a tunnel of its own. */
async function open(path: string, protocols: string[] = []): Promise<WebSocket> {
  const socket = await proxy.tls(at);
  const client = new WebSocket(`wss://${at}${path}`, protocols, {
    createConnection: () => socket,
    headers: { "X-Ask": "1" },
  });
  client.on("error", () => undefined);
  clients.push(client);
  return client;
}

async function message(client: WebSocket): Promise<string> {
  const [data] = (await within("a message", once(client, "message"))) as [Buffer];
  return data.toString();
}

/** A masked text frame (RFC 6455 section 5.2) of less than 126 bytes. */
function textFrame(text: string): Buffer {
  const mask = randomBytes(4);
  const payload = Buffer.from(text).map((byte, index) => byte ^ (mask[index % 4] ?? 0));
  return Buffer.concat([Buffer.of(0x81, 0x80 | payload.length), mask, payload]);
}

/** Reads one short unmasked frame. */
async function readText(wire: RawClient<Duplex>): Promise<string> {
  const [, length = 0] = await wire.reader.exactly(2);
  return (await wire.reader.exactly(length)).toString();
}

describe("a ws client over HTTP/1.1", () => {
  test("exchanges messages of all sizes, both ways (Z15)", async () => {
    const client = await open("/chat?room=1", ["chat.v1"]);
    expect(await message(client)).toBe(`welcome ${at}`);
    expect(client.protocol).toBe("chat.v1");
    for (const size of [0, 1, 125, 126, 65_536, 1_000_000]) {
      const text = "m".repeat(size);
      const echoed = message(client);
      client.send(text);
      expect((await echoed).length).toBe(size);
    }
    const request = upgrades.at(-1);
    expect(request?.url).toBe("/chat?room=1");
    expect(request?.headers).toMatchObject({ "x-ask": "1", upgrade: "websocket" });
  });

  test("is judged as a request before its upgrade is sent", async () => {
    const before = upgrades.length;
    const client = await open("/denied/ws");
    const [, response] = (await within("a refusal", once(client, "unexpected-response"))) as [
      unknown,
      IncomingMessage,
    ];
    expect(response.statusCode).toBe(403);
    expect(response.headers["content-type"]).toBe("application/json");
    expect(upgrades.length).toBe(before);
    const notes = await proxy.records("seen.jsonl");
    expect(notes).toContainEqual(
      expect.objectContaining({ path: "/denied/ws", scheme: "https", stage: "request" }),
    );
  });

  test("sees the close of the origin, and the origin sees its own", async () => {
    const client = await open("/close");
    await message(client);
    const [accepted] = [...sockets.clients].slice(-1);
    accepted?.close(4001, "enough");
    const [code] = (await within("a close", once(client, "close"))) as [number];
    expect(code).toBe(4001);
    const other = await open("/close");
    await message(other);
    const [second] = [...sockets.clients].slice(-1);
    const closed = once(second ?? sockets, "close");
    other.terminate();
    await within("the origin hears of it", closed);
  });

  test("that the origin refuses gets the answer, and nothing is tunnelled after it (H1-22)", async () => {
    const wire = new RawClient(await proxy.tls(at));
    const head = (path: string, host: string): string =>
      `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\n\r\n`;
    const seen = origin.seen.length;
    wire.send(head("/refused", at) + "GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n");
    const answer = await wire.response();
    expect(answer).toMatchObject({ status: 401, text: "nope" });
    const rest = (await wire.reader.toEnd()).toString("latin1");
    expect(rest === "" || rest.startsWith("HTTP/1.1 421 ")).toBe(true);
    expect(origin.seen.length).toBe(seen);
  });

  test("in a tunnel to another name is 421", async () => {
    const before = upgrades.length;
    const wire = new RawClient(await proxy.tls(at));
    const answer = await wire.exchange(
      `GET /ws HTTP/1.1\r\nHost: ${origin.at("evil.test")}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\n\r\n`,
    );
    expect(answer.status).toBe(421);
    expect(upgrades.length).toBe(before);
    wire.close();
  });

  test("that asks for h2c is not upgraded", async () => {
    const wire = new RawClient(await proxy.tls(at));
    const answer = await wire.exchange(
      `GET /h2c HTTP/1.1\r\nHost: ${at}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n`,
    );
    expect(answer.status).not.toBe(101);
    expect(origin.requestsFor("/h2c")[0]?.headers).not.toHaveProperty("upgrade");
    wire.close();
  });
});

describe("a WebSocket over HTTP/2 (RFC 8441)", () => {
  const connectFields = (path: string): Record<string, string> => ({
    ":method": "CONNECT",
    ":protocol": "websocket",
    ":scheme": "https",
    ":authority": at,
    ":path": path,
    "sec-websocket-version": "13",
    "sec-websocket-protocol": "chat.v1",
    "x-ask": "1",
  });

  test("is offered, answered with 200, and carries messages to an h1 origin", async () => {
    const session = await proxy.http2(at);
    if (session.remoteSettings?.enableConnectProtocol !== true) {
      await within("settings", once(session, "remoteSettings"));
    }
    expect(session.remoteSettings.enableConnectProtocol).toBe(true);
    const stream = session.request(connectFields("/h2-chat"), { endStream: false });
    const [headers] = (await within("an answer", once(stream, "response"))) as [
      Record<string, unknown>,
    ];
    expect(headers[":status"]).toBe(200);
    expect(headers["sec-websocket-protocol"]).toBe("chat.v1");
    expect(headers).not.toHaveProperty("sec-websocket-accept");
    const wire = new RawClient(stream);
    expect(await readText(wire)).toBe(`welcome ${at}`);
    for (const text of ["one", "two"]) {
      wire.send(textFrame(text));
      expect(await readText(wire)).toBe(text);
    }
    expect(upgrades.at(-1)?.headers).toMatchObject({ "x-ask": "1", upgrade: "websocket" });
    // Other streams of the session go on beside it.
    const plain = session.request({ ":path": "/beside" });
    const [beside] = (await once(plain, "response")) as [Record<string, unknown>];
    expect(beside[":status"]).toBe(200);
    const [accepted] = [...sockets.clients].slice(-1);
    const closed = once(accepted ?? sockets, "close");
    stream.close();
    await within("the origin hears of it", closed);
    session.destroy();
  });

  test("is judged, and a refusal is a normal answer", async () => {
    const before = upgrades.length;
    const session = await proxy.http2(at);
    await within("settings", once(session, "remoteSettings"));
    const stream = session.request(connectFields("/denied/h2"), { endStream: false });
    const [headers] = (await within("an answer", once(stream, "response"))) as [
      Record<string, unknown>,
    ];
    expect(headers[":status"]).toBe(403);
    expect(upgrades.length).toBe(before);
    session.destroy();
  });

  test("that the origin refuses gets its status", async () => {
    const session = await proxy.http2(at);
    await within("settings", once(session, "remoteSettings"));
    const stream = session.request(connectFields("/refused"), { endStream: false });
    const [headers] = (await within("an answer", once(stream, "response"))) as [
      Record<string, unknown>,
    ];
    expect(headers[":status"]).toBe(401);
    session.destroy();
  });

  test("ends with its session", async () => {
    const session = await proxy.http2(at);
    await within("settings", once(session, "remoteSettings"));
    const stream = session.request(connectFields("/ends"), { endStream: false });
    await within("an answer", once(stream, "response"));
    const open = sockets.clients.size;
    session.destroy();
    await eventually(() => sockets.clients.size < open);
  });
});
