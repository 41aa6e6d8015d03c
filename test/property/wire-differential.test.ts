/**
 * Our parser of HTTP/1.1 beside the one of node:http: stricter where a table says why, never laxer; where both accept,
 * they read the same messages.
 */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { requestCorpus } from "../support/wire-corpus.ts";
import { requestDifference } from "../support/wire-differences.ts";
import { type Reading, readLlhttp, readOurs } from "../support/wire-readers.ts";

const bytesOf = (text: string): Buffer => Buffer.from(text, "latin1");

async function compare(text: string, pieces: readonly Buffer[]): Promise<void> {
  const ours = await readOurs(pieces);
  const theirs = readLlhttp(pieces);
  const problem = requestDifference(text, ours, theirs);
  if (problem !== undefined) {
    expect.fail(`${problem}\n${JSON.stringify(text)}\n${JSON.stringify({ ours, theirs })}`);
  }
}

test.each(requestCorpus.map((text) => [JSON.stringify(text).slice(0, 90), text]))(
  "%s",
  async (_name, text) => {
    await compare(text, [bytesOf(text)]);
  },
);

test.each(requestCorpus.map((text) => [JSON.stringify(text).slice(0, 90), text]))(
  "split anywhere: %s",
  async (_name, text) => {
    const bytes = bytesOf(text);
    const whole = await readOurs([bytes]);
    const outcome = ({ requests, refused }: Reading): unknown => ({
      requests,
      isRefused: refused !== undefined,
    });
    for (let at = 1; at < bytes.length; at += 1) {
      const parts = await readOurs([bytes.subarray(0, at), bytes.subarray(at)]);
      expect(outcome(parts), `split at ${at}`).toEqual(outcome(whole));
    }
    const each = [...bytes].map((byte) => Buffer.of(byte));
    expect(outcome(await readOurs(each)), "byte by byte").toEqual(outcome(whole));
  },
);

const eol = fc.constantFrom("\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n");
const name = fc.constantFrom(
  "Host",
  "Content-Length",
  "content-length",
  "Transfer-Encoding",
  "Connection",
  "X",
  "X-Long-Name",
  "Cookie",
  "",
  "X ",
  " X",
  "X\0",
  "X\x80",
);
const value = fc.oneof(
  fc.constantFrom("a", "5", "0", "05", "5, 5", "chunked", "Chunked", "gzip, chunked", "close"),
  fc.constantFrom("", "keep-alive", "\t", "a\0b", "a\rb", "a\nb", "a\r\n b", "\x7f", "\xff", "+1"),
  fc.string({ maxLength: 8 }),
);
const field = fc
  .tuple(name, fc.constantFrom(": ", ":", ":  ", ":\t", " : ", ""), value, eol)
  .map((parts) => parts.join(""));
const goodField = fc.constantFrom("Host: a\r\n", "X: y\r\n", "Cookie: z\r\n", "Accept: */*\r\n");
const line = fc
  .tuple(
    fc.constantFrom("GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "FOO", "get", "G T", ""),
    fc.constantFrom(" ", " ", " ", " ", "  ", "\t", ""),
    fc.constantFrom("/", "/a?b", "http://a/", "*", "a:1", "", "/\xff", "/\x7f", "/ b", "/\0"),
    fc.constantFrom(" ", " ", " ", " ", "  ", "\t", ""),
    fc.constantFrom("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", ""),
    eol,
  )
  .map((parts) => parts.join(""));
const chunk = fc
  .tuple(
    fc.constantFrom("5", "05", "0", "A", "f", "5;a=b", '5;a="q"', "5 ", "g", "-1", "", "5;", "0x5"),
    eol,
    fc.constantFrom("hello", "0123456789", "", "hell", "helloX"),
    eol,
  )
  .map((parts) => parts.join(""));
const body = fc.oneof(
  fc.constantFrom(
    "",
    "hello",
    "0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
  ),
  fc.array(chunk, { maxLength: 3 }).map((chunks) => `${chunks.join("")}0\r\n\r\n`),
);
const message = fc
  .tuple(
    fc.oneof(
      { weight: 3, arbitrary: fc.constant("POST / HTTP/1.1\r\n") },
      { weight: 1, arbitrary: line },
    ),
    fc.array(fc.oneof({ weight: 2, arbitrary: goodField }, { weight: 1, arbitrary: field }), {
      maxLength: 5,
    }),
    fc.constantFrom("", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"),
    fc.constantFrom("Host: h\r\n", ""),
    fc.constantFrom("\r\n", "\r\n", "\r\n", "\n", ""),
    body,
  )
  .map(([first, fields, framing, host, end, content]) =>
    [first, host, ...fields, framing, end, content].join(""),
  );
const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 3 });

test("generated messages, in generated packets", { timeout: 300_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 2 }), cuts, async (all, at) => {
      const text = all.join("");
      const bytes = bytesOf(text);
      const places = [...new Set(at.map((share) => Math.floor(share * bytes.length)))].sort(
        (one, other) => one - other,
      );
      const pieces = [0, ...places].map((from, index) => bytes.subarray(from, places[index]));
      await compare(
        text,
        pieces.filter((piece) => piece.length > 0),
      );
    }),
    { numRuns: 20_000 },
  );
});
