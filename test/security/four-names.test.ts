/**
 * Four names, one destination: CONNECT authority, server name, Host or `:authority`, absolute-form target.
 *
 * One table, every surface. Whatever differs is refused, and the origin (whose certificate covers all the names) never
 * hears of it.
 */
import { randomBytes } from "node:crypto";
import type { ClientHttp2Session } from "node:http2";
import type { Duplex } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocketServer } from "ws";
import { HttpOrigin } from "../support/origin.ts";
import { BridgeProxy, type Door, handshake } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { alpn, clientHello, records, serverName } from "../support/client-hello.ts";
import { innerNames } from "../support/inner-names.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import { RawClient } from "../support/http-client.ts";

const allowed = innerNames.allowed;
const other = innerNames.other;

const doors: readonly Door[] = ["CONNECT", "SOCKS5", "HTTP/2 CONNECT"];

/** A server name that a client may send after CONNECT to a host. */
const serverNames: readonly [what: string, sni: string, isAccepted: boolean | "either"][] = [
  ["the same name", "HOST", true],
  ["another denied name (FRONT-01)", "evil.test", false],
  ["another permitted name", other, false],
  ["a name below it", "x.HOST", false],
  ["a name that ends like it", "xHOST", false],
  ["an address (FRONT-12)", "127.0.0.1", false],
  ["an underscore (FRONT-12)", "api_allowed.test", false],
  ["a trailing dot (FRONT-12)", "HOST.", "either"],
  ["two trailing dots", "HOST..", false],
  ["300 bytes (FRONT-12)", "a".repeat(300), false],
  ["NUL after it", "HOST\0.evil.test", false],
  ["NUL before it", "evil.test\0HOST", false],
];

let origin: TlsOrigin;
let proxy: BridgeProxy;
/** In the clear, on a port that is not bridged. */
let plain: HttpOrigin;
let at: string;
const upgrades: string[] = [];

beforeAll(async () => {
  const authority = await TestAuthority.create();
  const covered = [allowed, other, `x.${allowed}`, `x${allowed}`, "evil.test", "pinned.test"];
  origin = await TlsOrigin.start(await authority.server([...covered, "127.0.0.1"]), "both");
  const sockets = new WebSocketServer({ noServer: true });
  origin.server.on("upgrade", (request, socket: Duplex, head: Buffer) => {
    upgrades.push(request.headers.host ?? "");
    sockets.handleUpgrade(request, socket, head, (accepted) => {
      accepted.on("error", () => undefined);
      accepted.send("hello");
    });
  });
  at = origin.at(allowed);
  plain = await HttpOrigin.launch();
  proxy = await BridgeProxy.start({
    ports: [origin.port],
    originCa: authority.caPem,
    names: [`x.${allowed}`, `x${allowed}`],
    bridge: { passthrough_hosts: ["pinned.test"] },
    plugins: [{ name: "only-hosts", config: { hosts: [allowed, other, "pinned.test"] } }],
    limits: { connect_timeout: "2s" },
  });
});
afterAll(async () => {
  await proxy.close();
  await origin.close();
  await plain.close();
});

const named = (name: string): string => name.replaceAll("PORT", String(origin.port));

/** Sends HTTP/1.1 text in a bridged connection and reads the first answer, or "closed". */
async function http1(
  text: string,
  { before, door = "CONNECT" }: { readonly before?: string; readonly door?: Door } = {},
): Promise<number | "closed"> {
  const { socket } = await proxy.enter(door, at);
  const trust = { ca: proxy.ca, ALPNProtocols: ["http/1.1"] };
  const wire = new RawClient(await handshake(socket, at, trust));
  try {
    if (before !== undefined) expect((await wire.exchange(before)).status).toBe(200);
    return (await wire.exchange(text)).status;
  } catch {
    return "closed";
  } finally {
    wire.close();
  }
}

