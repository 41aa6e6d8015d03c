/** What a hostile client tries with framing, order and time on HTTP/1.1, on the forward and the reverse port. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AttackedProxy, exchangeRaw, RawOrigin } from "../support/attack-bench.ts";
import { type Address, RawClient } from "../support/http-client.ts";
import { eventually } from "../support/eventually.ts";

let origin: RawOrigin;
let proxy: AttackedProxy;

beforeEach(async () => {
  origin = await RawOrigin.listen((socket, head) => {
    if (!head.includes("/silent")) socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  });
  proxy = await AttackedProxy.start({
    listener: {
      roles: ["forward", "reverse"],
      reverse_proxy_addr: "127.0.0.1:0",
      reverse_proxy_backend: `http://127.0.0.1:${origin.port}`,
    },
    limits: { header_timeout: "300ms", body_timeout: "300ms", max_tunnels: 2, max_connections: 20 },
  });
});

afterEach(async () => {
  expect(proxy.faults).toEqual([]);
  await proxy.close();
  origin.close();
});

/** The head of a request, for whichever port. */
function head(surface: "forward" | "reverse", method: string, path: string, fields = ""): string {
  const host = `127.0.0.1:${origin.port}`;
  const target = surface === "forward" ? `http://${host}${path}` : path;
  return `${method} ${target} HTTP/1.1\r\nHost: ${host}\r\n${fields}\r\n`;
}

