/** dlp on what an origin says over a WebSocket: in absolute form, in the bridge over HTTP/1.1 and over HTTP/2. */
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { eventually, within } from "../support/eventually.ts";
import { owner } from "../support/owner.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import * as doors from "../support/web-socket-doors.ts";

const own = owner();
const secret = "Zk7-Qw_93rTbXv5LmN8pYd2Hs6Fg";
const hosts = {
  refuse: "api.allowed.test",
  redact: "www.allowed.test",
  stars: "stars.allowed.test",
  observe: "other.allowed.test",
  pass: "pinned.test",
  inject: "inject.allowed.test",
};
const maxBytes = 65_536;

interface Said {
  readonly data: string | Buffer;
  readonly fin?: boolean;
}

/** What the origin says once the client has said the name. */
const scripts: Readonly<Record<string, readonly Said[]>> = {
  text: [{ data: `{"key":"${secret}","n":1.50}` }],
  plain: [{ data: `the key is ${secret}.` }],
  binary: [{ data: Buffer.from(`\u0001\u0002${secret}\u0000`, "latin1") }],
  "binary JSON": [{ data: Buffer.from(`{"key":"${secret}"}`) }],
  base64: [{ data: JSON.stringify({ a: Buffer.from(`x ${secret} y`).toString("base64") }) }],
  hex: [{ data: `see ${Buffer.from(secret).toString("hex")}` }],
  "base64 of gzip": [{ data: gzipSync(`x ${secret} y`).toString("base64") }],
  gzip: [{ data: gzipSync(`x ${secret} y`) }],
  "JSON in JSON": [{ data: JSON.stringify({ a: JSON.stringify({ b: `"${secret}"` }) }) }],
  fragments: [
    { data: `{"key":"${secret.slice(0, 9)}`, fin: false },
    { data: secret.slice(9, 14), fin: false },
    { data: `${secret.slice(14)}"}` },
  ],
  "two messages": [{ data: secret.slice(0, 9) }, { data: secret.slice(9) }],
  deltas: [
    { data: JSON.stringify({ type: "delta", delta: secret.slice(0, 9) }) },
    { data: JSON.stringify({ type: "delta", delta: secret.slice(9) }) },
  ],
  long: [{ data: "x".repeat(maxBytes + 1) }],
};
const spread = ["two messages", "deltas"];
const hidden = ["base64", "hex", "base64 of gzip", "gzip", "JSON in JSON"];

let origin: TlsOrigin;
let plain: ReturnType<typeof createServer>;
let proxy: BridgeProxy;
const heard: string[] = [];
const closes: number[] = [];
const servers = new WebSocketServer({ noServer: true, perMessageDeflate: true });
const accepted: WebSocket[] = [];

function accept(request: IncomingMessage, socket: Duplex, head: Buffer): void {
  servers.handleUpgrade(request, socket, head, (one) => {
    accepted.push(one);
    one.on("error", () => undefined);
    one.on("close", (code) => closes.push(code));
    one.on("ping", (data) => heard.push(`ping ${data.toString()}`));
    one.on("message", (data: Buffer, isBinary) => {
      heard.push(data.toString("latin1"));
      const echo = data.toString() === "who" ? request.headers.authorization : undefined;
      const said = echo ?? (isBinary ? data : data.toString());
      const script = scripts[data.toString()] ?? [{ data: said }];
      for (const { data: bytes, fin = true } of script) {
        one.send(bytes, { fin, binary: typeof bytes !== "string" });
        // Between fragments, too.
        one.ping("beat");
      }
    });
  });
}

