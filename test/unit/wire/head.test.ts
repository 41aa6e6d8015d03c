import { describe, expect, test } from "vitest";
import {
  inChunks,
  readTrailers,
  RequestHead,
  ResponseHead,
  untilClose,
} from "../../../src/wire/head.ts";

const fields = (raw: readonly string[]): string => {
  let text = "";
  for (let at = 0; at < raw.length; at += 2) text += `${raw[at]}: ${raw[at + 1]}\r\n`;
  return text;
};
const ask = (raw: readonly string[], version = "1.1") =>
  new RequestHead(`POST / HTTP/${version}\r\n${fields(raw)}`, 100);
const get = (text: string) => new ResponseHead(text, 100);

describe("a request head", () => {
  test.each([
    [["Host", "a"], "1.1"],
    [[], "1.0"],
    [["Host", "a", "Content-Length", "12"], "1.1"],
    [["Host", "a", "Transfer-Encoding", "Chunked"], "1.1"],
    [["Host", "a", "X", "tab\tand \xe9"], "1.1"],
    [["Host", ""], "1.1"],
  ])("finds nothing wrong with %j in HTTP/%s", (raw, version) => {
    expect(ask(raw, version).rawHeaders).toEqual(raw);
  });

  test.each([
    [["Host", "a", "host", "a"], /more than one Host/],
    [[], /no Host/],
    [["Host", "a", "Content-Length", "1", "Transfer-Encoding", "chunked"], /both/],
    [["Host", "a", "Content-Length", "1", "Content-Length", "2"], /twice/],
    [["Host", "a", "Content-Length", "1", "content-length", "1"], /twice/],
    [["Host", "a", "Content-Length", "1, 1"], /decimal/],
    [["Host", "a", "Content-Length", "+1"], /decimal/],
    [["Host", "a", "Content-Length", "0x1"], /decimal/],
    [["Host", "a", "Content-Length", ""], /decimal/],
    [["Host", "a", "Content-Length", "9".repeat(16)], /decimal/],
    [["Host", "a", "Transfer-Encoding", "chunked", "Transfer-Encoding", "chunked"], /twice/],
    [["Host", "a", "Transfer-Encoding", "chunked, chunked"], /not chunked/],
    [["Host", "a", "Transfer-Encoding", "gzip, chunked"], /not chunked/],
    [["Host", "a", "Transfer-Encoding", "xchunked"], /not chunked/],
    [["Host", "a", "Transfer-Encoding", ""], /not chunked/],
    [["Host", "a", "Connection", "close, Content-Length"], /frames or routes/],
    [["Host", "a", "Connection", "host"], /frames or routes/],
    [["Host", "a", "X", "a\r\n folded"], /folded/],
    [["Host", "a", "X", "a\0"], /control/],
    [["Host", "a", "X", "a\rb"], /control/],
    [["Host", "a", "X", "a\nb"], /control|colon/],
    [["Host", "a", "X y", "a"], /token/],
    [["Host", "a", "X ", "a"], /token/],
    [["Host", "a", "", "a"], /token/],
  ])("refuses %j", (raw, reason) => {
    expect(() => ask(raw)).toThrow(reason);
  });

  test("knows Transfer-Encoding in HTTP/1.1 only", () => {
    const raw = ["Host", "a", "Transfer-Encoding", "chunked"];
    expect(() => ask(raw, "1.0")).toThrow("HTTP/1.0 message has Transfer-Encoding");
    expect(ask(raw).length).toBe(inChunks);
  });

  test.each([
    ["GET  / HTTP/1.1", /target/],
    ["GET / HTTP/1.1 ", /three parts|version/],
    [" GET / HTTP/1.1", /method/],
    ["GET\t/ HTTP/1.1", /method/],
    ["GET / http/1.1", /version/],
    ["GET / HTTP/1.10", /version/],
    ["GET / HTTP/2.0", /version/],
    ["GET / HTTP/1.2", /version/],
    ["GET /", /version/],
    ["GET /a\x80 HTTP/1.1", /URI/],
    ["G(T / HTTP/1.1", /method/],
    ["get / HTTP/1.1", /not known/],
    ["FOO / HTTP/1.1", /not known/],
  ])("refuses the request line %j", (line, reason) => {
    expect(() => new RequestHead(`${line}\r\nHost: a\r\n`, 100)).toThrow(reason);
  });

  test.each([
    [[], "1.1", true],
    [["Connection", "close"], "1.1", false],
    [["Connection", "Keep-Alive"], "1.1", true],
    [["Connection", "x, CLOSE"], "1.1", false],
    [["Connection", "keep-alive", "Connection", "close"], "1.1", false],
    [[], "1.0", false],
    [["Connection", "keep-alive"], "1.0", true],
    [["Connection", "keep-alive, close"], "1.0", false],
  ])("with %j in HTTP/%s the connection persists: %s", (raw, version, persists) => {
    expect(ask(["Host", "a", ...raw], version).isPersistent).toBe(persists);
  });

  test("counts its fields", () => {
    const raw = ["Host", "a", "X", "1", "X", "2"];
    expect(() => new RequestHead(`GET / HTTP/1.1\r\n${fields(raw)}`, 3)).not.toThrow();
    expect(() => new RequestHead(`GET / HTTP/1.1\r\n${fields(raw)}`, 2)).toThrow(/max_headers/);
  });
});

describe("a response head", () => {
  test.each([
    ["HTTP/1.1 200 OK\r\n", 200, "OK"],
    ["HTTP/1.1 200 \r\n", 200, ""],
    ["HTTP/1.1 200\r\n", 200, ""],
    ["HTTP/1.0 404 Not \xe9\r\n", 404, "Not \xe9"],
    ["HTTP/1.1 999 x\r\n", 999, "x"],
  ])("reads %j", (text, status, reason) => {
    expect(get(text)).toMatchObject({ status, reason });
  });

  test.each([
    "HTTP/2 200 OK\r\n",
    "HTTP/1.1 20 OK\r\n",
    "HTTP/1.1 2000 OK\r\n",
    "HTTP/1.1 099 OK\r\n",
    "HTTP/1.1  200 OK\r\n",
    "ICY 200 OK\r\n",
    "HTTP/1.1 200 O\0K\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n",
  ])("refuses %j", (text) => {
    expect(() => get(text)).toThrow();
  });

  test("says how long its body is (RFC 9112 section 6.3)", () => {
    const counted = get("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n");
    expect([counted.lengthFor("GET"), counted.lengthFor("HEAD")]).toEqual([5, 0]);
    expect(get("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n").lengthFor("GET")).toBe(
      inChunks,
    );
    expect(get("HTTP/1.1 200 OK\r\n").lengthFor("GET")).toBe(untilClose);
    for (const status of [101, 103, 204, 304]) {
      expect(get(`HTTP/1.1 ${status} x\r\nContent-Length: 5\r\n`).lengthFor("GET")).toBe(0);
    }
  });
});

test("trailers are fields", () => {
  expect(readTrailers("X: 1\r\nY:2\r\n", 10)).toEqual(["X", "1", "Y", "2"]);
  expect(readTrailers("", 10)).toEqual([]);
  expect(() => readTrailers("X : 1\r\n", 10)).toThrow();
  expect(() => readTrailers("X: 1\r\n Y: 2\r\n", 10)).toThrow();
});
