/**
 * Message heads of HTTP/1.1: one strict grammar for requests and responses (RFC 9112 sections 2 to 6).
 *
 * Text is Latin-1: one character is one byte, so that obs-text passes as it came.
 */
import { isSameName } from "../http/headers.ts";
import { http } from "../net/node-http.ts";
import { MalformedMessage } from "./malformed.ts";

/** Length of a body in chunks. */
export const inChunks = -1;
/** Length of a body that ends with its connection. */
export const untilClose = -2;

const token = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+";
const fieldLines = new RegExp(`(?:${token}:[\\t\\x20-\\x7e\\x80-\\xff]*\\r\\n)*$`, "y");
const requestLine = new RegExp(`(${token}) ([\\x21-\\x7e]+) HTTP/(\\d)\\.(\\d)\\r\\n`, "y");
const statusLine = /HTTP\/1\.([01]) ([1-9]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n/y;
const fieldLine = new RegExp(`^${token}:[\\t\\x20-\\x7e\\x80-\\xff]*$`);
/** Fields that no sender may declare hop-by-hop (RFC 9110 section 7.6.1): the next recipient would lose them. */
const endToEnd = /(?:^|[\s,])(?:host|content-length|transfer-encoding)(?:[\s,]|$)/i;

const methods: ReadonlySet<string> = new Set(http.METHODS);

/** A field section, with the fields that frame the message. */
class FieldSection {
  /** Flat: name, value, name, value; names as they were spelled. */
  readonly rawHeaders: string[] = [];
  connection: string | undefined;
  contentLength: string | undefined;
  transferEncoding: string | undefined;

  /** Reads the lines of a section whose syntax was checked. */
  read(text: string, start: number, maxFields: number): void {
    const { rawHeaders } = this;
    const most = maxFields * 2;
    for (let at = start; at < text.length;) {
      const end = text.indexOf("\r\n", at);
      const colon = text.indexOf(":", at);
      let from = colon + 1;
      let to = end;
      while (from < to && isSpace(text.charCodeAt(from))) from += 1;
      while (to > from && isSpace(text.charCodeAt(to - 1))) to -= 1;
      const name = text.slice(at, colon);
      const value = text.slice(from, to);
      // Some recipients see another coding where a tab is behind this one, and another end of the message.
      if (to < end && isSameName(name, "transfer-encoding") && text.slice(to, end).includes("\t"))
        throw new MalformedMessage("Transfer-Encoding is not chunked");
      if (rawHeaders.length >= most) {
        throw new MalformedMessage("more fields than limits.max_headers", "too-many-fields");
      }
      rawHeaders.push(name, value);
      this.take(name, value);
      at = end + 2;
    }
  }

  protected take(name: string, value: string): void {
    switch (name.length) {
      case 10:
        if (isSameName(name, "connection")) {
          this.connection = this.connection === undefined ? value : `${this.connection},${value}`;
        }
        break;
      case 14:
        if (isSameName(name, "content-length")) this.#takeLength(value);
        break;
      case 17:
        if (isSameName(name, "transfer-encoding")) {
          if (this.transferEncoding !== undefined)
            throw new MalformedMessage("Transfer-Encoding is given twice");
          this.transferEncoding = value;
        }
        break;
      default:
    }
  }

  #takeLength(value: string): void {
    if (!/^[0-9]{1,15}$/.test(value))
      throw new MalformedMessage("Content-Length is not one decimal number");
    if (this.contentLength !== undefined)
      throw new MalformedMessage("Content-Length is given twice");
    this.contentLength = value;
  }

  /** RFC 9112 sections 6.1 and 6.3. Only "chunked" is understood, so any other coding is refused rather than passed. */
  protected checkCoding(httpVersion: string): void {
    const coding = this.transferEncoding;
    if (coding === undefined) return;
    if (this.contentLength !== undefined)
      throw new MalformedMessage("message has both Content-Length and Transfer-Encoding");
    if (httpVersion === "1.0") throw new MalformedMessage("HTTP/1.0 message has Transfer-Encoding");
    if (!isSameName(coding, "chunked"))
      throw new MalformedMessage("Transfer-Encoding is not chunked");
  }

  /** Whether Connection has the option (RFC 9110 section 7.6.1). */
  protected hasOption(option: string): boolean {
    const { connection } = this;
    if (connection === undefined) return false;
    if (connection.length === option.length) return isSameName(connection, option);
    return connection.split(",").some((item) => isSameName(item.trim(), option));
  }
}

