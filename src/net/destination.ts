/**
 * Destination: where a flow goes, in the one canonical form that policy, resolver, dialler, leaf and log all see.
 *
 * What cannot be made canonical without guessing is ProxyError("request.malformed"). A name outside ASCII is such: HTTP
 * targets and DNS carry the xn-- form, which is kept as it came (Node's own URL does not judge its punycode either).
 */
import { BoundedMap, ownText } from "../bounded-map.ts";
import { ProxyError } from "../errors.ts";
import { parseAddress } from "./address.ts";

/** The protocol used towards the destination of a flow; "tcp" has no default port. */
export type Scheme = "http" | "https" | "tcp";

const defaultPorts: Readonly<Record<Scheme, number | undefined>> = {
  http: 80,
  https: 443,
  tcp: undefined,
};

let create: (scheme: Scheme, host: CanonicalHost, port: number) => Destination;

/** A canonical scheme, host and port; only the parsers of this file make one. */
export class Destination {
  readonly scheme: Scheme;
  /** Lower-case ASCII name without root dot, dotted quad, or unbracketed RFC 5952 IPv6 (IPv4-mapped: the IPv4). */
  readonly host: string;
  readonly port: number;
  readonly isAddress: boolean;
  /** "host:port", with brackets around IPv6. */
  readonly authority: string;
  /** "scheme://host", with the port when it is not the default one. */
  readonly origin: string;

  private constructor(scheme: Scheme, host: CanonicalHost, port: number) {
    this.scheme = scheme;
    // It is remembered in many places.
    this.host = ownText(host.text);
    this.port = port;
    this.isAddress = host.isAddress;
    this.authority = `${bracketed(this)}:${port}`;
    this.origin = `${scheme}://${this.hostHeader}`;
    Object.freeze(this);
  }

  static {
    create = (scheme, host, port) => new Destination(scheme, host, port);
  }

  /** What belongs in the Host field: the authority, without the port when it is the default one of the scheme. */
  get hostHeader(): string {
    return this.port === defaultPorts[this.scheme] ? bracketed(this) : this.authority;
  }

  /** Whether both name the same host and port; the scheme is not compared. */
  equals(other: Destination): boolean {
    return this.port === other.port && this.host === other.host;
  }

  /** The same host and port with another scheme. */
  with(change: { readonly scheme?: Scheme }): Destination {
    const scheme = change.scheme ?? this.scheme;
    return scheme === this.scheme
      ? this
      : create(scheme, { text: this.host, isAddress: this.isAddress }, this.port);
  }
}

interface CanonicalHost {
  readonly text: string;
  readonly isAddress: boolean;
}

function bracketed(destination: Destination): string {
  return destination.isAddress && destination.host.includes(":")
    ? `[${destination.host}]`
    : destination.host;
}

function malformed(message: string): ProxyError {
  return new ProxyError("request.malformed", message);
}

/**
 * Parses "host:port" with nothing around it.
 *
 * Without `defaultPort` the port is mandatory and may not be empty, as RFC 9110 section 9.3.6 wants it for CONNECT.
 */
export function parseAuthority(text: string, scheme: Scheme, defaultPort?: number): Destination {
  const isUsual = defaultPort === defaultPorts[scheme];
  const known = isUsual ? parsed[scheme].get(text) : undefined;
  if (known !== undefined) return known;
  const destination = readAuthority(text, scheme, defaultPort);
  if (isUsual) {
    parsed[scheme].set(text, destination);
  }
  return destination;
}

