/** HTTP/2 inside mutual TLS in front of the agent: what passes, who is let in, and for how long. */
import { createHash, randomBytes, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type RequestListener } from "node:http";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  type OutgoingHttpHeaders,
} from "node:http2";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import {
  credentials,
  type handleBidiStreamingCall,
  makeGenericClientConstructor,
  Metadata,
  Server,
  ServerCredentials,
} from "@grpc/grpc-js";
import { beforeAll, describe, expect, test } from "vitest";
import { WebSocketServer } from "ws";
import { TestAuthority } from "../support/certs.ts";
import { eventually, within } from "../support/eventually.ts";
import { get, RawClient } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { owner } from "../support/owner.ts";
import { peerSocket } from "../support/peer-client.ts";
import { PeerFiles } from "../support/peer-files.ts";
import type { Settings } from "../support/program.ts";
import { inbound, merge, ProxyProcess, settings } from "../support/proxy.ts";
import { SpiffeAuthority, type TestSvid } from "../support/spiffe-authority.ts";

const own = owner();
const authority = SpiffeAuthority.create();
const peer = authority.svid("/ns/team/sa/peer");
const foreign = SpiffeAuthority.create("other.test").svid("/x");
const modes = ["strict", "permissive"] as const;
const handlers = new Map<string, RequestListener>();
const seen: IncomingMessage[] = [];
const proxies = new Map<string, ProxyProcess>();
let backend: string;
let files: PeerFiles;

function config(mode: string, identity: PeerFiles, over: Settings = {}): Settings {
  return merge(
    settings({
      listener: { roles: ["reverse"], reverse_proxy_backend: backend },
      mtls: { mode },
      spiffe: identity.spiffe,
    }),
    over,
  );
}

beforeAll(async () => {
  const agent = createServer((request, response) => {
    seen.push(request);
    const handler = handlers.get(request.url?.split("?")[0] ?? "");
    if (handler === undefined) response.end(request.url);
    else handler(request, response);
  });
  const sockets = new WebSocketServer({ server: agent });
  sockets.on("connection", (socket) => socket.on("message", (data) => socket.send(data)));
  agent.listen(0, "127.0.0.1");
  await once(agent, "listening");
  await own({
    close: () => {
      agent.closeAllConnections();
      for (const socket of sockets.clients) socket.terminate();
      agent.close();
    },
  });
  backend = `http://127.0.0.1:${(agent.address() as AddressInfo).port}`;
  files = await PeerFiles.write(authority.svid("/ns/team/sa/agent"), [authority]);
  const recorded = inbound({ name: "recorder", config: { file: "records" } });
  for (const mode of modes)
    proxies.set(mode, await own(ProxyProcess.start(config(mode, files, recorded))));
});

function proxyOf(mode: string): ProxyProcess {
  const proxy = proxies.get(mode);
  if (proxy === undefined) throw new Error(`no proxy is ${mode}`);
  return proxy;
}

async function session(proxy: ProxyProcess, svid: TestSvid = peer): Promise<ClientHttp2Session> {
  const socket = await peerSocket(proxy.reverse, svid, { ALPNProtocols: ["h2", "http/1.1"] });
  expect(socket.alpnProtocol).toBe("h2");
  const client = connect("https://agent.test", { createConnection: () => socket });
  client.on("error", () => undefined);
  await own({ close: () => client.destroy() });
  return client;
}

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly trailers: Record<string, unknown>;
}

async function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  let trailers = {};
  stream.once("trailers", (tail: Record<string, unknown>) => (trailers = tail));
  const [head] = (await within("a response", once(stream, "response"))) as [
    Record<string, unknown>,
  ];
  return { status: Number(head[":status"]), body: await text(stream), trailers };
}

function ask(
  client: ClientHttp2Session,
  fields: OutgoingHttpHeaders,
  body?: string,
): Promise<Answer> {
  const stream = client.request(fields, { endStream: body === undefined });
  if (body !== undefined) stream.end(body);
  return answerOf(stream);
}

function requestFor(path: string): IncomingMessage {
  const request = seen.find(({ url }) => url === path);
  if (request === undefined) throw new Error(`the agent saw no request for ${path}`);
  return request;
}

/** A handler that begins its response and waits. */
function hold(path: string): () => void {
  const held = Promise.withResolvers<void>();
  handlers.set(path, (_request, response) => {
    response.write("early ");
    void held.promise.then(() => response.end("late"));
  });
  return held.resolve;
}

const websocket = (path: string): OutgoingHttpHeaders => ({
  ":method": "CONNECT",
  ":protocol": "websocket",
  ":scheme": "https",
  ":authority": "agent.test",
  ":path": path,
  "sec-websocket-version": "13",
});