/** The head of a request. */
export class RequestHead extends FieldSection {
  readonly method: string;
  /** As it stands in the request line. */
  readonly target: string;
  readonly httpVersion: "1.0" | "1.1";
  host: string | undefined;
  expect: string | undefined;
  te: string | undefined;
  upgrade: string | undefined;
  proxyAuthorization: string | undefined;
  /** Bytes of the body, or {@link inChunks}. */
  readonly length: number;

  /** Reads a whole head without its empty line; throws MalformedMessage. */
  constructor(text: string, maxFields: number) {
    super();
    requestLine.lastIndex = 0;
    const line = requestLine.exec(text);
    if (line === null) throw new MalformedMessage(problemOfRequestLine(text));
    const [whole, method = "", target = "", major, minor] = line;
    if (major !== "1" || (minor !== "0" && minor !== "1")) throw badVersion(method, major);
    // No policy was written with other methods in mind, and nobody knows whether they may be repeated.
    if (!methods.has(method)) throw new MalformedMessage("the method is not known");
    this.method = method;
    this.target = target;
    this.httpVersion = minor === "0" ? "1.0" : "1.1";
    checkFields(text, whole.length);
    this.read(text, whole.length, maxFields);
    if (this.host === undefined && minor === "1") throw new MalformedMessage("request has no Host");
    if (this.connection !== undefined && endToEnd.test(this.connection))
      throw new MalformedMessage("Connection names a field that frames or routes the message");
    this.checkCoding(this.httpVersion);
    const { contentLength, transferEncoding } = this;
    this.length = transferEncoding === undefined ? Number(contentLength ?? 0) : inChunks;
  }

  /** Content is announced, and it is not empty. */
  get hasBody(): boolean {
    return this.length !== 0;
  }

  /** The connection may carry another request (RFC 9112 section 9.3). */
  get isPersistent(): boolean {
    if (this.httpVersion === "1.1")
      return this.connection === undefined || !this.hasOption("close");
    // To a gateway alone: what such a client asks a proxy for, another proxy may have passed on without a thought.
    const isToGateway = this.target.startsWith("/");
    return isToGateway && this.hasOption("keep-alive") && !this.hasOption("close");
  }

  /** Upgrade is meant for the recipient of this very message (RFC 9110 section 7.8). */
  get asksUpgrade(): boolean {
    return this.upgrade !== undefined && this.httpVersion === "1.1" && this.hasOption("upgrade");
  }

  protected override take(name: string, value: string): void {
    switch (name.length) {
      case 2:
        if (isSameName(name, "te")) this.te = joined(this.te, value);
        break;
      case 4:
        if (isSameName(name, "host")) {
          // RFC 9112 section 3.2.
          if (this.host !== undefined) throw new MalformedMessage("request has more than one Host");
          this.host = value;
        }
        break;
      case 6:
        if (isSameName(name, "expect")) this.expect = joined(this.expect, value);
        break;
      case 7:
        if (isSameName(name, "upgrade")) this.upgrade = joined(this.upgrade, value);
        break;
      case 19:
        if (isSameName(name, "proxy-authorization")) {
          this.proxyAuthorization ??= value;
        }
        break;
      default:
        super.take(name, value);
    }
  }
}

/** The head of a response. */
export class ResponseHead extends FieldSection {
  readonly status: number;
  readonly reason: string;
  readonly httpVersion: "1.0" | "1.1";
  /** The Keep-Alive field, which says how long an idle connection is kept (RFC 2068 section 19.7.1.1). */
  keepAlive: string | undefined;
  #hasUpgrade = false;

  /** Reads a whole head without its empty line; throws MalformedMessage. */
  constructor(text: string, maxFields: number) {
    super();
    statusLine.lastIndex = 0;
    const line = statusLine.exec(text);
    if (line === null) throw new MalformedMessage("no status line of HTTP/1");
    const [whole, minor, status, reason = ""] = line;
    this.status = Number(status);
    this.reason = reason;
    this.httpVersion = minor === "0" ? "1.0" : "1.1";
    checkFields(text, whole.length);
    this.read(text, whole.length, maxFields);
    this.checkCoding(this.httpVersion);
  }