beforeAll(async () => {
  const authority = await TestAuthority.create();
  origin = await own(TlsOrigin.start(await authority.server(Object.values(hosts))));
  origin.server.on("upgrade", accept);
  plain = createServer((_request, response) => response.end("plain"));
  plain.on("upgrade", accept);
  plain.listen(0, "127.0.0.1");
  await once(plain, "listening");
  const rule = { detectors: ["standard"], response_detectors: ["own_secrets"] };
  proxy = await own(
    BridgeProxy.start({
      ports: [origin.port],
      originCa: authority.caPem,
      otherwise: "allow",
      names: [hosts.stars, hosts.inject],
      limits: { max_body: "64KiB" },
      plugins: [
        {
          name: "dlp",
          config: {
            rules: [
              { hosts: [hosts.redact], ...rule, action: "redact" },
              { hosts: [hosts.stars], ...rule, action: "redact", mask: "same_length" },
              { hosts: [hosts.observe], ...rule, action: "observe" },
              { hosts: [hosts.pass], ...rule, action: "pass" },
            ],
          },
        },
        {
          name: "static-inject",
          config: {
            source: "mappings",
            mappings: { [hosts.inject]: secret },
            hosts: [hosts.inject],
            placeholder: "STAND-IN",
            places: [{ header: "authorization" }],
          },
        },
      ],
    }),
  );
});
afterAll(() => {
  for (const one of accepted) one.terminate();
  plain?.closeAllConnections();
  plain?.close();
});

const ways: Readonly<Record<string, (host: string) => doors.Way>> = {
  "absolute form": (host) =>
    doors.absoluteForm(proxy.forward.port, `${host}:${(plain.address() as AddressInfo).port}`),
  "bridged HTTP/1.1": (host) => doors.within(origin.at(host), () => proxy.tls(origin.at(host))),
  "bridged HTTP/2": (host) => doors.overHttp2(proxy, origin.at(host)),
};

interface Client {
  readonly socket: WebSocket;
  readonly messages: string[];
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>;
}

async function open(way: string, host: string, headers = {}): Promise<Client> {
  const port = await own(doors.door((head) => (ways[way] ?? fail)(host)(head)));
  const socket = new WebSocket(`ws://127.0.0.1:${port.number}/chat`, { headers });
  const messages: string[] = [];
  socket.on("message", (data: Buffer) => messages.push(data.toString("latin1")));
  socket.on("error", () => undefined);
  const closed = once(socket, "close").then(([code, reason]) => ({
    code: Number(code),
    reason: String(reason),
  }));
  await within("open", once(socket, "open"));
  return { socket, messages, closed };
}

const fail = (): never => {
  throw new Error("no such way");
};

/** What the client has once the origin has said it, and the answer to a last word. */
async function hear(client: Client, name: string): Promise<readonly string[]> {
  client.socket.send(name);
  client.socket.send("last");
  await eventually(() => client.messages.at(-1) === "last");
  return client.messages.slice(0, -1);
}