async function openWebSocket(
  client: ClientHttp2Session,
  fields: OutgoingHttpHeaders = {},
): Promise<RawClient<ClientHttp2Stream>> {
  if (client.remoteSettings?.enableConnectProtocol !== true)
    await within("settings", once(client, "remoteSettings"));
  const stream = client.request({ ...websocket("/chat"), ...fields }, { endStream: false });
  stream.on("error", () => undefined);
  const [head] = (await within("a response", once(stream, "response"))) as [
    Record<string, unknown>,
  ];
  expect(head[":status"]).toBe(200);
  return new RawClient(stream);
}

/** Sends one short text and reads it back (RFC 6455 section 5.2). */
async function echo(wire: RawClient<ClientHttp2Stream>, words: string): Promise<string> {
  const mask = randomBytes(4);
  const payload = Buffer.from(words).map((byte, index) => byte ^ (mask[index % 4] ?? 0));
  wire.send(Buffer.concat([Buffer.of(0x81, 0x80 | payload.length), mask, payload]));
  const [, length = 0] = await wire.reader.exactly(2);
  return (await wire.reader.exactly(length)).toString();
}

describe.each(modes)("%s", (mode) => {
  test("a GET reaches the agent with the fields of a proxy, and its caller is known", async () => {
    const proxy = proxyOf(mode);
    const client = await session(proxy);
    const fields = { ":authority": "agent.test", ":path": `/${mode}?x=1` };
    expect(await ask(client, fields)).toMatchObject({
      status: 200,
      body: `/${mode}?x=1`,
    });
    expect(requestFor(`/${mode}?x=1`).headers).toMatchObject({
      "x-forwarded-proto": "https",
      "x-forwarded-host": "agent.test",
      "x-forwarded-for": "127.0.0.1",
      host: backend.slice("http://".length),
    });
    const line = await proxy.log((log) => log["path"] === `/${mode}`);
    expect(line).toMatchObject({ caller: peer.spiffeId, direction: "inbound" });
    const event = await eventually(async () => {
      const { events } = (await proxy.sessions("/v1/sessions/default")).json() as {
        events: Settings[];
      };
      return events.find(({ httpPath }) => httpPath === `/${mode}`) ?? false;
    });
    expect(event).toMatchObject({ caller: peer.spiffeId, tls: { peerSpiffeId: peer.spiffeId } });
  });

  test("a body arrives whole, and trailers come back", async () => {
    handlers.set("/post", (request, response) => {
      void text(request).then((body) => {
        response.writeHead(201, { Trailer: "X-Sum" });
        response.write(String(body.length));
        response.addTrailers({ "X-Sum": "42" });
        response.end();
      });
    });
    const client = await session(proxyOf(mode));
    const fields = { ":method": "POST", ":path": "/post", te: "trailers" };
    expect(await ask(client, fields, "b".repeat(300_000))).toMatchObject({
      status: 201,
      body: "300000",
      trailers: { "x-sum": "42" },
    });
  });

  test("events come one by one", async () => {
    const held = Promise.withResolvers<void>();
    handlers.set("/events", (_request, response) => {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write("data: one\n\n");
      void held.promise.then(() => response.end("data: two\n\n"));
    });
    const stream = (await session(proxyOf(mode))).request({ ":path": "/events" });
    const [first] = (await within("an event", once(stream, "data"))) as [Buffer];
    expect(first.toString()).toBe("data: one\n\n");
    held.resolve();
    expect(await text(stream)).toBe("data: two\n\n");
  });

  test("a hundred streams at once share one connection", async () => {
    const client = await session(proxyOf(mode));
    const paths = Array.from({ length: 100 }, (_, index) => `/many/${index}`);
    const answers = await Promise.all(paths.map((path) => ask(client, { ":path": path })));
    expect(answers.map(({ body }) => body)).toEqual(paths);
  });

  test("a WebSocket passes beside other streams (RFC 8441)", async () => {
    const client = await session(proxyOf(mode));
    const wire = await openWebSocket(client);
    expect(await echo(wire, "hello")).toBe("hello");
    expect((await ask(client, { ":path": "/beside" })).status).toBe(200);
    expect(await echo(wire, "again")).toBe("again");
  });

  test.each([
    ["no", undefined],
    ["a foreign", foreign],
  ])("a client with %s certificate is refused", async (_what, svid) => {
    const client = connect(`https://127.0.0.1:${proxyOf(mode).reverse.port}`, {
      rejectUnauthorized: false,
      ...(svid === undefined ? {} : { cert: svid.cert, key: svid.key }),
    });
    client.on("error", () => undefined);
    const path = `/refused-${String(svid?.spiffeId)}`;
    const stream = client.request({ ":path": path });
    let isAnswered = false;
    stream.on("error", () => undefined);
    stream.once("response", () => (isAnswered = true));
    await eventually(() => stream.destroyed && client.destroyed);
    expect(isAnswered).toBe(false);
    expect(seen.some(({ url }) => url === path)).toBe(false);
  });

  test.each([
    ["TRACE", { ":method": "TRACE", ":path": "/" }, 405],
    ["a tunnel", { ":method": "CONNECT", ":authority": "agent.test:443" }, 405],
    ["two hosts", { ":path": "/", ":authority": "agent.test", host: "other.test" }, 400],
    ["another scheme", { ":path": "/", ":scheme": "http" }, 421],
  ])("what asks for %s is answered", async (_what, fields, status) => {
    const client = await session(proxyOf(mode));
    expect((await ask(client, fields)).status).toBe(status);
  });
});

