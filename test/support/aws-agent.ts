/** An agent that signs with stand-in keys: the SDK for JavaScript through a proxy, and what that SDK does not sign. */
import { S3Client, type S3ClientConfig } from "@aws-sdk/client-s3";
import { createECDH, createHash, createHmac, createPrivateKey, sign } from "node:crypto";
import { Agent } from "node:https";
import type { Duplex } from "node:stream";
import { crc32 } from "node:zlib";
import type { BridgeProxy } from "./bridge-proxy.ts";

/** The keys that agents are given. */
export const standIn = {
  accessKeyId: "AKIASTANDIN0EXAMPLE1",
  secretAccessKey: "stand-in/secret+EXAMPLE",
} as const;

/** The entry of `keys` in aws-sigv4 that signs with the real key in place of {@link standIn}. */
export function standingFor(real: { readonly accessKeyId: string; readonly secret: string }) {
  return {
    access_key_id: standIn.accessKeyId,
    secret_access_key: standIn.secretAccessKey,
    credentials: {
      source: "static",
      access_key_id: real.accessKeyId,
      secret_access_key: real.secret,
    },
  };
}

/** Opens each connection as a bridged tunnel. */
class TunnelAgent extends Agent {
  readonly #proxy: BridgeProxy;

  constructor(proxy: BridgeProxy) {
    super({ keepAlive: true, maxSockets: 100 });
    this.#proxy = proxy;
  }

  override createConnection(
    options: { readonly host?: string | null; readonly port?: number | string | null },
    done?: (error: Error | null, socket: Duplex) => void,
  ): Duplex | null | undefined {
    this.#proxy.tls(`${options.host ?? ""}:${options.port ?? 443}`).then(
      (socket) => done?.(null, socket),
      (error: unknown) => done?.(error as Error, undefined as unknown as Duplex),
    );
    return undefined;
  }
}

/** A client of S3 whose every connection goes through the bridge. */
export function s3Through(
  proxy: BridgeProxy,
  endpoint: string,
  more: S3ClientConfig = {},
): S3Client {
  return new S3Client({
    region: "eu-central-1",
    endpoint,
    forcePathStyle: true,
    credentials: standIn,
    maxAttempts: 1,
    requestHandler: { httpsAgent: new TunnelAgent(proxy) },
    ...more,
  });
}

/** What is signed by hand. */
export interface HandSigned {
  readonly method: string;
  readonly host: string;
  /** Already in its one spelling. */
  readonly path: string;
  readonly service: string;
  /** Of Version 4; "*" and the like of 4A. */
  readonly region: string;
  readonly algorithm?: "AWS4-HMAC-SHA256" | "AWS4-ECDSA-P256-SHA256";
  readonly fields?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
  /** Sizes of the signed chunks that the body is cut into. */
  readonly chunks?: readonly number[];
  /** Adds a trailer with the body's CRC-32. */
  readonly hasTrailer?: boolean;
  /** The hash of the payload is in no field, as most services have it. */
  readonly isHashHidden?: boolean;
  readonly time?: string;
  readonly keys?: { readonly accessKeyId: string; readonly secretAccessKey: string };
}

const hexHash = (data: string | Buffer): string => createHash("sha256").update(data).digest("hex");
const empty = hexHash("");

