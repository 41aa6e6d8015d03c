/** The keys that signatures of Version 4 and 4A are made with, derived from one secret. */
import {
  createECDH,
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  hash,
  type KeyObject,
  sign,
  timingSafeEqual,
  verify,
} from "node:crypto";
import { BoundedMap } from "../../bounded-map.ts";
import type { Secret } from "../../secret.ts";

/** Version 4 is symmetric and of one region; 4A is asymmetric and of a set of regions. */
export type Algorithm = "AWS4-HMAC-SHA256" | "AWS4-ECDSA-P256-SHA256";

/** What a signature is for. */
export interface SigningScope {
  readonly algorithm: Algorithm;
  /** YYYYMMDD. */
  readonly day: string;
  /** Empty in Version 4A. */
  readonly region: string;
  readonly service: string;
}

/** The scope as it stands in a string to sign. */
export function scopeText({ day, region, service }: SigningScope): string {
  return `${day}/${region === "" ? "" : `${region}/`}${service}/aws4_request`;
}

/** What is signed of a canonical request. */
export function stringToSign(scope: SigningScope, time: string, canonical: string): string {
  return [scope.algorithm, time, scopeText(scope), sha256(canonical)].join("\n");
}

/** In lower-case hexadecimal. */
export function sha256(data: string | Buffer): string {
  return hash("sha256", data, "hex");
}

/** Days, regions and services of one secret that are in use at once. */
const maxDerived = 64;

/** An access key that signs and verifies. */
export class SigningKeys {
  readonly accessKeyId: string;
  readonly secret: Secret;
  readonly #derived = new BoundedMap<string, KeyObject>(maxDerived);
  #pair: { readonly own: KeyObject; readonly known: KeyObject } | undefined;

  constructor(accessKeyId: string, secret: Secret) {
    this.accessKeyId = accessKeyId;
    this.secret = secret;
  }

  /** In lower-case hexadecimal. */
  sign(scope: SigningScope, text: string): string {
    if (scope.algorithm === "AWS4-ECDSA-P256-SHA256")
      return sign("sha256", Buffer.from(text), this.#ecdsa().own).toString("hex");
    return createHmac("sha256", this.#hmacKey(scope)).update(text).digest("hex");
  }

  verify(scope: SigningScope, text: string, signature: string): boolean {
    if (scope.algorithm === "AWS4-ECDSA-P256-SHA256") {
      const given = Buffer.from(signature, "hex");
      return verify("sha256", Buffer.from(text), this.#ecdsa().known, given);
    }
    const made = Buffer.from(this.sign(scope, text));
    const given = Buffer.from(signature);
    return made.length === given.length && timingSafeEqual(made, given);
  }

  /** As a KeyObject: a key in bytes is made into one at every signature, which takes longer than the signature. */
  #hmacKey({ day, region, service }: SigningScope): KeyObject {
    return this.#derived.getOrMake(`${day}/${region}/${service}`, () => {
      let key: Buffer = Buffer.from(`AWS4${this.secret.reveal()}`);
      for (const part of [day, region, service, "aws4_request"])
        key = createHmac("sha256", key).update(part).digest();
      return createSecretKey(key);
    });
  }

  #ecdsa(): { readonly own: KeyObject; readonly known: KeyObject } {
    this.#pair ??= ecdsaPair(this.accessKeyId, this.secret.reveal());
    return this.#pair;
  }
}

/** The order of P-256, less 2: what a candidate may be at most. */
const maxCandidate = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc63254fn;

/** Both ends make the same key of a secret: the counter mode of NIST SP 800-108, tried until a candidate is in range. */
function ecdsaPair(accessKeyId: string, secret: string): { own: KeyObject; known: KeyObject } {
  for (let counter = 1; counter < 255; counter += 1) {
    const fixed = Buffer.concat([
      Buffer.from([0, 0, 0, 1]),
      Buffer.from("AWS4-ECDSA-P256-SHA256"),
      Buffer.from([0]),
      Buffer.from(accessKeyId),
      Buffer.from([counter]),
      Buffer.from([0, 0, 1, 0]),
    ]);
    const made = createHmac("sha256", `AWS4A${secret}`).update(fixed).digest("hex");
    const candidate = BigInt(`0x${made}`);
    if (candidate > maxCandidate) continue;
    const scalar = Buffer.from((candidate + 1n).toString(16).padStart(64, "0"), "hex");
    const curve = createECDH("prime256v1");
    curve.setPrivateKey(scalar);
    const point = curve.getPublicKey();
    const own = createPrivateKey({
      format: "jwk",
      key: {
        kty: "EC",
        crv: "P-256",
        d: scalar.toString("base64url"),
        x: point.subarray(1, 33).toString("base64url"),
        y: point.subarray(33).toString("base64url"),
      },
    });
    return { own, known: createPublicKey(own) };
  }
  throw new Error("no key can be derived from this secret");
}
