/** WebSocket and other upgrades, through the plain forward path and through the reverse proxy. */
import { once } from "node:events";
import { createServer, request as httpRequest, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { beforeAll, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { eventually } from "../support/eventually.ts";
import { RawClient, type Address } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();

/** A WebSocket echo server that keeps the heads of its handshakes. */
class EchoSockets {
  readonly heads: Readonly<Record<string, string | string[] | undefined>>[] = [];
  readonly sockets: WebSocket[] = [];
  readonly closes: number[] = [];
  readonly #http: Server;
  readonly #sockets: WebSocketServer;

  private constructor() {
    this.#http = createServer((_request, response) => response.writeHead(404).end());
    this.#sockets = new WebSocketServer({
      server: this.#http,
      handleProtocols: (protocols) => [...protocols][0] ?? false,
    });
    this.#sockets.on("connection", (socket, request) => {
      this.heads.push({ ...request.headers, ":path": request.url });
      this.sockets.push(socket);
      socket.on("message", (message, isBinary) => socket.send(message, { binary: isBinary }));
      socket.on("close", (code) => this.closes.push(code));
      socket.on("error", () => undefined);
    });
  }

  static async start(): Promise<EchoSockets> {
    const made = new EchoSockets();
    made.#http.listen(0, "127.0.0.1");
    await once(made.#http, "listening");
    return made;
  }

  get authority(): string {
    return `127.0.0.1:${(this.#http.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.terminate();
    this.#sockets.close();
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }
}

let echo: EchoSockets;
let idp: StubIdp;
let origin: HttpOrigin;
let proxy: ProxyProcess;
let plain: ProxyProcess;

beforeAll(async () => {
  echo = await own(EchoSockets.start());
  idp = await own(StubIdp.start());
  origin = await own(HttpOrigin.launch());
  const mutator = {
    name: "header-mutator",
    config: { set: { "X-Added": "1" }, delete: ["X-Gone"] },
  };
  const common = [mutator, { name: "recorder", config: { file: "records" } }];
  proxy = await own(
    ProxyProcess.start(
      settings({
        listener: { reverse_proxy_backend: `http://${echo.authority}` },
        pipeline: {
          inbound: {
            plugins: [
              { name: "jwt-validation", config: { issuer: idp.issuer, audience: "agent" } },
              ...common,
            ],
          },
          outbound: { plugins: [...common, { name: "denier", config: { path: "/denied" } }] },
        },
      }),
    ),
  );
  plain = await own(
    ProxyProcess.start(
      settings({
        listener: { reverse_proxy_backend: origin.url },
        limits: { tunnel_idle_timeout: "700ms" },
      }),
    ),
  );
});

/** Opens a WebSocket whose handshake goes where it is told, with the target it is told. */
function webSocket(
  address: Address,
  target: string,
  headers: Readonly<Record<string, string>> = {},
  protocols: string[] = [],
): WebSocket {
  const socket = new WebSocket(`ws://${address.host}:${address.port}/`, protocols, {
    headers,
    perMessageDeflate: false,
    finishRequest: (request) => {
      request.path = target;
      request.end();
    },
  });
  void own({ close: () => socket.terminate() });
  socket.on("error", () => undefined);
  return socket;
}

async function opened(socket: WebSocket): Promise<WebSocket> {
  await Promise.race([
    once(socket, "open"),
    once(socket, "unexpected-response").then(([, response]) => {
      throw new Error(`handshake answered ${String(response.statusCode)}`);
    }),
  ]);
  return socket;
}

/** The status with which a handshake was refused. */
async function refused(socket: WebSocket): Promise<number> {
  const [, response] = await Promise.race([
    once(socket, "unexpected-response"),
    once(socket, "open").then(() => {
      throw new Error("the handshake was accepted");
    }),
  ]);
  return Number(response.statusCode);
}

async function say(socket: WebSocket, message: string | Buffer): Promise<Buffer> {
  const answer = once(socket, "message");
  socket.send(message);
  const [data] = (await answer) as [Buffer];
  return data;
}

const surfaces = [
  [
    "forward",
    async (path: string, headers: Readonly<Record<string, string>> = {}, protocols?: string[]) =>
      webSocket(
        proxy.forward,
        `http://${echo.authority}${path}`,
        { Host: echo.authority, ...headers },
        protocols,
      ),
  ],
  [
    "reverse",
    async (path: string, headers: Readonly<Record<string, string>> = {}, protocols?: string[]) =>
      webSocket(
        proxy.reverse,
        path,
        { Authorization: `Bearer ${await idp.token()}`, ...headers },
        protocols,
      ),
  ],
] as const;

