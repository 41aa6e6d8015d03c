/** A proxy of the site that our own connections go through. */
import { type ErrorCode, messageOf, ProxyError } from "../errors.ts";
import type { Destination } from "../net/destination.ts";
import type { Secret } from "../secret.ts";

/** How a parent is spoken to. */
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
  /** Goes on after the parent's name. */
  readonly what: string;
  readonly cause?: unknown;
}

/** A fault of one hop. */
export function hopFault(parent: ParentProxy, { hop, code, what, cause }: HopFailure): ProxyError {
  return new ProxyError(code, `the upstream proxy ${parent.label} ${what}`, { cause, hop });
}

/** The same fault, said of the parent. A client that went away is nobody's fault. */
export function ofParent(parent: ParentProxy, hop: Hop, error: unknown): ProxyError {
  if (!(error instanceof ProxyError)) {
    const what = `failed: ${messageOf(error)}`;
    return hopFault(parent, { hop, code: "upstream.refused", what, cause: error });
  }
  if (error.code === "pipeline.cancelled") return error;
  const what = `cannot be used: ${error.message}`;
  return hopFault(parent, { hop, code: error.code, what, cause: error.cause });
}
