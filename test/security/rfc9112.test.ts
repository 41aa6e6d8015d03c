/**
 * What RFC 9112 demands of senders, recipients and intermediaries, with the sections of RFC 9110 that it leans on: each
 * row on the forward and on the reverse port, with raw bytes on both sides.
 *
 * In a request `{t}` is what stands before the path of a target, and `{h}` the origin's authority.
 */
import type { Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AttackedProxy, exchangeRaw, RawOrigin } from "../support/attack-bench.ts";
import { type Address, RawClient } from "../support/http-client.ts";
import { eventually } from "../support/eventually.ts";

type Surface = "forward" | "reverse";
type Respond = (socket: Socket, head: string) => void;

const surfaces: readonly Surface[] = ["forward", "reverse"];
const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const answersOk: Respond = (socket, head) => {
  if (!head.includes("/silent")) socket.write(ok);
};
const chunked = "POST {t}/silent HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n";
/** A whole request whose connection ends with its response. */
const get = (fields = "", method = "GET", version = "1.1"): string =>
  `${method} {t}/a HTTP/${version}\r\nHost: {h}\r\nConnection: close\r\n${fields}\r\n`;
const post = (fields: string, body: string): string =>
  `POST {t}/a HTTP/1.1\r\nHost: {h}\r\nConnection: close\r\n${fields}\r\n${body}`;

let origin: RawOrigin;
let proxy: AttackedProxy;
let respond: Respond;

beforeEach(async () => {
  respond = answersOk;
  origin = await RawOrigin.listen((socket, head) => respond(socket, head));
  proxy = await AttackedProxy.start({
    listener: {
      roles: ["forward", "reverse"],
      reverse_proxy_addr: "127.0.0.1:0",
      reverse_proxy_backend: `http://127.0.0.1:${origin.port}`,
    },
  });
});

afterEach(async () => {
  expect(proxy.faults).toEqual([]);
  await proxy.close();
  origin.close();
});

function written(surface: Surface, text: string): string {
  const host = `127.0.0.1:${origin.port}`;
  return text
    .replaceAll("{t}", surface === "forward" ? `http://${host}` : "")
    .replaceAll("{h}", host);
}

const ask = (surface: Surface, text: string): Promise<string> =>
  exchangeRaw(proxy.address(surface), written(surface, text));

