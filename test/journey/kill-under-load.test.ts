/** The kill switch with traffic of every kind: from its reply on no byte passes, in no direction, and nothing new begins. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { ClientHttp2Session, ClientHttp2Stream, Http2ServerResponse } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Approver } from "../support/approvals.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { connectStream, proxySession } from "../support/connect-stream.ts";
import { eventually, within } from "../support/eventually.ts";
import { RawClient, type RawResponse } from "../support/http-client.ts";
import { HttpOrigin, type OriginConnection, TcpOrigin } from "../support/origin.ts";
import { sendOrder } from "../support/operator-order.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { openSocks } from "../support/socks-client.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import { lateWords, sayer, Witness } from "../support/witness.ts";

const own = owner();
const each = 6;
const host = "api.allowed.test";
/** Requests for the same thing are one question. */
const heldNames = Array.from({ length: each }, (_, at) => `held-${at}.test`);
const secret = "operator-secret";
const scratch = mkdtempSync(join(tmpdir(), "authbridge-kill-load-"));
const secretFile = join(scratch, "secret");
writeFileSync(secretFile, secret);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let witness = new Witness();
let authority: TestAuthority;
let peer: TcpOrigin;
let web: HttpOrigin;
let secure: TlsOrigin;
/** Requests with a body that never ends, at either of the two. */
let uploads = 0;

const chunk = (words: string): string => `${words.length.toString(16)}\r\n${words}\r\n`;

/** What an origin of bytes says and hears. */
function watchSocket({ socket }: OriginConnection, name: string, says = true): void {
  const end = { name, isClient: false, hears: socket, lives: socket };
  witness.watch({ ...end, says: says ? sayer(socket) : undefined });
}

beforeAll(async () => {
  authority = await TestAuthority.create();
  peer = await own(TcpOrigin.start((connection) => watchSocket(connection, "a tunnel")));
  web = await own(
    HttpOrigin.launch(({ connection, target }) => {
      void connection.send(
        target === "/socket"
          ? "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: example\r\n\r\n"
          : "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n",
      );
      watchSocket(connection, target);
      return undefined;
    }),
  );
  web.answerHead = ({ startLine }, connection) => {
    if (!startLine.startsWith("POST ")) return false;
    watchSocket(connection, "an upload", false);
    connection.socket.once("end", () => connection.socket.destroy());
    uploads += 1;
    return true;
  };
  secure = await own(TlsOrigin.start(await authority.server([host]), "both"));
  secure.on(
    "/events",
    (_, response: ServerResponse & Partial<Pick<Http2ServerResponse, "stream">>) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write("data: 1\n\n");
      const stream = response.stream ?? response;
      const end = { name: "events inside of TLS", isClient: false, lives: stream };
      witness.watch({ ...end, says: sayer(stream) });
    },
  );
  secure.on("/upload", (incoming: IncomingMessage) => {
    const name = "an upload inside of TLS";
    witness.watch({ name, isClient: false, hears: incoming, lives: incoming });
    uploads += 1;
  });
});

function start(workers: number, over: Settings): Promise<BridgeProxy> {
  const rules = ["GET", "POST"].map((method) => ({ allow: { method, path: "/**" } }));
  const endpoints = [
    ...heldNames.flatMap((name) => [
      { host: name, port: peer.port, enforcement: "ask" },
      { host: name, port: web.port, enforcement: "ask" },
    ]),
    { host, port: secure.port, protocol: "rest", enforcement: "enforce", rules },
    { host: "127.0.0.1", port: web.port, protocol: "rest", enforcement: "enforce", rules },
    { host: "127.0.0.1", port: peer.port },
  ];
  return own(
    BridgeProxy.start({
      ports: [secure.port],
      originCa: authority.caPem,
      names: heldNames,
      plugins: [{ name: "egress-policy", config: { network_policies: { api: { endpoints } } } }],
      file: {
        workers,
        session: { api_secret_file: secretFile },
        listener: {
          roles: ["forward", "reverse"],
          forward_proxy_addr: "127.0.0.1:0",
          reverse_proxy_addr: "127.0.0.1:0",
          reverse_proxy_backend: web.url,
          session_api_addr: "127.0.0.1:0",
          health_addr: "127.0.0.1:0",
        },
        ...over,
      },
    }),
  );
}

const order = (proxy: BridgeProxy, form: Record<string, string>): Promise<RawResponse> =>
  sendOrder(proxy, "/v1/kill", form, secret);

/** Connections of one kind, opened with these fields where its messages have some. */
interface Crowd {
  readonly proxy: BridgeProxy;
  readonly name: string;
  readonly count: number;
  readonly fields: Readonly<Record<string, string>>;
}

const many = ({ count }: Crowd, make: () => Promise<void>): Promise<void[]> =>
  Promise.all(Array.from({ length: count }, make));

/** A client that goes on talking, in frames where the protocol has some. */
function talks({ name }: Crowd, stream: Duplex, frame?: (words: string) => string): void {
  witness.watch({ name, isClient: true, hears: stream, lives: stream, says: sayer(stream, frame) });
}

