/** HTTP/2 between client and bridge, and between bridge and origin. */
import { owner } from "../support/owner.ts";
import { once } from "node:events";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from "node:http2";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type BridgeOptions, BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { readAll, TlsOrigin } from "../support/tls-origin.ts";
import { eventually, within } from "../support/eventually.ts";

const allowed = "api.allowed.test";

interface Answer {
  readonly headers: IncomingHttpHeaders;
  readonly status: number;
  readonly body: Buffer;
  readonly trailers: IncomingHttpHeaders;
  readonly interim: number[];
}

let authority: TestAuthority;
let origin: TlsOrigin;
let h2only: TlsOrigin;
let proxy: BridgeProxy;
let session: ClientHttp2Session;
let at: string;
const own = owner();

function start(options: Partial<BridgeOptions> = {}): Promise<BridgeProxy> {
  return own(
    BridgeProxy.start({
      ports: [origin.port, h2only.port],
      originCa: authority.caPem,
      ...options,
    }),
  );
}

/** Sends one request and reads its answer to the end. */
function ask(
  on: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body?: string | Buffer,
): Promise<Answer> {
  const stream = on.request(headers);
  if (body === undefined) stream.end();
  else stream.end(body);
  return answerOf(stream);
}

function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  return within(
    "an answer",
    new Promise<Answer>((resolve, reject) => {
      const interim: number[] = [];
      const chunks: Buffer[] = [];
      let headers: IncomingHttpHeaders = {};
      let trailers: IncomingHttpHeaders = {};
      stream.on("headers", (early: IncomingHttpHeaders) => interim.push(Number(early[":status"])));
      stream.on("response", (head) => {
        headers = head;
      });
      stream.on("trailers", (tail: IncomingHttpHeaders) => {
        trailers = tail;
      });
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("error", reject);
      stream.resume();
      stream.on("end", () =>
        resolve({
          headers,
          status: Number(headers[":status"]),
          body: Buffer.concat(chunks),
          trailers,
          interim,
        }),
      );
    }),
  );
}

beforeAll(async () => {
  authority = await TestAuthority.create();
  const certificate = await authority.server([allowed, "www.allowed.test"]);
  origin = await TlsOrigin.start(certificate);
  h2only = await TlsOrigin.start(certificate, "h2");
  at = origin.at(allowed);
  proxy = await BridgeProxy.start({
    ports: [origin.port, h2only.port],
    originCa: authority.caPem,
    plugins: [
      { name: "bridge-witness", config: { file: "seen.jsonl" } },
      { name: "deny-paths", config: { prefix: "/denied" } },
    ],
  });
  session = await proxy.http2(at);
});
afterAll(async () => {
  session.destroy();
  await proxy.close();
  await origin.close();
  await h2only.close();
});

