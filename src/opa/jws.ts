/** JSON Web Signatures in their compact form (RFC 7515), verified with one key and one algorithm that the operator named. */
import {
  constants,
  createHmac,
  createPublicKey,
  type KeyObject,
  timingSafeEqual,
  verify,
} from "node:crypto";
import { messageOf } from "../errors.ts";

/** The algorithms that OPA signs bundles with. */
export const jwsAlgorithms = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "HS256",
  "HS384",
  "HS512",
] as const;

/** One of {@link jwsAlgorithms}. */
export type JwsAlgorithm = (typeof jwsAlgorithms)[number];

/** What a signature is verified with: a public key in PEM, or for HS* the shared secret. */
export interface JwsKey {
  readonly algorithm: JwsAlgorithm;
  readonly text: string;
}

/** A JWS that is not verified yet. */
export interface UnverifiedJws {
  readonly header: Readonly<Record<string, unknown>>;
  readonly payload: Buffer;
  readonly signed: Buffer;
  readonly signature: Buffer;
}

const compact = /^([\w-]+)\.([\w-]+)\.([\w-]+)$/;
const curves: ReadonlyMap<string, string> = new Map([
  ["ES256", "prime256v1"],
  ["ES384", "secp384r1"],
  ["ES512", "secp521r1"],
]);
const minRsaBits = 2_048;

/** Throws an Error where the text is no JWS. */
export function parseJws(text: string): UnverifiedJws {
  const [, head = "", payload = "", signature = ""] = compact.exec(text) ?? [];
  if (head === "") throw new Error("it is no compact JWS");
  let header: unknown;
  try {
    header = JSON.parse(decoded(head).toString("utf8"));
  } catch {
    header = undefined;
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    throw new Error("its header is no JSON object");
  }
  return {
    header: header as Record<string, unknown>,
    payload: decoded(payload),
    signed: Buffer.from(`${head}.${payload}`),
    signature: decoded(signature),
  };
}

/** Throws an Error that says why the signature is not one by this key; the header has no say in how it is verified. */
export function verifyJws(jws: UnverifiedJws, { algorithm, text }: JwsKey): void {
  const { alg, crit } = jws.header;
  if (alg !== algorithm) {
    throw new Error(`it is signed with ${JSON.stringify(alg)?.slice(0, 32)}, and not ${algorithm}`);
  }
  if (crit !== undefined) throw new Error("its header has extensions that must be understood");
  const digest = `sha${algorithm.slice(2)}`;
  if (algorithm.startsWith("HS")) {
    const mac = createHmac(digest, text).update(jws.signed).digest();
    if (mac.length !== jws.signature.length || !timingSafeEqual(mac, jws.signature)) {
      throw new Error("the signature does not fit");
    }
    return;
  }
  const key = publicKey(text, algorithm);
  const options = algorithm.startsWith("ES")
    ? { key, dsaEncoding: "ieee-p1363" as const }
    : algorithm.startsWith("PS")
      ? {
          key,
          padding: constants.RSA_PKCS1_PSS_PADDING,
          saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
        }
      : { key };
  if (!verify(digest, jws.signed, options, jws.signature)) {
    throw new Error("the signature does not fit");
  }
}

/** The key of a PEM text; throws an Error where it cannot verify signatures of this algorithm. */
export function publicKey(pem: string, algorithm: JwsAlgorithm): KeyObject {
  if (/PRIVATE KEY/.test(pem)) throw new Error("it is a private key: name the public one");
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch (error) {
    throw new Error(`it is no public key in PEM: ${messageOf(error)}`, { cause: error });
  }
  const { asymmetricKeyType: type, asymmetricKeyDetails: details = {} } = key;
  const curve = curves.get(algorithm);
  const fits = curve === undefined ? type === "rsa" : type === "ec" && details.namedCurve === curve;
  if (!fits) throw new Error(`it is no key for ${algorithm}`);
  if (type === "rsa" && (details.modulusLength ?? 0) < minRsaBits) {
    throw new Error(`it has less than ${minRsaBits} bits`);
  }
  return key;
}

function decoded(part: string): Buffer {
  return Buffer.from(part, "base64url");
}
