/** Client assertions that this program signs itself: private_key_jwt (RFC 7523 section 2.2, OpenID Connect Core section 9). */
import { createHash, createPrivateKey, type KeyObject, randomUUID } from "node:crypto";
import { SignJWT } from "jose";
import { Secret } from "../secret.ts";
import type { Clock } from "../duration.ts";
import { parseJsonObject } from "../http/json-access.ts";
import { assertPair, type CertificateChain, readPrivateKey } from "./pem.ts";
import type { SignatureAlgorithm } from "./token-checks.ts";

/** A private key and how it is announced. */
export interface SigningKey {
  readonly key: KeyObject;
  readonly algorithm: SignatureAlgorithm;
  /** `kid` of the protected header. */
  readonly keyId?: string;
  /** `x5t#S256` of the protected header: the certificate by which the identity provider knows the key. */
  readonly thumbprint?: string;
}

/** What an assertion says. */
export interface AssertionClaims {
  readonly clientId: string;
  readonly audience: string;
  readonly lifetimeMs: number;
}

/** The first of each list is the default. */
const rsa = ["RS256", "PS256", "RS384", "RS512", "PS384", "PS512"] as const;
const byCurve: Readonly<Record<string, readonly SignatureAlgorithm[]>> = {
  prime256v1: ["ES256"],
  secp384r1: ["ES384"],
  secp521r1: ["ES512"],
};

/** Reads a private key in PEM or as a JWK; an Error says what is wrong with it and quotes nothing. */
export function readSigningKey(text: string, algorithm?: SignatureAlgorithm): SigningKey {
  const jwk = parseJsonObject(text);
  const key = jwk === undefined ? readPrivateKey(text) : fromJwk(jwk);
  const fitting = algorithmsOf(key);
  const [usual] = fitting;
  if (usual === undefined) throw new Error("it is a key of a kind that signs no JWT");
  if (algorithm !== undefined && !fitting.includes(algorithm))
    throw new Error(`the key cannot sign with ${algorithm}, only with ${fitting.join(", ")}`);
  const kid = jwk?.["kid"];
  return {
    key,
    algorithm: algorithm ?? usual,
    ...(typeof kid === "string" && kid !== "" ? { keyId: kid } : {}),
  };
}

/** The key as the identity provider knows it by this certificate; throws where it is that of another key. */
export function certifiedKey(key: SigningKey, chain: CertificateChain): SigningKey {
  assertPair(chain, key.key);
  const thumbprint = createHash("sha256").update(chain.certificate.raw).digest("base64url");
  return { ...key, thumbprint };
}

/** A new assertion, with an id that no other has: a token endpoint takes each one once. */
export async function signAssertion(
  { key, algorithm, keyId, thumbprint }: SigningKey,
  { clientId, audience, lifetimeMs }: AssertionClaims,
  clock: Clock,
): Promise<Secret> {
  const now = Math.floor(clock.now() / 1000);
  const token = await new SignJWT({})
    .setProtectedHeader({
      alg: algorithm,
      typ: "JWT",
      ...(keyId === undefined ? {} : { kid: keyId }),
      ...(thumbprint === undefined ? {} : { "x5t#S256": thumbprint }),
    })
    .setIssuer(clientId)
    .setSubject(clientId)
    .setAudience(audience)
    .setJti(randomUUID())
    .setIssuedAt(now)
    .setExpirationTime(now + Math.floor(lifetimeMs / 1000))
    .sign(key);
  return new Secret(token);
}

function fromJwk(jwk: Readonly<Record<string, unknown>>): KeyObject {
  try {
    return createPrivateKey({ key: jwk, format: "jwk" });
  } catch {
    throw new Error("it is no private key in JWK");
  }
}

function algorithmsOf(key: KeyObject): readonly SignatureAlgorithm[] {
  const { modulusLength = 0, namedCurve = "" } = key.asymmetricKeyDetails ?? {};
  const { asymmetricKeyType: kind } = key;
  if (kind === "rsa" && modulusLength < 2048)
    throw new Error("an RSA key must have 2048 bits at least");
  if (kind === "rsa") return rsa;
  if (kind === "ed25519") return ["EdDSA", "Ed25519"];
  return kind === "ec" ? (byCurve[namedCurve] ?? []) : [];
}