describe.each(Object.keys(ways))("%s", (way) => {
  test.each(Object.keys(scripts).filter((name) => name !== "long"))(
    "refuse: %s closes both sides, and the client never has the secret",
    async (name) => {
      const client = await open(way, hosts.refuse);
      const logged = proxy.logs.length;
      closes.length = 0;
      client.socket.send(name);
      const { code, reason } = await within("the end", client.closed);
      expect([code, reason]).toEqual([1008, expect.stringContaining(`from ${hosts.refuse} holds`)]);
      expect(client.messages).toEqual(spread.includes(name) ? [scripts[name]?.[0]?.data] : []);
      await eventually(() => closes.includes(1008));
      const line = await eventually(
        () => proxy.logs.slice(logged).find((one) => one["outcome"] === "denied") ?? false,
      );
      expect(line).toMatchObject({ code: "dlp.refused", status: 101 });
    },
  );

  test("what holds nothing passes in its order and kind, of any length up to the limit", async () => {
    const client = await open(way, hosts.refuse);
    expect(client.socket.extensions).toBe("");
    for (const size of [0, 125, 126, 65_535, maxBytes]) {
      const echoed = once(client.socket, "message");
      client.socket.send("m".repeat(size), { binary: size % 2 === 0 });
      const [data, isBinary] = (await within("an echo", echoed)) as [Buffer, boolean];
      expect([data.length, isBinary]).toEqual([size, size % 2 === 0]);
    }
    const ponged = once(client.socket, "pong");
    client.socket.ping("there");
    await within("a pong", ponged);
    client.socket.close(4_001, "bye");
    expect(await within("the end", client.closed)).toEqual({ code: 4_001, reason: "bye" });
  });

  test("the origin's own close arrives", async () => {
    const client = await open(way, hosts.refuse);
    accepted.at(-1)?.close(4_002, "enough");
    expect(await within("the end", client.closed)).toEqual({ code: 4_002, reason: "enough" });
  });

  test("a message that is longer than is read ends the connection", async () => {
    const client = await open(way, hosts.refuse);
    client.socket.send("long");
    const { code, reason } = await within("the end", client.closed);
    expect([code, reason]).toEqual([1009, expect.stringContaining("limits.max_body")]);
    expect(client.messages).toEqual([]);
  });

  test("redact: texts and JSON are what they were without it", async () => {
    const client = await open(way, hosts.redact);
    expect(await hear(client, "text")).toEqual(['{"key":"[redacted:own_secrets]","n":1.50}']);
    client.messages.length = 0;
    expect(await hear(client, "plain")).toEqual(["the key is [redacted:own_secrets]."]);
    client.messages.length = 0;
    expect(await hear(client, "fragments")).toEqual(['{"key":"[redacted:own_secrets]"}']);
    client.messages.length = 0;
    expect(await hear(client, "binary JSON")).toEqual(['{"key":"[redacted:own_secrets]"}']);
  });

  test.each(["binary", ...spread])("redact: %s is refused", async (name) => {
    const client = await open(way, hosts.redact);
    client.socket.send(name);
    expect((await within("the end", client.closed)).code).toBe(1008);
    expect(client.messages.join("")).not.toContain(secret.slice(9));
  });

  test("redact by stars of the same length leaves binary messages their length", async () => {
    const client = await open(way, hosts.stars);
    expect(await hear(client, "binary")).toEqual([
      `\u0001\u0002${"*".repeat(secret.length)}\u0000`,
    ]);
  });

  test("a credential that was attached, and that the origin repeats, has the stand-in in its place", async () => {
    const client = await open(way, hosts.inject, { Authorization: "Bearer STAND-IN" });
    const [said] = await hear(client, "who");
    expect(said).toBe(`Bearer ${"STAND-IN".padEnd(secret.length, "*")}`);
  });

  test("redact: what the client says, too", async () => {
    const client = await open(way, hosts.redact);
    const from = heard.length;
    client.socket.send(JSON.stringify({ a: [secret] }));
    await eventually(() => client.messages.length === 1);
    expect(heard.slice(from)).toEqual(['{"a":["[redacted:own_secrets]"]}']);
  });

  test.each(["observe", "pass"] as const)("%s: it passes", async (action) => {
    const client = await open(way, hosts[action]);
    for (const name of ["text", ...hidden, ...spread]) {
      const said = (scripts[name] ?? []).map(({ data }) => Buffer.from(data).toString("latin1"));
      expect(await hear(client, name)).toEqual(said);
      client.messages.length = 0;
    }
  });
});

test("a hundred connections at once: each has what is its own, and none the secret", async () => {
  const clients = await Promise.all(
    Array.from({ length: 100 }, () => open("absolute form", hosts.refuse)),
  );
  await Promise.all(clients.map((client, at) => hear(client, `hello ${at}`)));
  expect(clients.map(({ messages }) => messages[0])).toEqual(
    clients.map((_client, at) => `hello ${at}`),
  );
  for (const { socket } of clients) socket.send("fragments");
  const ends = await Promise.all(clients.map(({ closed }) => closed));
  expect(new Set(ends.map(({ code }) => code))).toEqual(new Set([1008]));
  expect(clients.flatMap(({ messages }) => messages).join("")).not.toContain(secret.slice(0, 9));
});

test("it is counted, and recorded without what was found", async () => {
  const events =
    /authbridge_plugin_events_total\{.*event="(?:refuse|redact|observe)_own_secrets".*\}/;
  expect(await proxy.metric(events)).toBeGreaterThan(0);
  const { text } = await proxy.sessions("/v1/sessions/default");
  expect(text).toContain("own_secrets in a message of the WebSocket");
  expect(text + proxy.stderr).not.toContain(secret);
});
