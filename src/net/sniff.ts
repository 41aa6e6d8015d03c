/**
 * Looks at the first bytes of a connection and puts them back: TLS with its ClientHello, HTTP with its Host, or neither.
 */
import type { Socket } from "node:net";
import type { AbortSource } from "./abort-source.ts";
import type { ClientHello } from "./client-hello.ts";
import { looksLikeTls, parseClientHello } from "./client-hello.ts";
import { isRequestLine, withoutEmptyLines } from "./first-line.ts";
import { http } from "./node-http.ts";

/** The head of an HTTP/1 request as far as naming a destination needs it. */
export interface HttpHead {
  readonly method: string;
  readonly target: string;
  /** The one Host header as sent, or undefined when there is none or more than one. */
  readonly authority: string | undefined;
  /** The host part of `authority`, without port and without brackets. */
  readonly host: string | undefined;
  /** How many Host headers there were; two are an attack, not a choice. */
  readonly hostCount: number;
}

/** Outcome of {@link parseHttpHead}. */
export type HttpHeadResult =
  | { readonly kind: "head"; readonly head: HttpHead }
  | { readonly kind: "need-more" }
  | { readonly kind: "not-http" };

/** What the first bytes of a connection are. `bytes` counts what was looked at and put back. */
export type Sniffed =
  | ({ readonly kind: "tls"; readonly bytes: number } & ClientHello)
  | ({ readonly kind: "http"; readonly bytes: number } & HttpHead)
  /** Neither TLS nor HTTP. */
  | { readonly kind: "opaque"; readonly bytes: number; readonly isTls?: true }
  /** Begins as TLS or HTTP and then breaks its rules, or is longer than the limit. Nothing to tunnel blindly. */
  | { readonly kind: "malformed"; readonly bytes: number; readonly reason: string }
  /** The client said too little in time; 0 bytes is a client that waits for the server to send first. */
  | { readonly kind: "timeout"; readonly bytes: number }
  /** The client closed, or the connection failed, before the protocol was known. Nothing can be put back: `said` came. */
  | { readonly kind: "closed"; readonly bytes: number; readonly said: Buffer };

/** Limits of {@link sniff}. */
export interface SniffOptions {
  readonly timeoutMs: number;
  readonly maxBytes?: number;
  /** An HTTP request is recognised by its first line: `authority` and `host` are then not known. */
  readonly requestLineSuffices?: boolean;
  /**
   * For connections that may be passed on unread: `http` is also what a server would refuse as a broken request, and
   * what cannot begin with a registered method is `opaque` at once, TLS too, because its next bytes may never come.
   */
  readonly onlyHttp?: boolean;
  /** Ends the wait as its time does. */
  readonly signal?: AbortSource;
}

/**
 * Ordinary hellos stay under 2 KiB. Each segment is parsed again from the start, so the limit also bounds what a
 * client that sends single bytes can make us compute.
 */
const defaultMaxBytes = 16_384;

/** Longest run of token characters that can still be a method; the longest registered one has 17 (RFC 9110, IANA). */
const maxMethodLength = 32;

/** Each with the space behind it, and the first word of HTTP/2. */
const methods = [...http.METHODS, "PRI"].map((method) => `${method} `);

/**
 * Reads just enough of `socket` to know what the client speaks, and puts the bytes back; see {@link peek}.
 */
export function sniff(socket: Socket, options: SniffOptions): Promise<Sniffed> {
  const { maxBytes = defaultMaxBytes, requestLineSuffices = false, onlyHttp = false } = options;
  const look = (seen: Buffer): Sniffed | undefined => {
    return onlyHttp
      ? classifyRequest(seen, maxBytes)
      : classify(seen, maxBytes, requestLineSuffices);
  };
  return peek(socket, look, options.timeoutMs, options.signal);
}

function classifyRequest(seen: Buffer, maxBytes: number): Sniffed | undefined {
  const bytes = seen.length;
  if (looksLikeTls(seen.subarray(0, 1))) return { kind: "opaque", bytes, isTls: true };
  const text = withoutEmptyLines(seen.toString("latin1", 0, maxBytes));
  const line = text.split("\n", 1)[0] ?? "";
  const isWhole = line.length < text.length;
  if (isWhole ? isRequestLine(line) : bytes >= maxBytes && canBeMethod(line)) {
    const [method = "", target = ""] = line.split(" ");
    return { kind: "http", bytes, method, target, ...unnamed };
  }
  return isWhole || !canBeMethod(line) ? { kind: "opaque", bytes } : undefined;
}

/** Whether a text begins with a registered method, or is the beginning of one. */
function canBeMethod(text: string): boolean {
  return (
    text !== "" && methods.some((method) => method.startsWith(text) || text.startsWith(method))
  );
}

/** Why nothing was found. */
type Unseen = Extract<Sniffed, { readonly kind: "timeout" | "closed" }>;

/**
 * Reads until `look` finds something in the first bytes of `socket`, and puts them back in front of the next reader.
 *
 * The socket must be readable, not flowing, and made without `onread`. It is never destroyed here, and it comes back
 * not flowing, with no listener of this function on it: the owner's error listener must be in place already.
 */