test("permissive still serves plain requests, and HTTP/1.1 to a peer that offers nothing else", async () => {
  const proxy = proxyOf("permissive");
  expect((await get(proxy.reverse, "/plain")).status).toBe(200);
  for (const options of [{}, { ALPNProtocols: ["http/1.1"] }]) {
    const wire = await own(RawClient.over(await peerSocket(proxy.reverse, peer, options)));
    const asked = { target: "/one", headers: { Host: "agent.test" } };
    expect((await wire.ask(asked)).status).toBe(200);
  }
});

test("a gRPC client streams both ways with an agent behind https, and gets its status", async () => {
  const bytes = (value: Buffer): Buffer => value;
  const service = {
    both: {
      path: "/test.Echo/Both",
      requestStream: true,
      responseStream: true,
      requestSerialize: bytes,
      requestDeserialize: bytes,
      responseSerialize: bytes,
      responseDeserialize: bytes,
    },
  };
  const both: handleBidiStreamingCall<Buffer, Buffer> = (call) => {
    call.on("data", (part: Buffer) => call.write(Buffer.from(`echo ${part.toString()}`)));
    call.on("end", () => {
      const trailers = new Metadata();
      trailers.set("x-trailer", "kept");
      call.end(trailers);
    });
    call.on("error", () => undefined);
  };
  const issuer = await TestAuthority.create();
  const { cert, key } = await issuer.server();
  const server = new Server();
  await own({ close: () => server.forceShutdown() });
  server.addService(service, { both });
  const pair = { private_key: Buffer.from(key), cert_chain: Buffer.from(cert) };
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createSsl(null, [pair]), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  const over = {
    listener: { reverse_proxy_backend: `https://127.0.0.1:${port}` },
    tls_bridge: { upstream_ca_bundle: `${await issuer.write()}/ca.crt` },
  };
  const proxy = await own(ProxyProcess.start(config("strict", files, over)));
  const tls = credentials.createSsl(
    Buffer.from(authority.caPem),
    Buffer.from(peer.key),
    Buffer.from(peer.cert),
    { checkServerIdentity: () => undefined },
  );
  const Echo = makeGenericClientConstructor(service, "Echo");
  const client = new Echo(`127.0.0.1:${proxy.reverse.port}`, tls, { "grpc.enable_http_proxy": 0 });
  await own({ close: () => client.close() });
  const call = client.makeBidiStreamRequest("/test.Echo/Both", bytes, bytes);
  const status = once(call, "status");
  for (const word of ["one", "two"]) {
    const answer = once(call, "data");
    call.write(Buffer.from(word));
    const [part] = (await within("an answer", answer)) as [Buffer];
    expect(part.toString()).toBe(`echo ${word}`);
  }
  call.end();
  call.resume();
  const [{ code, metadata }] = (await within("a status", status)) as [
    { readonly code: number; readonly metadata: Metadata },
  ];
  expect(code).toBe(0);
  expect(metadata.get("x-trailer")).toEqual(["kept"]);
});

test.each([
  ["says nothing", ""],
  ["speaks HTTP/1.1 all the same", "GET / HTTP/1.1\r\nHost: agent.test\r\n\r\n"],
])("a peer that negotiates h2 and %s is closed", async (_what, said) => {
  const limits = { limits: { keep_alive_timeout: "1s" } };
  const proxy = await own(ProxyProcess.start(config("strict", files, limits)));
  const socket = await peerSocket(proxy.reverse, peer, { ALPNProtocols: ["h2"] });
  const closed = once(socket.resume(), "close");
  if (said !== "") socket.write(said);
  await within("the end", closed);
  expect((await ask(await session(proxy), { ":path": "/" })).status).toBe(200);
});