/** A client that has said all that it has to say; what it says late is another request. */
function listens({ name }: Crowd, stream: Duplex, saysLate: (words: string) => void): void {
  witness.watch({ name, isClient: true, hears: stream, lives: stream, saysLate });
}

function headOf(line: string, at: string, fields: Crowd["fields"]): string {
  const all = Object.entries({ Host: at, ...fields });
  return `${line} HTTP/1.1\r\n${all.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`;
}

/** A response that lasts; what comes late is a request behind it. */
function events(crowd: Crowd, url: string, at: string, connect: () => Promise<RawClient>) {
  return many(crowd, async () => {
    const { socket, reader } = (await own(connect())).send(
      headOf(`GET ${url}/events`, at, crowd.fields),
    );
    expect(await reader.until("\r\n\r\n")).toContain(" 200 ");
    const late = sayer(socket, (words) => headOf(`GET ${url}/${words.trim()}`, at, crowd.fields));
    listens(crowd, socket, late);
  });
}

/** Resolves when the origins have the heads of all of them. */
async function uploading(crowd: Crowd, open: () => Promise<void>): Promise<void> {
  const before = uploads;
  await many(crowd, open);
  await eventually(() => uploads === before + crowd.count);
}

function upload(crowd: Crowd, url: string, at: string, connect: () => Promise<RawClient>) {
  return uploading(crowd, async () => {
    const fields = { ...crowd.fields, "Transfer-Encoding": "chunked" };
    const { socket } = (await own(connect())).send(headOf(`POST ${url}/upload`, at, fields));
    talks(crowd, socket, chunk);
  });
}

const kinds: Readonly<Record<string, (crowd: Crowd) => Promise<unknown>>> = {
  "a tunnel": (crowd) =>
    many(crowd, async () => {
      const client = await own(RawClient.connect(crowd.proxy.forward));
      client.send(headOf(`CONNECT ${peer.authority}`, peer.authority, crowd.fields));
      expect(await client.reader.until("\r\n\r\n")).toContain(" 200 ");
      talks(crowd, client.socket);
    }),
  "a tunnel of SOCKS5": (crowd) =>
    many(crowd, async () => {
      const { client, reply } = await openSocks(crowd.proxy.forward, "127.0.0.1", peer.port);
      expect(reply).toBe(0);
      await own(client);
      talks(crowd, client.socket);
    }),
  "a tunnel that is a stream": async (crowd) => {
    const session = await proxySession(crowd.proxy.forward);
    await own({ close: () => session.destroy() });
    await many(crowd, async () => {
      const { stream, status } = await connectStream(session, peer.authority, crowd.fields);
      expect(status).toBe(200);
      talks(crowd, stream);
    });
  },
  "events in the clear": (crowd) =>
    events(crowd, web.url, web.authority, () => RawClient.connect(crowd.proxy.forward)),
  "an upload in the clear": (crowd) =>
    upload(crowd, web.url, web.authority, () => RawClient.connect(crowd.proxy.forward)),
  "another protocol": (crowd) =>
    many(crowd, async () => {
      const fields = { ...crowd.fields, Connection: "Upgrade", Upgrade: "example" };
      const client = await own(RawClient.connect(crowd.proxy.forward));
      client.send(headOf(`GET ${web.url}/socket`, web.authority, fields));
      expect(await client.reader.until("\r\n\r\n")).toContain(" 101 ");
      talks(crowd, client.socket);
    }),
  "events inside of TLS": (crowd) =>
    events(crowd, "", secure.at(host), () => crowd.proxy.http1(secure.at(host))),
  "an upload inside of TLS": (crowd) =>
    upload(crowd, "", secure.at(host), () => crowd.proxy.http1(secure.at(host))),
  "events inside of HTTP/2": async (crowd) => {
    const session = await secureSession(crowd);
    await many(crowd, async () => {
      const stream = session.request({ ":path": "/events", ...crowd.fields });
      stream.on("error", () => undefined);
      await within("a response", new Promise((resolve) => stream.once("response", resolve)));
      listens(crowd, stream, (words) => ask(session, words));
    });
  },
  "an upload inside of HTTP/2": async (crowd) => {
    const session = await secureSession(crowd);
    await uploading(crowd, async () => {
      const asked = { ":method": "POST", ":path": "/upload", ...crowd.fields };
      const stream: ClientHttp2Stream = session.request(asked);
      stream.on("error", () => undefined);
      talks(crowd, stream);
      return Promise.resolve();
    });
  },
  "events of a backend": (crowd) =>
    events(crowd, "", "localhost", () => RawClient.connect(crowd.proxy.reverse)),
};

async function secureSession({ proxy }: Crowd): Promise<ClientHttp2Session> {
  const session = await proxy.http2(secure.at(host));
  await own({ close: () => session.destroy() });
  return session;
}

/** A request of which nobody waits for the response. */
function ask(session: ClientHttp2Session, words: string): void {
  if (session.destroyed || session.closed) return;
  const stream = session.request({ ":path": `/${words.trim()}` });
  stream.on("error", () => undefined);
  stream.resume();
}

