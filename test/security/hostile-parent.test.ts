/** A parent proxy that lies, drips, floods or asks: each becomes a 502 or 504 that names it, and nothing leaks. */
import { beforeAll, describe, expect, test } from "vitest";
import { get, openTunnel, type RawResponse } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";
import { type ParentAct, StubParent } from "../support/stub-parent.ts";

const own = owner();
let parent: StubParent;
let origin: HttpOrigin;
let proxy: ProxyProcess;
const secret = "c0rp-s3cr3t";
const trap = "parent-internals.corp";

beforeAll(async () => {
  parent = await own(StubParent.start());
  origin = await own(HttpOrigin.launch());
  const url = parent.url.replace("://", `://agents:${secret}@`);
  proxy = await own(
    ProxyProcess.start(
      settings({
        egress: { hosts: { "api.test": ["127.0.0.1"], "plain.test": ["127.0.0.1"] } },
        limits: { connect_timeout: "1s", response_timeout: "1s" },
        upstream_proxy: {
          http_proxy: { url, connect_by: "name" },
          https_proxy: url,
          tunnel_timeout: "700ms",
        },
      }),
    ),
  );
});

const page = `<html><h1>Sign in at ${trap}</h1></html>`;
const html = { "Content-Type": "text/html", "X-Parent": trap };

/** Sends head bytes one by one, slower than anybody waits. */
const dripping: ParentAct = (_head, socket) => {
  let sent = 0;
  const bytes = "HTTP/1.1 200 OK\r\nX-Slow: ".padEnd(200, "x");
  const timer = setInterval(() => {
    if (socket.destroyed || sent >= bytes.length) clearInterval(timer);
    else socket.write(bytes[sent++] ?? "");
  }, 30);
};

const toConnect: readonly (readonly [what: string, act: ParentAct, status: number, RegExp])[] = [
  ["302", () => reply(302, page, { ...html, Location: `http://${trap}/` }), 502, /status 302/],
  ["500 with a page", () => reply(500, page, html), 502, /status 500/],
  ["502", () => reply(502, "", {}), 502, /status 502/],
  ["503", () => reply(503, page, html), 502, /status 503/],
  ["504", () => reply(504, page, html), 504, /status 504/],
  [
    "401 with a challenge (CRED-07)",
    () => reply(401, "", { "WWW-Authenticate": `Basic realm="${trap}"` }),
    502,
    /status 401/,
  ],
  [
    "407 with a challenge (CRED-08)",
    () => reply(407, page, { "Proxy-Authenticate": `Basic realm="${trap}"`, "Set-Cookie": "a=b" }),
    502,
    /407/,
  ],
  ["200 with a page", () => reply(200, page, html), 502, /a document/],
  [
    "200 with a length",
    () => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    502,
    /a document \(Content-Length: 5\)/,
  ],
  ["101", () => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 502, /status 101/],
  ["endless 100s", () => "HTTP/1.1 100 Continue\r\n\r\n".repeat(20), 502, /status 100/],
  [
    "a huge head",
    () => `HTTP/1.1 200 OK\r\nX: ${"x".repeat(40_000)}\r\n\r\n`,
    502,
    /more than 16384 bytes/,
  ],
  [
    "a head without an end",
    () => `HTTP/1.1 200 OK\r\n${"X: y\r\n".repeat(10_000)}`,
    502,
    /more than 16384 bytes/,
  ],
  ["another protocol", () => "SSH-2.0-parent\r\n", 502, /in HTTP/],
  ["HTTP/2", () => Buffer.from("000006040000000000000300000064", "hex"), 502, /in HTTP/],
  ["a status that is none", () => "HTTP/1.1 2000 OK\r\n\r\n", 502, /valid HTTP/],
  ["a field that is none", () => "HTTP/1.1 200 OK\r\n no-name\r\n\r\n", 502, /valid HTTP/],
  ["a close", (_head, socket) => void socket.end(), 502, /closed the connection/],
  [
    "half a head and a close",
    (_head, socket) => void socket.end("HTTP/1.1 20"),
    502,
    /closed the connection/,
  ],
  ["a reset", (_head, socket) => void socket.resetAndDestroy(), 502, /closed the connection/],
  ["nothing", () => undefined, 504, /did not answer CONNECT/],
  ["a dripping head", dripping, 504, /did not answer CONNECT/],
];

