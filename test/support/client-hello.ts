/** Builds ClientHello messages byte by byte, good ones and odd ones. */

/** What goes into a hello; `raw` extensions come last, `extensions: "none"` leaves the whole block out. */
export interface HelloParts {
  readonly sni?: string;
  readonly alpn?: readonly string[];
  readonly raw?: readonly (readonly [type: number, body: Buffer])[];
  readonly extensions?: "none";
}

/** A ClientHello handshake message. */
export function clientHello(parts: HelloParts = {}): Buffer {
  const extensions: (readonly [number, Buffer])[] = [];
  if (parts.sni !== undefined) extensions.push([0, serverName(parts.sni)]);
  if (parts.alpn !== undefined) extensions.push([16, alpn(...parts.alpn)]);
  // What a TLS 1.3 server insists on: groups, signature algorithms, a key share.
  const keyShare = Buffer.concat([Buffer.of(0, 0x1d), vector(2, Buffer.alloc(32, 9))]);
  extensions.push([10, vector(2, Buffer.of(0, 0x1d))], [13, vector(2, Buffer.of(4, 3))]);
  extensions.push([51, vector(2, keyShare)]);
  extensions.push([43, vector(1, Buffer.of(0x2a, 0x2a, 3, 4, 3, 3))], ...(parts.raw ?? []));
  const block = extensions.map(([type, body]) => Buffer.concat([uint(2, type), vector(2, body)]));
  const body = Buffer.concat([
    Buffer.of(3, 3),
    Buffer.alloc(32, 7),
    vector(1, Buffer.alloc(32, 9)),
    vector(2, Buffer.of(0x13, 1, 0x13, 2)),
    vector(1, Buffer.of(0)),
    parts.extensions === "none" ? Buffer.alloc(0) : vector(2, Buffer.concat(block)),
  ]);
  return Buffer.concat([Buffer.of(1), vector(3, body)]);
}

/** Splits a handshake message into TLS records of at most `size` bytes of payload. */
export function records(message: Buffer, size = 16_384): Buffer {
  const parts: Buffer[] = [];
  for (let offset = 0; offset < message.length; offset += size) {
    parts.push(Buffer.of(22, 3, 1), vector(2, message.subarray(offset, offset + size)));
  }
  return Buffer.concat(parts);
}

/** The body of a server_name extension. */
export function serverName(...names: readonly string[]): Buffer {
  const entries = names.map((name) =>
    Buffer.concat([Buffer.of(0), vector(2, Buffer.from(name, "latin1"))]),
  );
  return vector(2, Buffer.concat(entries));
}

/** The body of an ALPN extension. */
export function alpn(...protocols: readonly string[]): Buffer {
  return vector(2, Buffer.concat(protocols.map((name) => vector(1, Buffer.from(name, "latin1")))));
}

function vector(lengthSize: number, body: Buffer): Buffer {
  return Buffer.concat([uint(lengthSize, body.length), body]);
}

function uint(size: number, value: number): Buffer {
  const bytes = Buffer.alloc(size);
  bytes.writeUIntBE(value, 0, size);
  return bytes;
}