test("limits.max_streams_per_connection holds", async () => {
  const limits = { limits: { max_streams_per_connection: 7 } };
  const proxy = await own(ProxyProcess.start(config("strict", files, limits)));
  const client = await session(proxy);
  expect((await ask(client, { ":path": "/" })).status).toBe(200);
  expect(client.remoteSettings.maxConcurrentStreams).toBe(7);
});

test("connections of HTTP/2 are counted, and end with the process after their streams", async () => {
  const proxy = await ProxyProcess.start(config("strict", files));
  const release = hold("/drained");
  const client = await session(proxy);
  const idle = await session(proxy);
  expect((await ask(idle, { ":path": "/" })).status).toBe(200);
  const stream = client.request({ ":path": "/drained" });
  await within("a response", once(stream, "response"));
  expect(await proxy.metric("authbridge_client_connections")).toBe(2);
  proxy.signal("SIGTERM");
  await eventually(() => idle.destroyed);
  release();
  expect(await text(stream)).toBe("early late");
  expect((await proxy.ended).code).toBe(0);
});

describe("a peer that is no longer trusted", () => {
  test("loses idle connections and WebSockets at once, and busy ones after their streams", async () => {
    const next = SpiffeAuthority.create();
    const identity = await PeerFiles.write(next.svid("/agent"), [authority, next]);
    const proxy = await own(ProxyProcess.start(config("strict", identity)));
    const release = hold("/busy");
    const [idle, chatting, busy] = [
      await session(proxy),
      await session(proxy),
      await session(proxy),
    ];
    const kept = await session(proxy, next.svid("/other"));
    for (const client of [idle, chatting, busy, kept])
      expect((await ask(client, { ":path": "/" })).status).toBe(200);
    const alone = await openWebSocket(chatting);
    const beside = await openWebSocket(busy);
    expect(await echo(alone, "hello")).toBe("hello");
    expect(await echo(beside, "hello")).toBe("hello");
    const stream = busy.request({ ":path": "/busy" });
    await within("a response", once(stream, "response"));
    await identity.bundle([next]);
    await eventually(() => idle.destroyed && chatting.destroyed);
    await eventually(() => beside.socket.destroyed);
    expect(busy.destroyed).toBe(false);
    release();
    expect(await text(stream)).toBe("early late");
    await eventually(() => busy.destroyed);
    expect((await ask(kept, { ":path": "/" })).status).toBe(200);
    const revoked = { direction: "inbound" };
    expect(await proxy.metric("authbridge_peers_revoked_total", revoked)).toBe(3);
  });

  test("by a reload of the list", async () => {
    const listed = (id: string): Settings =>
      config("strict", files, { mtls: { allowed_spiffe_ids: [id] } });
    const proxy = await own(ProxyProcess.start(listed("spiffe://example.org")));
    const client = await session(proxy);
    expect((await ask(client, { ":path": "/" })).status).toBe(200);
    await proxy.reload(listed("spiffe://example.org/ns/else/*"));
    await eventually(() => client.destroyed);
  });
});

describe("a reload that changes something else", () => {
  test.each([1, 2])(
    "%s threads: ends nothing that a token bound to the certificate let in",
    async (workers) => {
      const idp = await own(StubIdp.start());
      const thumbprint = createHash("sha256").update(new X509Certificate(peer.cert).raw);
      const cnf = { "x5t#S256": thumbprint.digest("base64url") };
      const authorization = `Bearer ${await idp.token({ claims: { cnf } })}`;
      const file = (more: Settings, audience = "agent"): Settings => {
        const guard = { name: "jwt-validation", config: { issuer: idp.issuer, audience } };
        const over = { workers, limits: { drain_timeout: "0s", ...more } };
        return config("strict", files, merge(over, inbound(guard)));
      };
      const proxy = await own(ProxyProcess.start(file({})));
      const release = hold("/events");
      const client = await session(proxy);
      const wire = await openWebSocket(client, { authorization });
      const stream = client.request({ ":path": "/events", authorization });
      stream.on("error", () => undefined);
      await within("a response", once(stream, "response"));
      await proxy.reload(file({ max_body: "1MiB" }));
      expect(await echo(wire, "hello")).toBe("hello");
      await proxy.reload(file({ max_body: "2MiB" }));
      expect(await echo(wire, "hello")).toBe("hello");
      release();
      expect(await text(stream)).toBe("early late");
      await proxy.reload(file({}, "somebody-else"));
      await eventually(() => wire.socket.destroyed);
      expect((await ask(client, { ":path": "/", authorization })).status).toBe(401);
    },
  );
});
