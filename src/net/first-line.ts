/** The line that a client begins with: whether a server could read it as that of a request. */

/** What a line may be longer by is looked at no more, apart from its end. */
const keptChars = 16_384;
/** Longer than what ends a request line. */
const endChars = 16;

/**
 * Whether a whole line, of whatever method, names a version of HTTP, or asks as HTTP/0.9 did, which some servers still answer.
 */
export function isRequestLine(line: string): boolean {
  return /\sHTTP\/\d/i.test(line) || /^GET \/\S*\s*$/.test(line);
}

/** RFC 9112 section 2.2: servers skip empty lines in front of a request, and take a bare LF for the end of a line. */
export function withoutEmptyLines(text: string): string {
  return text.replace(/^[\r\n]+/, "");
}

/**
 * Watches a connection that is passed on because its first bytes are no request: they may be the beginning of one that comes
 * in pieces.
 */
export class FirstLine {
  #line = "";

  /** `other` once it is known to be none; `undefined` while it may become one. */
  read(bytes: Buffer): "request" | "other" | undefined {
    const text = withoutEmptyLines(this.#line + bytes.toString("latin1", 0, keptChars));
    const end = text.indexOf("\n");
    const line = end < 0 ? text : text.slice(0, end);
    // No server takes those for a part of a request.
    if (/(?![\t\r\x80-\x9f])\p{Cc}/u.test(line)) return "other";
    if (end >= 0) return isRequestLine(line) ? "request" : "other";
    const isLong = line.length > keptChars || bytes.length > keptChars;
    this.#line = isLong
      ? line.slice(0, endChars) + bytes.toString("latin1", Math.max(0, bytes.length - endChars))
      : line;
    return undefined;
  }
}