/** Fields and body of a request with its signature. */
export function handSigned(request: HandSigned): {
  readonly fields: Readonly<Record<string, string>>;
  readonly body: Buffer;
} {
  const {
    algorithm = "AWS4-HMAC-SHA256",
    body = Buffer.alloc(0),
    chunks,
    hasTrailer = false,
  } = request;
  const time = request.time ?? new Date().toISOString().replace(/[-:]|\.\d+/g, "");
  const { accessKeyId, secretAccessKey } = request.keys ?? standIn;
  const isHmac = algorithm === "AWS4-HMAC-SHA256";
  const day = time.slice(0, 8);
  const scope = `${day}/${isHmac ? `${request.region}/` : ""}${request.service}/aws4_request`;
  const key = isHmac
    ? scope
        .split("/")
        .reduce<string | Buffer>(
          (above, part) => createHmac("sha256", above).update(part).digest(),
          `AWS4${secretAccessKey}`,
        )
    : ecKey(accessKeyId, secretAccessKey);
  const signed = (text: string): string =>
    typeof key === "string" || Buffer.isBuffer(key)
      ? createHmac("sha256", key).update(text).digest("hex")
      : sign("sha256", Buffer.from(text), key).toString("hex");
  const kind = algorithm.replace("AWS4-", "STREAMING-AWS4-");
  const payload =
    chunks === undefined ? hexHash(body) : `${kind}-PAYLOAD${hasTrailer ? "-TRAILER" : ""}`;
  const fields: Record<string, string> = {
    host: request.host,
    "x-amz-date": time,
    ...(request.isHashHidden === true ? {} : { "x-amz-content-sha256": payload }),
    ...(isHmac ? {} : { "x-amz-region-set": request.region }),
    ...(chunks === undefined
      ? {}
      : { "content-encoding": "aws-chunked", "x-amz-decoded-content-length": String(body.length) }),
    ...(hasTrailer ? { "x-amz-trailer": "x-amz-checksum-crc32" } : {}),
    ...request.fields,
  };
  const names = Object.keys(fields).sort();
  const canonical = [
    request.method,
    request.service === "s3" ? request.path : request.path.replaceAll("%", "%25"),
    "",
    names.map((name) => `${name}:${fields[name] ?? ""}\n`).join(""),
    names.join(";"),
    payload,
  ].join("\n");
  const signature = signed([algorithm, time, scope, hexHash(canonical)].join("\n"));
  const authorization = `${algorithm} Credential=${accessKeyId}/${scope}, SignedHeaders=${names.join(";")}, Signature=${signature}`;
  const sent = { ...fields, authorization };
  if (chunks === undefined) return { fields: sent, body };
  let previous = signature;
  const next = (what: string, parts: readonly string[]): string => {
    previous = signed([`${algorithm}-${what}`, time, scope, previous, ...parts].join("\n"));
    return isHmac ? previous : previous.padEnd(144, "*");
  };
  const pieces: Buffer[] = [];
  let at = 0;
  for (const size of [...chunks, 0]) {
    const data = body.subarray(at, at + size);
    at += size;
    const head = `${size.toString(16)};chunk-signature=${next("PAYLOAD", [empty, hexHash(data)])}\r\n`;
    pieces.push(Buffer.from(head), data);
    if (size > 0 || !hasTrailer) pieces.push(Buffer.from("\r\n"));
  }
  if (hasTrailer) {
    const sum = Buffer.alloc(4);
    sum.writeUInt32BE(crc32(body));
    const trailer = `x-amz-checksum-crc32:${sum.toString("base64")}`;
    const last = next("TRAILER", [hexHash(`${trailer}\n`)]);
    pieces.push(Buffer.from(`${trailer}\r\nx-amz-trailer-signature:${last}\r\n\r\n`));
  }
  return { fields: sent, body: Buffer.concat(pieces) };
}

function ecKey(accessKeyId: string, secret: string) {
  // The counter is 1 but for one secret in four thousand million.
  const input = Buffer.concat([
    Buffer.from("00000001", "hex"),
    Buffer.from("AWS4-ECDSA-P256-SHA256\0"),
    Buffer.from(`${accessKeyId}\u0001`),
    Buffer.from("00000100", "hex"),
  ]);
  const made = createHmac("sha256", `AWS4A${secret}`).update(input).digest("hex");
  const scalar = Buffer.from((BigInt(`0x${made}`) + 1n).toString(16).padStart(64, "0"), "hex");
  const curve = createECDH("prime256v1");
  curve.setPrivateKey(scalar);
  const point = curve.getPublicKey();
  const [d, x, y] = [scalar, point.subarray(1, 33), point.subarray(33)].map((part) =>
    part.toString("base64url"),
  );
  const jwk = { kty: "EC", crv: "P-256", d: d ?? "", x: x ?? "", y: y ?? "" };
  return createPrivateKey({ format: "jwk", key: jwk });
}
