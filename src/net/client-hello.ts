/**
 * Reads a TLS ClientHello out of the first bytes of a connection, without a TLS stack and without trusting any of it.
 *
 * Everything found here is what a client claims. It is compared with the name that the policy judged; it never
 * becomes a name of its own.
 */

/** What a ClientHello says, as far as a proxy has use for it. */
export interface ClientHello {
  /**
   * The server name exactly as sent, one character per byte. `undefined` is "no such extension" only: an empty,
   * over-long or otherwise odd name is reported as it is, so that comparing it with a real name fails.
   */
  readonly sni: string | undefined;
  /** The protocols offered, in the client's order; empty without the extension. */
  readonly alpn: readonly string[];
  /**
   * Whether an encrypted_client_hello extension is present. A GREASE one is built to look like a real one (RFC 9849
   * section 6.2), so the two cannot be told apart here: with a real one `sni` is the public name of the server.
   */
  readonly hasEch: boolean;
  /** The highest version offered, as on the wire (0x0303 is TLS 1.2, 0x0304 is TLS 1.3). */
  readonly maxVersion: number;
}

/** Outcome of {@link parseClientHello}: every prefix of a valid hello is `need-more`. */
export type ClientHelloResult =
  | { readonly kind: "hello"; readonly hello: ClientHello }
  | { readonly kind: "need-more" }
  | { readonly kind: "malformed"; readonly reason: string };

// RFC 8446 section 5.1: record header of five bytes, type 22 is handshake, at most 2^14 bytes of plaintext.
const recordHeaderBytes = 5;
const handshakeRecord = 22;
const maxRecordBytes = 16_384;
// RFC 8446 section 4: one byte of type, three of length; type 1 is client_hello.
const handshakeHeaderBytes = 4;
const clientHelloMessage = 1;
// RFC 8446 section 4.2, RFC 6066, RFC 7301, RFC 9849.
const extensionServerName = 0;
const extensionAlpn = 16;
const extensionSupportedVersions = 43;
const extensionEch = 0xfe0d;

/** Longest ClientHello that is read; post-quantum key shares make two kilobytes ordinary. */
const maxClientHelloBytes = 65_536;

class Malformed extends Error {}

/** Says whether bytes can still become a TLS handshake: content type and major version fit as far as they are there. */
export function looksLikeTls(bytes: Uint8Array): boolean {
  const [type, major, minor] = bytes;
  return (
    (type === undefined || type === handshakeRecord) &&
    (major === undefined || major === 3) &&
    (minor === undefined || minor <= 4)
  );
}

