/** Plain HTTP through the forward proxy: what reaches the origin, and what comes back, to the byte. */
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get, RawClient, request, statusOf } from "../support/http-client.ts";
import { HttpOrigin, reply, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let origin: HttpOrigin;
let proxy: ProxyProcess;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  proxy = await own(
    ProxyProcess.start(
      merge(
        settings({
          listener: { skip_hosts: ["skip*", "*.mesh.test"] },
          egress: {
            hosts: {
              "skip-v2": ["127.0.0.1"],
              "not-skip": ["127.0.0.1"],
              "skip.other.test": ["127.0.0.1"],
              "a.mesh.test": ["127.0.0.1"],
              "a.b.mesh.test": ["127.0.0.1"],
            },
          },
          limits: { response_timeout: "700ms", stream_idle_timeout: "30s" },
        }),
        outbound(
          { name: "recorder", config: { file: "records" } },
          { name: "denier", config: { path: "/denied", code: "auth.unauthorized" } },
        ),
      ),
    ),
  );
});

/** Asks for a path of the origin through the proxy. */
function fetchPath(path: string, headers: Readonly<Record<string, string>> = {}) {
  return get(proxy.forward, `${origin.url}${path}`, headers);
}

async function requestRecords(path: string) {
  const records = await proxy.records("records");
  return records.filter((line) => line["hook"] === "request" && line["path"] === path);
}

async function dialRecordsTo(host: string) {
  const records = await proxy.records("records");
  return records.filter((line) => String(line["host"]).startsWith(host));
}

describe("the request", () => {
  test("reaches the origin in origin form with its own Host", async () => {
    const answer = await fetchPath("/form?a=1&b=%2e%2e");
    expect(answer.status).toBe(200);
    expect(answer.text).toBe("hello from the origin");
    const seen = origin.requestFor("/form");
    expect(seen.head.startLine).toBe("GET /form?a=1&b=%2e%2e HTTP/1.1");
    expect(seen.head.all("host")).toEqual([origin.authority]);
  });

  test.each([
    "/bytes/%2e%2e/x",
    "/bytes/a|b",
    "/bytes/{id}",
    "/bytes//double",
    "/bytes/%E2%82%AC",
    "/bytes/;v=1",
  ])("the path %s passes as it came", async (path) => {
    const answer = await fetchPath(path);
    expect(answer.status).toBe(200);
    expect(origin.requests.at(-1)?.target).toBe(path);
  });

  test("a target without a path becomes /", async () => {
    await get(proxy.forward, origin.url);
    expect(origin.requests.at(-1)?.target).toBe("/");
    await get(proxy.forward, `${origin.url}?q=1`);
    expect(origin.requests.at(-1)?.target).toBe("/?q=1");
  });

  test("end-to-end fields keep their spelling, order and duplicates", async () => {
    await request(proxy.forward, {
      target: `${origin.url}/fields`,
      headers: [
        ["Host", origin.authority],
        ["X-One", "1"],
        ["x-TWO", "a"],
        ["X-One", "2"],
        ["Cookie", "a=b"],
        ["Cookie", "c=d"],
      ],
    });
    const { head } = origin.requestFor("/fields");
    const fields = head.fields.filter(([name]) => /^(x-one|x-two)$/i.test(name));
    expect(fields).toEqual([
      ["X-One", "1"],
      ["x-TWO", "a"],
      ["X-One", "2"],
    ]);
    expect(head.all("cookie").join("; ")).toBe("a=b; c=d");
  });

  test("hop-by-hop fields stop here, also those that Connection names", async () => {
    await request(proxy.forward, {
      target: `${origin.url}/hops`,
      headers: {
        Connection: "keep-alive, X-Hop",
        "X-Hop": "secret",
        "Keep-Alive": "timeout=5",
        "Proxy-Connection": "keep-alive",
        "Proxy-Authorization": "Basic cHJveHk6cHc=",
        "Proxy-Authenticate": "x",
        TE: "gzip",
        "X-End": "stays",
      },
    });
    const { head } = origin.requestFor("/hops");
    for (const name of [
      "x-hop",
      "keep-alive",
      "proxy-connection",
      "proxy-authorization",
      "proxy-authenticate",
      "te",
      "upgrade",
    ]) {
      expect(head.names, name).not.toContain(name);
    }
    expect(head.header("connection") ?? "").not.toMatch(/x-hop/i);
    expect(head.header("x-end")).toBe("stays");
  });

  test("Via is appended in both directions", async () => {
    origin.on("/via", () => reply(200, "", { Via: "1.1 inner" }));
    const answer = await fetchPath("/via", { Via: "1.0 outer" });
    expect(origin.requestFor("/via").header("via")).toMatch(/^1\.0 outer, 1\.1 \S+$/);
    expect(answer.header("via")).toMatch(/^1\.1 inner, 1\.1 \S+$/);
  });

  test("G9: the scheme that plugins see is http", async () => {
    await fetchPath("/scheme");
    expect(await requestRecords("/scheme")).toMatchObject([
      { scheme: "http", destination: origin.authority },
    ]);
  });

  test("G4: a denial answers its status and the origin is not reached", async () => {
    const answer = await fetchPath("/denied");
    expect(answer.status).toBe(401);
    expect(answer.json()).toMatchObject({ error: "auth.unauthorized", plugin: "denier" });
    expect(origin.requestsFor("/denied")).toEqual([]);
  });

  test("G10: an untouched message is two session events, 404 included", async () => {
    origin.on("/recorded", () => reply(404, "no"));
    expect((await fetchPath("/recorded")).status).toBe(404);
    const events = await eventually(async () => {
      const { events } = (await proxy.sessions("/v1/sessions/default")).json() as {
        events: { phase: string; direction: string; statusCode?: number }[];
      };
      const end = events.findLastIndex((event) => event.statusCode === 404);
      return end > 0 && events.slice(end - 1, end + 1);
    });
    expect(events).toMatchObject([
      { direction: "outbound", phase: "request" },
      { direction: "outbound", phase: "response", statusCode: 404 },
    ]);
  });

  test("G11: a denial is one denied event with its code, status and host", async () => {
    await fetchPath("/denied");
    const event = await eventually(async () => {
      const { events } = (await proxy.sessions("/v1/sessions/default")).json() as {
        events: { phase: string }[];
      };
      return events.findLast((one) => one.phase === "denied") ?? false;
    });
    expect(event).toMatchObject({
      phase: "denied",
      statusCode: 401,
      host: origin.authority,
      error: { code: "auth.unauthorized" },
    });
  });
});

