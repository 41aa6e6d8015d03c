/** egress-policy judges the messages of WebSockets: plain, in the bridge over HTTP/1.1 and over HTTP/2 (RFC 8441). */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { clientFrame, maskInto } from "../../src/http/web-socket-frame.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import { RawClient } from "../support/http-client.ts";
import { eventually, within } from "../support/eventually.ts";

const host = "api.allowed.test";
const maxBytes = 65_536;

interface Arrival {
  readonly request: IncomingMessage;
  readonly messages: string[];
  readonly pings: string[];
  readonly socket: WebSocket;
  readonly closed: Promise<number>;
}

let origin: TlsOrigin;
let plainOrigin: ReturnType<typeof createServer>;
let proxy: BridgeProxy;
let sockets: WebSocketServer;
const arrivals: Arrival[] = [];
const clients: Duplex[] = [];

const get = { allow: { method: "GET", path: "/**" } };

function endpoint(ports: readonly number[], path: string, more: object): object {
  return { host, ports, path, protocol: "websocket", enforcement: "enforce", ...more };
}

function policyOf(ports: readonly number[]): object {
  return {
    name: "egress-policy",
    config: {
      network_policies: {
        chat: {
          endpoints: [
            endpoint(ports, "/read/**", { access: "read-only" }),
            endpoint(ports, "/open/**", { access: "full" }),
            endpoint(ports, "/audit/**", { access: "read-only", enforcement: "audit" }),
            endpoint(ports, "/chat/**", {
              rules: [get, { allow: { method: "WEBSOCKET_TEXT", path: "/chat/*" } }],
              deny_rules: [{ method: "WEBSOCKET_TEXT", path: "/chat/secret" }],
            }),
            endpoint(ports, "/graphql", {
              rules: [
                { allow: { method: "GET", path: "/graphql" } },
                { allow: { operation_type: "subscription", fields: ["messageAdded"] } },
              ],
            }),
          ],
        },
      },
    },
  };
}

function accept(request: IncomingMessage, socket: Duplex, head: Buffer): void {
  if (request.url === "/chat/extension") {
    socket.write(
      "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    );
    socket.on("error", () => undefined);
    return;
  }
  sockets.handleUpgrade(request, socket, head, (accepted) => {
    const messages: string[] = [];
    const pings: string[] = [];
    const closed = once(accepted, "close").then(([code]) => Number(code));
    accepted.on("error", () => undefined);
    accepted.on("message", (data: Buffer, isBinary) => {
      messages.push(`${isBinary ? "binary" : "text"} ${data.toString("latin1")}`);
      accepted.send(data, { binary: isBinary });
    });
    accepted.on("ping", (data) => pings.push(data.toString()));
    arrivals.push({ request, messages, pings, socket: accepted, closed });
  });
}

beforeAll(async () => {
  const authority = await TestAuthority.create();
  origin = await TlsOrigin.start(await authority.server([host]));
  sockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: true,
    handleProtocols: (offered) => [...offered][0] ?? false,
  });
  origin.server.on("upgrade", accept);
  plainOrigin = createServer((_request, response) => response.end("plain"));
  plainOrigin.on("upgrade", accept);
  plainOrigin.listen(0, "127.0.0.1");
  await once(plainOrigin, "listening");
  proxy = await BridgeProxy.start({
    ports: [origin.port],
    originCa: authority.caPem,
    otherwise: "deny",
    limits: { max_body: "64KiB" },
    plugins: [policyOf([origin.port, plainPort()])],
  });
});
afterEach(() => {
  for (const client of clients.splice(0)) client.destroy();
});
afterAll(async () => {
  await proxy?.close();
  await origin?.close();
  for (const { socket } of arrivals) socket.terminate();
  plainOrigin?.closeAllConnections();
  plainOrigin?.close();
});

function plainPort(): number {
  return (plainOrigin.address() as AddressInfo).port;
}

const key = (): string => randomBytes(16).toString("base64");