function readAuthority(text: string, scheme: Scheme, defaultPort?: number): Destination {
  if (text.includes("@")) {
    throw malformed("authority has user information");
  }
  let hostEnd = text.indexOf(":");
  if (text.startsWith("[")) {
    const close = text.indexOf("]");
    if (close === -1) {
      throw malformed("authority has an unclosed bracket");
    }
    if (close + 1 < text.length && text.charCodeAt(close + 1) !== 0x3a) {
      throw malformed("authority has text after the bracketed address");
    }
    hostEnd = close + 1 < text.length ? close + 1 : -1;
  }
  const host = canonicalHost(hostEnd === -1 ? text : text.slice(0, hostEnd));
  const hasPort = hostEnd !== -1 && hostEnd + 1 < text.length;
  if (!hasPort && defaultPort === undefined) {
    throw malformed("authority has no port");
  }
  return create(scheme, host, hasPort ? parsePort(text, hostEnd + 1) : (defaultPort ?? 0));
}

/** Parses the value of a Host field; the default port of the scheme may be left out. */
export function parseHostHeader(text: string, scheme: Scheme): Destination {
  return parseAuthority(text, scheme, defaultPorts[scheme]);
}

/** An agent connects to few hosts repeatedly; results are cached by the text. */
const maxRemembered = 512;
const parsed: Readonly<Record<Scheme, Map<string, Destination>>> = {
  http: new BoundedMap(maxRemembered),
  https: new BoundedMap(maxRemembered),
  tcp: new BoundedMap(maxRemembered),
};

/** Where an absolute-form target goes, and its path and query as they came. */
export interface AbsoluteTarget {
  readonly destination: Destination;
  /** Path and query byte for byte, so that policy and origin see the same; never empty. */
  readonly path: string;
}

/** Parses the absolute-form target of a request (RFC 9112 section 3.2.2), http and https only. */
export function parseAbsoluteTarget(target: string): AbsoluteTarget {
  const colon = target.indexOf("://");
  if (colon === -1) {
    throw malformed("request target is not in absolute form");
  }
  const scheme = parseScheme(target.slice(0, colon));
  if (notVisibleAscii.test(target)) {
    throw malformed("request target has a space, a control character or a byte outside ASCII");
  }
  if (target.includes("#")) {
    throw malformed("request target has a fragment");
  }
  const start = colon + 3;
  let query = target.indexOf("?", start);
  query = query === -1 ? target.length : query;
  let end = target.indexOf("/", start);
  end = end === -1 || end > query ? query : end;
  const backslash = target.indexOf("\\");
  // WHATWG URL reads a backslash before the query as a slash, other parsers do not.
  if (backslash !== -1 && backslash < query) {
    throw malformed("request target has a backslash");
  }
  const destination = parseHostHeader(target.slice(start, end), scheme);
  const path = target.slice(end);
  return { destination, path: path.charCodeAt(0) === 0x2f ? path : `/${path}` };
}

/** An origin-form target as it came; one that recipients could read differently is refused. */
export function originForm(target: string): string {
  if (notVisibleAscii.test(target)) {
    throw malformed("request target has a space, a control character or a byte outside ASCII");
  }
  if (target.includes("#")) throw malformed("request target has a fragment");
  return target;
}

const notVisibleAscii = /[^\x21-\x7e]/;

function parseScheme(text: string): "http" | "https" {
  if (text === "http" || text === "https") {
    return text;
  }
  const lower = text.toLowerCase();
  if (lower === "http" || lower === "https") {
    return lower;
  }
  throw malformed("request target has a scheme that is not http or https");
}

function parsePort(text: string, start: number): number {
  let port = 0;
  for (let at = start; at < text.length; at += 1) {
    const digit = text.charCodeAt(at) - 0x30;
    if (digit < 0 || digit > 9) {
      throw malformed("port is not a decimal number");
    }
    port = port * 10 + digit;
    // A leading zero is also how "port 0" is caught.
    if (port === 0 || port > 65_535) {
      throw malformed("port is not a number from 1 to 65535");
    }
  }
  return port;
}

/** One character of a name as its canonical form, or 0 when it may not stand in a name. */
const nameCharacters = new Uint8Array(128);
for (const character of "abcdefghijklmnopqrstuvwxyz0123456789-_.") {
  nameCharacters[character.charCodeAt(0)] = character.charCodeAt(0);
  nameCharacters[character.toUpperCase().charCodeAt(0)] = character.charCodeAt(0);
}