/** [section, what is wrong, the request]. */
const refused: readonly (readonly [section: string, name: string, request: string])[] = [
  ["2.2", "a bare CR in a value", get("X: a\rb\r\n")],
  ["2.2", "a bare CR at the end of a line", get("X: a\r\r\n")],
  ["2.2", "a bare LF", get("X: a\nY: b\r\n")],
  ["2.2", "a bare CR before the request line", `\r${get()}`],
  ["2.2", "white space before the first field", "GET {t}/ HTTP/1.1\r\n Host: {h}\r\n\r\n"],
  ["2.2", "a folded first field", "GET {t}/ HTTP/1.1\r\n X: a\r\nHost: {h}\r\n\r\n"],
  ["2.3", "a version in lower case", "GET {t}/ http/1.1\r\nHost: {h}\r\n\r\n"],
  ["2.3", "another major version", "GET {t}/ HTTP/3.1\r\nHost: {h}\r\n\r\n"],
  ["2.3", "a version with two digits", "GET {t}/ HTTP/1.10\r\nHost: {h}\r\n\r\n"],
  ["3", "no version", "GET {t}/\r\nHost: {h}\r\n\r\n"],
  ["3", "two spaces in the request line", "GET  {t}/ HTTP/1.1\r\nHost: {h}\r\n\r\n"],
  ["3", "a tab in the request line", "GET\t{t}/ HTTP/1.1\r\nHost: {h}\r\n\r\n"],
  ["3", "a space behind the version", "GET {t}/ HTTP/1.1 \r\nHost: {h}\r\n\r\n"],
  ["3.1", "a method that is no token", "G(T {t}/ HTTP/1.1\r\nHost: {h}\r\n\r\n"],
  ["3.2", "white space in the target", "GET {t}/a b HTTP/1.1\r\nHost: {h}\r\n\r\n"],
  ["3.2", "a control character in the target", "GET {t}/a\x01 HTTP/1.1\r\nHost: {h}\r\n\r\n"],
  ["3.2", "no Host", "GET {t}/ HTTP/1.1\r\n\r\n"],
  ["3.2", "two Hosts", "GET {t}/ HTTP/1.1\r\nHost: {h}\r\nHost: {h}\r\n\r\n"],
  ["3.2", "a Host with a space", "GET {t}/ HTTP/1.1\r\nHost: a b\r\n\r\n"],
  ["3.2", "a Host with user information", "GET {t}/ HTTP/1.1\r\nHost: me@{h}\r\n\r\n"],
  ["3.2", "a Host with a path", "GET {t}/ HTTP/1.1\r\nHost: {h}/a\r\n\r\n"],
  ["3.2", "a list in Host", "GET {t}/ HTTP/1.1\r\nHost: {h}, {h}\r\n\r\n"],
  ["3.2", "a Host with a port that is no number", "GET {t}/ HTTP/1.1\r\nHost: a:b\r\n\r\n"],
  ["3.2.3", "the authority form without CONNECT", "GET {h} HTTP/1.1\r\nHost: {h}\r\n\r\n"],
  ["3.2.4", "an asterisk without OPTIONS", "GET * HTTP/1.1\r\nHost: {h}\r\n\r\n"],
  ["5", "a line without a colon", get("X\r\n")],
  ["5", "an empty name", get(": a\r\n")],
  ["5.1", "white space before the colon", get("X : a\r\n")],
  ["5.1", "a tab before the colon", get("Content-Length\t: 0\r\n")],
  ["5.2", "a folded line", get("X: a\r\n b\r\n")],
  ["5.2", "a line folded to nothing", get("X: a\r\n \r\n")],
  ["RFC 9110 5.5", "a NUL in a value", get("X: a\0b\r\n")],
  [
    "6.1",
    "two lengths of two kinds",
    post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
  ],
  ["6.1", "an unknown coding", post("Transfer-Encoding: rot13\r\n", "0\r\n\r\n")],
  ["6.1", "chunked twice", post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")],
  ["6.1", "chunked on two lines", post("Transfer-Encoding: chunked\r\n".repeat(2), "0\r\n\r\n")],
  [
    "6.1",
    "chunked in HTTP/1.0",
    "POST {t}/ HTTP/1.0\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
  ],
  [
    "6.3",
    "chunked that is not the last coding",
    post("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"),
  ],
  ["6.3", "chunked with a tab behind it", post("Transfer-Encoding: chunked\t\r\n", "0\r\n\r\n")],
  ["6.3", "identity", post("Transfer-Encoding: identity\r\n", "")],
  ["6.3", "two lengths that disagree", post("Content-Length: 2\r\nContent-Length: 3\r\n", "abc")],
  ["6.3", "a list of lengths that disagree", post("Content-Length: 2, 3\r\n", "abc")],
  ["6.3", "a negative length", post("Content-Length: -2\r\n", "ab")],
  ["6.3", "a signed length", post("Content-Length: +2\r\n", "ab")],
  ["6.3", "a hexadecimal length", post("Content-Length: 0x2\r\n", "ab")],
  ["6.3", "an empty length", post("Content-Length: \r\n", "ab")],
  ["6.3", "a length with a fraction", post("Content-Length: 2.0\r\n", "ab")],
  ["6.3", "a length beyond all numbers", post(`Content-Length: ${"9".repeat(30)}\r\n`, "ab")],
  ["7.1", "a chunk size that overflows", `${chunked}${"f".repeat(17)}\r\nhello\r\n0\r\n\r\n`],
  ["7.1", "a chunk size that wraps around", `${chunked}10000000000000005\r\nhello\r\n0\r\n\r\n`],
  ["7.1", "a chunk size with 0x", `${chunked}0x5\r\nhello\r\n0\r\n\r\n`],
  ["7.1", "a negative chunk size", `${chunked}-5\r\nhello\r\n0\r\n\r\n`],
  ["7.1", "an empty chunk size", `${chunked}\r\nhello\r\n0\r\n\r\n`],
  ["7.1", "a chunk size that is no number", `${chunked}g\r\nhello\r\n0\r\n\r\n`],
  ["7.1", "white space before a chunk size", `${chunked} 5\r\nhello\r\n0\r\n\r\n`],
  ["7.1", "a chunk longer than its size", `${chunked}4\r\nhello\r\n0\r\n\r\n`],
  ["7.1", "a bare LF behind a chunk size", `${chunked}5\nhello\r\n0\r\n\r\n`],
  ["7.1", "a bare LF behind a chunk", `${chunked}5\r\nhello\n0\r\n\r\n`],
  ["7.1.1", "a bare CR in a chunk extension", `${chunked}5;a=\rb\r\nhello\r\n0\r\n\r\n`],
  ["7.1.1", "a bare LF in a chunk extension", `${chunked}5;a\n\r\nhello\r\n0\r\n\r\n`],
  ["7.1.1", "extensions without end", `${chunked}5;${"a".repeat(70_000)}\r\nhello\r\n0\r\n\r\n`],
  ["7.1.2", "a trailer line that is no field", `${chunked}0\r\nX : a\r\n\r\n`],
  ["RFC 9110 6.5.1", "a length in the trailers", `${chunked}0\r\nContent-Length: 5\r\n\r\n`],
  [
    "RFC 9110 6.5.1",
    "a coding in the trailers",
    `${chunked}0\r\nTransfer-Encoding: chunked\r\n\r\n`,
  ],
  ["RFC 9110 7.6.1", "Connection: Host", get("Connection: host\r\n")],
  [
    "RFC 9110 7.6.1",
    "Connection: Content-Length",
    post("Connection: content-length\r\nContent-Length: 2\r\n", "ab"),
  ],
];

/** [section, what holds, the request, what the origin sees, what it must not see, what the client sees]. */
type Sent = readonly [string, string, string, RegExp | undefined, RegExp | undefined, RegExp?];
const sent: readonly Sent[] = [
  [
    "2.2",
    "empty lines before the request line are ignored",
    `\r\n\r\n${get()}`,
    /^GET \/a HTTP\/1\.1\r\n/,
    undefined,
  ],
  [
    "2.3",
    "a request of HTTP/1.0 is sent in our version",
    get("", "GET", "1.0"),
    /^GET \/a HTTP\/1\.1\r\n/,
    undefined,
  ],
  [
    "2.3",
    "a response is sent in our version",
    get("", "GET", "1.0"),
    undefined,
    undefined,
    /^HTTP\/1\.1 200 /,
  ],
  [
    "3.2",
    "a request without a body is sent with one Host",
    get(),
    /\r\nhost: 127\.0\.0\.1:\d+\r\n/i,
    /host:[^]*\r\nhost:/i,
  ],
  [
    "3.2.2",
    "the origin gets the origin form",
    "GET http://{h}/a?b HTTP/1.1\r\nHost: {h}\r\nConnection: close\r\n\r\n",
    /^GET \/a\?b HTTP/,
    undefined,
  ],
  [
    "3.2.1",
    "an empty path is sent as a slash",
    "GET http://{h} HTTP/1.1\r\nHost: {h}\r\nConnection: close\r\n\r\n",
    /^GET \/ HTTP/,
    undefined,
  ],
  [
    "3.2.1",
    "an empty path with a query is sent with a slash",
    "GET http://{h}?a HTTP/1.1\r\nHost: {h}\r\nConnection: close\r\n\r\n",
    /^GET \/\?a HTTP/,
    undefined,
  ],
  [
    "3.2.4",
    "OPTIONS without a path asks about the server",
    "OPTIONS http://{h} HTTP/1.1\r\nHost: {h}\r\nConnection: close\r\n\r\n",
    /^OPTIONS \* HTTP/,
    undefined,
  ],
  [
    "5",
    "white space around a value is none of it",
    get("X-A: \t a b \t\r\nX-B:c\r\n"),
    /X-A: a b\r\nX-B: c\r\n/,
    undefined,
  ],
  ["5", "an empty value is a value", get("X-A:\r\n"), /X-A: ?\r\n/, undefined],
  [
    "RFC 9110 5.5",
    "bytes above ASCII are passed as they are",
    get("X-A: \xe9\xff\r\n"),
    /X-A: \xe9\xff\r\n/,
    undefined,
  ],
  [
    "RFC 9110 5.3",
    "lines of one name keep their order",
    get("X-A: 1\r\nX-B: 2\r\nX-A: 3\r\n"),
    /X-A: 1\r\n[^]*X-A: 3\r\n/,
    undefined,
  ],
  [
    "6.2",
    "a body is sent with its length",
    post("Content-Length: 2\r\n", "ab"),
    /content-length: 2\r\n[^]*\r\n\r\nab$/i,
    /transfer-encoding/i,
  ],
  [
    "6.2",
    "zeros before a length change nothing",
    post("Content-Length: 002\r\n", "ab"),
    /\r\n\r\nab$/,
    undefined,
  ],
  ["6.3", "a request without a length has no body", get("", "POST"), /\r\n\r\n$/, /chunked/i],
  [
    "7.1",
    "zeros before a chunk size are ignored",
    post("Transfer-Encoding: chunked\r\n", "0005\r\nhello\r\n000\r\n\r\n"),
    /hello/,
    /0005/,
  ],
  [
    "7.1",
    "a chunk size may be in either case",
    post("Transfer-Encoding: chunked\r\n", "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"),
    /0123456789[^]*0123456789/,
    undefined,
  ],
  [
    "7",
    "the name of the coding has no case",
    post("Transfer-Encoding: Chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    /hello/,
    undefined,
  ],
  [
    "7.1.1",
    "chunk extensions are ignored, and not sent on",
    post("Transfer-Encoding: chunked\r\n", '5;a=b;c="d\\"e"\r\nhello\r\n0;f\r\n\r\n'),
    /hello/,
    /;a=b|;f/,
  ],
  [
    "7.1.2",
    "trailers that route or authenticate are not sent on",
    post(
      "Transfer-Encoding: chunked\r\n",
      "5\r\nhello\r\n0\r\nHost: evil\r\nAuthorization: evil\r\nX-T: t\r\n\r\n",
    ),
    /hello/,
    /evil/,
  ],
  [
    "7.4",
    "TE is not sent on, but for trailers",
    get("TE: gzip, deflate;q=0.5\r\nConnection: te\r\n"),
    undefined,
    /gzip|deflate/,
  ],
  [
    "9.6",
    "what the client says about its connection is not sent on",
    get("Keep-Alive: timeout=9\r\nProxy-Connection: x\r\n"),
    undefined,
    /timeout=9|proxy-connection/i,
  ],
  [
    "RFC 9110 7.6.1",
    "fields that Connection names are not sent on",
    get("Connection: x-hop, X-Other\r\nX-Hop: hop\r\nx-other: other\r\nX-Kept: kept\r\n"),
    /X-Kept: kept/,
    /: hop|: other/,
  ],
  [
    "RFC 9110 7.6.2",
    "Max-Forwards of OPTIONS counts down",
    get("Max-Forwards: 7\r\n", "OPTIONS"),
    /max-forwards: 6\r\n/i,
    /: 7\r\n/,
  ],
  [
    "RFC 9110 7.6.2",
    "OPTIONS ends where Max-Forwards is 0",
    get("Max-Forwards: 0\r\n", "OPTIONS"),
    undefined,
    /OPTIONS/,
    /^HTTP\/1\.1 405 /,
  ],
  [
    "RFC 9110 7.6.2",
    "Max-Forwards of other methods is left alone",
    get("Max-Forwards: 0\r\n"),
    /max-forwards: 0\r\n/i,
    undefined,
  ],
  [
    "RFC 9110 7.6.3",
    "Via names the version that came",
    get("Via: 1.0 before\r\n"),
    /via: 1\.0 before[^]*1\.1 \S+/i,
    undefined,
  ],
  ["RFC 9110 7.6.3", "Via names HTTP/1.0", get("", "GET", "1.0"), /via: 1\.0 \S+/i, undefined],
  [
    "RFC 9110 7.8",
    "Upgrade that Connection does not name is not sent on",
    get("Upgrade: websocket\r\n"),
    undefined,
    /upgrade/i,
  ],
  [
    "RFC 9110 7.8",
    "Upgrade in HTTP/1.0 is ignored",
    "GET {t}/a HTTP/1.0\r\nHost: {h}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    /^GET/,
    /upgrade/i,
    /^HTTP\/1\.1 200 /,
  ],
  [
    "RFC 9110 10.1.1",
    "a body that is waited for is asked for",
    post("Expect: 100-continue\r\nContent-Length: 2\r\n", "ab"),
    /\r\n\r\nab$/,
    undefined,
    /^HTTP\/1\.1 100 [^]*HTTP\/1\.1 200 /,
  ],
  [
    "RFC 9110 10.1.1",
    "the case of 100-continue does not matter",
    post("Expect: 100-Continue\r\nContent-Length: 2\r\n", "ab"),
    /\r\n\r\nab$/,
    undefined,
    /HTTP\/1\.1 200 /,
  ],
  [
    "RFC 9110 10.1.1",
    "another expectation is 417",
    get("Expect: miracles\r\n"),
    undefined,
    /GET/,
    /^HTTP\/1\.1 417 /,
  ],
  [
    "RFC 9110 10.1.1",
    "an expectation of HTTP/1.0 is ignored",
    post("Expect: 100-continue\r\nContent-Length: 2\r\n", "ab").replace("/1.1", "/1.0"),
    /ab$/,
    undefined,
    /^HTTP\/1\.1 200 /,
  ],
];

/** [section, what is wrong, the response]. The connection of the origin ends behind it. */
const unusable: readonly (readonly [section: string, name: string, response: string])[] = [
  ["4", "garbage", "garbage\r\n\r\n"],
  ["4", "nothing", ""],
  ["4", "half a head", "HTTP/1.1 200 OK\r\nX: a"],
  ["4", "a status of two digits", "HTTP/1.1 20 OK\r\n\r\n"],
  ["4", "a status of four digits", "HTTP/1.1 2000 OK\r\n\r\n"],
  ["4", "a status below 100", "HTTP/1.1 099 OK\r\n\r\n"],
  ["4", "two spaces before the status", "HTTP/1.1  200 OK\r\n\r\n"],
  ["4", "a control character in the reason", "HTTP/1.1 200 O\0K\r\n\r\n"],
  ["2.3", "another protocol", "ICY 200 OK\r\n\r\n"],
  ["2.3", "another major version", "HTTP/2.0 200 OK\r\n\r\n"],
  ["2.2", "a bare LF", "HTTP/1.1 200 OK\nX: a\r\nContent-Length: 0\r\n\r\n"],
  ["2.2", "a bare CR in a value", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n"],
  [
    "2.2",
    "white space before the first field",
    "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 0\r\n\r\n",
  ],
  ["5.1", "white space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok"],
  ["5.2", "a folded line", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"],
  ["RFC 9110 5.5", "a NUL in a value", "HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 0\r\n\r\n"],
  [
    "6.1",
    "both lengths",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
  ],
  ["6.1", "chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
  [
    "6.1",
    "an unknown coding",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: rot13, chunked\r\n\r\n0\r\n\r\n",
  ],
  [
    "6.3",
    "two lengths that disagree",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
  ],
  ["6.3", "a list of lengths that disagree", "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok"],
  ["6.3", "a length that is no number", "HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok"],
  [
    "RFC 9110 7.8",
    "a switch of protocols that nobody asked for",
    "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
  ],
];

/** [section, what holds, the request, the response, what the client sees, what it must not see]. */
type Came = readonly [string, string, string, string, RegExp, RegExp?];
const chunkedOk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
const came: readonly Came[] = [
  [
    "2.3",
    "a response of HTTP/1.0 is sent in our version",
    get(),
    "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    /^HTTP\/1\.1 200 [^]*\r\n\r\nok$/,
  ],
  [
    "4",
    "an empty reason",
    get(),
    "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
    /^HTTP\/1\.1 200 [^]*ok$/,
  ],
  [
    "4",
    "a status that nobody registered is its class",
    get(),
    "HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nok",
    /^HTTP\/1\.1 299 Odd\r\n/,
  ],
  [
    "6.3",
    "HEAD: the length is told, and no content sent",
    get("", "HEAD"),
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
    /^HTTP\/1\.1 200 [^]*content-length: 2\r\n[^]*\r\n\r\n$/i,
  ],
  [
    "6.3",
    "HEAD: chunked has no content",
    get("", "HEAD"),
    `${chunkedOk}\r\n`,
    /\r\n\r\n$/,
    /\r\n\r\n./,
  ],
  [
    "6.3",
    "a 204 has no content, whatever its length",
    get(),
    "HTTP/1.1 204 None\r\nContent-Length: 2\r\n\r\n",
    /^HTTP\/1\.1 204 [^]*\r\n\r\n$/,
    /content-length/i,
  ],
  [
    "6.1",
    "a 204 has no coding",
    get(),
    "HTTP/1.1 204 None\r\nTransfer-Encoding: chunked\r\n\r\n",
    /^HTTP\/1\.1 204 [^]*\r\n\r\n$/,
    /transfer-encoding/i,
  ],
  [
    "6.3",
    "a 304 has no content, whatever its length",
    get(),
    "HTTP/1.1 304 Same\r\nContent-Length: 2\r\n\r\n",
    /^HTTP\/1\.1 304 [^]*\r\n\r\n$/,
  ],
  [
    "6.3",
    "a 304 in chunks has no content",
    get(),
    "HTTP/1.1 304 Same\r\nTransfer-Encoding: chunked\r\n\r\n",
    /^HTTP\/1\.1 304 [^]*\r\n\r\n$/,
  ],
  [
    "6.3",
    "interim responses come before the final one",
    get(),
    `HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n${ok}`,
    /^HTTP\/1\.1 103 [^]*Link: a\r\n[^]*HTTP\/1\.1 200 [^]*ok$/i,
  ],
  [
    "RFC 9110 15.2",
    "HTTP/1.0 gets no interim response",
    get("", "GET", "1.0"),
    `HTTP/1.1 103 Hints\r\n\r\n${ok}`,
    /^HTTP\/1\.1 200 /,
    / 103 /,
  ],
  [
    "6.3",
    "what ends with its connection is sent in chunks",
    get(),
    "HTTP/1.1 200 OK\r\n\r\nok",
    /transfer-encoding: chunked[^]*\r\n\r\n2\r\nok\r\n0\r\n\r\n$/i,
  ],
  [
    "6.1",
    "HTTP/1.0 gets no chunks",
    get("", "GET", "1.0"),
    `${chunkedOk}\r\n2\r\nok\r\n0\r\n\r\n`,
    /\r\n\r\nok$/,
    /transfer-encoding/i,
  ],
  [
    "7.1",
    "chunks are made anew",
    get(),
    `${chunkedOk}\r\n0002;a=b\r\nok\r\n00\r\n\r\n`,
    /\r\n\r\n2\r\nok\r\n0\r\n\r\n$/,
    /a=b/,
  ],
  [
    "7.1.2",
    "trailers that frame or authenticate are not sent on",
    get("TE: trailers\r\n"),
    `${chunkedOk}Trailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: t\r\nSet-Cookie: evil\r\n\r\n`,
    /ok\r\n0\r\n/,
    /evil/,
  ],
  [
    "7.1.2",
    "a trailer is not merged into the head",
    get(),
    `${chunkedOk}\r\n2\r\nok\r\n0\r\nX-T: t\r\n\r\n`,
    /^[^]*\r\n\r\n2\r\nok/,
    /X-T[^]*\r\n\r\n2\r\nok/,
  ],
  [
    "9.3",
    "what the origin says about its connection is not sent on",
    get(),
    "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=9\r\nConnection: keep-alive, x-hop\r\nX-Hop: hop\r\nContent-Length: 2\r\n\r\nok",
    /connection: close\r\n/i,
    /: hop|timeout=9/,
  ],
  [
    "RFC 9110 6.6.1",
    "a date is added",
    get(),
    ok,
    /\r\ndate: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\n/i,
  ],
  [
    "RFC 9110 6.6.1",
    "the origin's date is kept, and alone",
    get(),
    "HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Length: 2\r\n\r\nok",
    /Date: Tue, 15 Nov 1994/i,
    /date:[^]*\r\ndate:/i,
  ],
  [
    "RFC 9110 7.6.3",
    "Via names the version of the origin",
    get(),
    "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    /\r\nvia: 1\.[01] \S+\r\n/i,
  ],
  [
    "RFC 9110 7.8",
    "Upgrade is not sent on without a switch",
    get(),
    "HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nok",
    /^HTTP\/1\.1 200 /,
    /h2c/,
  ],
];

/** [section, how it breaks, the response so far, whether the connection is reset]. */
const incomplete: readonly (readonly [string, string, string, boolean])[] = [
  [
    "8",
    "a body shorter than its length",
    "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart",
    false,
  ],
  [
    "8",
    "a body shorter than its length, and a reset",
    "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart",
    true,
  ],
  ["8", "chunks without a last one", `${chunkedOk}\r\n4\r\npart\r\n`, false],
  ["8", "a chunk that is cut", `${chunkedOk}\r\n9\r\npart`, false],
  ["8", "trailers that are cut", `${chunkedOk}\r\n4\r\npart\r\n0\r\nX: `, false],
  ["8", "a body until the close, and a reset", "HTTP/1.1 200 OK\r\n\r\npart", true],
  ["7.1", "a chunk size that is none", `${chunkedOk}\r\n4\r\npart\r\nxyz\r\n`, false],
  ["7.1", "a chunk longer than its size", `${chunkedOk}\r\n4\r\npartpart\r\n0\r\n\r\n`, false],
  [
    "RFC 9110 6.5.1",
    "a length in the trailers",
    `${chunkedOk}\r\n4\r\npart\r\n0\r\nContent-Length: 4\r\n\r\n`,
    false,
  ],
];

describe.each(surfaces)("on the %s port", (surface) => {
  test.each(refused)("%s: %s is refused", async (_section, _name, request) => {
    const smuggled = "GET {t}/smuggled HTTP/1.1\r\nHost: {h}\r\n\r\n";
    const seen = await ask(surface, request + smuggled);
    expect(seen).toMatch(/^HTTP\/1\.1 (?:400|431|501) [^]*\r\nconnection: close\r\n/i);
    expect(seen.match(/HTTP\/1\.1 /g)).toHaveLength(1);
    expect(origin.seen).not.toContain("smuggled");
  });

  test.each(sent.map((row) => [row[0], row[1], row] as const))("%s: %s", async (...given) => {
    const [, , request, has, hasNot, answer = /^HTTP\/1\.1 200 /] = given[2];
    // What ends a body in chunks looks like the end of a head: that is when it is answered.
    respond = (socket, head) => {
      if (!/transfer-encoding: chunked/i.test(head)) answersOk(socket, head);
    };
    expect(await ask(surface, request)).toMatch(answer);
    if (has !== undefined) await eventually(() => has.test(origin.seen) || undefined);
    if (hasNot !== undefined) expect(origin.seen).not.toMatch(hasNot);
  });

  test.each(unusable)("%s: a response with %s is 502", async (_section, _name, response) => {
    respond = (socket) => void socket.end(response, "latin1");
    const seen = await ask(surface, get("", "POST"));
    expect(seen).toMatch(/^HTTP\/1\.1 502 /);
    expect(seen.match(/HTTP\/1\.1 /g)).toHaveLength(1);
  });

  test.each(came.map((row) => [row[0], row[1], row] as const))("%s: %s", async (...given) => {
    const [, , request, response, has, hasNot] = given[2];
    respond = (socket) => void socket.end(response, "latin1");
    const seen = await ask(surface, request);
    expect(seen).toMatch(has);
    if (hasNot !== undefined) expect(seen).not.toMatch(hasNot);
  });

  test.each(incomplete)("%s: %s is not whole for the client", async (_s, _n, response, resets) => {
    let socket: Socket | undefined;
    respond = (accepted) => {
      socket = accepted;
      accepted.write(response, "latin1");
    };
    const client = await RawClient.connect(proxy.address(surface));
    client.send(written(surface, get()));
    await client.sees("part").catch(() => undefined);
    if (resets) socket?.resetAndDestroy();
    else socket?.end();
    const seen = await client.ended();
    // No last chunk, and not as long as it says; or no response of the origin at all.
    if (seen.startsWith("HTTP/1.1 200 ")) {
      expect(seen).toMatch(/\r\n(?:content-length: 9|transfer-encoding: chunked)\r\n/i);
      expect(seen).not.toMatch(/\r\n0\r\n/);
      expect(seen).not.toMatch(/part.{5}$/);
    } else expect(seen).toMatch(/^HTTP\/1\.1 502 /);
    client.close();
  });

  connections(surface);
});

function connections(surface: Surface): void {
  const address = (): Address => proxy.address(surface);
  const request = (path: string, fields = "", version = "1.1"): string =>
    written(surface, `GET {t}${path} HTTP/${version}\r\nHost: {h}\r\n${fields}\r\n`);

  test("9.3: a connection of HTTP/1.1 persists without a word", async () => {
    const client = await RawClient.connect(address());
    client.send(request("/1"));
    await client.sees("ok");
    client.send(request("/2"));
    expect(await client.sees("\r\n\r\nok", 2)).not.toMatch(/connection: close/i);
    client.socket.destroy();
  });

  test.each([
    ["Connection: close", "Connection: close\r\n", "1.1"],
    ["close among other options", "Connection: x, Close\r\n", "1.1"],
    ["HTTP/1.0", "", "1.0"],
    ["HTTP/1.0 with both options", "Connection: keep-alive, close\r\n", "1.0"],
  ] as const)(
    "9.3, 9.6: %s: the response says close, and nothing behind it is read",
    async (...row) => {
      const [, fields, version] = row;
      const seen = await exchangeRaw(address(), request("/1", fields, version) + request("/2"));
      expect(seen).toMatch(/^HTTP\/1\.1 200 [^]*\r\nconnection: close\r\n/i);
      expect(seen.match(/HTTP\/1\.1 /g)).toHaveLength(1);
      expect(origin.seen).not.toContain("/2");
    },
  );

  test("9.3.2: responses come in the order of their requests", async () => {
    respond = (socket, head) => {
      const path = head.split(" ")[1] ?? "";
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${path.length}\r\n\r\n${path}`);
    };
    const client = await RawClient.connect(address());
    client.send(
      `${request("/first") + request("/second")}${request("/third", "Connection: close\r\n")}`,
    );
    expect(await client.ended()).toMatch(/\/first[^]*\/second[^]*\/third$/);
    client.close();
  });

  test("9.3: a body that nobody read is not the next request", async () => {
    const inner = request("/smuggled");
    const fields = `Expect: miracles\r\nContent-Length: ${inner.length}\r\n`;
    const seen = await exchangeRaw(address(), request("/a", fields).replace("GET", "POST") + inner);
    expect(seen.match(/HTTP\/1\.1 /g)).toHaveLength(1);
    expect(origin.seen).not.toContain("smuggled");
  });

  test("9.6: a last response survives the body that still comes", async () => {
    const client = await RawClient.connect(address());
    client.send(request("/a", "X : a\r\n") + "b".repeat(1_000_000));
    expect(await client.ended()).toMatch(/^HTTP\/1\.1 400 /);
    expect(client.failure).toBeUndefined();
    client.close();
  });

  test("9.3: a connection of the origin that says close is used once", async () => {
    respond = (socket) =>
      void socket.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    const client = await RawClient.connect(address());
    client.send(request("/1"));
    await client.sees("ok");
    client.send(request("/2"));
    await client.sees("\r\n\r\nok", 2);
    expect(origin.connections).toHaveLength(2);
    client.socket.destroy();
  });

  test("9.2: bytes behind a response are not the response to the next request", async () => {
    respond = (socket, head) => {
      socket.write(
        head.includes("/1") ? `${ok}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil` : ok,
      );
    };
    const client = await RawClient.connect(address());
    client.send(request("/1"));
    await client.sees("ok");
    client.send(request("/2"));
    expect(await client.sees("\r\n\r\nok", 2)).not.toContain("evil");
    client.socket.destroy();
  });

  test("RFC 9110 7.8: a switch of protocols is passed on, with what follows it", async () => {
    const fields = "Connection: upgrade\r\nUpgrade: echo\r\n";
    respond = (socket) =>
      void socket.write(
        "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello",
      );
    const client = await RawClient.connect(address());
    client.send(request("/a", fields));
    expect(await client.sees("hello")).toMatch(/^HTTP\/1\.1 101 [^]*upgrade: echo\r\n/i);
    client.send("bytes");
    await eventually(() => origin.seen.endsWith("bytes") || undefined);
    client.socket.destroy();
  });
}

test("3.2.1: the forward port refuses the origin form", async () => {
  expect(await ask("forward", "GET /a HTTP/1.1\r\nHost: {h}\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
  expect(origin.seen).toBe("");
});

test("3.2.2: a Host that disagrees with the absolute form decides nothing: the request is refused", async () => {
  for (const host of ["other.test", `{h}0`]) {
    const seen = await ask("forward", `GET http://{h}/a HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    expect(seen).toMatch(/^HTTP\/1\.1 4(?:00|21) /);
  }
  expect(origin.seen).toBe("");
  const same = "GET http://{h}/a HTTP/1.1\r\nHost: {h}\r\nConnection: close\r\n\r\n";
  expect(await ask("forward", same)).toMatch(/^HTTP\/1\.1 200 /);
  expect(origin.seen).toMatch(/\r\nhost: 127\.0\.0\.1:\d+\r\n/i);
});

test.each(surfaces)("RFC 9110 9.3.8: TRACE is not sent on from the %s port", async (surface) => {
  const seen = await ask(surface, get("Cookie: secret\r\n", "TRACE"));
  expect(seen).toMatch(/^HTTP\/1\.1 405 /);
  expect(seen).not.toContain("secret");
  expect(origin.seen).toBe("");
});

test("3.2.3: CONNECT has the authority form, and nothing else", async () => {
  for (const target of ["http://{h}/", "/", "127.0.0.1", "{h}/a", "me@{h}"]) {
    const seen = await ask("forward", `CONNECT ${target} HTTP/1.1\r\nHost: {h}\r\n\r\n`);
    expect(seen, target).toMatch(/^HTTP\/1\.1 400 /);
  }
  expect(origin.seen).toBe("");
});

test("6.1: the response to CONNECT has no length", async () => {
  const client = await RawClient.connect(proxy.forward);
  client.send(written("forward", "CONNECT {h} HTTP/1.1\r\nHost: {h}\r\n\r\n"));
  const seen = await client.sees("\r\n\r\n");
  expect(seen).toMatch(/^HTTP\/1\.1 200 /);
  expect(seen).not.toMatch(/content-length|transfer-encoding/i);
  client.socket.destroy();
});

test("9.3: a proxy keeps no connection of an HTTP/1.0 client, a gateway may", async () => {
  const keep = "GET {t}/a HTTP/1.0\r\nHost: {h}\r\nConnection: keep-alive\r\n\r\n";
  expect(await ask("forward", keep)).toMatch(/\r\nconnection: close\r\n/i);
  const client = await RawClient.connect(proxy.reverse);
  client.send(written("reverse", keep));
  expect(await client.sees("ok")).toMatch(/\r\nconnection: keep-alive\r\n/i);
  client.send(written("reverse", keep));
  await client.sees("\r\n\r\nok", 2);
  client.socket.destroy();
});