function expectFault(answer: RawResponse, status: number, why: RegExp): void {
  expect(answer.status, answer.text).toBe(status);
  expect(answer.text).toMatch(why);
  expect(answer.text).toContain(`upstream proxy ${parent.url.replace("://", "://")}`);
  const all = JSON.stringify([...answer.head.fields, answer.text]);
  expect(all).not.toContain(trap);
  expect(all).not.toContain(secret);
  expect(all.toLowerCase()).not.toMatch(/proxy-authenticate|www-authenticate|set-cookie|location/);
}

describe("to CONNECT", () => {
  test.each(toConnect)("UPS: %s is no tunnel", async (_what, act, status, why) => {
    parent.act = act;
    const { client, answer } = await openTunnel(proxy.forward, "api.test:443");
    client.close();
    expectFault(answer, status, why);
  });

  test("the credentials are sent to the parent once per connection, and an agent's never", async () => {
    parent.act = () => reply(407);
    parent.heads.length = 0;
    const { client } = await openTunnel(proxy.forward, "api.test:443", {
      "Proxy-Authorization": "Basic YWdlbnQ6YWdlbnQ=",
      Authorization: "Bearer agent-token",
    });
    client.close();
    expect(parent.heads).toHaveLength(1);
    expect(parent.heads[0]).not.toMatch(/YWdlbnQ6YWdlbnQ=|agent-token/);
  });
});

const toGet: readonly (readonly [what: string, act: ParentAct, status: number, RegExp])[] = [
  [
    "407 (CRED-08)",
    () => reply(407, page, { "Proxy-Authenticate": `Basic realm="${trap}"` }),
    502,
    /407/,
  ],
  [
    "an error page that squid marks",
    () => reply(503, page, { ...html, "X-Squid-Error": `ERR_DNS_FAIL ${trap}` }),
    502,
    /error of its own, 503/,
  ],
  [
    "a time-out that squid marks",
    () => reply(504, page, { "X-Squid-Error": "ERR_READ_TIMEOUT 0" }),
    504,
    /error of its own, 504/,
  ],
  ["another protocol", () => "SSH-2.0-parent\r\n", 502, /valid HTTP/],
  ["a close", (_head, socket) => void socket.end(), 502, /closed the connection/],
  ["nothing", () => undefined, 504, /did not answer in time \(limits.response_timeout\)/],
  ["a dripping head", dripping, 504, /did not answer in time \(limits.response_timeout\)/],
];

describe("to a plain request", () => {
  test.each(toGet)("UPS: %s is a fault of the parent", async (_what, act, status, why) => {
    parent.act = act;
    expectFault(await get(proxy.forward, "http://plain.test/"), status, why);
  });

  test("what the origin says passes, without what the parent says of itself", async () => {
    parent.act = () =>
      reply(503, "the origin's own", {
        "Retry-After": "7",
        "Proxy-Status": trap,
        "Proxy-Connection": "keep-alive",
        "Proxy-Authentication-Info": trap,
      });
    const answer = await get(proxy.forward, "http://plain.test/");
    expect([answer.status, answer.text]).toEqual([503, "the origin's own"]);
    expect(answer.header("retry-after")).toBe("7");
    expect(JSON.stringify(answer.head.fields)).not.toContain(trap);
  });

  test("a redirect is the origin's, and is not followed", async () => {
    parent.act = () => reply(302, "", { Location: "http://elsewhere.test/" });
    parent.heads.length = 0;
    const answer = await get(proxy.forward, "http://plain.test/");
    expect(answer.status).toBe(302);
    expect(answer.header("location")).toBe("http://elsewhere.test/");
    expect(parent.heads).toHaveLength(1);
  });
});

test("nothing of it is in the log, and the origin was never dialled in the parent's place", () => {
  expect(proxy.stderr).not.toContain(secret);
  expect(proxy.stderr).not.toContain(Buffer.from(`agents:${secret}`).toString("base64"));
  expect(proxy.stderr).not.toMatch(/uncaught|unhandled/);
  expect(origin.connections).toEqual([]);
});