describe("an h2 client", () => {
  test("is offered h2, and its request reaches an h1 origin (I9)", async () => {
    const answer = await ask(session, { ":path": "/secret?x=1" });
    expect(answer).toMatchObject({ status: 200 });
    expect(answer.body.toString()).toBe("OK-SECRET");
    const [seen] = origin.requestsFor("/secret");
    expect(seen).toMatchObject({ host: at, httpVersion: "1.1" });
    const notes = await proxy.records("seen.jsonl");
    expect(notes).toContainEqual(
      expect.objectContaining({ path: "/secret?x=1", scheme: "https", destination: at }),
    );
  });

  test("gets http/1.1 when it prefers that, and h2 when it offers both", async () => {
    const one = await proxy.tls(at, { ALPNProtocols: ["http/1.1"] });
    const both = await proxy.tls(at, { ALPNProtocols: ["http/1.1", "h2"] });
    expect([one.alpnProtocol, both.alpnProtocol]).toEqual(["http/1.1", "h2"]);
    one.destroy();
    both.destroy();
  });

  test("is answered stream by stream, in whatever order the origin answers", async () => {
    const release = Promise.withResolvers<void>();
    origin.on("/held", async (_request, response) => {
      await release.promise;
      response.end("held");
    });
    const held = ask(session, { ":path": "/held" });
    const quick = await Promise.all(
      Array.from({ length: 50 }, (_, index) => ask(session, { ":path": `/quick/${index}` })),
    );
    expect(quick.every(({ status }) => status === 200)).toBe(true);
    release.resolve();
    expect((await held).body.toString()).toBe("held");
  });

  test("sends fields, cookies in crumbs and a body of unknown length", async () => {
    origin.on("/fields", async (request, response, seen) => {
      response.writeHead(201, { "Set-Cookie": ["a=1", "b=2"], "Keep-Alive": "timeout=5" });
      response.end(await readAll(request, seen));
    });
    const answer = await ask(
      session,
      {
        ":method": "POST",
        ":path": "/fields",
        cookie: ["one=1", "two=2"],
        "x-ask": "1",
        te: "trailers",
      },
      "hello",
    );
    expect(answer.status).toBe(201);
    expect(answer.body.toString()).toBe("hello");
    expect(answer.headers["set-cookie"]).toEqual(["a=1", "b=2"]);
    for (const name of ["connection", "keep-alive", "transfer-encoding"]) {
      expect(answer.headers).not.toHaveProperty(name);
    }
    const [seen] = origin.requestsFor("/fields");
    expect(seen?.headers).toMatchObject({ cookie: "one=1; two=2", "x-ask": "1" });
    expect(seen?.body.toString()).toBe("hello");
  });

  test("moves a large body up and down", async () => {
    origin.on("/large", async (request, response) => {
      for await (const chunk of request) {
        if (!response.write(chunk)) await once(response, "drain");
      }
      response.end();
    });
    const body = Buffer.alloc(8 * 1024 * 1024, "abc");
    const answer = await ask(session, { ":method": "POST", ":path": "/large" }, body);
    expect(answer.body.equals(body)).toBe(true);
  });

  test("holds the origin back when it reads slowly, and only that stream", async () => {
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
    const slow = session.request({ ":path": "/slow-reader" });
    slow.pause();
    slow.on("error", () => undefined);
    await once(slow, "response");
    let before = -1;
    for (let round = 0; round < 50 && before !== written; round += 1) {
      before = written;
      for (let count = 0; count < 5; count += 1) await ask(session, { ":path": "/meanwhile" });
    }
    expect(written).toBe(before);
    expect(written).toBeLessThan(32 * 1024 * 1024);
    slow.close(constants.NGHTTP2_CANCEL);
  });

  test("with HEAD gets the length and no body", async () => {
    origin.on("/head", (_request, response) => {
      response.writeHead(200, { "Content-Length": "9" });
      response.end();
    });
    const answer = await ask(session, { ":method": "HEAD", ":path": "/head" });
    expect(answer.headers["content-length"]).toBe("9");
    expect(answer.body).toHaveLength(0);
  });

  test("gets 100 Continue, 103 and trailers", async () => {
    origin.on("/interim", async (request, response, seen) => {
      response.writeEarlyHints({ link: "</style.css>; rel=preload" });
      await readAll(request, seen);
      response.writeHead(200, { Trailer: "X-Sum" });
      response.write("done");
      response.addTrailers({ "X-Sum": "42" });
      response.end();
    });
    const stream = session.request({
      ":method": "POST",
      ":path": "/interim",
      expect: "100-continue",
      te: "trailers",
    });
    const answer = answerOf(stream);
    await within("100 Continue", once(stream, "continue"));
    stream.end("body");
    expect(await answer).toMatchObject({
      status: 200,
      interim: expect.arrayContaining([103]) as number[],
      trailers: { "x-sum": "42" },
    });
  });

  test("gets events at once", async () => {
    const release = Promise.withResolvers<void>();
    origin.on("/events", async (_request, response) => {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write("data: first\n\n");
      await release.promise;
      response.end("data: second\n\n");
    });
    const stream = session.request({ ":path": "/events" });
    const [chunk] = (await within("the first event", once(stream, "data"))) as [Buffer];
    expect(chunk.toString()).toBe("data: first\n\n");
    release.resolve();
    stream.resume();
    await once(stream, "end");
  });

  test("that cancels a stream ends the request at the origin, and nothing else", async () => {
    origin.on("/cancelled", () => undefined);
    const stream = session.request({ ":path": "/cancelled" });
    stream.on("error", () => undefined);
    await eventually(() => origin.requestsFor("/cancelled").length === 1);
    stream.close(constants.NGHTTP2_CANCEL);
    await eventually(() => origin.requestsFor("/cancelled")[0]?.isAborted === true);
    expect((await ask(session, { ":path": "/after-cancel" })).status).toBe(200);
  });

  test("sees a cut answer as an error, not as an end", async () => {
    origin.on("/cut", (_request, response) => {
      response.writeHead(200, { "Content-Length": "1000" });
      response.write("half", () => response.socket?.destroy());
    });
    await expect(ask(session, { ":path": "/cut" })).rejects.toThrow(/NGHTTP2/);
    expect((await ask(session, { ":path": "/after-cut" })).status).toBe(200);
  });

  test("is refused in JSON on its stream, and the session goes on", async () => {
    const answer = await ask(session, { ":path": "/denied/x" });
    expect(answer.status).toBe(403);
    expect(answer.headers["content-type"]).toBe("application/json");
    expect(JSON.parse(answer.body.toString())).toMatchObject({ error: "policy.forbidden" });
    expect(origin.requestsFor("/denied/x")).toHaveLength(0);
    expect((await ask(session, { ":path": "/after-refusal" })).status).toBe(200);
  });

  test("is refused while it uploads, and the session goes on", async () => {
    const stream = session.request({ ":method": "POST", ":path": "/denied/upload" });
    stream.write(Buffer.alloc(32 * 1024));
    expect((await answerOf(stream)).status).toBe(403);
    stream.destroy();
    expect((await ask(session, { ":path": "/after-upload" })).status).toBe(200);
  });

  test.each(["TRACE", "TRACK"])("is refused %s (CRED-05)", async (method) => {
    const answer = await ask(session, { ":method": method, ":path": "/trace", "x-secret": "s" });
    expect(answer.status).toBe(405);
    expect(origin.requestsFor("/trace")).toHaveLength(0);
  });

  test("has Max-Forwards of OPTIONS counted down, and 405 at 0", async () => {
    const options = { ":method": "OPTIONS", ":path": "/hops" };
    expect((await ask(session, { ...options, "max-forwards": "0" })).status).toBe(405);
    expect(origin.requestsFor("/hops")).toHaveLength(0);
    expect((await ask(session, { ...options, "max-forwards": "3" })).status).toBe(200);
    expect(origin.requestsFor("/hops").map((seen) => seen.headers["max-forwards"])).toEqual(["2"]);
  });

  test("gets 502 with the reason where the origin cannot be verified (I11)", async () => {
    const stranger = await TestAuthority.create("stranger");
    const bad = await TlsOrigin.start(await stranger.server([allowed]));
    try {
      const fresh = await start({ ports: [bad.port] });
      const client = await fresh.http2(bad.at(allowed));
      const answer = await ask(client, { ":path": "/" });
      expect(answer.status).toBe(502);
      expect(answer.body.toString()).toContain("upstream_ca_bundle");
      expect(bad.seen).toHaveLength(0);
      client.destroy();
    } finally {
      await bad.close();
    }
  });

  test("gets 502 where nothing listens, and the session goes on", async () => {
    const gone = await TlsOrigin.start(await authority.server([allowed]));
    const { port } = gone;
    await gone.close();
    const fresh = await start({ ports: [port] });
    const client = await fresh.http2(`${allowed}:${port}`);
    for (let count = 0; count < 2; count += 1) {
      expect((await ask(client, { ":path": "/" })).status).toBe(502);
    }
    client.destroy();
  });

  test("finishes what it began when the process drains, and is told to go", async () => {
    const fresh = await start({ limits: { drain_timeout: "10s" } });
    const release = Promise.withResolvers<void>();
    origin.on("/draining", async (_request, response) => {
      response.writeHead(200);
      response.write("first ");
      await release.promise;
      response.end("last");
    });
    const client = await fresh.http2(at);
    const stream = client.request({ ":path": "/draining" });
    await once(stream, "response");
    const goaway = once(client, "goaway");
    const answer = answerOf(stream);
    fresh.signal("SIGTERM");
    await within("GOAWAY", goaway);
    release.resolve();
    expect((await answer).body.toString()).toBe("first last");
    expect((await within("the process ends", fresh.ended)).code).toBe(0);
  });

  test("that is idle does not hold up the end of the process", async () => {
    const fresh = await start({ limits: { drain_timeout: "30s" } });
    const client = await fresh.http2(at);
    expect((await ask(client, { ":path": "/idle" })).status).toBe(200);
    const wire = await fresh.http1(at);
    await wire.exchange(`GET /idle HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    fresh.signal("SIGTERM");
    expect((await within("the process ends", fresh.ended)).code).toBe(0);
    client.destroy();
  });
});

describe("an origin that speaks h2 only", () => {
  test.each(["auto", "on"])(
    "is reached from h1 and h2 clients with upstream_http2: %s",
    async (mode) => {
      const fresh = await start({ bridge: { upstream_http2: mode } });
      const target = h2only.at(allowed);
      for (let count = 0; count < 2; count += 1) {
        expect((await fresh.get(target, `/from-h1-${mode}`)).text).toBe("OK-SECRET");
      }
      const client = await fresh.http2(target);
      expect((await ask(client, { ":path": `/from-h2-${mode}` })).body.toString()).toBe(
        "OK-SECRET",
      );
      for (const path of [`/from-h1-${mode}`, `/from-h2-${mode}`]) {
        const [seen] = h2only.requestsFor(path);
        expect(seen?.httpVersion).toBe("2.0");
        expect(seen?.host).toBe(target);
      }
      client.destroy();
    },
  );

  test("is not reached with upstream_http2: off, and the client is told", async () => {
    const fresh = await start({ bridge: { upstream_http2: "off" } });
    const answer = await fresh.get(h2only.at(allowed), "/off");
    expect(answer.status).toBe(502);
    expect(h2only.requestsFor("/off")).toHaveLength(0);
  });

  test("loses nothing of a body that ends in trailers to a slow reader", async () => {
    // More than this client takes unread, less than what an origin may send unasked.
    const size = 200 * 1024;
    h2only.on("/slow-trailers", (_request, response) => {
      response.writeHead(200);
      response.write(Buffer.alloc(size, "t"));
      response.addTrailers({ "x-sum": "1" });
      response.end();
    });
    const client = await proxy.http2(h2only.at(allowed));
    const stream = client.request({ ":path": "/slow-trailers", te: "trailers" });
    stream.pause();
    await within("a head", once(stream, "response"));
    // Others are served while everything between the origin and this reader fills up.
    for (let count = 0; count < 20; count += 1) await ask(session, { ":path": "/meanwhile" });
    expect((await answerOf(stream)).body.length).toBe(size);
    client.destroy();
  });

  test("gets bodies and trailers both ways", async () => {
    h2only.on("/echo", async (request, response, seen) => {
      const body = await readAll(request, seen);
      response.writeHead(200);
      response.write(body);
      response.addTrailers({ "x-sum": String(body.length) });
      response.end();
    });
    const client = await proxy.http2(h2only.at(allowed));
    const body = Buffer.alloc(1024 * 1024, "z");
    const answer = await ask(client, { ":method": "POST", ":path": "/echo", te: "trailers" }, body);
    expect({ status: answer.status, length: answer.body.length }).toEqual({
      status: 200,
      length: body.length,
    });
    expect(answer.body.equals(body)).toBe(true);
    expect(answer.trailers["x-sum"]).toBe(String(body.length));
    client.destroy();
  });
});

describe("upstream_http2", () => {
  test.each([
    ["auto", "1.1"],
    ["on", "2.0"],
    ["off", "1.1"],
  ])("%s speaks HTTP/%s to an origin that offers both", async (mode, version) => {
    const both = await TlsOrigin.start(await authority.server([allowed]), "both");
    try {
      const fresh = await start({ ports: [both.port], bridge: { upstream_http2: mode } });
      const client = await fresh.http2(both.at(allowed));
      expect((await ask(client, { ":path": "/version" })).status).toBe(200);
      expect(both.requestsFor("/version")[0]?.httpVersion).toBe(version);
      client.destroy();
    } finally {
      await both.close();
    }
  });
});