/** Opens one stream and reads its status, or "closed". */
async function http2(
  fields: Record<string, string>,
  session?: ClientHttp2Session,
): Promise<number | "closed"> {
  const client = session ?? (await proxy.http2(at));
  try {
    return await new Promise((resolve) => {
      const isPlainConnect = fields[":method"] === "CONNECT" && fields[":protocol"] === undefined;
      const stream = client.request(isPlainConnect ? fields : { ":path": "/", ...fields });
      stream.on("response", (headers) => resolve(Number(headers[":status"])));
      stream.on("error", () => resolve("closed"));
      stream.on("close", () => resolve("closed"));
      stream.resume();
      if (fields[":protocol"] === undefined) stream.end();
    });
  } finally {
    if (session === undefined) client.destroy();
  }
}

/** Settings of the proxy, without which no extended CONNECT may be sent. */
async function settled(): Promise<ClientHttp2Session> {
  const session = await proxy.http2(at);
  await new Promise((resolve) => {
    session.once("remoteSettings", resolve);
  });
  return session;
}

const upgrade = (host: string): string =>
  `GET /ws HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
  `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\n\r\n`;

/** How a name reaches the proxy on each surface. */
const surfaces: readonly [surface: string, send: (name: string) => Promise<number | "closed">][] = [
  ["h1 Host (FRONT-02)", (name) => http1(`GET / HTTP/1.1\r\nHost: ${name}\r\n\r\n`)],
  [
    "h1 Host of a later request (FRONT-07)",
    (name) =>
      http1(`GET / HTTP/1.1\r\nHost: ${name}\r\n\r\n`, {
        before: `GET / HTTP/1.1\r\nHost: ${at}\r\n\r\n`,
      }),
  ],
  ...(["SOCKS5", "HTTP/2 CONNECT"] as const).flatMap(
    (door): [string, (name: string) => Promise<number | "closed">][] => [
      [`h1 Host in ${door}`, (name) => http1(`GET / HTTP/1.1\r\nHost: ${name}\r\n\r\n`, { door })],
      [`WebSocket over h1 in ${door}`, (name) => http1(upgrade(name), { door })],
    ],
  ),
  [
    "h1 absolute-form target with the same Host (FRONT-05)",
    (name) => http1(`GET https://${name}/ HTTP/1.1\r\nHost: ${name}\r\n\r\n`),
  ],
  [
    "h1 absolute-form target with the tunnel's Host (FRONT-05)",
    (name) => http1(`GET https://${name}/ HTTP/1.1\r\nHost: ${at}\r\n\r\n`),
  ],
  [
    "h1 Host beside the tunnel's absolute-form target (FRONT-03)",
    (name) => http1(`GET https://${at}/ HTTP/1.1\r\nHost: ${name}\r\n\r\n`),
  ],
  ["h2 :authority (FRONT-02)", (name) => http2({ ":authority": name })],
  ["h2 host alone (FRONT-09)", (name) => http2({ host: name })],
  ["h2 host beside :authority (FRONT-08)", (name) => http2({ ":authority": at, host: name })],
  [
    "h2 coalesced stream (FRONT-10)",
    async (name) => {
      const session = await proxy.http2(at);
      try {
        expect(await http2({ ":authority": at }, session)).toBe(200);
        return await http2({ ":authority": name }, session);
      } finally {
        session.destroy();
      }
    },
  ],
  ["WebSocket over h1", (name) => http1(upgrade(name))],
  [
    "WebSocket over h2",
    async (name) => {
      const session = await settled();
      try {
        return await http2(
          {
            ":method": "CONNECT",
            ":protocol": "websocket",
            ":scheme": "https",
            ":authority": name,
            "sec-websocket-version": "13",
          },
          session,
        );
      } finally {
        session.destroy();
      }
    },
  ],
];

