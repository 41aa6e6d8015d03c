/** The TLS bridge over HTTP/1.1: what it opens, what it shows to the chain, what it sends, and what it refuses. */
import { owner } from "../support/owner.ts";
import { oneThread } from "../support/program.ts";
import { once } from "node:events";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type BridgeOptions, BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { StubIdp } from "../support/idp.ts";
import { readAll, TlsOrigin } from "../support/tls-origin.ts";
import { RawClient, statusOf } from "../support/http-client.ts";
import { eventually } from "../support/eventually.ts";

const allowed = "api.allowed.test";
const witness = { name: "bridge-witness", config: { file: "seen.jsonl" } };

let authority: TestAuthority;
let origin: TlsOrigin;
let proxy: BridgeProxy;
let at: string;
const own = owner();

function start(options: Partial<BridgeOptions> = {}): Promise<BridgeProxy> {
  return own(BridgeProxy.start({ ports: [origin.port], originCa: authority.caPem, ...options }));
}

beforeAll(async () => {
  authority = await TestAuthority.create();
  origin = await TlsOrigin.start(
    await authority.server([allowed, "www.allowed.test", "127.0.0.1"]),
  );
  at = origin.at(allowed);
  proxy = await BridgeProxy.start({
    ports: [origin.port],
    originCa: authority.caPem,
    plugins: [witness, { name: "deny-paths", config: { prefix: "/denied" } }],
  });
});
afterAll(async () => {
  await proxy.close();
  await origin.close();
});

