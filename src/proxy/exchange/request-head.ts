/** The checks that every HTTP surface makes on a request head before anything else looks at it. */
import { ProxyError } from "../../errors.ts";
import { HeaderList, stripHopByHop } from "../../http/headers.ts";
import {
  type Destination,
  parseAuthority,
  parseHostHeader,
  type Scheme,
} from "../../net/destination.ts";
import type { RequestHead } from "../../wire/head.ts";

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
export function endToEndHeaders(head: RequestHead): HeaderList {
  const headers = new HeaderList(stripHopByHop(head.rawHeaders));
  // Answered by the proxy itself once the request may be sent (RFC 9110 section 10.1.1).
  if (head.expect !== undefined) headers.delete("expect");
  return headers;
}

/** RFC 9110 section 7.6.2: the one that the count ends at responds itself, and everyone before it counts down. */
export function countHop(method: string, headers: HeaderList): void {
  if (method !== "OPTIONS") return;
  const left = headers.get("max-forwards");
  if (left === undefined) return;
  if (!/^[0-9]{1,15}$/.test(left))
    throw new ProxyError("request.malformed", "Max-Forwards is not one decimal number");
  if (Number(left) === 0) {
    throw new ProxyError(
      "request.method-not-allowed",
      "Max-Forwards is 0: OPTIONS ends here, and this proxy has no options to tell",
    );
  }
  headers.set("max-forwards", String(Number(left) - 1));
}

/** RFC 9112 section 3.2.2: Host has to name the target; a client that says two things is refused, not guessed. */
export function checkHostAgrees(
  { host }: { readonly host?: string | undefined },
  destination: Destination,
  scheme: Scheme,
): void {
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

/**
 * The protocol of an upgrade that can be carried, or undefined: every other one is ignored (RFC 9110 section 7.8).
 *
 * `h2c` cannot (RFC 9113 section 3.1 withdrew it), nor can TLS (RFC 2817), which would hide from every plugin what comes
 * next: Apache HttpClient 5 offers it with each request for an `http:` URL.
 */
export function upgradeProtocol(
  head: Pick<RequestHead, "asksUpgrade" | "hasBody" | "upgrade">,
): string | undefined {
  // A body would be taken for the first bytes of the new protocol.
  if (!head.asksUpgrade || head.hasBody) return undefined;
  const protocol = head.upgrade?.trim();
  if (protocol === undefined || protocol === "" || /\b(?:h2c?|tls)\b/i.test(protocol))
    return undefined;
  // Plugins see what is said on a WebSocket: what else is offered beside one is no way around them.
  const offered = protocol.split(",").map((one) => one.trim());
  return offered.find((one) => one.toLowerCase() === "websocket") ?? protocol;
}

/** gRPC ends its messages with trailers and streams both ways at once, for which it needs HTTP/2 end to end. */
export function isGrpc(contentType: string | undefined): boolean {
  return (
    contentType?.startsWith("application/grpc") === true &&
    !contentType.startsWith("application/grpc-web")
  );
}