describe.each(surfaces)("inside a tunnel, %s", (surface, send) => {
  test.each(innerNames.table)("%s: %s: %s", async (_what, template, expected) => {
    const name = named(template);
    const [seen, upgraded] = [origin.seen.length, upgrades.length];
    const status = await send(name);
    const arrived = origin.seen.slice(seen).map(({ host }) => host);
    expect(new Set([...arrived, ...upgrades.slice(upgraded), at])).toEqual(new Set([at]));
    const precursors = /later|coalesced/.test(surface) ? 1 : 0;
    const reached = arrived.length + upgrades.length - upgraded - precursors;
    if (expected === "ok") {
      expect([200, 101]).toContain(status);
      expect(reached).toBe(1);
      return;
    }
    if (expected === "ok or refused" && reached === 1) return;
    // nghttp2 drops a Host field that is no authority before anybody sees it: nothing is left that could differ.
    if (surface.startsWith("h2 host beside") && /[@,/]/.test(name) && status === 200) return;
    // In a target this is simply a path.
    if (surface.startsWith("h1 absolute-form") && name.endsWith("/x") && status === 200) return;
    expect(reached).toBe(0);
    if (expected === "421" && !surface.includes("beside")) expect(status).toBe(421);
    else expect([400, 421, "closed"]).toContain(status);
  });
});

describe.each([
  ["Host", (name: string) => `GET / HTTP/1.1\r\nHost: ${name}\r\n\r\n`, false],
  ["Host of a later request", (name: string) => `GET / HTTP/1.1\r\nHost: ${name}\r\n\r\n`, true],
  [
    "absolute-form target with the same Host",
    (name: string) => `GET http://${name}/ HTTP/1.1\r\nHost: ${name}\r\n\r\n`,
    false,
  ],
  ["WebSocket", upgrade, false],
])("inside a tunnel in the clear, %s", (surface, text, isLater) => {
  const rows = doors.flatMap((door) =>
    innerNames.table.map(([what, template, expected]) => [door, what, template, expected] as const),
  );
  test.each(rows)("of %s: %s: %s: %s", async (door, _what, template, expected) => {
    const clear = `${allowed}:${plain.port}`;
    const name = template.replaceAll("PORT", String(plain.port));
    const seen = plain.requests.length;
    const entered = await proxy.enter(door, clear);
    expect(entered.status).toBe(200);
    const wire = new RawClient(entered.socket);
    let precursors = 0;
    let status: number | "closed" = "closed";
    try {
      if (isLater) {
        const first = await wire.exchange(`GET / HTTP/1.1\r\nHost: ${clear}\r\n\r\n`);
        expect(first.status).toBe(200);
        precursors = 1;
      }
      status = (await wire.exchange(text(name))).status;
    } catch {
      // Closed.
    } finally {
      wire.close();
    }
    const arrived = plain.requests.slice(seen);
    expect(new Set([...arrived.map((one) => one.header("host")), clear])).toEqual(new Set([clear]));
    const reached = arrived.length - precursors;
    if (expected === "ok") {
      expect(status).toBe(200);
      expect(reached).toBe(1);
      return;
    }
    if (expected === "ok or refused" && reached === 1) return;
    if (surface.startsWith("absolute-form") && name.endsWith("/x") && status === 200) return;
    expect(reached).toBe(0);
    if (expected === "421") expect(status).toBe(421);
    else expect([400, 421, "closed"]).toContain(status);
  });
});