describe.each(surfaces)("Z15: a WebSocket through the %s proxy", (name, dial) => {
  test("echoes text, binary and a large message", async () => {
    const socket = await opened(await dial(`/echo-${name}`));
    expect((await say(socket, "hello")).toString()).toBe("hello");
    expect(await say(socket, Buffer.of(0, 1, 255))).toEqual(Buffer.of(0, 1, 255));
    const large = Buffer.alloc(3 * 1024 * 1024, "large");
    expect((await say(socket, large)).equals(large)).toBe(true);
  });

  test("the handshake went through the chain: headers, path and subprotocol arrive", async () => {
    const socket = await opened(
      await dial(`/chain-${name}?a=%2F`, { "X-Gone": "1", "X-Kept": "2" }, ["chat"]),
    );
    expect(socket.protocol).toBe("chat");
    const head = echo.heads.at(-1);
    expect(head).toMatchObject({ "x-added": "1", "x-kept": "2", ":path": `/chain-${name}?a=%2F` });
    expect(head).not.toHaveProperty("x-gone");
    expect(head?.["host"]).toBe(echo.authority);
    const records = await proxy.records("records");
    expect(records.findLast((line) => line["hook"] === "request")).toMatchObject({
      path: `/chain-${name}?a=%2F`,
      stage: "request",
    });
  });

  test("a close travels both ways with its code", async () => {
    const socket = await opened(await dial("/close"));
    const before = echo.closes.length;
    socket.close(4001, "bye");
    await eventually(() => echo.closes.length > before);
    expect(echo.closes.at(-1)).toBe(4001);
    const second = await opened(await dial("/close-back"));
    const closed = once(second, "close");
    echo.sockets.at(-1)?.close(4002, "bye");
    expect((await closed)[0]).toBe(4002);
  });

  test("a client that vanishes takes the backend's socket with it", async () => {
    const socket = await opened(await dial("/vanish"));
    const before = echo.closes.length;
    socket.terminate();
    await eventually(() => echo.closes.length > before);
  });

  test("it is one line in the log with its bytes", async () => {
    const path = `/logged-${name}`;
    const socket = await opened(await dial(path));
    await say(socket, "x");
    socket.close();
    const line = await proxy.log((log) => log["msg"] === "flow" && log["path"] === path);
    expect(line).toMatchObject({ status: 101 });
  });
});

describe("a refused WebSocket", () => {
  test("reverse: no token is 401 and the backend sees nothing", async () => {
    const before = echo.heads.length;
    expect(await refused(webSocket(proxy.reverse, "/no-token"))).toBe(401);
    expect(echo.heads).toHaveLength(before);
  });

  test("forward: a denial is its status and the origin sees nothing", async () => {
    const before = echo.heads.length;
    const target = `http://${echo.authority}/denied`;
    expect(await refused(webSocket(proxy.forward, target, { Host: echo.authority }))).toBe(403);
    expect(echo.heads).toHaveLength(before);
  });

  test("forward: an origin that is not there is 502", async () => {
    const target = "http://127.0.0.1:1/";
    expect(await refused(webSocket(proxy.forward, target, { Host: "127.0.0.1:1" }))).toBe(502);
  });

  test("reverse: a backend that is not there is 502", async () => {
    const gone = await HttpOrigin.launch();
    const { url } = gone;
    await gone.close();
    const alone = await own(
      ProxyProcess.start(settings({ listener: { reverse_proxy_backend: url } })),
    );
    expect(await refused(webSocket(alone.reverse, "/"))).toBe(502);
  });
});

const raw = [
  ["forward", (): Address => plain.forward, (path: string): string => `${origin.url}${path}`],
  ["reverse", (): Address => plain.reverse, (path: string): string => path],
] as const;

