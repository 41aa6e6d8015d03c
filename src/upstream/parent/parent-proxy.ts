/** A parent proxy of the site, for our own connections. */
import { type ErrorCode, messageOf, ProxyError } from "../../errors.ts";
import type { Destination } from "../../net/destination.ts";
import type { Secret } from "../../secret.ts";

/** The protocol of a parent. */
export type ParentKind = "http" | "https" | "socks5";

/** One parent, as the operator's file (or what it points to) describes it. */
export interface ParentProxy {
  readonly kind: ParentKind;
  /** Where it listens. */
  readonly destination: Destination;
  /** What it is asked for: an address that was vetted here, or the name, which it resolves itself. */
  readonly connectBy: "address" | "name";
  readonly credentials: ParentCredentials | undefined;
  /** Its URL without credentials. */
  readonly label: string;
}

/** For Basic authentication (RFC 7617) or RFC 1929. */
export interface ParentCredentials {
  readonly username: string;
  readonly password: Secret;
}

/** The value of a Proxy-Authorization field. Call it on the last line before the wire. */
export function basicAuthorization({ username, password }: ParentCredentials): string {
  return `Basic ${Buffer.from(`${username}:${password.reveal()}`, "utf8").toString("base64")}`;
}

/** A step of the way at which a connection through a parent can fail; also values of a metric label. */
export const hops = ["dns", "tcp", "tls", "auth", "connect", "http"] as const;

/** One of {@link hops}. */
export type Hop = (typeof hops)[number];

interface HopFailure {
  readonly hop: Hop;
  readonly code: ErrorCode;
  /** The rest of the message, after the parent's name. */
  readonly what: string;
  readonly cause?: unknown;
}

/** A fault of one hop. */
export function hopFault(parent: ParentProxy, { hop, code, what, cause }: HopFailure): ProxyError {
  return new ProxyError(code, `the upstream proxy ${parent.label} ${what}`, { cause, hop });
}

/** The same fault, attributed to the parent. A client that disconnected is not one. */
export function ofParent(parent: ParentProxy, hop: Hop, error: unknown): ProxyError {
  if (!(error instanceof ProxyError)) {
    const what = `failed: ${messageOf(error)}`;
    return hopFault(parent, { hop, code: "upstream.refused", what, cause: error });
  }
  if (error.code === "pipeline.cancelled") return error;
  const what = `cannot be used: ${error.message}`;
  return hopFault(parent, { hop, code: error.code, what, cause: error.cause });
}
