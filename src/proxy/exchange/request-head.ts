/** The checks that every HTTP surface makes on a request head before anything else looks at it. */
import type { IncomingMessage } from "node:http";
import { ProxyError } from "../../errors.ts";
import { framingProblem } from "../../http/framing.ts";
import { HeaderList, stripHopByHop } from "../../http/headers.ts";
import {
  type Destination,
  parseAuthority,
  parseHostHeader,
  type Scheme,
} from "../../net/destination.ts";

/** Throws `request.*` when the next hop could read this message differently from us. */
export function checkFraming(request: IncomingMessage, maxHeaders: number): void {
  if (request.rawHeaders.length > maxHeaders * 2) {
    throw new ProxyError(
      "request.headers-too-large",
      "the request has more fields than limits.max_headers",
    );
  }
  if (request.httpVersion !== "1.1" && request.httpVersion !== "1.0") {
    throw new ProxyError("request.malformed", "the request line has no HTTP/1 version");
  }
  const problem = framingProblem({
    rawHeaders: request.rawHeaders,
    httpVersion: request.httpVersion,
    method: request.method ?? "",
  });
  if (problem !== undefined) throw new ProxyError(problem.code, problem.message);
}

/** TRACE would hand back the credentials that the proxy attaches (RFC 9110 section 9.3.8). */
export function checkMethod(method: string | undefined): void {
  if (method === "TRACE" || method === "TRACK") {
    throw new ProxyError(
      "request.method-not-allowed",
      `${method} is not forwarded: its answer would repeat credentials`,
    );
  }
}

/** Whether a request means the same when it is carried out twice (RFC 9110 section 9.2.2). */
export function isIdempotent(method: string): boolean {
  switch (method) {
    case "GET":
    case "HEAD":
    case "OPTIONS":
    case "PUT":
    case "DELETE":
      return true;
    default:
      return false;
  }
}

/** The end-to-end fields of a request, ready for the next hop. */
export function endToEndHeaders(request: IncomingMessage): HeaderList {
  const headers = new HeaderList(stripHopByHop(request.rawHeaders));
  // Answered by the proxy itself once the request may be sent (RFC 9110 section 10.1.1).
  if (request.headers.expect !== undefined) headers.delete("expect");
  return headers;
}

/** RFC 9112 section 3.2.2: Host has to name the target; a client that says two things is refused, not guessed. */
export function checkHostAgrees(
  request: IncomingMessage,
  destination: Destination,
  scheme: Scheme,
): void {
  const host = request.headers.host;
  // The usual case, compared before anything is parsed: the client wrote the same text twice.
  if (host === undefined || host === destination.hostHeader) return;
  // A tunnel has no default port, and Node's fetch leaves the port out of this field all the same: it is the target's.
  const named =
    scheme === "tcp"
      ? parseAuthority(host, scheme, destination.port)
      : parseHostHeader(host, scheme);
  if (named.equals(destination)) return;
  throw new ProxyError(
    "request.misdirected",
    `the request is for ${destination.authority} but its Host field names ${named.authority}`,
  );
}

/** Throws `request.loop` when the message has been here before. */
export function checkLoop(headers: HeaderList, pseudonym: string): void {
  const via = headers.get("via");
  if (via === undefined || !via.includes(pseudonym)) return;
  throw new ProxyError("request.loop", "the request has passed through this proxy before");
}

/** True when the head announces content, be it empty. */
export function hasBody(request: IncomingMessage): boolean {
  const { headers } = request;
  const length = headers["content-length"];
  return headers["transfer-encoding"] !== undefined || (length !== undefined && Number(length) > 0);
}

/** The protocol of an upgrade that can be carried, or undefined. `h2c` cannot (RFC 9113 section 3.1 withdrew it). */
export function upgradeProtocol({ headers }: Pick<IncomingMessage, "headers">): string | undefined {
  const protocol = headers.upgrade?.trim();
  if (protocol === undefined || protocol === "" || /\bh2c?\b/i.test(protocol)) return undefined;
  return protocol;
}

/** gRPC ends its messages with trailers and streams both ways at once, for which it needs HTTP/2 end to end. */
export function isGrpc(contentType: string | undefined): boolean {
  return (
    contentType?.startsWith("application/grpc") === true &&
    !contentType.startsWith("application/grpc-web")
  );
}
