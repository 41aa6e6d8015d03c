/** Ed25519 keys: the one that signs, and the public ones that others check with. */
import {
  createPublicKey,
  generateKeyPairSync,
  hash,
  type JsonWebKey,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";
import { readPrivateKey } from "../oauth/pem.ts";

/** A public key as a JWK set shows it (RFC 8037). */
export interface PublicJwk {
  readonly kty: "OKP";
  readonly crv: "Ed25519";
  readonly x: string;
  readonly kid: string;
  readonly alg: "EdDSA";
  readonly use: "sig";
}

/** What a signature is checked with. */
export class CheckingKey {
  readonly #key: KeyObject;
  readonly jwk: PublicJwk;

  /** Throws an Error where it is a key of another kind. */
  constructor(key: KeyObject) {
    if (key.asymmetricKeyType !== "ed25519") throw new Error("it is no Ed25519 key");
    this.#key = key.type === "public" ? key : createPublicKey(key);
    const { x = "" } = this.#key.export({ format: "jwk" });
    // RFC 7638: the same key has the same name everywhere.
    const kid = hash("sha256", `{"crv":"Ed25519","kty":"OKP","x":"${x}"}`, "base64url");
    this.jwk = { kty: "OKP", crv: "Ed25519", x, kid, alg: "EdDSA", use: "sig" };
  }

  static fromJwk(jwk: JsonWebKey): CheckingKey {
    return new CheckingKey(createPublicKey({ key: jwk, format: "jwk" }));
  }

  get kid(): string {
    return this.jwk.kid;
  }

  /** What a signed note calls it: the first 4 bytes of a hash over name and key. */
  noteId(name: string): Buffer {
    const key = Buffer.from(this.jwk.x, "base64url");
    return hash("sha256", Buffer.concat([Buffer.from(`${name}\n\u0001`), key]), "buffer").subarray(
      0,
      4,
    );
  }

  accepts(signed: Buffer, signature: Buffer): boolean {
    return verify(null, signed, this.#key, signature);
  }
}

/** What signs. */
export class SigningKey extends CheckingKey {
  readonly #private: KeyObject;

  private constructor(key: KeyObject) {
    super(key);
    this.#private = key;
  }

  /** Throws an Error that says what is wrong with the text and quotes nothing of it. */
  static read(pem: string): SigningKey {
    return new SigningKey(readPrivateKey(pem));
  }

  /** A key that nobody else has, and that ends with the process. */
  static make(): SigningKey {
    return new SigningKey(generateKeyPairSync("ed25519").privateKey);
  }

  sign(bytes: Buffer): Buffer {
    return sign(null, bytes, this.#private);
  }
}

/** The keys of a file: a public key in PEM, or a JWK set. Throws an Error that says what is wrong with it. */
export function readCheckingKeys(text: string): CheckingKey[] {
  if (/PRIVATE KEY/.test(text)) throw new Error("it is a private key: name the public one");
  if (!text.trimStart().startsWith("{")) {
    try {
      return [new CheckingKey(createPublicKey(text))];
    } catch {
      throw new Error("it is neither an Ed25519 public key in PEM nor a JWK set");
    }
  }
  const { keys } = JSON.parse(text) as { readonly keys?: unknown };
  if (!Array.isArray(keys)) throw new Error("it is no JWK set: it has no keys");
  const found = (keys as JsonWebKey[]).flatMap((jwk) =>
    jwk?.kty === "OKP" && jwk.crv === "Ed25519" ? [CheckingKey.fromJwk(jwk)] : [],
  );
  if (found.length === 0) throw new Error("no key of the set is an Ed25519 key");
  return found;
}