  /** Bytes of the body, {@link inChunks} or {@link untilClose} (RFC 9112 section 6.3). */
  lengthFor(method: string): number {
    const { status, contentLength, transferEncoding } = this;
    if (method === "HEAD" || status < 200 || status === 204 || status === 304) return 0;
    if (transferEncoding !== undefined) return inChunks;
    return contentLength === undefined ? untilClose : Number(contentLength);
  }

  /** The connection may carry another request after this response (RFC 9112 section 9.3). */
  get isPersistent(): boolean {
    if (this.httpVersion === "1.0") return this.hasOption("keep-alive") && !this.hasOption("close");
    return this.connection === undefined || !this.hasOption("close");
  }

  /** The connection has another protocol from here on (RFC 9110 section 7.8). */
  get switches(): boolean {
    return this.status === 101 && this.#hasUpgrade && this.hasOption("upgrade");
  }

  protected override take(name: string, value: string): void {
    if (name.length === 7 && isSameName(name, "upgrade")) this.#hasUpgrade = true;
    else if (name.length === 10 && isSameName(name, "keep-alive"))
      this.keepAlive = joined(this.keepAlive, value);
    else super.take(name, value);
  }
}

/** The fields of a trailer section without its empty line, flat; throws MalformedMessage. */
export function readTrailers(text: string, maxFields: number): string[] {
  checkFields(text, 0);
  const section = new FieldSection();
  section.read(text, 0, maxFields);
  // Too late to frame anything (RFC 9110 section 6.5.1), and some recipient may believe it.
  if (section.contentLength !== undefined || section.transferEncoding !== undefined)
    throw new MalformedMessage("the trailer section has a field that frames the message");
  return section.rawHeaders;
}

/**
 * What is wrong with the beginning of a request whose end has not come, as far as it can be told: nobody is left to
 * wait for the end of a message that is none. `text` has at most one unfinished line.
 */
export function problemOfBeginning(text: string): MalformedMessage | undefined {
  const bad = /[^\t\r\n\x20-\x7e\x80-\xff]|(?:^|[^\r])\n|\r[^\n]/.test(text);
  if (bad) return new MalformedMessage("a control character or a line end that is not CRLF");
  if (!text.includes("\r\n")) {
    return /^[!#$%&'*+\-.^_`|~0-9A-Za-z]* ?/.exec(text)?.[0].length === 0 && text !== "\r"
      ? new MalformedMessage("the method is not a token")
      : undefined;
  }
  requestLine.lastIndex = 0;
  const line = requestLine.exec(text);
  if (line === null) return new MalformedMessage(problemOfRequestLine(text));
  const [, method = "", , major, minor] = line;
  return major !== "1" || (minor !== "0" && minor !== "1") ? badVersion(method, major) : undefined;
}

function joined(earlier: string | undefined, value: string): string {
  return earlier === undefined ? value : `${earlier}, ${value}`;
}

function isSpace(code: number): boolean {
  return code === 32 || code === 9;
}

function checkFields(text: string, from: number): void {
  fieldLines.lastIndex = from;
  if (!fieldLines.test(text)) throw new MalformedMessage(problemOfFields(text.slice(from)));
}

/** The first line that is no field, in words. */
function problemOfFields(text: string): string {
  for (const line of text.split("\r\n")) {
    if (line === "" || fieldLine.test(line)) continue;
    if (/^[ \t]/.test(line)) return "a header value has a control character or a folded line";
    const colon = line.indexOf(":");
    if (colon < 0) return "a header line has no colon";
    return new RegExp(`^${token}$`).test(line.slice(0, colon))
      ? "a header value has a control character or a folded line"
      : "a header name is not a token";
  }
  return "a header line does not end with CRLF";
}

function problemOfRequestLine(text: string): string {
  const end = text.indexOf("\r\n");
  const line = end < 0 ? text : text.slice(0, end);
  const [method = "", target = "", version = ""] = line.split(" ");
  if (!new RegExp(`^${token}$`).test(method)) return "the method is not a token";
  if (!/^[\x21-\x7e]+$/.test(target))
    return "the request target has a character that a URI cannot have";
  return /^HTTP\/\d\.\d$/.test(version)
    ? "the request line has more than three parts"
    : "the request line has no HTTP version";
}

function badVersion(method: string, major: string | undefined): MalformedMessage {
  return method === "PRI" && major === "2"
    ? new MalformedMessage(
        "HTTP/2 with prior knowledge (RFC 9113 section 3.3) is not served: only TLS can negotiate it",
        "version",
      )
    : new MalformedMessage("the request line has no HTTP/1 version", "version");
}
