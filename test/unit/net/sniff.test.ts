import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Sniffed } from "../../../src/net/sniff.ts";
import { classify, parseHttpHead, sniff } from "../../../src/net/sniff.ts";
import { clientHello, records } from "../../support/client-hello.ts";
import type { SocketPair } from "../../support/socket-pair.ts";
import { socketPair } from "../../support/socket-pair.ts";

describe("sniff", () => {
  let pair: SocketPair;

  beforeEach(async () => {
    pair = await socketPair();
  });
  afterEach(() => {
    pair.close();
  });

  const look = (options = {}): Promise<Sniffed> =>
    sniff(pair.server, { timeoutMs: 5_000, ...options });

  async function next(length: number): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let total = 0;
    for await (const chunk of pair.server) {
      chunks.push(Buffer.from(chunk));
      total += chunks.at(-1)?.length ?? 0;
      if (total >= length) break;
    }
    return Buffer.concat(chunks);
  }

  test("names the server of a TLS client and puts the bytes back (I1)", async () => {
    const hello = records(clientHello({ sni: "api.openai.com", alpn: ["h2"] }));
    const result = look();
    pair.client.write(hello);
    expect(await result).toMatchObject({ kind: "tls", sni: "api.openai.com", alpn: ["h2"] });
    expect(await next(hello.length)).toEqual(hello);
  });

  test("names the host of an HTTP request and puts it back verbatim (I2)", async () => {
    const request = "GET /x HTTP/1.1\r\nHost: api.example.org:8080\r\nA: b\r\n\r\nbody";
    const result = look();
    pair.client.write(request);
    expect(await result).toMatchObject({
      kind: "http",
      method: "GET",
      host: "api.example.org",
      authority: "api.example.org:8080",
    });
    expect((await next(request.length)).toString()).toBe(request);
  });

  test("calls anything else opaque at once and puts it back (I3)", async () => {
    const result = look();
    pair.client.write(Buffer.of(0, 1, 2, 3, 0xff));
    expect(await result).toEqual({ kind: "opaque", bytes: 5 });
    expect(await next(5)).toEqual(Buffer.of(0, 1, 2, 3, 0xff));
  });

  test("follows a hello that comes one byte at a time, in one-byte records", async () => {
    const hello = records(clientHello({ sni: "slow.test" }), 1);
    const result = look();
    for (const byte of hello) {
      await new Promise((resolve) => {
        pair.client.write(Buffer.of(byte), resolve);
      });
    }
    expect(await result).toMatchObject({ kind: "tls", sni: "slow.test" });
    expect(await next(hello.length)).toEqual(hello);
  });

  test("sees bytes that were put back before it looked", async () => {
    pair.server.unshift(Buffer.from("SSH-2.0-x\r\n"));
    expect(await look()).toMatchObject({ kind: "opaque" });
    expect((await next(11)).toString()).toBe("SSH-2.0-x\r\n");
  });

  test("sees a client that speaks and closes at once", async () => {
    pair.client.end("EHLO x\r\n");
    await once(pair.client, "finish");
    expect(await look()).toMatchObject({ kind: "opaque" });
    expect((await next(8)).toString()).toBe("EHLO x\r\n");
  });

  test("a silent client times out with nothing seen, and still works", async () => {
    expect(await look({ timeoutMs: 5 })).toEqual({ kind: "timeout", bytes: 0 });
    pair.client.write("late");
    expect((await next(4)).toString()).toBe("late");
  });

  test("a client that stops half-way times out, and its bytes are put back", async () => {
    const part = records(clientHello({ sni: "a.test" })).subarray(0, 20);
    pair.server.unshift(part);
    expect(await look({ timeoutMs: 5 })).toEqual({ kind: "timeout", bytes: 20 });
    expect(await next(20)).toEqual(part);
  });

  test("a client that closes half-way is closed", async () => {
    const result = look();
    pair.client.end(records(clientHello({ sni: "a.test" })).subarray(0, 20));
    expect(await result).toMatchObject({ kind: "closed", bytes: 20 });
  });

  test("a socket that is destroyed already is closed", async () => {
    pair.server.destroy();
    expect(await look()).toMatchObject({ kind: "closed", bytes: 0 });
  });

  test("a socket that is reset while looking is closed", async () => {
    const result = look();
    pair.client.resetAndDestroy();
    expect(await result).toMatchObject({ kind: "closed" });
  });

  test("a hello beyond the limit is malformed, never opaque", async () => {
    const result = look({ maxBytes: 64 });
    pair.client.write(records(clientHello({ sni: "a.test" })));
    expect(await result).toMatchObject({ kind: "tls" });
    const second = look({ maxBytes: 64 });
    pair.server.read();
    pair.client.write(records(clientHello({ sni: "a".repeat(500) })).subarray(0, 100));
    expect(await second).toMatchObject({ kind: "malformed" });
  });

  test("leaves no listener behind", async () => {
    const before = new Set(pair.server.eventNames());
    const result = look();
    pair.client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    await result;
    expect(new Set(pair.server.eventNames())).toEqual(before);
  });
});

