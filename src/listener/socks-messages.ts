/** The messages of SOCKS5 as a server reads and writes them (RFC 1928, RFC 1929). */
import { isIPv6 } from "node:net";
import type { ErrorCode } from "../errors.ts";
import { ProxyError } from "../errors.ts";
import { type Destination, parseAuthority } from "../net/destination.ts";

const version = 5;
const authenticationVersion = 1;

/** How a client may say who it is. */
export const methods = { none: 0, password: 2, unacceptable: 0xff } as const;

/** RFC 1928 section 6. */
const codes = {
  generalFailure: 1,
  notAllowed: 2,
  networkUnreachable: 3,
  hostUnreachable: 4,
  refused: 5,
  expired: 6,
  commandNotSupported: 7,
  addressTypeNotSupported: 8,
} as const;

/** What a dialogue came to that ends with a refusal: its fault, and the last bytes that its client gets. */
export class SocksRefusal extends Error {
  readonly fault: ProxyError;
  readonly bytes: Uint8Array;

  constructor(fault: ProxyError, bytes: Uint8Array) {
    super(fault.message);
    this.fault = fault;
    this.bytes = bytes;
  }
}

function malformed(message: string, bytes: Uint8Array): SocksRefusal {
  return new SocksRefusal(new ProxyError("request.malformed", message), bytes);
}

/** The messages of a client: what is read, and how many bytes it took; undefined while more are needed. */
type Read<T> = { readonly value: T; readonly length: number } | undefined;

/** The authentication methods that a client offers. */
export function readGreeting(seen: Buffer): Read<ReadonlySet<number>> {
  if (seen[0] !== undefined && seen[0] !== version) {
    const message =
      "the client speaks SOCKS4, which has no names and no passwords: use SOCKS5 (socks5h://)";
    // Of version 4: rejected, and nothing else in it means anything.
    throw malformed(message, Uint8Array.of(0, 91, 0, 0, 0, 0, 0, 0));
  }
  const count = seen[1];
  if (count === undefined || seen.length < 2 + count) return undefined;
  return { value: new Set(seen.subarray(2, 2 + count)), length: 2 + count };
}

export function methodReply(method: number): Uint8Array {
  return Uint8Array.of(version, method);
}

/** A name and a password, as UTF-8. */
export function readCredentials(seen: Buffer): Read<readonly [string, string]> {
  if (seen[0] !== undefined && seen[0] !== authenticationVersion)
    throw malformed("the credentials are not of RFC 1929", credentialsReply(false));
  const nameLength = seen[1];
  const passwordLength = nameLength === undefined ? undefined : seen[2 + nameLength];
  if (nameLength === undefined || passwordLength === undefined) return undefined;
  const start = 3 + nameLength;
  const length = start + passwordLength;
  if (seen.length < length) return undefined;
  const text = (from: number, to: number): string => seen.toString("utf8", from, to);
  return { value: [text(2, 2 + nameLength), text(start, length)], length };
}

export function credentialsReply(isAccepted: boolean): Uint8Array {
  return Uint8Array.of(authenticationVersion, isAccepted ? 0 : 1);
}

/** Where a client wants to be connected to. */
export function readRequest(seen: Buffer): Read<Destination> {
  const [given, command, reserved, type, nameLength] = seen;
  if (given !== undefined && given !== version)
    throw malformed("the request is not of SOCKS5", reply(codes.generalFailure));
  // Its address is read all the same: a client that is still sending might not see the reply.
  const length = type === undefined ? undefined : addressLength(type, nameLength);
  if (length === undefined || seen.length < 4 + length + 2) return undefined;
  const address = seen.subarray(4, 4 + length);
  if (command !== 1) {
    const what = command === 2 ? "BIND" : command === 3 ? "UDP ASSOCIATE" : `command ${command}`;
    const fault = new ProxyError(
      "request.method-not-allowed",
      `SOCKS5 ${what} is refused: only CONNECT is supported`,
    );
    throw new SocksRefusal(fault, reply(codes.commandNotSupported));
  }
  if (reserved !== 0)
    throw malformed("the reserved byte of the request is not 0", reply(codes.generalFailure));
  const port = seen.readUInt16BE(4 + length);
  return { value: destinationOf(type, address, port), length: 4 + length + 2 };
}

/** Undefined while it is not known. */
function addressLength(type: number, nameLength: number | undefined): number | undefined {
  if (type === 1) return 4;
  if (type === 4) return 16;
  if (type === 3) return nameLength === undefined ? undefined : 1 + nameLength;
  throw malformed(
    `the address type ${type} is none of SOCKS5`,
    reply(codes.addressTypeNotSupported),
  );
}

/** Read as the authority of a CONNECT is, so that one place has one spelling, however it is asked for. */
function destinationOf(type: number | undefined, address: Buffer, port: number): Destination {
  const host =
    type === 1 ? address.join(".") : type === 4 ? ipv6Of(address) : nameOf(address.subarray(1));
  try {
    return parseAuthority(`${host}:${port}`, "tcp");
  } catch (error) {
    if (!(error instanceof ProxyError)) throw error;
    throw new SocksRefusal(error, reply(codes.generalFailure));
  }
}

function ipv6Of(address: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, index) =>
    address.readUInt16BE(index * 2).toString(16),
  );
  return `[${groups.join(":")}]`;
}

/** Some clients send an IPv6 address as a name, without the brackets that only an authority has. */
function nameOf(bytes: Buffer): string {
  const name = bytes.toString("latin1");
  return isIPv6(name) ? `[${name}]` : name;
}

/** The connection is there; where it begins is nobody's business. */
export const succeeded: Uint8Array = reply(0);

function reply(code: number): Uint8Array {
  return Uint8Array.of(version, code, 0, 1, 0, 0, 0, 0, 0, 0);
}

const codeOf: Readonly<Partial<Record<ErrorCode, number>>> = {
  "request.misdirected": codes.notAllowed,
  "request.loop": codes.notAllowed,
  "budget.exceeded": codes.notAllowed,
  "upstream.address-forbidden": codes.networkUnreachable,
  "upstream.unreachable": codes.hostUnreachable,
  "upstream.unresolvable": codes.hostUnreachable,
  "upstream.refused": codes.refused,
  "upstream.proxy-refused": codes.refused,
  "upstream.timeout": codes.expired,
  "request.timeout": codes.expired,
};

/** The reply to a request that was refused, by the code of its denial or else by its status. */
export function refusalReply(code: string, status: number): Uint8Array {
  const known = (codeOf as Readonly<Partial<Record<string, number>>>)[code];
  if (known !== undefined) return reply(known);
  // A plugin may have codes of its own; what it says of itself is in its status.
  const isRuled = /^(?:policy|auth)\./.test(code) || [401, 403, 407, 429].includes(status);
  return reply(isRuled ? codes.notAllowed : codes.generalFailure);
}