/** A connection after its upgrade, below the frames. */
async function dial(surface: string, path: string): Promise<RawClient<Duplex>> {
  if (surface === "bridged HTTP/2") {
    const session = await proxy.http2(origin.at(host));
    if (session.remoteSettings?.enableConnectProtocol !== true)
      await within("settings", once(session, "remoteSettings"));
    const stream = session.request(
      {
        ":method": "CONNECT",
        ":protocol": "websocket",
        ":scheme": "https",
        ":authority": origin.at(host),
        ":path": path,
        "sec-websocket-version": "13",
        "sec-websocket-extensions": "permessage-deflate",
      },
      { endStream: false },
    );
    clients.push(stream);
    const [headers] = (await within("an answer", once(stream, "response"))) as [
      Record<string, unknown>,
    ];
    expect(headers[":status"]).toBe(200);
    expect(headers).not.toHaveProperty("sec-websocket-extensions");
    return new RawClient(stream);
  }
  const wire = await ask(surface, path);
  const head = await wire.reader.until("\r\n\r\n");
  expect(head).toMatch(/^HTTP\/1.1 101 /);
  expect(head).not.toMatch(/^sec-websocket-extensions:/im);
  return wire;
}

async function ask(surface: string, path: string, version = 13): Promise<RawClient<Duplex>> {
  const bridged = surface === "bridged HTTP/1.1";
  if (!bridged) return askPlainly(await proxy.dial(), path, version);
  const authority = origin.at(host);
  return upgrade(await proxy.tls(authority), { target: path, authority, version });
}

function askPlainly(socket: Duplex, path: string, version = 13): RawClient<Duplex> {
  const authority = `${host}:${plainPort()}`;
  return upgrade(socket, { target: `http://${authority}${path}`, authority, version });
}

