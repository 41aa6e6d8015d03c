/** A JSON Web Key Set as it came, cut down to the public keys that can verify a signature. */
import type { JWK } from "jose";
import { parseJsonObject } from "../http/json-access.ts";

/** Public keys, each with a text that changes when the key does. */
export interface KeyDocument {
  readonly keys: JWK[];
  readonly prints: ReadonlySet<string>;
}

/** More keys than any issuer publishes; each costs memory and a comparison per token. */
const maxKeys = 100;
const asymmetric: ReadonlySet<unknown> = new Set(["RSA", "EC", "OKP"]);

/** Reads a key set; a text says what is wrong with it. A set without a usable key is wrong. */
export function readKeyDocument(body: Buffer): KeyDocument | string {
  const document = parseJsonObject(body.toString("utf8"));
  const listed = document?.["keys"];
  if (!Array.isArray(listed)) return "the answer is not a JSON Web Key Set";
  if (listed.length > maxKeys) return `the key set has more than ${maxKeys} keys`;
  const keys: JWK[] = [];
  const prints = new Set<string>();
  for (const key of listed as unknown[]) {
    if (!isVerificationKey(key)) continue;
    const { use: _use, ...plain } = key;
    // What it is for was looked at; libraries know no other word than "sig".
    keys.push(plain);
    prints.add(JSON.stringify([key.kty, key.crv, key.n, key.e, key.x, key.y, key.kid, key.alg]));
  }
  return keys.length === 0 ? "the key set has no key that verifies signatures" : { keys, prints };
}

/** RFC 7517 section 4.2, and SPIFFE's own word (Trust Domain and Bundle, section 4.2.2). */
const verifying: ReadonlySet<unknown> = new Set(["sig", "jwt-svid"]);

/** Symmetric and private keys have no place in a published set; encryption keys verify nothing. */
function isVerificationKey(key: unknown): key is JWK {
  if (typeof key !== "object" || key === null) return false;
  const { kty, d, use } = key as JWK;
  return asymmetric.has(kty) && d === undefined && (use === undefined || verifying.has(use));
}