describe("request bodies", () => {
  test("G8: a body streams through when no plugin reads it", async () => {
    const body = Buffer.alloc(3 * 1024 * 1024, "0123456789abcdef");
    const answer = await request(proxy.forward, {
      method: "POST",
      target: `${origin.url}/stream`,
      body,
    });
    expect(answer.status).toBe(200);
    const seen = origin.requestFor("/stream");
    expect(seen.body.equals(body)).toBe(true);
    expect(seen.head.all("content-length")).toEqual([String(body.length)]);
  });

  test("the first bytes arrive before the last are sent", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    let first = "";
    origin.answerHead = (head, connection) => {
      if (!head.startLine.includes("/early-upload")) return false;
      void connection.reader.exactly(5).then(async (bytes) => {
        first = bytes.toString("latin1");
        await connection.reader.exactly(5);
        connection.end(reply(200, "both", { Connection: "close" }));
      });
      return true;
    };
    client.send(
      `POST ${origin.url}/early-upload HTTP/1.1\r\nHost: ${origin.authority}\r\nContent-Length: 10\r\n\r\nfirst`,
    );
    await eventually(() => first === "first");
    client.send("later");
    expect((await client.response()).text).toBe("both");
  });

  test("a chunked body arrives whole", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    client.send(
      `POST ${origin.url}/chunked HTTP/1.1\r\nHost: ${origin.authority}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n` +
        "5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 42\r\n\r\n",
    );
    expect((await client.response()).status).toBe(200);
    const seen = origin.requestFor("/chunked");
    expect(seen.text).toBe("hello world");
    expect(seen.head.all("transfer-encoding")).toEqual(["chunked"]);
    expect(seen.head.header("content-length")).toBeUndefined();
  });

  test("the trailers of a request end at the proxy, which RFC 9110 section 6.5.1 lets it do", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    client.send(
      `POST ${origin.url}/request-trailers HTTP/1.1\r\nHost: ${origin.authority}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n` +
        "5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n",
    );
    expect((await client.response()).status).toBe(200);
    const { trailers } = origin.requestFor("/request-trailers");
    expect(trailers).toEqual([]);
  });

  test("H1-07: fields that steer do not pass in trailers", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    client.send(
      `POST ${origin.url}/trailers HTTP/1.1\r\nHost: ${origin.authority}\r\nTransfer-Encoding: chunked\r\n\r\n` +
        "1\r\nx\r\n0\r\nHost: evil.test\r\nAuthorization: Bearer evil\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\nX-Fine: 1\r\n\r\n",
    );
    const { status } = await client.response();
    if (status === 200) {
      const names = origin.requestFor("/trailers").trailers.map(([name]) => name.toLowerCase());
      expect(names.filter((name) => name !== "x-fine")).toEqual([]);
    } else {
      expect(status).toBe(400);
    }
  });

  test("a GET with a chunked body keeps its framing", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    client.send(
      `GET ${origin.url}/get-body HTTP/1.1\r\nHost: ${origin.authority}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n`,
    );
    const { status } = await client.response();
    if (status === 200) expect(origin.requestFor("/get-body").text).toBe("body");
    else expect(status).toBe(400);
    expect((await fetchPath("/after-get-body")).status).toBe(200);
    expect(origin.requestsFor("/after-get-body")).toHaveLength(1);
  });

  test("Expect: 100-continue gets its 100 before the body is sent", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    client.send(
      `POST ${origin.url}/expect HTTP/1.1\r\nHost: ${origin.authority}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n`,
    );
    expect(await client.reader.until("\r\n\r\n")).toMatch(/^HTTP\/1\.1 100 /);
    client.send("body");
    expect((await client.response()).status).toBe(200);
    expect(origin.requestFor("/expect").text).toBe("body");
  });

  test("Expect: 100-continue for a denied request gets the denial and no 100", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    client.send(
      `POST ${origin.url}/denied HTTP/1.1\r\nHost: ${origin.authority}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n`,
    );
    const answer = await client.response();
    expect(answer.status).toBe(401);
    expect(answer.interim).toEqual([]);
  });

  test("an unknown expectation is 417", async () => {
    const answer = await request(proxy.forward, {
      method: "POST",
      target: `${origin.url}/expect-other`,
      headers: { Expect: "wonders" },
      body: "x",
    });
    expect(answer.status).toBe(417);
    expect(origin.requestsFor("/expect-other")).toEqual([]);
  });

  test("an answer that comes before the body was sent is relayed", async () => {
    origin.answerHead = (head, connection) => {
      if (!head.startLine.includes("/early-answer")) return false;
      connection.end(reply(413, "too much", { Connection: "close" }));
      return true;
    };
    const client = await own(RawClient.connect(proxy.forward));
    client.send(
      `POST ${origin.url}/early-answer HTTP/1.1\r\nHost: ${origin.authority}\r\nContent-Length: 100000\r\n\r\nsome`,
    );
    const answer = await client.response();
    expect(answer.status).toBe(413);
    expect(answer.text).toBe("too much");
  });
});