describe("a bridged request", () => {
  test("reaches the origin, and the chain sees it with scheme https (I9, I10)", async () => {
    const answer = await proxy.get(at, "/secret?x=1");
    expect(answer).toMatchObject({ status: 200, text: "OK-SECRET" });
    const notes = await proxy.records("seen.jsonl");
    expect(notes.filter((note) => note["path"] === "/secret?x=1")).toEqual([
      expect.objectContaining({
        stage: "request",
        method: "GET",
        scheme: "https",
        destination: at,
        transport: "bridge",
      }),
    ]);
    expect(notes).toContainEqual(
      expect.objectContaining({ stage: "connect", method: "CONNECT", destination: at }),
    );
  });

  test("is the only thing that the origin gets: no probe, no second connection (I9)", async () => {
    const [requests, connections] = [origin.seen.length, origin.accepted];
    const fresh = await start();
    await fresh.get(at, "/only-one");
    const seen = origin.seen.slice(requests).map(({ method, url }) => `${method} ${url}`);
    expect(seen).toEqual(["GET /only-one"]);
    expect(origin.accepted - connections).toBe(1);
  });

  test("is dialled when it is permitted, not before", async () => {
    const fresh = await start({ plugins: [{ name: "deny-paths", config: { prefix: "/denied" } }] });
    const connections = origin.accepted;
    const wire = await fresh.http1(at);
    const denied = await wire.exchange(`GET /denied HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    expect(denied.status).toBe(403);
    expect(origin.accepted).toBe(connections);
    const passed = await wire.exchange(`GET /passed HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    expect(passed.status).toBe(200);
    expect(origin.accepted).toBe(connections + 1);
    wire.close();
  });

  test("can follow another on the same connection (I23)", async () => {
    const wire = await proxy.http1(at);
    for (const path of ["/first", "/second"]) {
      const answer = await wire.exchange(`GET ${path} HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
      expect(answer.text).toBe("OK-SECRET");
      expect(origin.requestsFor(path)).toHaveLength(1);
    }
    wire.close();
  });

  test("carries fields and body both ways", async () => {
    origin.on("/echo", async (request, response, seen) => {
      const body = await readAll(request, seen);
      response.writeHead(201, "Made", { "X-Answer": "a, b", "Set-Cookie": ["one=1", "two=2"] });
      response.end(body);
    });
    const wire = await proxy.http1(at);
    const head = `POST /echo HTTP/1.1\r\nHost: ${at}\r\nX-Ask: 1\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nContent-Length: 5\r\n\r\n`;
    const answer = await wire.exchange(head, "hello");
    expect(answer).toMatchObject({ status: 201, text: "hello" });
    expect(answer.header("x-answer")).toBe("a, b");
    expect(answer.header("set-cookie")).toBe("one=1, two=2");
    const [seen] = origin.requestsFor("/echo");
    expect(seen?.host).toBe(at);
    expect(seen?.headers).toMatchObject({ "x-ask": "1" });
    expect(seen?.headers).not.toHaveProperty("x-hop");
    wire.close();
  });

  test("moves large bodies whole, both ways at once", async () => {
    const size = 24 * 1024 * 1024;
    origin.on("/large", async (request, response) => {
      response.writeHead(200, { "Content-Length": String(size) });
      for await (const chunk of request) {
        if (!response.write(chunk)) await once(response, "drain");
      }
      response.end();
    });
    const wire = await proxy.http1(at);
    wire.send(`POST /large HTTP/1.1\r\nHost: ${at}\r\nContent-Length: ${size}\r\n\r\n`);
    const block = Buffer.alloc(64 * 1024, "ab");
    const sending = (async () => {
      for (let sent = 0; sent < size; sent += block.length) {
        if (!wire.socket.write(block)) await once(wire.socket, "drain");
      }
    })();
    await wire.reader.until("\r\n\r\n");
    let received = 0;
    let isIntact = true;
    while (received < size) {
      const part = await wire.reader.some();
      if (part === undefined) throw new Error("the body ends early");
      const expected = received % 2 === 0 ? block : block.subarray(1);
      isIntact &&= part.subarray(0, 1000).equals(expected.subarray(0, Math.min(1000, part.length)));
      received += part.length;
    }
    await sending;
    expect({ received, isIntact }).toEqual({ received: size, isIntact: true });
    wire.close();
  });

  test("holds the origin back when its client reads slowly", async () => {
    let written = 0;
    const block = Buffer.alloc(64 * 1024, "x");
    origin.on("/slow-reader", async (_request, response) => {
      for (let count = 0; count < 2048 && !response.destroyed; count += 1) {
        written += block.length;
        if (response.write(block)) continue;
        await Promise.race([once(response, "drain"), once(response, "close")]);
      }
      response.end();
    });
    const socket = await proxy.tls(at);
    socket.pause();
    socket.write(`GET /slow-reader HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    // The origin has begun, and a request elsewhere goes through while nobody reads here.
    await eventually(() => written > 0);
    let before = -1;
    for (let round = 0; round < 50 && before !== written; round += 1) {
      before = written;
      for (let count = 0; count < 5; count += 1) await proxy.get(at, "/meanwhile");
    }
    expect(written).toBe(before);
    expect(written).toBeLessThan(32 * 1024 * 1024);
    socket.destroy();
  });

  test("with HEAD gets the head, and the connection goes on", async () => {
    origin.on("/head", (_request, response) => {
      response.writeHead(200, { "Content-Length": "9" });
      response.end();
    });
    const wire = await proxy.http1(at);
    const answer = await wire.exchange(`HEAD /head HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    expect(answer.header("content-length")).toBe("9");
    expect((await wire.exchange(`GET /after HTTP/1.1\r\nHost: ${at}\r\n\r\n`)).status).toBe(200);
    wire.close();
  });

  test("gets 100 Continue before its body and 103 before its answer", async () => {
    origin.on("/hints", async (request, response, seen) => {
      response.writeEarlyHints({ link: "</style.css>; rel=preload" });
      await readAll(request, seen);
      response.end("done");
    });
    const wire = await proxy.http1(at);
    wire.send(
      `POST /hints HTTP/1.1\r\nHost: ${at}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n`,
    );
    expect(await wire.reader.until("\r\n\r\n")).toMatch(/^HTTP\/1\.1 100 /);
    wire.send("body");
    const answer = await wire.response("POST");
    expect(answer).toMatchObject({ status: 200, text: "done" });
    expect(answer.interim.map(statusOf)).toEqual([103]);
    expect(origin.requestsFor("/hints")[0]?.body.toString()).toBe("body");
    wire.close();
  });

  test("keeps trailers of the answer", async () => {
    origin.on("/trailers", (_request, response) => {
      response.writeHead(200, { Trailer: "X-Sum" });
      response.write("body");
      response.addTrailers({ "X-Sum": "42" });
      response.end();
    });
    const wire = await proxy.http1(at);
    const answer = await wire.exchange(
      `GET /trailers HTTP/1.1\r\nHost: ${at}\r\nTE: trailers\r\n\r\n`,
    );
    expect(answer.trailers.map(([name, value]) => [name.toLowerCase(), value])).toEqual([
      ["x-sum", "42"],
    ]);
    wire.close();
  });

  test("that the origin cuts short is cut short, not ended", async () => {
    origin.on("/cut", (_request, response) => {
      response.writeHead(200, { "Content-Length": "1000" });
      response.write("half", () => response.socket?.destroy());
    });
    const wire = await proxy.http1(at);
    await expect(wire.exchange(`GET /cut HTTP/1.1\r\nHost: ${at}\r\n\r\n`)).rejects.toThrow(
      /ended/,
    );
  });

  test("whose client leaves is abandoned at the origin", async () => {
    origin.on("/abandoned", () => undefined);
    const socket = await proxy.tls(at);
    socket.write(`GET /abandoned HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    await eventually(() => origin.requestsFor("/abandoned").length === 1);
    socket.destroy();
    await eventually(() => origin.requestsFor("/abandoned")[0]?.isAborted === true);
  });

  test("reaches a destination that is an address, with a leaf for the address (I15)", async () => {
    const address = `127.0.0.1:${origin.port}`;
    const socket = await proxy.tls(address);
    expect(socket.getPeerX509Certificate()?.checkIP("127.0.0.1")).toBe("127.0.0.1");
    const answer = await new RawClient(socket).exchange(
      `GET /ip HTTP/1.1\r\nHost: ${address}\r\n\r\n`,
    );
    expect(answer.text).toBe("OK-SECRET");
    expect(origin.requestsFor("/ip")[0]?.host).toBe(address);
    socket.destroy();
  });

  test("appears in the session API with its path and status", async () => {
    await proxy.get(at, "/recorded");
    const text = await eventually(async () => {
      const events = (await proxy.sessions("/v1/sessions/default")).text;
      return events.includes("/recorded") && events;
    });
    expect(text).toContain('"statusCode":200');
  });
});

describe("events of a stream", () => {
  test("arrive one by one while the origin holds the answer open", async () => {
    let next: (() => void) | undefined;
    origin.on("/events", async (_request, response) => {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      for (let count = 0; count < 3; count += 1) {
        response.write(`id: ${count}\ndata: tick ${count}\n\n`);
        await new Promise<void>((resolve) => {
          next = resolve;
        });
      }
      response.end();
    });
    const wire = await proxy.http1(at);
    wire.send(`GET /events HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    for (let count = 0; count < 3; count += 1) {
      expect(await wire.reader.until(`tick ${count}\n\n`)).toContain(`id: ${count}`);
      next?.();
    }
    wire.close();
  });

  test("that are compressed are judged and delivered in clear (Z13)", async () => {
    const fresh = await start({
      plugins: [{ name: "bridge-frames", config: { file: "frames.jsonl" } }],
    });
    origin.on("/gzip-events", (request, response) => {
      const text = "data: one\n\ndata: two\n\n";
      const isCompressed = (request.headers["accept-encoding"] ?? "").includes("gzip");
      response.writeHead(200, {
        "Content-Type": "text/event-stream",
        ...(isCompressed ? { "Content-Encoding": "gzip" } : {}),
      });
      response.end(isCompressed ? gzipSync(text) : text);
    });
    const answer = await fresh.get(at, "/gzip-events", "Accept-Encoding: gzip\r\n");
    expect(answer.text).toBe("data: one\n\ndata: two\n\n");
    expect(answer.header("content-encoding")).toBe(undefined);
    const frames = await fresh.records("frames.jsonl");
    expect(frames.map((note) => note["frame"])).toEqual(expect.arrayContaining(["one", "two"]));
  });

  test("that are compressed although nobody asked do not slip past the chain (Z13)", async () => {
    const fresh = await start({
      plugins: [{ name: "bridge-frames", config: { file: "frames.jsonl", refuse: "forbidden" } }],
    });
    const compressed = gzipSync("data: forbidden\n\n");
    origin.on("/forced-gzip", (_request, response) => {
      response.writeHead(200, {
        "Content-Type": "text/event-stream",
        "Content-Encoding": "gzip",
      });
      response.end(compressed);
    });
    const wire = await fresh.http1(at);
    wire.send(`GET /forced-gzip HTTP/1.1\r\nHost: ${at}\r\nConnection: close\r\n\r\n`);
    const all = await wire.reader.toEnd();
    expect(all.includes(compressed.subarray(10))).toBe(false);
    expect(all.toString("latin1")).not.toContain("data: forbidden");
  });

  test("are refused as a whole by a policy on the answer, before the first byte (Z17)", async () => {
    const fresh = await start({
      plugins: [
        { name: "bridge-frames", config: { file: "frames.jsonl" } },
        { name: "deny-paths", config: { phase: "response", prefix: "/policed" } },
      ],
    });
    origin.on("/policed", (_request, response) => {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write("data: never to be seen\n\n");
    });
    const answer = await fresh.get(at, "/policed");
    expect(answer.status).toBe(403);
    expect(answer.header("content-type")).toBe("application/json");
    expect(answer.text).not.toContain("never to be seen");
  });

  test("are cut at the frame that a policy refuses", async () => {
    const fresh = await start({
      plugins: [{ name: "bridge-frames", config: { file: "frames.jsonl", refuse: "forbidden" } }],
    });
    origin.on("/cut-stream", (_request, response) => {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write("data: fine\n\n");
      response.write("data: forbidden\n\n");
    });
    const wire = await fresh.http1(at);
    wire.send(`GET /cut-stream HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    const all = (await wire.reader.toEnd()).toString("latin1");
    expect(all).toContain("data: fine");
    expect(all).not.toContain("forbidden");
  });
});

test("a whole answer that is compressed although nobody asked does not slip past the chain (Z13)", async () => {
  const fresh = await start({
    plugins: [{ name: "bridge-frames", config: { file: "frames.jsonl", refuse: "forbidden" } }],
  });
  const compressed = gzipSync('{"word":"forbidden"}');
  origin.on("/forced-gzip-json", (_request, response) => {
    response.writeHead(200, { "Content-Type": "application/json", "Content-Encoding": "gzip" });
    response.end(compressed);
  });
  const answer = await fresh.get(at, "/forced-gzip-json");
  expect(answer.status).toBeGreaterThanOrEqual(400);
  expect(answer.body.includes(compressed.subarray(10))).toBe(false);
});

describe("a refusal inside the bridge", () => {
  test("is an HTTP answer with JSON, and the connection goes on", async () => {
    const wire = await proxy.http1(at);
    const denied = await wire.exchange(`GET /denied/x HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    expect(denied.status).toBe(403);
    expect(denied.header("content-type")).toBe("application/json");
    expect(JSON.parse(denied.text)).toMatchObject({
      error: "policy.forbidden",
      plugin: "deny-paths",
    });
    expect(origin.requestsFor("/denied/x")).toHaveLength(0);
    expect((await wire.exchange(`GET /fine HTTP/1.1\r\nHost: ${at}\r\n\r\n`)).status).toBe(200);
    wire.close();
  });

  describe("of a CONNECT", () => {
    const plugins = [{ name: "only-hosts", config: { hosts: [allowed] } }];

    test("is read inside TLS, where clients tell of it, and nothing is dialled (G2)", async () => {
      const fresh = await start({ plugins });
      const connections = origin.accepted;
      const evil = origin.at("evil.test");
      const answer = await fresh.get(evil, "/secret?of=agent");
      expect(answer.head.startLine).toMatch(/^HTTP\/1\.1 403 Forbidden: ./);
      expect(answer.header("content-type")).toBe("application/json");
      expect(JSON.parse(answer.text)).toMatchObject({ error: "policy.forbidden" });
      const session = await fresh.http2(evil);
      const request = session.request({ ":path": "/", ":method": "GET" }).end();
      const [headers] = (await once(request, "response")) as [Record<string, unknown>];
      expect(headers[":status"]).toBe(403);
      session.destroy();
      expect(origin.accepted).toBe(connections);
      const flow = await fresh.log(({ msg, host }) => {
        return msg === "flow" && host === evil;
      });
      expect(flow).toMatchObject({
        method: "CONNECT",
        outcome: "denied",
        status: 403,
        code: "policy.forbidden",
        plugin: "only-hosts",
      });
      expect(flow["asked"]).toEqual(["GET /secret"]);
    });

    test("is the status of the CONNECT for a client that trusts nothing, until it trusts", async () => {
      const fresh = await start({ plugins, file: oneThread("each remembers who refused", {}) });
      const evil = origin.at("evil.test");
      const connectHeaders = "User-Agent: pinned/1\r\n";
      const untrusted = { ca: "", connectHeaders };
      await expect(fresh.tls(evil, untrusted)).rejects.toThrow();
      const statusOf = async (headers: string): Promise<number> =>
        (await fresh.connect(evil, headers)).status;
      await eventually(async () => (await statusOf(connectHeaders)) === 403);
      const { answer } = await fresh.connect(evil, connectHeaders);
      expect(JSON.parse(answer?.text ?? "")).toMatchObject({ error: "policy.forbidden" });
      // Another program of the same machine is told inside TLS.
      expect((await fresh.get(evil, "/")).status).toBe(403);
      expect(await statusOf("")).toBe(200);
      // What the client may reach is opened as ever, and once it has taken a leaf it is told inside TLS again.
      const wire = await fresh.http1(at, { connectHeaders });
      expect((await wire.exchange(`GET / HTTP/1.1\r\nHost: ${at}\r\n\r\n`)).status).toBe(200);
      wire.close();
      expect(await statusOf(connectHeaders)).toBe(200);
    });

    test("comes before any tunnel where the bridge would not open it", async () => {
      const evil = "evil.test";
      const fresh = await start({ plugins, bridge: { passthrough_hosts: [evil] } });
      for (const authority of [origin.at(evil), `${evil}:22`]) {
        const { status, answer } = await fresh.connect(authority);
        expect(status).toBe(403);
        expect(JSON.parse(answer?.text ?? "")).toMatchObject({ error: "policy.forbidden" });
      }
    });
  });

  test("of a body that is too large to be read is 413", async () => {
    const fresh = await start({
      plugins: [{ name: "bridge-bodies", config: { file: "bodies.jsonl" } }],
      limits: { max_body: "64KiB" },
    });
    const wire = await fresh.http1(at);
    const head = `POST /body HTTP/1.1\r\nHost: ${at}\r\nContent-Length: 70000\r\n\r\n`;
    const answer = await wire.exchange(head, Buffer.alloc(70_000, "x"));
    expect(answer.status).toBe(413);
    expect(origin.requestsFor("/body")).toHaveLength(0);
    wire.close();
  });

  test("of TRACE keeps credentials from being repeated (CRED-05)", async () => {
    const wire = await proxy.http1(at);
    const answer = await wire.exchange(
      `TRACE /trace HTTP/1.1\r\nHost: ${at}\r\nX-Secret: s\r\n\r\n`,
    );
    expect(answer.status).toBe(405);
    expect(answer.text).not.toContain("X-Secret");
    expect(origin.requestsFor("/trace")).toHaveLength(0);
    wire.close();
  });

  test("of an ambiguous message is 400 and closes the connection (H1-01)", async () => {
    const wire = await proxy.http1(at);
    const answer = await wire.exchange(
      `POST /smuggle HTTP/1.1\r\nHost: ${at}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    );
    expect(answer.status).toBe(400);
    await wire.reader.toEnd();
    expect(origin.requestsFor("/smuggle")).toHaveLength(0);
  });
});

test("the session API is on loopback when its address names no host (Z8)", async () => {
  const fresh = await start({
    file: {
      listener: {
        roles: ["forward"],
        forward_proxy_addr: "127.0.0.1:0",
        session_api_addr: ":0",
        health_addr: "127.0.0.1:0",
      },
    },
  });
  expect(fresh.address("sessions").host).toBe("127.0.0.1");
});

test("the session API is on loopback when its address is left out (Z8)", async () => {
  const listener = { roles: ["forward"], forward_proxy_addr: "127.0.0.1:0" };
  const { code, stdout } = await BridgeProxy.run("check", { ports: [443], file: { listener } });
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ listener: { session_api_addr: "127.0.0.1:9094" } });
});

describe("token exchange over HTTPS under a default of deny", () => {
  let idp: StubIdp;
  let strict: BridgeProxy;

  beforeAll(async () => {
    idp = await StubIdp.start();
    strict = await BridgeProxy.start({
      ports: [origin.port],
      originCa: authority.caPem,
      otherwise: "deny",
      plugins: [
        {
          name: "token-exchange",
          config: {
            token_url: idp.tokenUrl,
            identity: { type: "client-secret", client_id: "proxy", client_secret: "secret" },
            routes: { rules: [{ host: allowed, target_audience: "api" }] },
          },
        },
      ],
    });
  });
  afterAll(async () => {
    await strict.close();
    await idp.close();
  });

  const bearer = "Authorization: Bearer user-token\r\n";

  test("a listed host is exchanged: the default falls on the requests, not on their CONNECT", async () => {
    expect((await strict.get(at, "/strict", bearer)).status).toBe(200);
    expect(origin.requestsFor("/strict")[0]?.headers.authorization).toBe("Bearer exchanged-api");
  });

  test("a host that is not listed gets 403 inside, and its origin nothing", async () => {
    const answer = await strict.get(`localhost:${origin.port}`, "/unlisted", bearer);
    expect(answer.status).toBe(403);
    expect(origin.requestsFor("/unlisted")).toEqual([]);
  });
});

describe("token exchange over HTTPS with default policies (Z5)", () => {
  let idp: StubIdp;
  let exchanging: BridgeProxy;
  let impostor: TlsOrigin;

  beforeAll(async () => {
    idp = await StubIdp.start();
    const stranger = await TestAuthority.create("stranger");
    impostor = await TlsOrigin.start(await stranger.server(["other.allowed.test"]));
    const route = (host: string): object => ({ host, target_audience: "api" });
    exchanging = await BridgeProxy.start({
      ports: [origin.port, impostor.port],
      originCa: authority.caPem,
      plugins: [
        {
          name: "token-exchange",
          config: {
            token_url: idp.tokenUrl,
            identity: { type: "client-secret", client_id: "proxy", client_secret: "secret" },
            routes: { rules: [route(allowed), route("other.allowed.test")] },
          },
        },
        { name: "deny-paths", config: { prefix: "/denied" } },
      ],
    });
  });
  afterAll(async () => {
    await exchanging.close();
    await idp.close();
    await impostor.close();
  });

  const bearer = "Authorization: Bearer user-token\r\n";

  test("replaces the token of the inner request; the CONNECT needs none", async () => {
    const before = idp.tokenCalls.length;
    const answer = await exchanging.get(at, "/exchanged", bearer);
    expect(answer.status).toBe(200);
    expect(idp.tokenCalls).toHaveLength(before + 1);
    expect(idp.tokenCalls.at(-1)?.form.get("subject_token")).toBe("user-token");
    expect(origin.requestsFor("/exchanged")[0]?.headers.authorization).toBe("Bearer exchanged-api");
  });

  test("refuses an inner request without a token", async () => {
    const answer = await exchanging.get(at, "/no-token");
    expect(answer.status).toBe(401);
    expect(origin.requestsFor("/no-token")).toHaveLength(0);
  });

  test("asks for no token for a request that policy refuses (TX-07)", async () => {
    const before = idp.tokenCalls.length;
    const answer = await exchanging.get(at, "/denied/token", "Authorization: Bearer another\r\n");
    expect(answer.status).toBe(403);
    expect(idp.tokenCalls).toHaveLength(before);
  });

  test("sends no token to an origin that is not verified (CRED-04)", async () => {
    const answer = await exchanging.get(impostor.at("other.allowed.test"), "/steal", bearer);
    expect(answer.status).toBe(502);
    expect(answer.text).not.toContain("exchanged-api");
    expect(impostor.seen).toHaveLength(0);
  });

  test("sends no token to another name in the same tunnel (TX-09)", async () => {
    const before = idp.tokenCalls.length;
    const wire = await exchanging.http1(at);
    const answer = await wire.exchange(
      `GET /x HTTP/1.1\r\nHost: ${origin.at("www.allowed.test")}\r\nAuthorization: Bearer third\r\n\r\n`,
    );
    expect(answer.status).toBe(421);
    expect(idp.tokenCalls).toHaveLength(before);
    wire.close();
  });

  test("writes neither token to the log", () => {
    const log = exchanging.stderr;
    expect(log).not.toContain("user-token");
    expect(log).not.toContain("exchanged-api");
  });
});