/** Those that a person has to let through: tunnels and requests. */
async function heldBy(
  proxy: BridgeProxy,
  names: readonly string[],
  fields: Crowd["fields"],
): Promise<readonly RawClient[]> {
  return Promise.all(
    names.map(async (name, at) => {
      const there = `${name}:${peer.port}`;
      const page = `${name}:${web.port}`;
      const client = await own(RawClient.connect(proxy.forward));
      if (at % 2 === 0) client.send(headOf(`CONNECT ${there}`, there, fields));
      else client.send(headOf(`GET http://${page}/`, page, fields));
      return client;
    }),
  );
}

const timeout = 60_000;

test.each([1, 2])("everything that moves stops, with workers: %d", { timeout }, async (workers) => {
  witness = new Witness();
  const proxy = await start(workers, {});
  for (const [name, open] of Object.entries(kinds))
    await within(name, open({ proxy, name, count: each, fields: {} }));
  const held = await heldBy(proxy, heldNames, {});
  await new Approver(proxy, secret).waitFor(each);
  witness.begin();
  const { client, origin } = witness.heard;
  await eventually(() => {
    const now = witness.heard;
    return now.client > client + 2_000 && now.origin > origin + 2_000;
  });
  expect(witness.openClients).toHaveLength(Object.keys(kinds).length * each);
  witness.deafen();
  const reply = await order(proxy, { scope: "all" });
  witness.sayLate();
  for (const one of held) one.send(lateWords);
  expect(reply.status, reply.text).toBe(200);
  const { cut, tookMs } = JSON.parse(reply.text) as { cut: number; tookMs: number };
  expect(cut).toBeGreaterThanOrEqual((Object.keys(kinds).length + 1) * each);
  expect(tookMs).toBeGreaterThanOrEqual(0);
  await witness.over();
  for (const one of held) expect((await one.response()).status).toBe(403);
  const before = [peer.connections.length, web.connections.length, secure.accepted];
  // What a person lets through now comes too late.
  const operator = new Approver(proxy, secret);
  for (const { id } of await operator.pending()) await operator.allow(id);
  const refused = await Promise.all(
    ["CONNECT", "SOCKS5", "HTTP/2 CONNECT"].map((door) =>
      proxy.enter(door as "CONNECT", peer.authority),
    ),
  );
  expect(refused.map(({ status }) => status)).toEqual([403, 403, 403]);
  expect([peer.connections.length, web.connections.length, secure.accepted]).toEqual(before);
  expect([...witness.late]).toEqual([]);
  expect([...web.requests, ...secure.seen].filter(isLate)).toEqual([]);
});

const isLate = (seen: { readonly target?: string; readonly url?: string }): boolean =>
  (seen.target ?? seen.url ?? "").includes(lateWords);

test.each([1, 2])(
  "what belongs to one session stops, and nothing of another, with workers: %d",
  { timeout },
  async (workers) => {
    witness = new Witness();
    const sessionFile = { session: { api_secret_file: secretFile, header: "x-session" } };
    const proxy = await start(workers, sessionFile);
    for (const [name, open] of Object.entries(kinds)) {
      // SOCKS5 has no fields.
      for (const session of name.endsWith("SOCKS5") ? [] : ["one", "two"]) {
        const crowd = { proxy, name: `${name}, ${session}`, count: 2 };
        await within(crowd.name, open({ ...crowd, fields: { "x-session": session } }));
      }
    }
    const open = witness.openClients.map(({ name }) => name);
    const isOfOne = (name: string): boolean => name.endsWith(", one");
    const held = await heldBy(proxy, heldNames.slice(0, 2), { "x-session": "one" });
    await heldBy(proxy, heldNames.slice(2, 4), { "x-session": "two" });
    const operator = new Approver(proxy, secret);
    await operator.waitFor(4);
    witness.begin();
    const reply = await order(proxy, { session: "one" });
    const cut = open.filter(isOfOne).length + held.length;
    expect(JSON.parse(reply.text)).toMatchObject({ cut });
    for (const client of held) expect((await client.response()).status).toBe(403);
    const stillOpen = (): readonly string[] => witness.openClients.map(({ name }) => name);
    await eventually(() => expect(stillOpen().filter(isOfOne)).toEqual([]));
    const { client, origin } = witness.heard;
    await eventually(() => {
      const now = witness.heard;
      return now.client > client + 2_000 && now.origin > origin + 2_000;
    });
    witness.stop();
    expect(stillOpen()).toEqual(open.filter((name) => !isOfOne(name)));
  },
);

test("a tunnel whose client has said nothing yet is cut as well, and dials nothing", async () => {
  const proxy = await start(1, {});
  const there = web.authority;
  const client = await own(RawClient.connect(proxy.forward));
  client.send(`CONNECT ${there} HTTP/1.1\r\nHost: ${there}\r\n\r\n`);
  expect(await client.reader.until("\r\n\r\n")).toContain(" 200 ");
  const before = web.connections.length;
  const reply = await order(proxy, { scope: "all" });
  expect(JSON.parse(reply.text)).toMatchObject({ cut: 1 });
  await within("the end of the tunnel", client.closed);
  expect(web.connections.length).toBe(before);
});
