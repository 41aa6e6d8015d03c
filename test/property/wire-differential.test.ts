/**
 * Our parser of HTTP/1.1 beside the one of node:http: stricter where a table says why, never laxer; where both accept,
 * they read the same messages.
 */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { requestCorpus } from "../support/wire-corpus.ts";
import { type Reading, readLlhttp, readOurs } from "../support/wire-readers.ts";

const bytesOf = (text: string): Buffer => Buffer.from(text, "latin1");

/** What ours refuses and llhttp does not, by the words of the refusal. */
const stricter: Readonly<Record<string, string>> = {
  "request has no Host": "RFC 9112 section 3.2; node:http checks it behind the parser",
  "request has more than one Host": "RFC 9112 section 3.2; node:http checks it behind the parser",
  "the request line has no HTTP/1 version":
    "llhttp reads 0.9 and 2.0 as versions of this grammar; a message of either is framed otherwise",
  "the request line has no HTTP version": "llhttp takes a line without a version for HTTP/0.9",
  "HTTP/2 with prior knowledge (RFC 9113 section 3.3) is not served: only TLS can negotiate it":
    "llhttp pauses at the preface",
  "the request target has a character that a URI cannot have":
    "a request line has single spaces only (RFC 9112 section 3)",
  "the request line has more than three parts": "a request line has single spaces only",
  "message has both Content-Length and Transfer-Encoding":
    "RFC 9112 section 6.1: a server may reject it, and a proxy that forwards it smuggles",
  "HTTP/1.0 message has Transfer-Encoding": "RFC 9112 section 6.1: its framing is faulty",
  "Transfer-Encoding is not chunked":
    "another coding, or one in another place, is read differently by the next recipient",
  "Transfer-Encoding is given twice": "as above",
  "Content-Length is not one decimal number": "beyond 15 digits no number here can count",
  "Connection names a field that frames or routes the message":
    "RFC 9110 section 7.6.1: the next hop would lose the field",
  "a chunk size is not a hexadecimal number":
    "an extension with white space or without a name, which recipients split at different bytes",
  "a header value has a control character or a folded line":
    "llhttp passes control characters other than CR, LF and NUL; RFC 9110 section 5.5 has none but the tab",
  "a control character or a line end that is not CRLF":
    "as above, and a bare CR or LF before a request: seen before the head is whole",
  "a line end that is not CRLF": "a bare CR before a request",
  "the method is not a token": "a line end other than CRLF before a request",
  "the method is not known": "llhttp tells once more bytes are there",
  "a chunk line does not end with CRLF": "llhttp waits for the byte behind it",
  "the line of a chunk size is too long": "leading zeros without end",
};

/** The form of a target is judged by the surface that it arrives on, which knows what it serves. */
const judgedBySurface = /url/;

function explain(text: string, ours: Reading, theirs: Reading): string | undefined {
  const { refused } = ours;
  if (theirs.refused !== undefined && judgedBySurface.test(theirs.refused)) return undefined;
  // What is refused in the middle of a body has been read as a request by both.
  const count = Math.min(ours.requests.length, theirs.requests.length);
  for (let at = 0; at < count; at += 1) {
    const [mine, other] = [ours.requests[at], theirs.requests[at]];
    if (mine === undefined || other === undefined) continue;
    const sameHead =
      mine.method === other.method &&
      mine.target === other.target &&
      mine.version === other.version &&
      mine.fields.join("\n") === other.fields.join("\n");
    if (!sameHead) return `request ${at} is read differently`;
    if (mine.isWhole && other.isWhole && mine.body !== other.body)
      return `body ${at} is read differently`;
    if (mine.isWhole && !other.isWhole) return `body ${at} is whole for us alone`;
  }
  if (ours.requests.length > theirs.requests.length) return "a request for us alone";
  // Ours may still be waiting for the end of a line; what it lets through is a whole message.
  const whole = ({ requests }: Reading): number => requests.filter(({ isWhole }) => isWhole).length;
  if (theirs.refused !== undefined && refused === undefined && whole(ours) > whole(theirs)) {
    return `laxer: llhttp refuses with ${theirs.refused}`;
  }
  if (refused !== undefined && theirs.refused === undefined && stricter[refused] === undefined) {
    return `stricter without a reason: ${refused}`;
  }
  const lost = theirs.requests.length > ours.requests.length;
  if (lost && refused === undefined && !/close|HTTP\/1\.0/i.test(text)) return "a request lost";
  return undefined;
}

async function compare(text: string, pieces: readonly Buffer[]): Promise<void> {
  const ours = await readOurs(pieces);
  const theirs = readLlhttp(pieces);
  const problem = explain(text, ours, theirs);
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
