/** What a hostile origin tries with its answers, for clients on HTTP/1.1 and on HTTP/2 through the bridge. */
import { writeFile } from "node:fs/promises";
import http2, { type ClientHttp2Session, type OutgoingHttpHeaders } from "node:http2";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import tls from "node:tls";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { AttackedProxy, innerConnection, RawOrigin } from "../support/attack-bench.ts";
import { RawClient } from "../support/http-client.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryDirectory, TestAuthority } from "../support/certs.ts";

/** Bytes that the origin answers with, by path. */
const answers: Readonly<Record<string, string>> = {
  "/ok": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
  "/two-lengths": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
  "/both-lengths":
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
  "/bare-lf": "HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
  "/folded": "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
  "/101": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
  "/flood": "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n".repeat(100),
  "/continue": "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
  "/continue-again":
    "HTTP/1.1 100 \r\nX: a\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" +
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
  "/continue-flood": "HTTP/1.1 100 Continue\r\n\r\n".repeat(100),
  "/large-head": `HTTP/1.1 200 OK\r\nX: ${"a".repeat(100_000)}\r\n\r\n`,
  "/ssh": "SSH-2.0-OpenSSH\r\n\r\n",
  "/coded": "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
  "/split":
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
  "/odd-reason": "HTTP/1.1 200 \xc9t\xe9\r\nContent-Length: 2\r\n\r\nok",
  "/odd-reason-utf8": "HTTP/1.1 404 \xe2\x9c\x93\r\nContent-Length: 2\r\n\r\nok",
  "/204": "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
  "/999": "HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok",
  "/h2-field": "HTTP/1.1 200 OK\r\nHTTP2-Settings: x\r\nContent-Length: 2\r\n\r\nok",
  "/repeated": "HTTP/1.1 200 OK\r\nETag: x\r\nETag: y\r\nContent-Length: 2\r\n\r\nok",
  "/h2-trailer": chunkedWith("HTTP2-Settings: x"),
  "/hop-trailer": chunkedWith("Proxy-Connection: x"),
  "/repeated-trailer": chunkedWith("ETag: a\r\nETag: b"),
  "/trailers-only": "HTTP/1.1 200 OK\r\nGrpc-Status: 12\r\nContent-Length: 0\r\n\r\n",
  "/ws":
    "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nHTTP2-Settings: x\r\nAge: 1\r\nAge: 2\r\n\r\n",
};

function chunkedWith(trailer: string): string {
  return `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n${trailer}\r\n\r\n`;
}

function answerTo(head: string): string | undefined {
  return answers[/^\S+ (?:http:\/\/[^/]+)?(\S+)/.exec(head)?.[1] ?? ""];
}