describe("responses", () => {
  test("hop-by-hop fields of the origin stop here, also those that Connection names", async () => {
    origin.on("/response-hops", () =>
      reply(200, "x", {
        Connection: "close, X-Hop",
        "X-Hop": "1",
        "Keep-Alive": "timeout=1",
        "Proxy-Authenticate": "Basic",
        Upgrade: "h2c",
        "X-End": "stays",
      }),
    );
    const client = await own(RawClient.connect(proxy.forward));
    const answer = await client.ask({ target: `${origin.url}/response-hops` });
    for (const name of ["x-hop", "proxy-authenticate", "upgrade"]) {
      expect(answer.head.names, name).not.toContain(name);
    }
    expect(answer.header("connection") ?? "").not.toMatch(/close|x-hop/i);
    expect(answer.header("keep-alive") ?? "").not.toBe("timeout=1");
    expect(answer.header("x-end")).toBe("stays");
    // The origin closed its connection; ours stays.
    expect((await client.ask({ target: `${origin.url}/again` })).status).toBe(200);
  });

  test("fields keep their duplicates and their order", async () => {
    origin.on(
      "/cookies",
      () =>
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1, b\r\nX-A: 1\r\nSet-Cookie: c=2\r\nX-A: 2\r\nContent-Length: 0\r\n\r\n",
    );
    const answer = await fetchPath("/cookies");
    expect(answer.head.all("set-cookie")).toEqual(["a=1, b", "c=2"]);
    expect(answer.head.all("x-a")).toEqual(["1", "2"]);
  });

  test("HEAD keeps the length and has no body", async () => {
    origin.on("/head", () => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: x\r\n\r\n");
    const client = await own(RawClient.connect(proxy.forward));
    const answer = await client.ask({ method: "HEAD", target: `${origin.url}/head` });
    expect(answer.header("content-length")).toBe("1234");
    expect((await client.ask({ target: `${origin.url}/after-head` })).text).toMatch(/^hello/);
  });

  test.each([
    [204, "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"],
    [304, 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 99\r\n\r\n'],
  ])("%i has no body and leaves the connection in step", async (status, bytes) => {
    origin.on(`/status-${status}`, () => bytes);
    const client = await own(RawClient.connect(proxy.forward));
    const answer = await client.ask({ target: `${origin.url}/status-${status}` });
    expect(answer.status).toBe(status);
    expect(answer.header("transfer-encoding")).toBeUndefined();
    expect((await client.ask({ target: `${origin.url}/after-${status}` })).text).toMatch(/^hello/);
  });

  test("interim answers are relayed before the final one", async () => {
    origin.on(
      "/hints",
      () =>
        `HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n${reply(200, "final")}`,
    );
    const answer = await fetchPath("/hints");
    expect(answer.text).toBe("final");
    expect(answer.interim.map((head) => statusOf(head))).toEqual([103]);
    expect(answer.interim[0]?.header("link")).toContain("style.css");
  });

  test("chunked answers and their trailers are relayed", async () => {
    origin.on(
      "/response-trailers",
      () =>
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    const answer = await fetchPath("/response-trailers", { TE: "trailers" });
    expect(answer.text).toBe("abc");
    expect(answer.trailers.map(([name, value]) => [name.toLowerCase(), value])).toEqual([
      ["x-sum", "7"],
    ]);
  });

  test("an answer without length ends with the connection and arrives whole", async () => {
    origin.on("/until-close", ({ connection }) =>
      connection.end("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall there is"),
    );
    expect((await fetchPath("/until-close")).text).toBe("all there is");
  });

  test("a redirect is returned, never followed", async () => {
    origin.on("/redirect", () => reply(302, "", { Location: "http://169.254.169.254/" }));
    const answer = await fetchPath("/redirect");
    expect(answer.status).toBe(302);
    expect(answer.header("location")).toBe("http://169.254.169.254/");
  });

  test("a compressed answer passes as it is", async () => {
    const zipped = gzipSync("zipped text");
    origin.on("/gzip", async ({ connection, head }) => {
      expect(head.header("accept-encoding")).toBe("gzip");
      await connection.send(
        Buffer.concat([
          Buffer.from(
            `HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: ${zipped.length}\r\n\r\n`,
          ),
          zipped,
        ]),
      );
    });
    const answer = await fetchPath("/gzip", { "Accept-Encoding": "gzip" });
    expect(answer.header("content-encoding")).toBe("gzip");
    expect(answer.body.equals(zipped)).toBe(true);
  });
});

describe("connections", () => {
  test("one connection serves many requests", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    for (let count = 0; count < 5; count += 1) {
      expect((await client.ask({ target: `${origin.url}/many` })).status).toBe(200);
    }
    expect(origin.requestsFor("/many")).toHaveLength(5);
  });

  test("pipelined requests are answered in order, a denial among them", async () => {
    origin.on("/slow", async () => {
      await new Promise((resolve) => setTimeout(resolve, 100));
      return reply(200, "slow");
    });
    origin.on("/fast", () => reply(200, "fast"));
    const client = await own(RawClient.connect(proxy.forward));
    for (const path of ["/slow", "/denied", "/fast"]) {
      client.write({ target: `${origin.url}${path}` });
    }
    expect((await client.response()).text).toBe("slow");
    expect((await client.response()).status).toBe(401);
    expect((await client.response()).text).toBe("fast");
  });

  test("Connection: close is honoured", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    const answer = await client.ask({
      target: `${origin.url}/close`,
      headers: { Connection: "close" },
    });
    expect(answer.header("connection")).toBe("close");
    await client.untilClosed();
  });

  test("an HTTP/1.0 request is answered and its connection closed", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    client.send(`GET ${origin.url}/old HTTP/1.0\r\nHost: ${origin.authority}\r\n\r\n`);
    const answer = (await client.reader.toEnd()).toString();
    expect(answer).toMatch(/^HTTP\/1\.[01] 200 /);
    expect(answer).toMatch(/hello from the origin$/);
    expect(answer).not.toMatch(/transfer-encoding: chunked/i);
  });

  test("a client that goes away takes its request to the origin with it", async () => {
    let isClosed = false;
    origin.on("/abandoned", async ({ connection }) => {
      void connection.closed.then(() => (isClosed = true));
      connection.socket.resume();
      await connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    });
    const client = await RawClient.connect(proxy.forward);
    client.write({ target: `${origin.url}/abandoned` });
    await client.reader.until("x");
    client.socket.resetAndDestroy();
    await eventually(() => isClosed);
  });
});

