/** A proxy of the site that our own connections go through. */
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