describe.each(raw)("any upgrade through the %s proxy", (name, address, target) => {
  const ask = (path: string, more = "") =>
    `GET ${target(path)} HTTP/1.1\r\nHost: ${origin.authority}\r\nConnection: Upgrade\r\nUpgrade: custom/1\r\n\r\n${more}`;
  const accept =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: custom/1\r\n\r\n";

  test("carries bytes both ways, early ones included, and half-closes", async () => {
    const path = `/custom-${name}`;
    origin.answerHead = (head, connection) => {
      if (!head.startLine.includes(path)) return false;
      void (async () => {
        await connection.send(`${accept}welcome`);
        const all = await connection.reader.toEnd();
        connection.end(`got ${all.toString("latin1")}`);
      })();
      return true;
    };
    const client = await own(RawClient.connect(address()));
    client.send(ask(path, "early"));
    const { head } = await client.head();
    expect(head.startLine).toMatch(/^HTTP\/1\.1 101 /);
    expect(head.header("upgrade")).toBe("custom/1");
    expect((await client.reader.exactly(7)).toString()).toBe("welcome");
    client.send("+later");
    client.end();
    expect((await client.reader.toEnd()).toString()).toBe("got early+later");
  });

  test("H1-22: an origin that declines answers as ever, and the connection is no tunnel", async () => {
    const path = `/declined-${name}`;
    origin.on(path, () => reply(426, "no upgrade here", { Upgrade: "other" }));
    const client = await own(RawClient.connect(address()));
    client.send(ask(path));
    const answer = await client.response();
    expect(answer.status).toBe(426);
    expect(answer.text).toBe("no upgrade here");
    const before = origin.requests.length;
    client.send("raw bytes that are no request\r\n\r\n");
    const rest = (await client.reader.toEnd()).toString();
    expect(rest === "" || rest.startsWith("HTTP/1.1 400")).toBe(true);
    expect(origin.requests).toHaveLength(before);
  });

  test("H1-22: a WebSocket that the origin declines is an ordinary answer", async () => {
    const path = `/declined-socket-${name}`;
    origin.on(path, () => reply(403, "not you"));
    const client = await own(RawClient.connect(address()));
    client.send(
      `GET ${target(path)} HTTP/1.1\r\nHost: ${origin.authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`,
    );
    const answer = await client.response();
    expect(answer.status).toBe(403);
    expect(answer.text).toBe("not you");
    const before = origin.requests.length;
    client.send("raw bytes that are no request\r\n\r\n");
    await client.reader.toEnd();
    expect(origin.requests).toHaveLength(before);
  });

  test("an origin that agrees to another protocol than was asked is 502", async () => {
    const path = `/other-${name}`;
    origin.on(path, () => accept.replace("custom/1", "other/1"));
    const client = await own(RawClient.connect(address()));
    client.send(ask(path));
    expect((await client.response()).status).toBe(502);
  });

  test("a silent upgrade is closed at the idle limit of tunnels", async () => {
    const path = `/silent-${name}`;
    origin.answerHead = (head, connection) => {
      if (!head.startLine.includes(path)) return false;
      void connection.send(accept);
      return true;
    };
    const client = await own(RawClient.connect(address()));
    client.send(ask(path));
    expect((await client.head()).head.startLine).toMatch(/ 101 /);
    await client.untilClosed(5000);
  });

  test("a WebSocket that falls silent is closed at the idle limit of tunnels", async () => {
    const path = `/silent-websocket-${name}`;
    origin.answerHead = (head, connection) => {
      if (!head.startLine.includes(path)) return false;
      void connection.send(accept.replace("custom/1", "websocket"));
      return true;
    };
    const client = await own(RawClient.connect(address()));
    client.send(ask(path).replace("custom/1", "websocket"));
    expect((await client.head()).head.startLine).toMatch(/ 101 /);
    await client.untilClosed(5000);
  });

  test("Upgrade without Connection: upgrade is an ordinary request", async () => {
    const path = `/ordinary-${name}`;
    const client = await own(RawClient.connect(address()));
    client.send(
      `GET ${target(path)} HTTP/1.1\r\nHost: ${origin.authority}\r\nUpgrade: custom/1\r\n\r\n`,
    );
    expect((await client.response()).status).toBe(200);
    expect(origin.requestFor(path).header("upgrade")).toBeUndefined();
  });

  test.each([
    [
      "h2c",
      "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    ],
    // Apache HttpClient 5, with every request for an http: URL.
    ["TLS", "Upgrade: TLS/1.2\r\nConnection: Upgrade"],
  ])("an offer of %s is not passed on", async (protocol, offer) => {
    const path = `/${protocol}-${name}`;
    const client = await own(RawClient.connect(address()));
    client.send(`GET ${target(path)} HTTP/1.1\r\nHost: ${origin.authority}\r\n${offer}\r\n\r\n`);
    const { status } = await client.response();
    expect([200, 400]).toContain(status);
    const [seen] = origin.requestsFor(path);
    expect(seen?.header("upgrade")).toBeUndefined();
    expect(seen?.header("http2-settings")).toBeUndefined();
  });
});

describe("a client of node:http", () => {
  test("upgrades through the forward proxy", async () => {
    const asked = httpRequest({
      host: proxy.forward.host,
      port: proxy.forward.port,
      path: `http://${echo.authority}/node`,
      headers: {
        Host: echo.authority,
        Connection: "Upgrade",
        Upgrade: "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
      },
    });
    asked.end();
    const [answer, socket] = (await once(asked, "upgrade")) as [{ statusCode: number }, Socket];
    expect(answer.statusCode).toBe(101);
    socket.destroy();
  });
});
