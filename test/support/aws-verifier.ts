/**
 * A strict verifier of AWS Signature Version 4 and 4A, written from "Create a signed AWS API request" and "Signature
 * calculations for the Authorization header: transferring payload in multiple chunks" (docs.aws.amazon.com). It works on
 * the bytes that arrived and shares nothing with the product.
 */
import {
  createECDH,
  createHash,
  createHmac,
  createPublicKey,
  timingSafeEqual,
  verify,
} from "node:crypto";
import { crc32 } from "node:zlib";

/** A request as it arrived. */
export interface ArrivedRequest {
  readonly method: string;
  readonly target: string;
  readonly fields: readonly (readonly [name: string, value: string])[];
  readonly body: Buffer;
}

/** The key that the server knows. */
export interface KnownKey {
  readonly accessKeyId: string;
  readonly secret: string;
  /** A request has to have it, and no other one. */
  readonly sessionToken?: string;
}

/** What the server found. */
export type Verified =
  | {
      readonly kind: "right";
      readonly body: Buffer;
      readonly trailers: Readonly<Record<string, string>>;
      readonly service: string;
      readonly region: string;
    }
  | { readonly kind: "wrong"; readonly why: string };

const hexHash = (data: string | Buffer): string => createHash("sha256").update(data).digest("hex");
const emptyHash = hexHash("");
const mac = (key: string | Buffer, data: string): Buffer =>
  createHmac("sha256", key).update(data).digest();

class Wrong extends Error {}

function check(isRight: boolean, why: string): void {
  if (!isRight) throw new Wrong(why);
}

