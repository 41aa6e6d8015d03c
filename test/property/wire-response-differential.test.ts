/**
 * Our reading of responses beside that of llhttp and undici: stricter where a table says why, never laxer; where both
 * accept, they read the same message.
 */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { responseCorpus } from "../support/response-corpus.ts";
import { responseDifference } from "../support/wire-differences.ts";
import {
  readLlhttpResponse,
  readOurResponse,
  type ReadResponse,
  readUndiciResponse,
} from "../support/wire-responses.ts";

const bytesOf = (text: string): Buffer => Buffer.from(text, "latin1");

function expectNone(text: string, ours: ReadResponse, theirs: ReadResponse): void {
  const problem = responseDifference(ours, theirs);
  if (problem === undefined) return;
  expect.fail(`${problem}\n${JSON.stringify(text)}\n${JSON.stringify({ ours, theirs })}`);
}

const named = responseCorpus.map((text) => [JSON.stringify(text).slice(0, 90), text] as const);

describe.each(["GET", "HEAD"])("a response to %s", (method) => {
  test.each(named)("as llhttp reads it: %s", async (_name, text) => {
    const pieces = [bytesOf(text)];
    expectNone(text, await readOurResponse(method, pieces), readLlhttpResponse(method, pieces));
  });

  test.each(named)("as undici reads it: %s", async (_name, text) => {
    const bytes = bytesOf(text);
    expectNone(
      text,
      await readOurResponse(method, [bytes]),
      await readUndiciResponse(method, bytes),
    );
  });

  test.each(named)("split anywhere: %s", async (_name, text) => {
    const bytes = bytesOf(text);
    const whole = await readOurResponse(method, [bytes]);
    const outcome = ({ isWhole, status, fields, body, interim }: ReadResponse): object =>
      isWhole ? { status, fields, body, interim } : { isWhole };
    for (let at = 1; at < bytes.length; at += 1) {
      const parts = await readOurResponse(method, [bytes.subarray(0, at), bytes.subarray(at)]);
      expect(outcome(parts), `split at ${at}`).toEqual(outcome(whole));
    }
    const each = [...bytes].map((byte) => Buffer.of(byte));
    expect(outcome(await readOurResponse(method, each)), "byte by byte").toEqual(outcome(whole));
  });
});

const eol = fc.constantFrom("\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n");
const field = fc
  .tuple(
    fc.constantFrom(
      "Content-Length",
      "Transfer-Encoding",
      "Connection",
      "X",
      "",
      "X ",
      " X",
      "X\x80",
    ),
    fc.constantFrom(": ", ":", ":  ", ":\t", " : ", ""),
    fc.oneof(
      fc.constantFrom("a", "5", "0", "05", "5, 5", "chunked", "gzip, chunked", "close", "", "\t"),
      fc.constantFrom("a\0b", "a\rb", "a\nb", "a\r\n b", "\x7f", "\xff", "+1"),
      fc.string({ maxLength: 8 }),
    ),
    eol,
  )
  .map((parts) => parts.join(""));
const goodField = fc.constantFrom("X: y\r\n", "Set-Cookie: z\r\n", "Date: now\r\n");
const line = fc
  .tuple(
    fc.constantFrom("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", ""),
    fc.constantFrom(" ", " ", " ", "  ", "\t", ""),
    fc.constantFrom("200", "404", "204", "304", "103", "100", "999", "099", "20", "2000", ""),
    fc.constantFrom(" ", " ", " ", "  ", "\t", ""),
    fc.constantFrom("OK", "", "\xe9", "a b", "\0", "\x7f"),
    eol,
  )
  .map((parts) => parts.join(""));
const chunk = fc
  .tuple(
    fc.constantFrom("5", "05", "0", "A", "5;a=b", '5;a="q"', "5 ", "g", "-1", "", "5;"),
    eol,
    fc.constantFrom("hello", "0123456789", "", "hell", "helloX"),
    eol,
  )
  .map((parts) => parts.join(""));
const body = fc.oneof(
  fc.constantFrom("", "hello", "0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "0\r\nX: y\r\n\r\n"),
  fc.array(chunk, { maxLength: 3 }).map((chunks) => `${chunks.join("")}0\r\n\r\n`),
);
const message = fc
  .tuple(
    fc.oneof(
      { weight: 3, arbitrary: fc.constant("HTTP/1.1 200 OK\r\n") },
      { weight: 1, arbitrary: line },
    ),
    fc.array(fc.oneof({ weight: 2, arbitrary: goodField }, { weight: 1, arbitrary: field }), {
      maxLength: 4,
    }),
    fc.constantFrom("", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"),
    fc.constantFrom("\r\n", "\r\n", "\r\n", "\n", ""),
    body,
  )
  .map(([first, fields, framing, end, content]) =>
    [first, ...fields, framing, end, content].join(""),
  );
const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 3 });

test("generated responses, in generated packets", { timeout: 300_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom("GET", "GET", "HEAD"),
      fc.array(message, { minLength: 1, maxLength: 2 }),
      cuts,
      async (method, all, at) => {
        const text = all.join("");
        const bytes = bytesOf(text);
        const places = [...new Set(at.map((share) => Math.floor(share * bytes.length)))].sort(
          (one, other) => one - other,
        );
        const pieces = [0, ...places]
          .map((from, index) => bytes.subarray(from, places[index]))
          .filter((piece) => piece.length > 0);
        expectNone(text, await readOurResponse(method, pieces), readLlhttpResponse(method, pieces));
      },
    ),
    { numRuns: 20_000 },
  );
});