/** Parses the ClientHello at the start of `bytes`, joined from as many TLS records as it was sent in. */
export function parseClientHello(bytes: Uint8Array): ClientHelloResult {
  try {
    const message = joinHandshake(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    if (message === undefined) return { kind: "need-more" };
    return { kind: "hello", hello: readHello(new Reader(message)) };
  } catch (error) {
    if (error instanceof Malformed) return { kind: "malformed", reason: error.message };
    throw error;
  }
}

/** The body of the first handshake message, or undefined while bytes are missing. */
function joinHandshake(bytes: Buffer): Buffer | undefined {
  const fragments: Buffer[] = [];
  let joinedBytes = 0;
  let messageBytes: number | undefined;
  for (let offset = 0; ;) {
    const header = bytes.subarray(offset, offset + recordHeaderBytes);
    if (!looksLikeTls(header)) throw new Malformed("not a TLS handshake record");
    if (header.length < recordHeaderBytes) return undefined;
    const length = header.readUInt16BE(3);
    // RFC 8446 section 5.1: zero-length fragments of handshake types are forbidden.
    if (length === 0) throw new Malformed("empty handshake record");
    if (length > maxRecordBytes) throw new Malformed("TLS record longer than 16384 bytes");
    offset += recordHeaderBytes;
    const fragment = bytes.subarray(offset, offset + length);
    fragments.push(fragment);
    joinedBytes += fragment.length;
    if (messageBytes === undefined) {
      messageBytes = messageLength(fragments.length === 1 ? fragment : Buffer.concat(fragments));
    }
    if (messageBytes !== undefined && joinedBytes >= messageBytes) {
      return Buffer.concat(fragments).subarray(handshakeHeaderBytes, messageBytes);
    }
    if (fragment.length < length) return undefined;
    offset += length;
  }
}

/** Length of the whole handshake message including its header, once the header is there. */
function messageLength(start: Buffer): number | undefined {
  if (start.length > 0 && start[0] !== clientHelloMessage) {
    throw new Malformed("first handshake message is not a ClientHello");
  }
  if (start.length < handshakeHeaderBytes) return undefined;
  const length = handshakeHeaderBytes + start.readUIntBE(1, 3);
  if (length > maxClientHelloBytes) throw new Malformed("ClientHello longer than 65536 bytes");
  return length;
}

/** RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2. */
function readHello(reader: Reader): ClientHello {
  const legacyVersion = reader.uint(2, "version");
  reader.bytes(32, "random");
  if (reader.vector(1, "session id").length > 32) throw new Malformed("session id too long");
  const suites = reader.vector(2, "cipher suites");
  if (suites.length < 2 || suites.length % 2 !== 0) throw new Malformed("bad cipher suite list");
  if (reader.vector(1, "compression methods").length < 1) {
    throw new Malformed("no compression method");
  }
  const extensions = reader.atEnd ? new Map<number, Buffer>() : readExtensions(reader);
  const serverName = extensions.get(extensionServerName);
  const alpn = extensions.get(extensionAlpn);
  const versions = extensions.get(extensionSupportedVersions);
  return {
    sni: serverName === undefined ? undefined : readServerName(new Reader(serverName)),
    alpn: alpn === undefined ? [] : readAlpn(new Reader(alpn)),
    hasEch: extensions.has(extensionEch),
    maxVersion: versions === undefined ? legacyVersion : readVersions(new Reader(versions)),
  };
}

function readExtensions(reader: Reader): Map<number, Buffer> {
  const list = new Reader(reader.vector(2, "extensions"));
  if (!reader.atEnd) throw new Malformed("bytes after the extensions");
  const extensions = new Map<number, Buffer>();
  while (!list.atEnd) {
    const type = list.uint(2, "extension type");
    const body = list.vector(2, "extension");
    // RFC 8446 section 4.2: no more than one extension of a type. Two readers could pick different ones.
    if (extensions.has(type)) throw new Malformed("extension sent twice");
    extensions.set(type, body);
  }
  return extensions;
}

/** RFC 6066 section 3. An empty list, which only servers send, reads as the empty name. */
function readServerName(reader: Reader): string {
  if (reader.atEnd) return "";
  const list = new Reader(reader.vector(2, "server name list"));
  if (!reader.atEnd) throw new Malformed("bytes after the server name list");
  let name: string | undefined;
  while (!list.atEnd) {
    const type = list.uint(1, "server name type");
    const body = list.vector(2, "server name");
    if (type !== 0) continue;
    if (name !== undefined) throw new Malformed("two host names in the server name list");
    name = body.toString("latin1");
  }
  return name ?? "";
}

/** RFC 7301 section 3.1. */
function readAlpn(reader: Reader): string[] {
  const list = new Reader(reader.vector(2, "protocol list"));
  if (!reader.atEnd) throw new Malformed("bytes after the protocol list");
  const protocols: string[] = [];
  while (!list.atEnd) {
    const protocol = list.vector(1, "protocol name");
    if (protocol.length === 0) throw new Malformed("empty protocol name");
    protocols.push(protocol.toString("latin1"));
  }
  return protocols;
}

/** RFC 8446 section 4.2.1; GREASE values (RFC 8701) look like 0x?a?a and are passed over. */
function readVersions(reader: Reader): number {
  const list = new Reader(reader.vector(1, "supported versions"));
  let highest = 0;
  while (!list.atEnd) {
    const version = list.uint(2, "supported version");
    if ((version & 0x0f0f) !== 0x0a0a && version > highest) highest = version;
  }
  return highest;
}

/** Takes fields off the front of a complete message; a field that does not fit is malformed. */
class Reader {
  readonly #bytes: Buffer;
  #offset = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#offset === this.#bytes.length;
  }

  bytes(length: number, field: string): Buffer {
    const end = this.#offset + length;
    if (end > this.#bytes.length) throw new Malformed(`${field} cut short`);
    const taken = this.#bytes.subarray(this.#offset, end);
    this.#offset = end;
    return taken;
  }

  uint(size: number, field: string): number {
    return this.bytes(size, field).readUIntBE(0, size);
  }

  vector(lengthSize: number, field: string): Buffer {
    return this.bytes(this.uint(lengthSize, field), field);
  }
}

/**
 * Says whether a server name from a client is the name that the policy judged.
 *
 * `host` is canonical (lower case, no root dot). Only what every client and server treats alike is folded: ASCII case
 * and one trailing dot, which RFC 6066 forbids and some clients send. Everything else that differs, differs.
 */
export function isServerNameOf(sni: string, host: string): boolean {
  const name = sni.endsWith(".") ? sni.slice(0, -1) : sni;
  return name !== "" && name.replace(/[A-Z]/g, (letter) => letter.toLowerCase()) === host;
}

/** Says whether a string has the form of a DNS host name: labels of letters, digits, `-` and `_`, not an address. */
export function isHostName(name: string): boolean {
  return (
    name.length <= 253 &&
    /^(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/i.test(
      name,
    ) &&
    // A last label of digits alone is how the URL standard recognises an IPv4 address in any spelling.
    !/(?:^|\.)(?:\d+|0x[0-9a-f]*)$/i.test(name)
  );
}