describe("an origin that fails", () => {
  test("refuses the connection: 502", async () => {
    const answer = await get(proxy.forward, "http://127.0.0.1:1/");
    expect(answer.status).toBe(502);
    expect(answer.json()).toMatchObject({ error: "upstream.refused" });
  });

  test("has a name that does not resolve: 502", async () => {
    const answer = await get(proxy.forward, "http://no-such-name.invalid/");
    expect(answer.status).toBe(502);
    expect(answer.json()).toMatchObject({ error: "upstream.unresolvable" });
  });

  test("resets instead of answering: 502, and the next request works", async () => {
    origin.on("/reset", ({ connection }) => connection.reset());
    const client = await own(RawClient.connect(proxy.forward));
    const answer = await client.ask({
      method: "POST",
      target: `${origin.url}/reset`,
      body: "once",
    });
    expect(answer.status).toBe(502);
    expect(origin.requestsFor("/reset")).toHaveLength(1);
    expect((await client.ask({ target: `${origin.url}/after-reset` })).status).toBe(200);
  });

  test.each([
    ["nonsense", "NOT HTTP AT ALL\r\n\r\n"],
    ["a bad status", "HTTP/1.1 2x0 OK\r\n\r\n"],
    ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
    [
      "a length and chunks",
      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ["a field with a bare LF and a colon-less line", "HTTP/1.1 200 OK\r\nX: a\nbad line\r\n\r\n"],
    ["a folded field", "HTTP/1.1 200 OK\r\nX-A: one\r\n two\r\nContent-Length: 0\r\n\r\n"],
    ["a NUL in a field", "HTTP/1.1 200 OK\r\nX-A: o\0ne\r\nContent-Length: 0\r\n\r\n"],
    [
      "101 that nobody asked for",
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
    ["an endless head", `HTTP/1.1 200 OK\r\nX-A: ${"a".repeat(300_000)}\r\n\r\n`],
  ])("H1-19: says %s: 502, and the connection is not used again", async (name, bytes) => {
    const path = `/bad-${name.replaceAll(/\W/g, "-")}`;
    origin.on(path, () => bytes);
    const answer = await fetchPath(path);
    expect(answer.status).toBe(502);
    expect(answer.json()).toMatchObject({ error: "upstream.bad-response" });
    const connection = origin.requestFor(path).connection;
    expect((await fetchPath(`${path}-after`)).text).toBe("hello from the origin");
    expect(origin.requestFor(`${path}-after`).connection).not.toBe(connection);
  });

  test("H1-19: uses a transfer coding it cannot know: 502", async () => {
    origin.on("/wonder", () => "HTTP/1.1 200 OK\r\nTransfer-Encoding: wonder\r\n\r\nx");
    expect((await fetchPath("/wonder")).status).toBe(502);
  });

  test("never answers: 504 at the limit, and the connection is closed", async () => {
    origin.on("/silent", () => {});
    const answer = await fetchPath("/silent");
    expect(answer.status).toBe(504);
    expect(answer.json()).toMatchObject({
      error: "upstream.timeout",
      message: expect.stringContaining("limits.response_timeout"),
    });
    origin.requestFor("/silent").connection.socket.resume();
    await eventually(() => origin.requestFor("/silent").connection.isClosed);
  });

  test("H1-19: floods with interim answers: 502 or 504, never endless", async () => {
    origin.on("/flood", async ({ connection }) => {
      const hints = "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n".repeat(100);
      while (await connection.send(hints));
    });
    const answer = await fetchPath("/flood");
    expect([502, 504]).toContain(answer.status);
  });

  test.each([
    ["with a length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"],
    ["in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"],
  ])("cuts its answer short (%s): the client can see the cut", async (name, bytes) => {
    const path = `/cut-${name.replaceAll(" ", "-")}`;
    origin.on(path, ({ connection }) => connection.end(bytes));
    await expect(fetchPath(path)).rejects.toThrow(/connection ended before/);
  });

  test("closes an idle connection just as it is used: a safe request is tried again", async () => {
    let served = 0;
    const fickle = await own(
      HttpOrigin.launch(({ connection }) => {
        served += 1;
        // The second request on a connection is never answered: the keep-alive race, made certain.
        if (connection.socket.bytesWritten > 0) return connection.reset();
        return reply(200, `served ${served}`);
      }),
    );
    const client = await own(RawClient.connect(proxy.forward));
    expect((await client.ask({ target: `${fickle.url}/1` })).text).toBe("served 1");
    const again = await client.ask({ target: `${fickle.url}/2` });
    expect(again.status).toBe(200);
    expect(fickle.requests.at(-1)?.connection).not.toBe(fickle.requests[0]?.connection);
  });
});

describe("skip_hosts", () => {
  const viaName = (name: string, path: string, headers: Record<string, string> = {}) =>
    get(proxy.forward, `http://${name}:${origin.port}${path}`, headers);

  test("G13: a host that matches is passed on without any plugin or event", async () => {
    expect((await viaName("skip-v2", "/denied")).status).toBe(200);
    expect(await dialRecordsTo("skip-v2")).toEqual([]);
    expect((await proxy.sessions("/v1/sessions/default")).text).not.toContain("skip-v2");
  });

  test("G14: another host is judged", async () => {
    expect((await viaName("not-skip", "/denied")).status).toBe(401);
  });

  test("G15: a Host header that differs from the target is 421, never a way to be skipped", async () => {
    const answer = await fetchPath("/hosted", { Host: `skip-v2:${origin.port}` });
    expect(answer.status).toBe(421);
    expect(answer.json()).toMatchObject({ error: "request.misdirected" });
    expect(origin.requestsFor("/hosted")).toEqual([]);
  });

  test("G18: * stays within one label and is anchored on both sides", async () => {
    expect((await viaName("skip.other.test", "/denied")).status).toBe(401);
  });

  test("G19: the port plays no part, and a leading * is one label", async () => {
    expect((await viaName("a.mesh.test", "/denied")).status).toBe(200);
    expect((await viaName("a.b.mesh.test", "/denied")).status).toBe(401);
  });
});

describe("plugins that read and write bodies", () => {
  let bodies: ProxyProcess;
  beforeAll(async () => {
    bodies = await own(
      ProxyProcess.start(
        merge(
          settings({ limits: { max_body: "1MiB" } }),
          outbound(
            { name: "body-recorder", config: { file: "records" } },
            {
              name: "header-mutator",
              config: {
                set: { "X-Set": "by plugin" },
                delete: ["X-Gone"],
                response_set: { "X-Answer": "by plugin" },
                response_delete: ["X-Origin"],
              },
            },
            { name: "request-body-writer", config: { body: '{"sanitized":"payload"}' } },
          ),
        ),
      ),
    );
  });

  test("G5: a replaced body reaches the origin with its own length and no coding", async () => {
    await request(bodies.forward, {
      method: "POST",
      target: `${origin.url}/rewritten`,
      headers: { "Content-Encoding": "gzip", "Content-Type": "application/json" },
      body: gzipSync('{"secret":"payload"}'),
    });
    const seen = origin.requestFor("/rewritten");
    expect(seen.text).toBe('{"sanitized":"payload"}');
    expect(seen.head.all("content-length")).toEqual(["23"]);
    expect(seen.header("content-encoding")).toBeUndefined();
    expect(seen.header("transfer-encoding")).toBeUndefined();
  });

  test("every field that a plugin sets or deletes reaches the wire in both directions", async () => {
    origin.on("/mutated", () => reply(200, "answer", { "X-Origin": "secret" }));
    const answer = await request(bodies.forward, {
      target: `${origin.url}/mutated`,
      headers: { "X-Gone": "1" },
    });
    const seen = origin.requestFor("/mutated");
    expect(seen.header("x-set")).toBe("by plugin");
    expect(seen.header("x-gone")).toBeUndefined();
    expect(answer.header("x-answer")).toBe("by plugin");
    expect(answer.header("x-origin")).toBeUndefined();
  });

  test("G7: a body over the limit is 413 and never reaches the origin", async () => {
    const answer = await request(bodies.forward, {
      method: "POST",
      target: `${origin.url}/too-large`,
      body: Buffer.alloc(1024 * 1024 + 1, "x"),
    });
    expect(answer.status).toBe(413);
    expect(answer.json()).toMatchObject({ error: "request.body-too-large" });
    expect(origin.requestsFor("/too-large")).toEqual([]);
  });

  test("G7: a chunked body over the limit is 413 too", async () => {
    const client = await own(RawClient.connect(bodies.forward));
    client.send(
      `POST ${origin.url}/too-many-chunks HTTP/1.1\r\nHost: ${origin.authority}\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    const chunk = `10000\r\n${"x".repeat(0x10000)}\r\n`;
    for (let count = 0; count < 17; count += 1) client.send(chunk);
    expect((await client.response()).status).toBe(413);
    expect(origin.requestsFor("/too-many-chunks")).toEqual([]);
  });

  test("a response body over the limit is 502", async () => {
    origin.on("/large-answer", () => reply(200, "x".repeat(1024 * 1024 + 1)));
    const answer = await request(bodies.forward, { target: `${origin.url}/large-answer` });
    expect(answer.status).toBe(502);
    expect(answer.json()).toMatchObject({ error: "upstream.response-too-large" });
  });
});

describe("plugins that only read bodies", () => {
  let reading: ProxyProcess;
  beforeAll(async () => {
    reading = await own(
      ProxyProcess.start(
        merge(
          settings({ limits: { max_body: "2MiB" } }),
          outbound({ name: "body-recorder", config: { file: "records" } }),
        ),
      ),
    );
  });

  test("G6: the plugin and the origin see the same bytes", async () => {
    const body = "exact bytes \u0000\u00ff é".repeat(10);
    origin.on("/both", () => reply(200, "the answer"));
    await request(reading.forward, { method: "POST", target: `${origin.url}/both`, body });
    expect(origin.requestFor("/both").text).toBe(body);
    const records = await reading.records("records");
    expect(records.find((line) => line["path"] === "/both")).toMatchObject({ body });
    expect(records.find((line) => line["hook"] === "response")).toMatchObject({
      body: "the answer",
    });
  });

  test("Z14: the limit of bodies is in the file", async () => {
    const body = Buffer.alloc(1536 * 1024, "y");
    const fine = await request(reading.forward, {
      method: "POST",
      target: `${origin.url}/larger`,
      body,
    });
    expect(fine.status).toBe(200);
    expect(origin.requestFor("/larger").body.equals(body)).toBe(true);
    const over = await request(reading.forward, {
      method: "POST",
      target: `${origin.url}/larger-still`,
      body: Buffer.alloc(2 * 1024 * 1024 + 1, "y"),
    });
    expect(over.status).toBe(413);
  });
});

describe("bulk", () => {
  const size = 24 * 1024 * 1024;
  const block = Buffer.alloc(64 * 1024, "bulk-data-0123456789");

  test("a large upload arrives whole", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    const sent = createHash("sha256");
    const received = createHash("sha256");
    origin.answerHead = (head, connection) => {
      if (!head.startLine.includes("/upload")) return false;
      void (async () => {
        for (let left = size; left > 0;) {
          const bytes = await connection.reader.some();
          if (bytes === undefined) return;
          received.update(bytes);
          left -= bytes.length;
        }
        connection.end(reply(200, "done", { Connection: "close" }));
      })();
      return true;
    };
    client.send(
      `PUT ${origin.url}/upload HTTP/1.1\r\nHost: ${origin.authority}\r\nContent-Length: ${size}\r\n\r\n`,
    );
    for (let left = size; left > 0; left -= block.length) {
      sent.update(block);
      if (!client.socket.write(block)) {
        await new Promise((resolve) => client.socket.once("drain", resolve));
      }
    }
    expect((await client.response()).text).toBe("done");
    expect(received.digest("hex")).toBe(sent.digest("hex"));
  });

  test("a large download arrives whole", async () => {
    origin.on("/download", async ({ connection }) => {
      await connection.send(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`);
      let left = size;
      while (left > 0 && (await connection.send(block))) left -= block.length;
    });
    const expected = createHash("sha256");
    for (let left = size; left > 0; left -= block.length) expected.update(block);
    const answer = await fetchPath("/download");
    expect(answer.body).toHaveLength(size);
    expect(createHash("sha256").update(answer.body).digest("hex")).toBe(expected.digest("hex"));
  });

  /** Waits until a counter has not moved for a while, and answers where it stands. */
  async function standstill(read: () => number): Promise<number> {
    let last = read();
    let since = Date.now();
    return eventually(() => {
      const now = read();
      if (now !== last || now === 0) {
        last = now;
        since = Date.now();
      }
      return Date.now() - since > 500 && last;
    }, 15_000);
  }

  test("an endless answer waits for a reader that does not read, and memory stays flat", async () => {
    const before = await proxy.metric("process_resident_memory_bytes");
    let sent = 0;
    origin.on("/endless", async ({ connection }) => {
      await connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      const chunk = `10000\r\n${"e".repeat(0x10000)}\r\n`;
      while (await connection.send(chunk)) sent += 0x10000;
    });
    const client = await own(RawClient.connect(proxy.forward));
    client.write({ target: `${origin.url}/endless` });
    await client.head();
    const stoppedAt = await standstill(() => sent);
    expect(stoppedAt).toBeLessThan(24 * 1024 * 1024);
    const after = await proxy.metric("process_resident_memory_bytes");
    expect(after - before).toBeLessThan(96 * 1024 * 1024);
    // Reading again lets it go on.
    for (let count = 0; count < 200; count += 1) await client.reader.some();
    await eventually(() => sent > stoppedAt);
  });

  test("an endless upload waits for an origin that does not read", async () => {
    const deaf = await own(TcpOrigin.start(() => {}));
    const client = await own(RawClient.connect(proxy.forward));
    client.send(
      `POST http://${deaf.authority}/ HTTP/1.1\r\nHost: ${deaf.authority}\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    let sent = 0;
    const chunk = Buffer.from(`10000\r\n${"u".repeat(0x10000)}\r\n`);
    void (async () => {
      while (!client.socket.destroyed) {
        await new Promise((resolve) => client.socket.write(chunk, resolve));
        sent += chunk.length;
      }
    })();
    expect(await standstill(() => sent)).toBeLessThan(24 * 1024 * 1024);
  });
});
