/** Where our reading of HTTP/1.1 may differ from that of others, and why ours is right. */
import type { Reading, ReadRequest } from "./wire-readers.ts";
import type { ReadResponse } from "./wire-responses.ts";

/** What ours refuses and llhttp does not, by the words of the refusal. */
const stricterRequests: Readonly<Record<string, string>> = {
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
  "the header section is larger than limits.max_header_bytes": "a limit; llhttp counts fewer bytes",
  "the trailer section is larger than limits.max_header_bytes":
    "a limit; llhttp counts fewer bytes",
  "the trailer section has a field that frames the message":
    "RFC 9110 section 6.5.1: too late to frame anything, and some recipient may believe it",
  "more fields than limits.max_headers": "a limit; node:http has it behind the parser",
  "chunk extensions are longer than limits.max_header_bytes": "a limit; llhttp has another one",
};

/** The form of a target is judged by the surface that it arrives on, which knows what it serves. */
const judgedBySurface = /url/;

/** What is different between two readings of the same bytes, unless it may be. */
export function requestDifference(
  text: string,
  ours: Reading,
  theirs: Reading,
): string | undefined {
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
  // Llhttp leaves what is behind an upgrade to the new protocol, ours to what the response says.
  const stopped = theirs.refused === undefined && hasUpgrade(theirs.requests.at(-1));
  if (isClosedByTrailer(theirs)) return undefined;
  if (ours.requests.length > theirs.requests.length && !stopped) return "a request for us alone";
  // Ours may still be waiting for the end of a line; what it lets through is a whole message.
  const whole = ({ requests }: Reading): number => requests.filter(({ isWhole }) => isWhole).length;
  if (theirs.refused !== undefined && refused === undefined && whole(ours) > whole(theirs)) {
    return `laxer: llhttp refuses with ${theirs.refused}`;
  }
  const isStricter = refused !== undefined && theirs.refused === undefined && !stopped;
  if (isStricter && stricterRequests[refused] === undefined) {
    return `stricter without a reason: ${refused}`;
  }
  const lost = theirs.requests.length > ours.requests.length;
  if (lost && refused === undefined && !/close|HTTP\/1\.0/i.test(text)) return "a request lost";
  return undefined;
}

/** What ours refuses and the other does not, by the words of the refusal. */
const stricterResponses: Readonly<Record<string, string>> = {
  "no status line of HTTP/1":
    "llhttp reads 0.9, 1.2 and 2.0, a status below 100 and control characters in the reason as this grammar",
  "Transfer-Encoding is not chunked":
    "another coding would reach the client as content (RFC 9112 section 6.1), and where chunked is not the last one the end of the connection is the end of the body",
  "Transfer-Encoding is given twice": "as above",
  "HTTP/1.0 message has Transfer-Encoding": "RFC 9112 section 6.1: its framing is faulty",
  "Content-Length is not one decimal number":
    "zeros without end: beyond 15 digits no number here can count",
  "more fields than limits.max_headers": "a limit",
  "the header section is larger than limits.max_header_bytes": "a limit; llhttp counts fewer bytes",
  "the trailer section is larger than limits.max_header_bytes":
    "a limit; llhttp counts fewer bytes",
  "the trailer section has a field that frames the message":
    "RFC 9110 section 6.5.1: too late to frame anything, and some recipient may believe it",
  "a chunk size is not a hexadecimal number":
    "an extension with white space or without a name, which recipients split at different bytes",
  "the line of a chunk size is too long": "leading zeros without end",
  "chunk extensions are longer than limits.max_header_bytes": "a limit; llhttp has another one",
};

/** What is different between two readings of the same bytes, unless it may be. */
export function responseDifference(ours: ReadResponse, theirs: ReadResponse): string | undefined {
  if (ours.isWhole) {
    if (!theirs.isWhole) {
      // Behind an interim response that has the field: the connection ends after the final one (RFC 9110 section 7.6.1).
      const isInterim = ours.interim.length > 0 && /Connection: close/.test(theirs.refused ?? "");
      return isInterim ? undefined : `laxer: ${theirs.refused ?? "not whole"}`;
    }
    for (const part of ["status", "fields", "body", "interim"] as const) {
      if (JSON.stringify(ours[part]) !== JSON.stringify(theirs[part])) return `another ${part}`;
    }
    return undefined;
  }
  if (!theirs.isWhole) return undefined;
  const { refused = "" } = ours;
  return stricterResponses[refused] === undefined
    ? `stricter without a reason: ${refused}`
    : undefined;
}

/** Llhttp takes the field from a trailer section, where it comes too late to route or frame (RFC 9110 section 6.5.1). */
function isClosedByTrailer({ refused, requests }: Reading): boolean {
  const fields = requests.at(-1)?.fields ?? [];
  const isOfHead = fields.some(
    (name, at) => at % 2 === 0 && /^connection$/i.test(name) && /close/i.test(fields[at + 1] ?? ""),
  );
  return refused === "Data after `Connection: close`" && !isOfHead;
}

function hasUpgrade(request: ReadRequest | undefined): boolean {
  return request?.fields.some((name, at) => at % 2 === 0 && /^upgrade$/i.test(name)) === true;
}