describe("inside a tunnel, a refusal", () => {
  test("says in JSON why", async () => {
    const wire = await proxy.http1(at);
    const answer = await wire.exchange(`GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n`);
    expect(answer.header("content-type")).toBe("application/json");
    expect(JSON.parse(answer.text)).toMatchObject({ error: "request.misdirected" });
    expect(answer.text).toContain(at);
    wire.close();
  });

  test.each([
    ["two Host fields (FRONT-04)", (host: string) => `Host: ${host}\r\nHost: evil.test\r\n`],
    ["two equal Host fields", (host: string) => `Host: ${host}\r\nHost: ${host}\r\n`],
    ["a Host field with a space before the colon", (host: string) => `Host : ${host}\r\n`],
    ["a folded Host field", (host: string) => `Host: ${host}\r\n evil.test\r\n`],
    ["no Host field", () => ""],
  ])("is the answer to %s", async (_what, fields) => {
    const seen = origin.seen.length;
    expect([400, "closed"]).toContain(await http1(`GET / HTTP/1.1\r\n${fields(at)}\r\n`));
    expect(origin.seen.length).toBe(seen);
  });

  test.each(["http", "ftp", "wss"])("is the answer to the scheme %s", async (scheme) => {
    const seen = origin.seen.length;
    const status = await http1(`GET ${scheme}://${at}/ HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    expect([400, 421]).toContain(status);
    const overHttp2 = await http2({ ":authority": at, ":scheme": scheme });
    expect([400, 421, "closed"]).toContain(overHttp2);
    expect(origin.seen.length).toBe(seen);
  });

  test.each([
    ["the same destination", () => at],
    ["another", () => origin.at("evil.test")],
  ])("is the answer to a CONNECT to %s (FRONT-06)", async (_what, target) => {
    const connections = origin.accepted;
    const wire = await proxy.http1(at);
    const answer = await wire.exchange(`CONNECT ${target()} HTTP/1.1\r\nHost: ${target()}\r\n\r\n`);
    expect([400, 405, 421]).toContain(answer.status);
    await wire.reader.toEnd();
    expect([400, 405, 421, "closed"]).toContain(
      await http2({ ":method": "CONNECT", ":authority": target() }),
    );
    expect(origin.accepted).toBe(connections);
  });

  test("does not end the h2 session for streams that are in order", async () => {
    const session = await proxy.http2(at);
    expect(await http2({ ":authority": origin.at("evil.test") }, session)).toBe(421);
    expect(await http2({ ":authority": at }, session)).toBe(200);
    session.destroy();
  });
});

describe("a server name", () => {
  const rows = doors.flatMap((door) => serverNames.map((row) => [door, ...row] as const));
  test.each(rows)("in a bridged %s: %s: %s", async (door, _what, template, isAccepted) => {
    const sni = template.replaceAll("HOST", allowed);
    const connections = origin.accepted;
    const wire = new RawClient((await proxy.enter(door, at)).socket);
    wire.send(records(clientHello({ sni, alpn: ["http/1.1"] })));
    const [type] = await wire.reader.exactly(1).catch(() => Buffer.of(21));
    // A handshake record, or an alert or nothing at all.
    const accepted = type === 22;
    if (isAccepted !== "either") expect(accepted).toBe(isAccepted);
    if (!accepted) await wire.reader.toEnd();
    expect(origin.accepted).toBe(connections);
    wire.close();
  });

  test.each(rows)(
    "in a passed-through %s: %s: %s (FRONT-19)",
    async (door, _what, template, isAccepted) => {
      const sni = template.replaceAll("HOST", "pinned.test");
      const wire = new RawClient((await proxy.enter(door, origin.at("pinned.test"))).socket);
      wire.send(records(clientHello({ sni, alpn: ["http/1.1"] })));
      const bytes = await wire.reader.exactly(1).catch(() => Buffer.alloc(0));
      // Nothing at all means that no byte went to the origin, which would have answered with an alert at least.
      if (isAccepted === false) expect(bytes).toHaveLength(0);
      if (isAccepted === true) expect(bytes[0]).toBe(22);
      wire.close();
    },
  );

  test.each([
    ["two names in one extension", [[0, serverName("pinned.test", "evil.test")]]],
    [
      "two extensions",
      [
        [0, serverName("pinned.test")],
        [0, serverName("evil.test")],
      ],
    ],
    ["an empty list", [[0, Buffer.of(0, 0)]]],
    ["an empty name", [[0, serverName("")]]],
  ] as [string, [number, Buffer][]][])(
    "that is ambiguous is refused where nobody terminates: %s",
    async (_what, raw) => {
      const wire = new RawClient(await proxy.tunnel(origin.at("pinned.test")));
      wire.send(records(clientHello({ raw: [[16, alpn("http/1.1")], ...raw] })));
      expect(await wire.reader.toEnd()).toHaveLength(0);
    },
  );

  test("in one byte per record is read all the same (FRONT-19)", async () => {
    const wire = new RawClient(await proxy.tunnel(origin.at("pinned.test")));
    wire.send(records(clientHello({ sni: "evil.test" }), 1));
    expect(await wire.reader.toEnd()).toHaveLength(0);
  });

  test("that is absent leaves the CONNECT name in force (FRONT-11)", async () => {
    const socket = await proxy.tls(at, { sni: "" });
    expect(socket.getPeerX509Certificate()?.subjectAltName).toBe(`DNS:${allowed}`);
    const wire = new RawClient(socket);
    expect((await wire.exchange(`GET / HTTP/1.1\r\nHost: ${at}\r\n\r\n`)).status).toBe(200);
    expect((await wire.exchange(`GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n`)).status).toBe(421);
    wire.close();
  });

  test("inside an encrypted ClientHello is not looked for: the CONNECT name is served (FRONT-13)", async () => {
    const connections = origin.accepted;
    const wire = new RawClient(await proxy.tunnel(at));
    const encrypted = Buffer.concat([
      Buffer.of(0, 0, 1, 0, 1, 7, 0, 32),
      Buffer.alloc(32, 5),
      Buffer.of(0, 16),
      Buffer.alloc(16, 6),
    ]);
    wire.send(records(clientHello({ sni: allowed, raw: [[0xfe0d, encrypted]] })));
    expect((await wire.reader.exactly(1))[0]).toBe(22);
    expect(origin.accepted).toBe(connections);
    wire.close();
  });

  test("gets no leaf of its own: the certificate is for the CONNECT name (FRONT-12)", async () => {
    const socket = await proxy.tls(at, { sni: allowed.toUpperCase() });
    expect(socket.getPeerX509Certificate()?.subjectAltName).toBe(`DNS:${allowed}`);
    socket.destroy();
  });
});

describe("a CONNECT", () => {
  test.each([
    ["two Host fields", (target: string) => `Host: ${target}\r\nHost: evil.test\r\n`],
    ["another Host", () => "Host: evil.test:443\r\n"],
  ])("with %s is refused before anything is opened", async (_what, fields) => {
    const wire = new RawClient(await proxy.dial());
    const answer = await wire.exchange(`CONNECT ${at} HTTP/1.1\r\n${fields(at)}\r\n`);
    expect([400, 421]).toContain(answer.status);
    wire.close();
  });

  test("that is refused takes what came with it to nobody (FRONT-17)", async () => {
    const connections = origin.accepted;
    const target = origin.at("evil.test");
    const wire = new RawClient(await proxy.dial());
    wire.send(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`);
    wire.send(records(clientHello({ sni: "evil.test" })));
    // The bridge tells the refusal inside TLS.
    expect(await wire.reader.until("\r\n\r\n")).toMatch(/^HTTP\/1\.1 200 /);
    expect((await wire.reader.exactly(1))[0]).toBe(22);
    expect(origin.accepted).toBe(connections);
    wire.close();
  });

  test("whose ClientHello comes in the same packet is served (FRONT-17)", async () => {
    const wire = new RawClient(await proxy.dial());
    const connect = Buffer.from(`CONNECT ${at} HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    wire.send(Buffer.concat([connect, records(clientHello({ sni: allowed }))]));
    expect(await wire.reader.until("\r\n\r\n")).toMatch(/^HTTP\/1\.1 200 /);
    expect((await wire.reader.exactly(1))[0]).toBe(22);
    wire.close();
  });
});