const smuggling: readonly (readonly [name: string, fields: string, body: string])[] = [
  ["both lengths", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"],
  ["an unknown coding", "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"],
  ["two codings", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"],
  ["a space before the colon", "Transfer-Encoding : chunked\r\n", "0\r\n\r\n"],
  ["two lengths", "Content-Length: 2\r\nContent-Length: 2\r\n", "ab"],
  ["a signed length", "Content-Length: +2\r\n", "ab"],
  ["a folded line", "X-A: b\r\n c\r\n", ""],
  ["a bare LF", "X-A: b\nX-B: c\r\n", ""],
  ["two hosts", "Host: evil.test\r\nContent-Length: 2\r\n", "ab"],
  ["an underscore in a chunk size", "Transfer-Encoding: chunked\r\n", "5_0\r\nhello\r\n0\r\n\r\n"],
  ["a bare LF after a chunk size", "Transfer-Encoding: chunked\r\n", "5\nhello\r\n0\r\n\r\n"],
];

describe.each(["forward", "reverse"] as const)("on the %s port", (surface) => {
  const address = (): Address => proxy.address(surface);

  test.each(smuggling)(
    "%s: 400, and what follows is not a request",
    async (_name, fields, body) => {
      const smuggled = head(surface, "GET", "/smuggled");
      const answer = await exchangeRaw(
        address(),
        head(surface, "POST", "/silent", fields) + body + smuggled,
      );
      expect(answer).toMatch(/^HTTP\/1\.1 400 /);
      expect(answer.match(/HTTP\/1\.1 /g)).toHaveLength(1);
      expect(origin.seen).not.toContain("smuggled");
    },
  );

  test("a request that upgrades and has a body is sent whole, as an ordinary request", async () => {
    const fields = "Connection: Upgrade\r\nUpgrade: foo\r\nTransfer-Encoding: chunked\r\n";
    const client = await RawClient.connect(address());
    client.send(`${head(surface, "POST", "/a", fields)}5\r\nhello\r\n0\r\n\r\n`);
    expect(await client.sees("ok")).toMatch(/^HTTP\/1\.1 200 /);
    expect(origin.seen).toContain("5\r\nhello\r\n0\r\n\r\n");
    expect(origin.seen.toLowerCase()).not.toContain("upgrade");
    // The connection is still in step.
    client.send(head(surface, "GET", "/b"));
    expect((await client.sees("200 OK", 2)).split("200 OK")).toHaveLength(3);
    client.socket.destroy();
  });

  test("an upgrade to h2c is ignored and the request served", async () => {
    const fields =
      "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    const client = await RawClient.connect(address());
    client.send(head(surface, "GET", "/a", fields));
    expect(await client.sees("ok")).toMatch(/^HTTP\/1\.1 200 /);
    expect(origin.seen.toLowerCase()).not.toMatch(/upgrade|http2-settings/);
    client.socket.destroy();
  });

  test("a fragment in the target is 400: recipients cut it off or do not", async () => {
    expect(await exchangeRaw(address(), head(surface, "GET", "/public#/../admin"))).toMatch(
      / 400 /,
    );
    expect(origin.seen).toBe("");
  });

  test("an HTTP/1.0 client gets no interim answer", async () => {
    const request = head(surface, "POST", "/", "Expect: 100-continue\r\nContent-Length: 2\r\n");
    const answer = await exchangeRaw(address(), `${request.replace("HTTP/1.1", "HTTP/1.0")}ab`);
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
  });

  test("pipelined requests are one request at a time for the origin", async () => {
    const client = await RawClient.connect(address());
    client.send(head(surface, "GET", "/silent").repeat(5));
    await eventually(() => origin.seen.includes("/silent"));
    // A second client is served meanwhile, so whatever the first one could start has been started.
    const other = await RawClient.connect(address());
    await other.send(head(surface, "GET", "/")).sees("ok");
    expect(origin.seen.match(/\/silent/g)).toHaveLength(1);
    client.socket.destroy();
    other.socket.destroy();
    await eventually(async () => (await proxy.metric("authbridge_active_flows")) === 0);
  });

  test("requests that are pipelined behind one that is not answered wait, and are not sent on", async () => {
    const client = await RawClient.connect(address());
    client.send(head(surface, "GET", "/silent") + head(surface, "GET", "/next").repeat(200));
    await eventually(() => origin.seen.includes("/silent"));
    expect(await proxy.metric("authbridge_active_flows")).toBe(1);
    expect(origin.seen).not.toContain("/next");
    client.socket.destroy();
    await eventually(async () => (await proxy.metric("authbridge_active_flows")) === 0);
    expect(origin.seen).not.toContain("/next");
  });

  test("two hundred pipelined requests are answered in their order", async () => {
    const client = await RawClient.connect(address());
    const last = head(surface, "GET", "/last", "Connection: close\r\n");
    client.send(head(surface, "GET", "/next").repeat(199) + last);
    expect((await client.ended()).match(/HTTP\/1\.1 200 /g)).toHaveLength(200);
  });

  test("a connection that owes an answer does not become a tunnel", async () => {
    const client = await RawClient.connect(address());
    const authority = `127.0.0.1:${origin.port}`;
    const connect = `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`;
    client.send(head(surface, "GET", "/silent") + connect);
    await eventually(() => origin.seen.includes("/silent"));
    expect(await proxy.metric("authbridge_active_flows")).toBe(1);
    client.socket.destroy();
  });

  test("a CONNECT behind a response is served in its turn", async () => {
    const client = await RawClient.connect(address());
    const authority = `127.0.0.1:${origin.port}`;
    const connect = `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`;
    client.send(head(surface, "GET", "/first") + connect);
    const second = surface === "forward" ? "HTTP/1.1 200 Connection" : "HTTP/1.1 405 ";
    expect(await client.sees(second)).toMatch(/^HTTP\/1\.1 200 OK[^]*ok/);
    client.socket.destroy();
  });

  test("a refused CONNECT frees its connection although the client keeps its half open", async () => {
    const client = await RawClient.connect(address());
    expect(await client.send("CONNECT nowhere HTTP/1.1\r\nHost: nowhere\r\n\r\n").ended()).toMatch(
      / 40[05] /,
    );
    await eventually(async () => (await proxy.metric("authbridge_client_connections")) === 0);
    client.socket.destroy();
  });

  test("a stalled body is 408 for the client and in the log", async () => {
    const client = await RawClient.connect(address());
    client.send(`${head(surface, "POST", "/silent", "Content-Length: 9\r\n")}abc`);
    expect(await client.ended()).toMatch(/^HTTP\/1\.1 408 /);
    const line = await proxy.log(({ msg }) => msg === "flow");
    expect(line).toMatchObject({ status: 408, code: "request.timeout", outcome: "error" });
    client.socket.destroy();
  });

  test("a stalled head is 408", async () => {
    const client = await RawClient.connect(address());
    expect(await client.send("GET / HTTP/1.1\r\nHo").ended()).toMatch(/^HTTP\/1\.1 408 /);
    client.socket.destroy();
  });
});

test("tunnels that are still being opened count against limits.max_tunnels", async () => {
  const authority = `127.0.0.1:${origin.port}`;
  const clients = await Promise.all(
    Array.from({ length: 8 }, () => RawClient.connect(proxy.forward)),
  );
  for (const client of clients) {
    client.send(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);
  }
  const answers = await Promise.all(clients.map((client) => client.sees("\r\n\r\n")));
  expect(answers.filter((answer) => answer.includes(" 200 "))).toHaveLength(2);
  expect(answers.filter((answer) => answer.includes(" 503 "))).toHaveLength(6);
  for (const { socket } of clients) socket.resetAndDestroy();
});

test("a connection over limits.max_connections is answered 503 and its request not served", async () => {
  const held = await Promise.all(
    Array.from({ length: 20 }, () => RawClient.connect(proxy.forward)),
  );
  const answer = await exchangeRaw(proxy.forward, head("forward", "GET", "/over"));
  expect(answer).toMatch(/^HTTP\/1\.1 503 /);
  expect(origin.seen).toBe("");
  for (const { socket } of held) socket.destroy();
});

test("clients that leave at every point of an exchange leave nothing behind", async () => {
  const authority = `127.0.0.1:${origin.port}`;
  const points: readonly string[] = [
    "GET http://",
    head("forward", "POST", "/silent", "Content-Length: 9\r\n"),
    `${head("forward", "POST", "/silent", "Transfer-Encoding: chunked\r\n")}3\r\nabc`,
    head("forward", "GET", "/silent"),
    head("forward", "GET", "/"),
    `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\nabc`,
    head("forward", "GET", "/silent", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    head("forward", "GET", "/").repeat(20),
  ];
  for (let round = 0; round < 10; round += 1) {
    for (const bytes of points) {
      const client = await RawClient.connect(proxy.forward);
      client.send(bytes);
      if (round % 3 > 0) await new Promise((resolve) => setImmediate(resolve));
      if (round % 2 === 0) client.socket.resetAndDestroy();
      else client.socket.destroySoon();
    }
  }
  // Half-closed tunnels are the origin's to end.
  for (const name of ["active_flows", "active_tunnels", "client_connections"]) {
    await eventually(async () => {
      for (const { socket } of origin.connections) if (socket.readableEnded) socket.end();
      return (await proxy.metric(`authbridge_${name}`)) === 0;
    });
  }
});

test.each(["::ffff:127.0.0.1", "::ffff:7f00:1", "0.0.0.0", "::"])(
  "IP-16: a name that resolves to %s does not reach the proxy's own listeners",
  async (address) => {
    const aimed = await AttackedProxy.start({
      egress: {
        allow_ips: ["0.0.0.0/0", "::/0"],
        hosts: { "rebound.test": [address] },
      },
    });
    for (const port of [aimed.address("stats").port, aimed.forward.port]) {
      const authority = `rebound.test:${port}`;
      const request = `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`;
      expect(await exchangeRaw(aimed.forward, request)).toMatch(/^HTTP\/1\.1 403 .*own-listener/s);
    }
    await aimed.close();
  },
);