export function peek<T>(
  socket: Socket,
  look: (seen: Buffer) => T | undefined,
  timeoutMs: number,
  signal?: AbortSource,
): Promise<T | Unseen> {
  return new Promise((resolve) => {
    let seen: Buffer = Buffer.alloc(0);

    const finish = (result: T | Unseen): void => {
      clearTimeout(timer);
      socket.off("readable", onReadable);
      socket.off("end", onGone);
      socket.off("close", onGone);
      socket.off("error", onGone);
      signal?.removeEventListener("abort", onTime);
      // After 'end' nothing can be put back, and nobody is left to read it.
      if (seen.length > 0 && !socket.destroyed && !socket.readableEnded) socket.unshift(seen);
      resolve(result);
    };
    const onReadable = (): void => {
      for (let chunk = readChunk(socket); chunk !== undefined; chunk = readChunk(socket)) {
        seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
        const result = look(seen);
        if (result !== undefined) {
          finish(result);
          return;
        }
      }
    };
    const onGone = (): void => finish({ kind: "closed", bytes: seen.length, said: seen });
    const onTime = (): void => finish({ kind: "timeout", bytes: seen.length });
    const timer = setTimeout(onTime, timeoutMs);

    socket.on("end", onGone);
    socket.on("close", onGone);
    socket.on("error", onGone);
    signal?.addEventListener("abort", onTime);
    if (socket.destroyed || socket.readableEnded) onGone();
    else if (signal?.aborted === true) onTime();
    else socket.on("readable", onReadable);
  });
}

function readChunk(socket: Socket): Buffer | undefined {
  const chunk: unknown = socket.read();
  return Buffer.isBuffer(chunk) ? chunk : undefined;
}

const unnamed = { authority: undefined, host: undefined, hostCount: 0 } as const;

/** Says what `bytes` are, or undefined while more are needed and allowed. */
export function classify(
  bytes: Buffer,
  maxBytes: number,
  requestLineSuffices = false,
): Sniffed | undefined {
  const length = bytes.length;
  if (length === 0) return undefined;
  if (looksLikeTls(bytes)) {
    const result = parseClientHello(bytes);
    if (result.kind === "hello") return { kind: "tls", bytes: length, ...result.hello };
    if (result.kind === "malformed") {
      return { kind: "malformed", bytes: length, reason: result.reason };
    }
  } else {
    const result = parseHttpHead(bytes);
    if (result.kind === "head") return { kind: "http", bytes: length, ...result.head };
    if (result.kind === "not-http") return { kind: "opaque", bytes: length };
    const line = requestLineSuffices ? parseRequestLine(bytes) : undefined;
    if (typeof line === "object") {
      const { method, target } = line;
      return { kind: "http", bytes: length, method, target, ...unnamed };
    }
  }
  if (length < maxBytes) return undefined;
  return {
    kind: "malformed",
    bytes: length,
    reason: `first message longer than ${maxBytes} bytes`,
  };
}

/** Parses the head of an HTTP/1 request at the start of `bytes`; names only what a destination needs. */
export function parseHttpHead(bytes: Buffer): HttpHeadResult {
  const request = parseRequestLine(bytes);
  if (request === "not-http") return { kind: "not-http" };
  if (request === undefined) return { kind: "need-more" };
  const { method, target, lineEnd } = request;
  const headEnd = bytes.indexOf("\r\n\r\n", lineEnd);
  if (headEnd === -1) return { kind: "need-more" };
  const hosts = hostHeaders(bytes.toString("latin1", lineEnd + 2, headEnd));
  const authority = hosts.length === 1 ? hosts[0] : undefined;
  const host = authority === undefined ? undefined : hostOf(authority);
  return { kind: "head", head: { method, target, authority, host, hostCount: hosts.length } };
}

/** The first line of a request, or undefined while its end is missing. */
function parseRequestLine(
  bytes: Buffer,
):
  | { readonly method: string; readonly target: string; readonly lineEnd: number }
  | "not-http"
  | undefined {
  const lineEnd = bytes.indexOf("\r\n");
  const line = bytes.toString("latin1", 0, lineEnd === -1 ? bytes.length : lineEnd);
  if (lineEnd === -1) return canBeRequestLine(line) ? undefined : "not-http";
  // RFC 9112 section 3: single spaces and an upper-case HTTP-version; nothing else is a request line here.
  const match = /^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([!-~\x80-\xff]+) HTTP\/\d\.\d$/.exec(line);
  if (match === null) return "not-http";
  const [, method = "", target = ""] = match;
  return { method, target, lineEnd };
}

/** Whether a line without its end can still become a request line; decided early so that other protocols need not wait. */
function canBeRequestLine(line: string): boolean {
  const space = line.indexOf(" ");
  const method = space === -1 ? line : line.slice(0, space);
  if (method.length > maxMethodLength || !/^[!#$%&'*+.^_`|~0-9A-Za-z-]*$/.test(method))
    return false;
  return space !== 0 && /^[ -~\x80-\xff]*\r?$/.test(line);
}

function hostHeaders(head: string): string[] {
  return head
    .split("\r\n")
    .filter((line) => /^host[ \t]*:/i.test(line))
    .map((line) => line.slice(line.indexOf(":") + 1).trim());
}

function hostOf(authority: string): string {
  const bracketed = /^\[([^\]]*)\](?::\d*)?$/.exec(authority);
  return bracketed?.[1] ?? authority.replace(/:\d*$/, "");
}