function upgrade(
  socket: Duplex,
  asked: { readonly target: string; readonly authority: string; readonly version: number },
): RawClient<Duplex> {
  const { target, authority, version } = asked;
  socket.on("error", () => undefined);
  clients.push(socket);
  const wire = new RawClient(socket);
  wire.send(
    `GET ${target} HTTP/1.1\r\nHost: ${authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      `Sec-WebSocket-Version: ${version}\r\nSec-WebSocket-Key: ${key()}\r\n` +
      "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
  );
  return wire;
}

/** A client frame of less than 126 bytes with any first byte. */
function frame(first: number, text: string): Buffer {
  const mask = randomBytes(4);
  const payload = Buffer.from(text);
  maskInto(payload, Buffer.from(text), mask, 0);
  return Buffer.concat([Buffer.of(first, 0x80 | payload.length), mask, payload]);
}

/** Reads one short frame of the server: its opcode and payload. */
async function read(wire: RawClient<Duplex>): Promise<readonly [opcode: number, payload: Buffer]> {
  const [first = 0, length = 0] = await within("a frame", wire.reader.exactly(2));
  return [first & 0x0f, await wire.reader.exactly(length)];
}

async function closeCode(wire: RawClient<Duplex>): Promise<number> {
  const [opcode, payload] = await read(wire);
  expect(opcode).toBe(8);
  return payload.readUInt16BE(0);
}

function latest(): Arrival {
  const arrival = arrivals.at(-1);
  if (arrival === undefined) throw new Error("nobody arrived");
  return arrival;
}

const surfaces = ["plain HTTP", "bridged HTTP/1.1", "bridged HTTP/2"];

describe.each(surfaces)("over %s", (surface) => {
  test("an allowed message arrives, and its answer comes back", async () => {
    const wire = await dial(surface, "/chat/room");
    wire.send(frame(0x81, "hello"));
    expect(await read(wire)).toEqual([1, Buffer.from("hello")]);
    wire.send(frame(0x82, "\u0001\u0002"));
    expect((await read(wire))[0]).toBe(2);
    expect(latest().messages).toEqual(["text hello", "binary \u0001\u0002"]);
    expect(latest().request.headers).not.toHaveProperty("sec-websocket-extensions");
  });

  test.each([
    ["read-only", "/read/1", 0x81],
    ["read-only, as binary", "/read/1", 0x82],
    ["a deny rule", "/chat/secret", 0x81],
  ])("%s: a message closes both sides with 1008 and does not arrive", async (_why, path, first) => {
    const wire = await dial(surface, path);
    const before = proxy.logs.length;
    wire.send(frame(first, "exfiltrated"));
    expect(await closeCode(wire)).toBe(1008);
    expect(await within("the origin is told", latest().closed)).toBe(1008);
    expect(latest().messages).toEqual([]);
    const line = await eventually(
      () =>
        proxy.logs.slice(before).find(({ msg }) => msg === "WebSocket message refused") ?? false,
    );
    expect(line).toMatchObject({ policy: "chat" });
    expect(line["rule"]).toMatch(/^endpoints\[\d\]/);
    const flow = await eventually(
      () =>
        proxy.logs.slice(before).find((one) => one["flow"] === line["flow"] && one["outcome"]) ??
        false,
    );
    expect(flow).toMatchObject({ outcome: "denied", code: "policy.forbidden", status: 101 });
  });

  test("audit records and passes", async () => {
    const wire = await dial(surface, "/audit/1");
    wire.send(frame(0x81, "noted"));
    expect(await read(wire)).toEqual([1, Buffer.from("noted")]);
    const audited = (): boolean =>
      proxy.logs.some(({ msg, rule }) => /audit/.test(msg) && rule === "endpoints[2]");
    await eventually(audited);
  });

  test("fragments with a ping between them are one message", async () => {
    const wire = await dial(surface, "/chat/room");
    wire.send(frame(0x01, "fr"));
    wire.send(frame(0x89, "beat"));
    expect(await read(wire)).toEqual([10, Buffer.from("beat")]);
    wire.send(frame(0x00, "ag"));
    wire.send(frame(0x80, "ment"));
    expect(await read(wire)).toEqual([1, Buffer.from("fragment")]);
    expect(latest().pings).toEqual(["beat"]);
  });

  test("one byte at a time reads the same", async () => {
    const wire = await dial(surface, "/chat/room");
    for (const byte of frame(0x81, "slow")) wire.send(Buffer.of(byte));
    expect(await read(wire)).toEqual([1, Buffer.from("slow")]);
  });

  test("the closing handshake is the client's own", async () => {
    const wire = await dial(surface, "/read/1");
    wire.send(frame(0x88, "\u000f\u00a1bye".replace("\u00a1", "\u0021")));
    expect(await closeCode(wire)).toBe(0x0f21);
    expect(await within("the origin hears of it", latest().closed)).toBe(0x0f21);
  });

  test.each([
    ["a reserved bit", frame(0xc1, "x"), 1002],
    ["no mask", Buffer.of(0x81, 0x01, 0x78), 1002],
    ["a reserved opcode", frame(0x83, "x"), 1002],
    ["a fragmented ping", frame(0x09, "x"), 1002],
    ["a continuation of nothing", frame(0x80, "x"), 1002],
    ["a length in a longer form", Buffer.of(0x81, 0xfe, 0, 1, 0, 0, 0, 0, 0x78), 1002],
    ["no UTF-8", Buffer.of(0x81, 0x81, 0, 0, 0, 0, 0xff), 1007],
    ["more than the limit", clientFrame(1, Buffer.alloc(maxBytes + 1, 120)), 1009],
    ["an absurd length", Buffer.of(0x81, 0xff, 255, 255, 255, 255, 255, 255, 255, 255), 1009],
  ])("%s ends the connection with its code", async (_what, bytes, code) => {
    const wire = await dial(surface, "/chat/room");
    wire.send(bytes);
    expect(await closeCode(wire)).toBe(code);
    expect(await within("the origin is told", latest().closed)).toBe(code);
    expect(latest().messages).toEqual([]);
  });

  test("GraphQL operations are judged, and what carries them passes", async () => {
    const wire = await dial(surface, "/graphql");
    const say = async (message: object): Promise<string> => {
      const text = JSON.stringify(message);
      wire.send(frame(0x81, text.slice(0, 125)));
      return (await read(wire))[1].toString();
    };
    expect(await say({ type: "connection_init" })).toContain("connection_init");
    const subscription = { query: "subscription{messageAdded{id}}" };
    expect(await say({ type: "subscribe", id: "1", payload: subscription })).toContain("Added");
    expect(await say({ type: "start", id: "2", payload: subscription })).toContain("start");
    wire.send(
      frame(0x81, JSON.stringify({ type: "subscribe", id: "3", payload: { query: "{secrets}" } })),
    );
    expect(await closeCode(wire)).toBe(1008);
    expect(latest().messages).toHaveLength(3);
  });

  test.each([
    ["no JSON", "hello"],
    ["a batch", "[]"],
    ["an unknown type", '{"type":"data"}'],
    ["two types", '{"type":"ping","type":"subscribe"}'],
    ["a type in other case", '{"type":"ping","Type":"subscribe"}'],
    ["an operation without its document", '{"type":"subscribe","id":"1"}'],
  ])("GraphQL: %s is refused", async (_what, text) => {
    const wire = await dial(surface, "/graphql");
    wire.send(frame(0x81, text));
    expect(await closeCode(wire)).toBe(1008);
    expect(latest().messages).toEqual([]);
  });
});

test("an endpoint whose messages all pass keeps its extensions", async () => {
  const wire = await ask("plain HTTP", "/open/1");
  const head = await wire.reader.until("\r\n\r\n");
  expect(head).toMatch(/^sec-websocket-extensions: permessage-deflate/im);
});

test("an origin that chooses an extension is refused", async () => {
  const answer = await (await ask("plain HTTP", "/chat/extension")).response();
  expect(answer.status).toBe(502);
});

test("another version of the protocol cannot be judged", async () => {
  const answer = await (await ask("plain HTTP", "/chat/room", 8)).response();
  expect(answer.status).toBe(403);
});

test("operations in the query of a plain GET are judged too", async () => {
  const get = async (path: string): Promise<number> => {
    const socket = await proxy.dial();
    clients.push(socket);
    const authority = `${host}:${plainPort()}`;
    const wire = new RawClient(socket);
    return (
      await wire.exchange(`GET http://${authority}${path} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`)
    ).status;
  };
  expect(await get("/graphql?query=%7Bsecrets%7D")).toBe(403);
  expect(await get("/graphql")).toBe(200);
});

