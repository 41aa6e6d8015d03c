/** The kill switch with traffic of every kind: from its reply on no byte passes, in no direction, and nothing new begins. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import type { ClientHttp2Session } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Approver } from "../support/approvals.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { connectStream, proxySession } from "../support/connect-stream.ts";
import { eventually, within } from "../support/eventually.ts";
import { type Address, RawClient, request } from "../support/http-client.ts";
import { HttpOrigin, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { openSocks } from "../support/socks-client.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
const each = 25;
const host = "api.allowed.test";
/** Requests for the same thing are one question. */
const heldNames = Array.from({ length: each }, (_, at) => `held-${at}.test`);
const secret = "operator-secret";
const scratch = mkdtempSync(join(tmpdir(), "authbridge-kill-load-"));
const secretFile = join(scratch, "secret");
writeFileSync(secretFile, secret);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** One side's view of what moves. */
class Witness {
  /** Bytes seen, by either side. */
  bytes = 0;
  /** Sides that write as fast as a turn allows. */
  readonly #writers = new Set<() => void>();

  writes(write: () => void): void {
    this.#writers.add(write);
    if (this.#writers.size === 1) setImmediate(() => this.#go());
  }

  stop(): void {
    this.#writers.clear();
  }

  /** A stream that is written to and read from until it is closed. */
  watch(stream: Duplex, words: string): void {
    this.hears(stream);
    this.writes(() => {
      if (!stream.destroyed && stream.writable && stream.writableLength === 0) stream.write(words);
    });
  }

  hears(stream: Duplex): void {
    flowing(stream, (chunk) => (this.bytes += chunk.length));
  }

  #go(): void {
    for (const write of this.#writers) write();
    if (this.#writers.size > 0) setImmediate(() => this.#go());
  }
}

/** Instead of whoever read its beginning. */
function flowing(stream: Duplex, onData: (chunk: Buffer) => void): void {
  stream.removeAllListeners("readable");
  stream.on("error", () => undefined);
  stream.on("data", onData);
  stream.resume();
}

let witness = new Witness();
let authority: TestAuthority;
let echo: TcpOrigin;
let web: HttpOrigin;
let secure: TlsOrigin;
/** What the origins have got. */
let arrived = 0;

/** A stream of events that lasts, as fast as its reader. */
function endless(
  response: Pick<ServerResponse, "write" | "writableNeedDrain" | "destroyed">,
): void {
  witness.writes(() => {
    if (!response.destroyed && !response.writableNeedDrain) response.write("data: words\n\n");
  });
}

beforeAll(async () => {
  authority = await TestAuthority.create();
  echo = await own(
    TcpOrigin.start(({ socket }) => {
      flowing(socket, (chunk) => {
        arrived += chunk.length;
        if (!socket.destroyed) socket.write(chunk);
      });
    }),
  );
  web = await own(
    HttpOrigin.launch(({ connection, target }) => {
      if (target === "/held") return undefined;
      if (target === "/socket") {
        void connection.send(
          "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: example\r\n\r\n",
        );
      } else
        void connection.send(
          "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n",
        );
      endless(connection.socket);
      return undefined;
    }),
  );
  secure = await own(TlsOrigin.start(await authority.server([host]), "both"));
  const stream = (_: unknown, response: ServerResponse): void => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    endless(response);
  };
  secure.on("/events", stream);
});

function start(workers: number, over: Settings): Promise<BridgeProxy> {
  const rules = [{ allow: { method: "GET", path: "/**" } }];
  const endpoints = [
    ...heldNames.flatMap((name) => [
      { host: name, port: echo.port, enforcement: "ask" },
      { host: name, port: web.port, enforcement: "ask" },
    ]),
    { host, port: secure.port, protocol: "rest", enforcement: "enforce", rules },
    { host: "127.0.0.1", port: web.port, protocol: "rest", enforcement: "enforce", rules },
    { host: "127.0.0.1", port: echo.port },
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

const order = (proxy: BridgeProxy, path: string): ReturnType<typeof request> =>
  request(proxy.address("sessions"), {
    method: "POST",
    target: path,
    headers: {
      Host: "localhost",
      Authorization: `Bearer ${secret}`,
      "Content-Type": "application/x-www-form-urlencoded",
    },
    body: "scope=all",
  });

const many = <T>(make: (at: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: each }, (_, at) => make(at)));

async function raw(address: Address, head: string, status: number): Promise<Duplex> {
  const client = await own(RawClient.connect(address));
  client.send(head);
  const first = await client.reader.until("\r\n\r\n");
  expect(first).toContain(` ${status} `);
  return client.socket;
}

const kinds: Readonly<Record<string, (proxy: BridgeProxy) => Promise<Duplex[]>>> = {
  "a tunnel": (proxy) =>
    many(async () => {
      const { socket } = await proxy.enter("CONNECT", `127.0.0.1:${echo.port}`);
      return socket;
    }),
  "a tunnel of SOCKS5": (proxy) =>
    many(async () => {
      const { client, reply } = await openSocks(proxy.forward, "127.0.0.1", echo.port);
      expect(reply).toBe(0);
      await own(client);
      return client.socket;
    }),
  "a tunnel that is a stream": async (proxy) => {
    const session = await proxySession(proxy.forward);
    await own({ close: () => session.destroy() });
    return many(async () => {
      const { stream, status } = await connectStream(session, `127.0.0.1:${echo.port}`);
      expect(status).toBe(200);
      return stream;
    });
  },
  "events in the clear": (proxy) =>
    many(() =>
      raw(proxy.forward, `GET ${web.url}/events HTTP/1.1\r\nHost: ${web.authority}\r\n\r\n`, 200),
    ),
  "another protocol": (proxy) =>
    many(() =>
      raw(
        proxy.forward,
        `GET ${web.url}/socket HTTP/1.1\r\nHost: ${web.authority}\r\nConnection: Upgrade\r\nUpgrade: example\r\n\r\n`,
        101,
      ),
    ),
  "events inside of TLS": (proxy) =>
    many(async () => {
      const at = secure.at(host);
      const client = await own(proxy.http1(at));
      client.send(`GET /events HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
      await client.reader.until("\r\n\r\n");
      return client.socket;
    }),
  "events inside of HTTP/2": async (proxy) => {
    const session = await secureSession(proxy);
    return many(async () => {
      const stream = session.request({ ":path": "/events" });
      stream.on("error", () => undefined);
      await within("a response", new Promise((resolve) => stream.once("response", resolve)));
      return stream;
    });
  },
  "events of a backend": (proxy) =>
    many(() => raw(proxy.reverse, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n", 200)),
};

async function secureSession(proxy: BridgeProxy): Promise<ClientHttp2Session> {
  const session = await proxy.http2(secure.at(host));
  await own({ close: () => session.destroy() });
  return session;
}

/** Those that a person has to let through. */
async function heldBy(proxy: BridgeProxy): Promise<readonly RawClient[]> {
  return Promise.all(
    heldNames.map(async (name, at) => {
      const there = `${name}:${echo.port}`;
      const page = `${name}:${web.port}`;
      const client = await own(RawClient.connect(proxy.forward));
      if (at % 2 === 0) client.send(`CONNECT ${there} HTTP/1.1\r\nHost: ${there}\r\n\r\n`);
      else client.send(`GET http://${page}/ HTTP/1.1\r\nHost: ${page}\r\n\r\n`);
      return client;
    }),
  );
}

const closeOf = (stream: Duplex): Promise<void> =>
  stream.closed || stream.destroyed
    ? Promise.resolve()
    : new Promise((resolve) => stream.once("close", () => resolve()));

test.each([1, 2])("everything that moves stops, with workers: %d", async (workers) => {
  witness = new Witness();
  const proxy = await start(workers, {});
  const streams: Duplex[] = [];
  for (const [kind, open] of Object.entries(kinds)) {
    const opened = await within(kind, open(proxy));
    for (const stream of opened) {
      // A request's client has said all that it has to say.
      if (kind.startsWith("events")) witness.hears(stream);
      else witness.watch(stream, `${randomBytes(8).toString("hex")}\n`);
    }
    streams.push(...opened);
  }
  const held = await heldBy(proxy);
  await new Approver(proxy, secret).waitFor(each);
  const [heard, got] = [witness.bytes, arrived];
  await eventually(() => {
    return witness.bytes > heard + 10_000 && arrived > got + 1_000;
  });
  const reply = await order(proxy, "/v1/kill");
  expect(reply.status, reply.text).toBe(200);
  const { cut, tookMs } = JSON.parse(reply.text) as { cut: number; tookMs: number };
  expect(cut).toBeGreaterThanOrEqual(streams.length + each);
  expect(tookMs).toBeGreaterThanOrEqual(0);
  await within("the end of every stream", Promise.all(streams.map(closeOf)));
  // All that the kernel had has come by now.
  await within(
    "the end at the origins",
    eventually(() => echo.openCount === 0),
  );
  const [last, lastUp] = [witness.bytes, arrived];
  for (const client of held) expect((await client.response()).status).toBe(403);
  const before = [echo.connections.length, web.connections.length, secure.accepted];
  // What a person lets through now comes too late.
  const operator = new Approver(proxy, secret);
  for (const { id } of await operator.pending()) await operator.allow(id);
  const refused = await Promise.all(
    ["CONNECT", "SOCKS5", "HTTP/2 CONNECT"].map((door) =>
      proxy.enter(door as "CONNECT", `127.0.0.1:${echo.port}`),
    ),
  );
  expect(refused.map(({ status }) => status)).toEqual([403, 403, 403]);
  expect([witness.bytes, arrived]).toEqual([last, lastUp]);
  expect([echo.connections.length, web.connections.length, secure.accepted]).toEqual(before);
  witness.stop();
});

test("a tunnel whose client has said nothing yet is cut as well, and dials nothing", async () => {
  const proxy = await start(1, {});
  const there = web.authority;
  const client = await own(RawClient.connect(proxy.forward));
  client.send(`CONNECT ${there} HTTP/1.1\r\nHost: ${there}\r\n\r\n`);
  expect(await client.reader.until("\r\n\r\n")).toContain(" 200 ");
  const before = web.connections.length;
  const reply = await order(proxy, "/v1/kill");
  expect(JSON.parse(reply.text)).toMatchObject({ cut: 1 });
  await within("the end of the tunnel", client.closed);
  expect(web.connections.length).toBe(before);
});