/** UriEncode() of the specification over bytes. */
function uriEncode(bytes: Buffer): string {
  let out = "";
  for (const byte of bytes) {
    const character = String.fromCharCode(byte);
    if (/[A-Za-z0-9\-._~]/.test(character)) out += character;
    else out += `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

function uriDecode(text: string): Buffer {
  const bytes: number[] = [];
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === "%") {
      const hex = text.slice(at + 1, at + 3);
      check(/^[0-9a-fA-F]{2}$/.test(hex), "a percent sign stands for nothing");
      bytes.push(Number.parseInt(hex, 16));
      at += 2;
    } else bytes.push(text.charCodeAt(at));
  }
  return Buffer.from(bytes);
}

interface Read {
  readonly algorithm: string;
  readonly credential: string;
  readonly signedHeaders: readonly string[];
  readonly signature: string;
  readonly time: string;
  readonly isQuery: boolean;
  readonly pairs: readonly (readonly [string, string])[];
  readonly path: string;
  readonly payload: string;
}

function valuesOf({ fields }: ArrivedRequest, name: string): string[] {
  return fields.filter(([field]) => field.toLowerCase() === name).map(([, value]) => value);
}

function read(request: ArrivedRequest): Read {
  const mark = request.target.indexOf("?");
  const path = mark === -1 ? request.target : request.target.slice(0, mark);
  const pairs = (mark === -1 ? "" : request.target.slice(mark + 1))
    .split("&")
    .filter((pair) => pair !== "")
    .map((pair) => {
      const at = pair.indexOf("=");
      return at === -1 ? ([pair, ""] as const) : ([pair.slice(0, at), pair.slice(at + 1)] as const);
    });
  const of = (name: string): string => {
    const found = pairs.filter(([own]) => own === name);
    check(found.length === 1, `${name} is not there once`);
    return uriDecode(found[0]?.[1] ?? "").toString();
  };
  const authorization = valuesOf(request, "authorization");
  const isQuery = pairs.some(([name]) => name === "X-Amz-Signature");
  const declared = valuesOf(request, "x-amz-content-sha256")[0];
  if (isQuery) {
    check(authorization.length === 0, "signed twice");
    const start = Date.parse(isoOf(of("X-Amz-Date")));
    const end = start + Number(of("X-Amz-Expires")) * 1000;
    check(start < Date.now() + 900_000 && Date.now() < end, "expired");
    const inQuery = pairs.find(([name]) => name === "X-Amz-Content-Sha256")?.[1];
    return {
      algorithm: of("X-Amz-Algorithm"),
      credential: of("X-Amz-Credential"),
      signedHeaders: of("X-Amz-SignedHeaders").split(";"),
      signature: of("X-Amz-Signature"),
      time: of("X-Amz-Date"),
      isQuery,
      pairs: pairs.filter(([name]) => name !== "X-Amz-Signature"),
      path,
      payload: inQuery ?? declared ?? "UNSIGNED-PAYLOAD",
    };
  }
  check(authorization.length === 1, "not signed");
  const [, algorithm = "", credential = "", signedHeaders = "", signature = ""] =
    /^(AWS4-[A-Z0-9-]+) Credential=([^,\s]+), ?SignedHeaders=([^,\s]+), ?Signature=([0-9a-f]+)$/.exec(
      authorization[0] ?? "",
    ) ?? [];
  const [time = "", ...times] = valuesOf(request, "x-amz-date");
  check(times.length === 0, "X-Amz-Date twice");
  const off = Math.abs(Date.parse(isoOf(time)) - Date.now());
  check(off < 300_000, `RequestTimeTooSkewed ${time}`);
  return {
    algorithm,
    credential,
    signedHeaders: signedHeaders.split(";"),
    signature,
    time,
    isQuery,
    pairs,
    path,
    payload: declared ?? hexHash(request.body),
  };
}

function isoOf(time: string): string {
  return time.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, "$1-$2-$3T$4:$5:$6Z");
}

function canonicalUri(path: string, service: string): string {
  if (service.startsWith("s3"))
    return path
      .split("/")
      .map((part) => uriEncode(uriDecode(part)))
      .join("/");
  const kept: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") kept.pop();
    else if (part !== "." && part !== "") kept.push(part);
  }
  const joined = `/${kept.join("/")}${kept.length > 0 && /\/\.?\.?$/.test(path) ? "/" : ""}`;
  return joined
    .split("/")
    .map((part) => uriEncode(Buffer.from(part, "latin1")))
    .join("/");
}

function canonicalQuery(pairs: Read["pairs"]): string {
  const encoded = pairs.map(
    ([name, value]) => [uriEncode(uriDecode(name)), uriEncode(uriDecode(value))] as const,
  );
  const sorted = encoded.toSorted(([a, x], [b, y]) => {
    if (a !== b) return a < b ? -1 : 1;
    if (x === y) return 0;
    return x < y ? -1 : 1;
  });
  return sorted.map(([name, value]) => `${name}=${value}`).join("&");
}

/** Makes and checks signatures of one scope. */
class Signing {
  readonly #key: KnownKey;
  readonly #algorithm: string;
  readonly scope: string;

  constructor(key: KnownKey, algorithm: string, scope: string) {
    this.#key = key;
    this.#algorithm = algorithm;
    this.scope = scope;
  }

  isRight(text: string, signature: string): boolean {
    if (this.#algorithm === "AWS4-HMAC-SHA256") {
      const key = this.scope
        .split("/")
        .reduce<string | Buffer>((above, part) => mac(above, part), `AWS4${this.#key.secret}`);
      const made = Buffer.from(mac(key, text).toString("hex"));
      const given = Buffer.from(signature);
      return made.length === given.length && timingSafeEqual(made, given);
    }
    return verify("sha256", Buffer.from(text), this.#public(), Buffer.from(signature, "hex"));
  }

  #public() {
    const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
    for (let counter = 1; counter < 255; counter += 1) {
      const input = Buffer.concat([
        Buffer.from("00000001", "hex"),
        Buffer.from("AWS4-ECDSA-P256-SHA256\0"),
        Buffer.from(this.#key.accessKeyId),
        Buffer.from([counter]),
        Buffer.from("00000100", "hex"),
      ]);
      const candidate = BigInt(
        `0x${createHmac("sha256", `AWS4A${this.#key.secret}`).update(input).digest("hex")}`,
      );
      if (candidate > order - 2n) continue;
      const curve = createECDH("prime256v1");
      curve.setPrivateKey(Buffer.from((candidate + 1n).toString(16).padStart(64, "0"), "hex"));
      const point = curve.getPublicKey();
      const [x, y] = [point.subarray(1, 33), point.subarray(33)].map((part) =>
        part.toString("base64url"),
      );
      return createPublicKey({
        format: "jwk",
        key: { kty: "EC", crv: "P-256", x: x ?? "", y: y ?? "" },
      });
    }
    throw new Wrong("no key");
  }
}

/** Whether a server of AWS would take the request, with the decoded body where it does. */
export function verified(request: ArrivedRequest, key: KnownKey): Verified {
  try {
    return verifiedOrThrow(request, key);
  } catch (error) {
    if (error instanceof Wrong) return { kind: "wrong", why: error.message };
    throw error;
  }
}

function verifiedOrThrow(request: ArrivedRequest, key: KnownKey): Verified {
  const found = read(request);
  const { algorithm, credential, signedHeaders, signature, time, isQuery, pairs, path, payload } =
    found;
  check(/^AWS4-(?:HMAC|ECDSA-P256)-SHA256$/.test(algorithm), `algorithm ${algorithm}`);
  const [id = "", ...scoped] = credential.split("/");
  check(id === key.accessKeyId, `InvalidAccessKeyId ${id}`);
  const isHmac = algorithm === "AWS4-HMAC-SHA256";
  const [day, region = "", service = "", end] = isHmac
    ? scoped
    : [scoped[0], "", ...scoped.slice(1)];
  check(end === "aws4_request" && time.startsWith(day ?? "-"), "the scope");
  const tokens = isQuery
    ? pairs
        .filter(([name]) => name === "X-Amz-Security-Token")
        .map(([, value]) => uriDecode(value).toString())
    : valuesOf(request, "x-amz-security-token");
  check(tokens.join(" ") === (key.sessionToken ?? ""), "InvalidToken");
  for (const [name] of request.fields) {
    const lower = name.toLowerCase();
    const must = lower === "host" || (lower.startsWith("x-amz-") && lower !== "x-amz-trace-id");
    check(!must || signedHeaders.includes(lower), `${lower} is not signed`);
  }
  check([...signedHeaders].sort().join() === signedHeaders.join(), "signed headers are not sorted");
  const fields = signedHeaders.map((name) => {
    const values = valuesOf(request, name);
    check(values.length > 0, `the signed field ${name} is not there`);
    return `${name}:${values.map((value) => value.trim().replace(/\s+/g, " ")).join(",")}\n`;
  });
  const canonical = [
    request.method,
    canonicalUri(path, service),
    canonicalQuery(pairs),
    fields.join(""),
    signedHeaders.join(";"),
    payload,
  ].join("\n");
  const signing = new Signing(key, algorithm, scoped.join("/"));
  const text = [algorithm, time, signing.scope, hexHash(canonical)].join("\n");
  check(signing.isRight(text, signature), `SignatureDoesNotMatch\n${canonical}`);
  const arrived = decoded(request, payload, { signing, algorithm, time, seed: signature });
  return { kind: "right", ...arrived, service, region };
}

interface Chunking {
  readonly signing: Signing;
  readonly algorithm: string;
  readonly time: string;
  readonly seed: string;
}

function decoded(
  request: ArrivedRequest,
  payload: string,
  chunking: Chunking,
): { readonly body: Buffer; readonly trailers: Readonly<Record<string, string>> } {
  const { body } = request;
  if (payload === "UNSIGNED-PAYLOAD") return { body, trailers: {} };
  if (!payload.startsWith("STREAMING-")) {
    check(payload === hexHash(body), "XAmzContentSHA256Mismatch");
    return { body, trailers: {} };
  }
  const isSigned = !payload.startsWith("STREAMING-UNSIGNED");
  const { signing, algorithm, time, seed } = chunking;
  let previous = seed;
  const take = (kind: string, parts: readonly string[], given: string): void => {
    const text = [`${algorithm}-${kind}`, time, signing.scope, previous, ...parts].join("\n");
    check(signing.isRight(text, given), `SignatureDoesNotMatch of a ${kind}`);
    previous = given;
  };
  const pieces: Buffer[] = [];
  let at = 0;
  const line = (): string => {
    const stop = body.indexOf("\r\n", at);
    check(stop !== -1, "IncompleteBody");
    const text = body.toString("latin1", at, stop);
    at = stop + 2;
    return text;
  };
  for (;;) {
    const [size = "", extension = ""] = line().split(";");
    const length = Number.parseInt(size, 16);
    const data = body.subarray(at, at + length);
    check(data.length === length, "IncompleteBody");
    at += length;
    if (isSigned) {
      const given = extension.replace("chunk-signature=", "").replace(/\*+$/, "");
      take("PAYLOAD", [emptyHash, hexHash(data)], given);
    } else check(extension === "", "an unsigned chunk with an extension");
    if (length === 0) break;
    check(line() === "", "a chunk without its end");
    pieces.push(Buffer.from(data));
  }
  const trailers: Record<string, string> = {};
  for (;;) {
    const text = line();
    if (text === "") break;
    const colon = text.indexOf(":");
    trailers[text.slice(0, colon).toLowerCase()] = text.slice(colon + 1).trim();
  }
  check(at === body.length, "bytes behind the body");
  const whole = Buffer.concat(pieces);
  const announced = Number(valuesOf(request, "x-amz-decoded-content-length")[0]);
  check(announced === whole.length, "x-amz-decoded-content-length");
  if (payload.endsWith("-TRAILER")) {
    const { "x-amz-trailer-signature": given = "", ...rest } = trailers;
    const names = Object.keys(rest).sort();
    check(
      names.join() === (valuesOf(request, "x-amz-trailer")[0] ?? "").toLowerCase(),
      "x-amz-trailer",
    );
    const canonical = names.map((name) => `${name}:${rest[name] ?? ""}\n`).join("");
    if (isSigned) take("TRAILER", [hexHash(canonical)], given.replace(/\*+$/, ""));
    const crc = rest["x-amz-checksum-crc32"];
    if (crc !== undefined) {
      const made = Buffer.alloc(4);
      made.writeUInt32BE(crc32(whole));
      check(made.toString("base64") === crc, "BadDigest");
    }
    return { body: whole, trailers: rest };
  }
  return { body: whole, trailers };
}