test("a ws client: large answers come through while messages are judged", async () => {
  const socket = await proxy.tls(origin.at(host));
  clients.push(socket);
  const client = new WebSocket(`wss://${origin.at(host)}/chat/room`, {
    createConnection: () => socket,
  });
  client.on("error", () => undefined);
  await within("open", once(client, "open"));
  expect(client.extensions).toBe("");
  const large = Buffer.alloc(1_000_000, "down");
  latest().socket.send(large);
  const [received] = (await within("the answer", once(client, "message"))) as [Buffer];
  expect(received.equals(large)).toBe(true);
  for (const size of [0, 125, 126, 65_535, maxBytes]) {
    const echoed = once(client, "message");
    client.send("m".repeat(size));
    const [data] = (await within("an echo", echoed)) as [Buffer];
    expect(data.length).toBe(size);
  }
});

describe("another proxy", () => {
  let other: BridgeProxy;
  const start = (plugin: object): Parameters<typeof BridgeProxy.start>[0] => ({
    ports: [],
    otherwise: "deny",
    plugins: [plugin],
  });
  afterEach(() => other.close());

  test("that changes its rules closes the connections whose messages it reads, with 1012", async () => {
    other = await BridgeProxy.start(start(policyOf([plainPort()])));
    const wire = askPlainly(await other.dial(), "/chat/room");
    await wire.reader.until("\r\n\r\n");
    wire.send(frame(0x81, "before"));
    expect((await read(wire))[0]).toBe(1);
    await other.rewrite(start({ ...policyOf([plainPort()]), id: "changed" }));
    expect(await closeCode(wire)).toBe(1012);
    expect(await within("the origin is told", latest().closed)).toBe(1012);
  });

  test("that only observes records what it would have refused and lets it pass", async () => {
    const observing = { ...policyOf([plainPort()]), on_error: "observe" };
    other = await BridgeProxy.start({ ...start(observing), otherwise: "allow" });
    const wire = askPlainly(await other.dial(), "/read/1");
    await wire.reader.until("\r\n\r\n");
    wire.send(frame(0x81, "seen"));
    expect(await read(wire)).toEqual([1, Buffer.from("seen")]);
    expect(
      await other.metric(/authbridge_decisions_total\{.*action="deny".*shadow="true".*\}/),
    ).toBe(1);
  });
});