describe("to a client on HTTP/1.1", () => {
  let origin: RawOrigin;
  let proxy: AttackedProxy;
  let sendBody: () => void;

  beforeEach(async () => {
    origin = await RawOrigin.listen((socket, head) => {
      if (head.includes("/cut")) {
        socket.end("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
      } else if (head.includes("/reset")) {
        socket.write("HTTP/1.1 200 OK\r\n\r\nhalf", () => socket.resetAndDestroy());
      } else if (head.includes("/late-body")) {
        // The body comes once the client has the head.
        socket.write("HTTP/1.1 200 OK\r\nX-Name: caf\xe9\r\nContent-Length: 2\r\n\r\n", "latin1");
        sendBody = () => socket.write("ok");
      } else {
        socket.write(answerTo(head) ?? "", "latin1");
      }
    });
    proxy = await AttackedProxy.start({});
  });

  afterEach(async () => {
    expect(proxy.faults).toEqual([]);
    await proxy.close();
    origin.close();
  });

  async function get(path: string, version = "1.1"): Promise<RawClient> {
    const host = `127.0.0.1:${origin.port}`;
    const client = await RawClient.connect(proxy.forward);
    return client.send(`GET http://${host}${path} HTTP/${version}\r\nHost: ${host}\r\n\r\n`);
  }

  test.each([
    "/two-lengths",
    "/both-lengths",
    "/bare-lf",
    "/folded",
    "/101",
    "/flood",
    "/continue-flood",
    "/large-head",
    "/ssh",
    "/coded",
  ])("%s: 502, and the connection is not used again", async (path) => {
    const client = await get(path);
    expect(await client.sees("upstream.bad-response")).toContain("HTTP/1.1 502 ");
    expect(client.seen).not.toContain("Set-Cookie");
    client.socket.destroy();
    const next = await get("/ok");
    expect(await next.sees("ok")).toMatch(/^HTTP\/1\.1 200 /);
    expect(origin.connections).toHaveLength(2);
    next.socket.destroy();
  });

  test.each([
    ["/odd-reason", 200],
    ["/odd-reason-utf8", 404],
  ])("%s: a reason phrase beyond ASCII does not hold the response", async (path, status) => {
    const client = await get(path);
    expect(await client.sees("\r\n\r\nok")).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    client.socket.destroy();
  });

  test.each(["/continue", "/continue-again"])(
    "%s: an interim response that nobody asked for holds nothing up",
    async (path) => {
      const client = await get(path);
      const seen = await client.sees("\r\n\r\nok");
      expect(seen).toContain("HTTP/1.1 200 OK\r\n");
      expect(seen).not.toContain("HTTP/1.1 100");
      expect(seen.includes("HTTP/1.1 103")).toBe(path === "/continue-again");
      client.socket.destroy();
      const next = await get("/ok");
      await next.sees("\r\n\r\nok");
      expect(origin.connections).toHaveLength(1);
      next.socket.destroy();
    },
  );

  test("an interim response in many segments, before the body of the request has come", async () => {
    const host = `127.0.0.1:${origin.port}`;
    const client = await RawClient.connect(proxy.forward);
    client.send(`PUT http://${host}/wait HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 4\r\n\r\nab`);
    const [upstream] = await eventually(() => origin.seen.endsWith("ab") && origin.connections);
    for (const byte of "HTTP/1.1 100 Continue\r\n\r\n") {
      await new Promise((resolve) => upstream?.socket.write(byte, resolve));
    }
    client.send("cd");
    await eventually(() => origin.seen.endsWith("abcd"));
    upstream?.socket.write(answers["/ok"] ?? "");
    expect(await client.sees("\r\n\r\nok")).toMatch(/^HTTP\/1\.1 200 /);
    client.socket.destroy();
  });

  test("a field beyond ASCII has the same bytes when the body comes later", async () => {
    const client = await get("/late-body");
    expect(await client.sees("\r\n\r\n")).toMatch(/X-Name: caf\xe9\r\n/i);
    sendBody();
    expect(await client.sees("\r\n\r\nok")).toMatch(/\r\n\r\nok$/);
    client.socket.destroy();
  });

  test("a second answer behind the first is dropped, and the connection is not used again", async () => {
    const client = await get("/split");
    await client.sees("\r\n\r\nok");
    client.socket.destroy();
    const next = await get("/ok");
    await next.sees("\r\n\r\nok");
    expect(next.seen).not.toContain("evil");
    expect(origin.connections).toHaveLength(2);
    next.socket.destroy();
  });

  test("a length on a 204 does not reach the client, which would wait for it", async () => {
    const client = await get("/204");
    expect(await client.sees("\r\n\r\n")).not.toMatch(/content-length/i);
    expect(client.seen).not.toContain("evil");
    client.socket.destroy();
  });

  test.each([
    ["/cut", "1.1"],
    ["/cut", "1.0"],
    ["/reset", "1.1"],
    ["/reset", "1.0"],
  ])("%s: a cut answer is a reset for an HTTP/%s client", async (path, version) => {
    const client = await get(path, version);
    await client.ended();
    expect(client.seen).not.toContain("\r\n0\r\n");
    // What came in one moment with the reset may be refused instead.
    if (!client.seen.startsWith("HTTP/1.1 502 "))
      expect(client.failure).toMatchObject({ code: "ECONNRESET" });
  });
});

describe("to a client on HTTP/2", () => {
  let server: tls.Server;
  let proxy: AttackedProxy;
  let session: ClientHttp2Session;
  let authority: string;

  beforeAll(async () => {
    const ca = await TestAuthority.create();
    const bundle = join(await temporaryDirectory(), "roots.pem");
    await writeFile(bundle, ca.caPem);
    server = tls.createServer(await ca.server(["origin.test"]), (socket) => {
      socket.on("error", () => undefined);
      socket.on("data", (chunk: Buffer) => {
        for (const head of chunk.toString("latin1").split("\r\n\r\n").slice(0, -1)) {
          socket.write(answerTo(head) ?? "");
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    authority = `origin.test:${port}`;
    proxy = await AttackedProxy.start({
      egress: { allow_ips: ["127.0.0.0/8"], hosts: { "origin.test": ["127.0.0.1"] } },
      tls_bridge: { mode: "enabled", ca: "ephemeral", ports: [port], upstream_ca_bundle: bundle },
      limits: { body_timeout: "300ms", keep_alive_timeout: "500ms" },
    });
  });

  beforeEach(async () => {
    const clear = await innerConnection(proxy.forward, authority, "h2");
    session = http2.connect(`https://${authority}`, { createConnection: () => clear });
    session.on("error", () => undefined);
    await new Promise((resolve) => session.once("remoteSettings", resolve));
  });

  afterEach(async () => {
    session.destroy();
    expect(proxy.faults).toEqual([]);
    await eventually(async () => (await proxy.metric("authbridge_active_flows")) === 0);
  });

  afterAll(async () => {
    await proxy.close();
    server.close();
  });

  function ask(
    headers: OutgoingHttpHeaders,
    body?: string,
  ): Promise<{ readonly status: number; readonly text: string }> {
    const open = body !== undefined || headers[":method"] === "CONNECT";
    const stream = session.request({ ":authority": authority, ...headers }, { endStream: !open });
    if (body !== undefined) stream.write(body);
    return new Promise((resolve, reject) => {
      let status = 0;
      let text = "";
      stream.on("response", (fields) => {
        status = Number(fields[":status"]);
        if (headers[":method"] === "CONNECT" && status === 200) stream.end();
      });
      stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
      stream.on("error", reject);
      stream.on("close", () => resolve({ status, text }));
    });
  }

  test.each(["/h2-field", "/repeated", "/h2-trailer", "/hop-trailer", "/repeated-trailer"])(
    "%s: fields that HTTP/2 forbids fail nothing",
    async (path) => {
      expect(await ask({ ":path": path })).toEqual({ status: 200, text: "ok" });
    },
  );

  test.each(["/continue", "/continue-again"])(
    "%s: an interim response that nobody asked for holds nothing up",
    async (path) => {
      expect(await ask({ ":path": path })).toEqual({ status: 200, text: "ok" });
    },
  );

  test("a status that HTTP/2 cannot carry is 502", async () => {
    const { status, text } = await ask({ ":path": "/999" });
    expect(status).toBe(502);
    expect(text).toContain("upstream.bad-response");
  });

  test("a length on a 204 does not break the stream", async () => {
    expect(await ask({ ":path": "/204" })).toEqual({ status: 204, text: "" });
  });

  test("a switch of protocols with forbidden fields is a switch without them", async () => {
    const websocket = { ":method": "CONNECT", ":protocol": "websocket", ":scheme": "https" };
    const asked = ask({ ...websocket, ":path": "/ws" }).catch(() => ({ status: 200 }));
    await eventually(async () => (await proxy.metric("authbridge_tunnels_opened_total")) > 1);
    session.destroy();
    await asked;
  });

  test("a fragment in the path is 400", async () => {
    expect((await ask({ ":path": "/ok#/../admin" })).status).toBe(400);
  });

  test("an upload that stalls is 408 for the client and in the log", async () => {
    expect((await ask({ ":method": "POST", ":path": "/silent" }, "abc")).status).toBe(408);
    const line = await proxy.log(({ msg, path }) => msg === "flow" && path === "/silent");
    expect(line).toMatchObject({ status: 408, code: "request.timeout" });
  });

  test.each(["/ok", "/repeated-trailer", "/trailers-only"])(
    "%s: a response that comes before the request has ended ends the request",
    async (path) => {
      const headers = { ":authority": authority, ":method": "POST", ":path": path };
      const stream = session.request(headers, { endStream: false });
      stream.on("error", () => undefined);
      // More than the chain takes at once, so that some of it waits.
      stream.write(Buffer.alloc(600_000));
      stream.resume();
      await new Promise((resolve) => stream.once("close", resolve));
      expect(stream.rstCode).toBe(http2.constants.NGHTTP2_NO_ERROR);
      const line = await proxy.log(
        (line) => line.msg === "flow" && line["path"] === path && line["method"] === "POST",
      );
      expect(line["outcome"]).not.toBe("cancelled");
    },
  );

  test("a session that was busy once is still closed when it has been idle", async () => {
    await ask({ ":method": "POST", ":path": "/silent" }, "abc");
    await new Promise((resolve) => session.once("close", resolve));
  });
});