/** RFC 1035 section 2.3.4: 63 bytes a label; 253 characters are what 255 bytes on the wire can spell. */
const longestLabel = 63;
const longestName = 253;

function canonicalHost(text: string): CanonicalHost {
  if (text.charCodeAt(0) === 0x5b) {
    return canonicalIPv6(text.slice(1, -1));
  }
  // One root dot is the same name written out; two are an empty label.
  const length = text.charCodeAt(text.length - 1) === 0x2e ? text.length - 1 : text.length;
  if (length === 0) {
    throw malformed("host is empty");
  }
  let labelStart = 0;
  let isLower = true;
  for (let at = 0; at < length; at += 1) {
    const code = text.charCodeAt(at);
    const kept = code < 128 ? (nameCharacters[code] ?? 0) : 0;
    if (kept === 0) {
      throw badCharacter(code);
    }
    isLower &&= kept === code;
    if (code === 0x2e) {
      checkLabel(at - labelStart);
      labelStart = at + 1;
    }
  }
  checkLabel(length - labelStart);
  if (length > longestName) {
    throw malformed(`host name is longer than ${longestName} characters`);
  }
  let name = length === text.length ? text : text.slice(0, length);
  name = isLower ? name : name.toLowerCase();
  const first = name.charCodeAt(labelStart);
  // WHATWG URL: a name whose last label is a number is an IPv4 address or nothing.
  if (first >= 0x30 && first <= 0x39 && numericLabel.test(name.slice(labelStart))) {
    return { text: canonicalIPv4(name), isAddress: true };
  }
  return { text: name, isAddress: false };
}

const numericLabel = /^(?:0x[0-9a-f]*|[0-9]+)$/;

function checkLabel(length: number): void {
  if (length === 0) {
    throw malformed("host name has an empty label");
  }
  if (length > longestLabel) {
    throw malformed(`host name has a label longer than ${longestLabel} characters`);
  }
}

function badCharacter(code: number): ProxyError {
  if (code === 0x25) {
    return malformed("host has a percent-encoded character");
  }
  if (code > 0x7e || code < 0x21) {
    return malformed("host has a space, a control character or a byte outside ASCII");
  }
  return malformed("host has a character that is not allowed in a name");
}

function canonicalIPv6(text: string): CanonicalHost {
  if (text.includes("%")) {
    throw malformed("IPv6 address has a zone id");
  }
  const address = text.includes(":") ? parseAddress(text) : undefined;
  if (address === undefined) {
    throw malformed("brackets do not hold an IPv6 address");
  }
  // ::ffff:192.0.2.1 is dialled as 192.0.2.1: one place, one spelling.
  return { text: address.unmapped().toString(), isAddress: true };
}

/** Reads the spellings that inet_aton knows (decimal, 0x, 0 for octal, one to four parts) the way WHATWG URL does. */
function canonicalIPv4(name: string): string {
  const parts = name.split(".");
  let address = 0;
  for (const [index, part] of parts.entries()) {
    const value = ipv4Part(part);
    const isLast = index === parts.length - 1;
    const limit = isLast ? 256 ** (5 - parts.length) : 256;
    if (parts.length > 4 || value === undefined || value >= limit) {
      throw malformed("host ends in a number but is not an IPv4 address");
    }
    address += isLast ? value : value * 256 ** (3 - index);
  }
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join(".");
}

function ipv4Part(part: string): number | undefined {
  if (/^0x[0-9a-f]+$/.test(part)) {
    return Number.parseInt(part, 16);
  }
  if (/^0[0-7]*$/.test(part)) {
    return Number.parseInt(part, 8);
  }
  return /^[1-9][0-9]*$/.test(part) ? Number.parseInt(part, 10) : undefined;
}