describe("parseHttpHead", () => {
  const parse = (text: string) => parseHttpHead(Buffer.from(text, "latin1"));

  test.each([
    ["GET / HTTP/1.1\r\nhost:a.test\r\n\r\n", { host: "a.test", hostCount: 1 }],
    ["GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", { host: "::1", authority: "[::1]:80" }],
    ["GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", { host: "[:" }],
    ["GET / HTTP/1.0\r\n\r\n", { host: undefined, hostCount: 0 }],
    ["GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", { host: undefined, hostCount: 2 }],
    ["M-SEARCH * HTTP/1.1\r\nX-Host: b\r\n\r\n", { method: "M-SEARCH", hostCount: 0 }],
  ])("reads %j", (text, expected) => {
    expect(parse(text)).toMatchObject({ kind: "head", head: expected });
  });

  test.each(["", "G", "GET", "GET ", "GET / HTTP/1.1\r", "GET / HTTP/1.1\r\nHost: a\r\n"])(
    "waits after %j",
    (text) => {
      expect(parse(text)).toEqual({ kind: "need-more" });
    },
  );

  test.each([
    " GET / HTTP/1.1",
    "GET\t/",
    "GET / HTTP/1.1\n",
    "EHLO there\r\n",
    "GET  / HTTP/1.1\r\n",
    "GET / http/1.1\r\n",
    "\r\n",
    "\0",
    "X".repeat(33),
  ])("does not take %j for a request", (text) => {
    expect(parse(text)).toEqual({ kind: "not-http" });
  });
});

test("a head beyond the limit is malformed", () => {
  const bytes = Buffer.from(`GET / HTTP/1.1\r\nX: ${"x".repeat(100)}`);
  expect(classify(bytes, 64)).toMatchObject({ kind: "malformed" });
  expect(classify(bytes, 1_000)).toBeUndefined();
});

describe("an HTTP request told by its first line", () => {
  const first = (text: string): Sniffed | undefined =>
    classify(Buffer.from(text, "latin1"), 64, true);

  test("needs no more than that line", () => {
    expect(first("GET /x HTTP/1.1\r\n")).toMatchObject({
      kind: "http",
      method: "GET",
      target: "/x",
    });
    expect(classify(Buffer.from("GET /x HTTP/1.1\r\n"), 64)).toBeUndefined();
  });

  test("is waited for until the line ends", () => {
    expect(first("GET /x HTTP/1.1")).toBeUndefined();
    expect(first("SSH-2.0-x\r\n")).toMatchObject({ kind: "opaque" });
    expect(first("GET  /x HTTP/1.1\r\n")).toMatchObject({ kind: "opaque" });
    expect(first(`GET /${"x".repeat(64)}`)).toMatchObject({ kind: "malformed" });
  });
});
