/** A client's key for DPoP, and proofs of it as a client makes them, or as it should not. */
import { createHash, randomUUID } from "node:crypto";
import {
  calculateJwkThumbprint,
  EmbeddedJWK,
  exportJWK,
  generateKeyPair,
  jwtVerify,
  SignJWT,
  type CryptoKey,
  type JWK,
  type JWTPayload,
} from "jose";

/** What a proof is for, and how it differs from a good one. */
export interface ProofShape {
  readonly method?: string;
  readonly url: string;
  /** The access token; without it there is no `ath`. */
  readonly token?: string;
  readonly nonce?: string | undefined;
  readonly claims?: JWTPayload;
  readonly header?: Readonly<Record<string, unknown>>;
  /** Leaves these claims out. */
  readonly without?: readonly string[];
  /** Milliseconds since the epoch. */
  readonly now?: number;
}

/** A key pair that tokens can be bound to. */
export class DpopKey {
  readonly jwk: JWK;
  /** As in `cnf.jkt`. */
  readonly thumbprint: string;
  readonly #key: CryptoKey;
  readonly #algorithm: string;

  private constructor(key: CryptoKey, jwk: JWK, thumbprint: string, algorithm: string) {
    this.#key = key;
    this.jwk = jwk;
    this.thumbprint = thumbprint;
    this.#algorithm = algorithm;
  }

  static async make(algorithm = "ES256"): Promise<DpopKey> {
    const { privateKey, publicKey } = await generateKeyPair(algorithm, { extractable: true });
    const jwk = await exportJWK(publicKey);
    return new DpopKey(privateKey, jwk, await calculateJwkThumbprint(jwk), algorithm);
  }

  /** The claim that binds a token to this key. */
  get cnf(): { readonly jkt: string } {
    return { jkt: this.thumbprint };
  }

  /** With the private half: for a proof that must not be taken. */
  privateJwk(): Promise<JWK> {
    return exportJWK(this.#key);
  }

  async proof({
    method = "GET",
    url,
    token,
    nonce,
    now = Date.now(),
    ...shape
  }: ProofShape): Promise<string> {
    const claims: JWTPayload = {
      jti: randomUUID(),
      htm: method,
      htu: url,
      iat: Math.floor(now / 1000),
      ...(token === undefined ? {} : { ath: hashOf(token) }),
      ...(nonce === undefined ? {} : { nonce }),
      ...shape.claims,
    };
    for (const claim of shape.without ?? []) delete claims[claim];
    return new SignJWT(claims)
      .setProtectedHeader({
        alg: this.#algorithm,
        typ: "dpop+jwt",
        jwk: this.jwk,
        ...shape.header,
      })
      .sign(this.#key);
  }
}

/** What a proof says, once its signature is verified by the key in it. */
export async function readProof(
  proof: string,
): Promise<{ readonly thumbprint: string; readonly claims: JWTPayload }> {
  const { payload, protectedHeader } = await jwtVerify(proof, EmbeddedJWK, { typ: "dpop+jwt" });
  const { jwk = {} } = protectedHeader;
  return { thumbprint: await calculateJwkThumbprint(jwk), claims: payload };
}

/** As `ath` has it. */
export function hashOf(token: string): string {
  return createHash("sha256").update(token).digest("base64url");
}
