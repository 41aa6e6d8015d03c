/**
 * Wycheproof's vectors through everything of this program that verifies signatures; `WYCHEPROOF` names their folder, and
 * they are skipped where there is none. `.ci/suites/wycheproof` fetches them and runs this file.
 *
 * A valid signature must verify and another must not: what is called acceptable are only RSA signatures whose algorithm has no
 * parameters (NULL), which RFC 8017 lets a verifier refuse. What is expected to differ is listed with its reason.
 */
import { createPublicKey, webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { errors, importJWK, type JWK, type JWSHeaderParameters } from "jose";
import { describe, expect, test } from "vitest";

import { JwksSource } from "../../src/oauth/jwks.ts";
import { signedParts } from "../../src/oauth/jwt-signature.ts";
import { signatureAlgorithms } from "../../src/oauth/token-checks.ts";
import { type JwsAlgorithm, parseJws, verifyJws } from "../../src/opa/jws.ts";
import { CheckingKey } from "../../src/receipts/signing-key.ts";

const folder = process.env["WYCHEPROOF"] ?? "";

interface Vector {
  readonly tcId: number;
  readonly comment: string;
  readonly flags: readonly string[];
  readonly result: "valid" | "invalid" | "acceptable";
  readonly jws?: unknown;
  readonly msg?: string;
  readonly sig?: string;
}

interface Group {
  readonly comment?: string;
  readonly public?: JWK | { readonly keys: JWK[] };
  readonly private?: JWK | { readonly keys: JWK[] };
  readonly publicKeyPem?: string;
  readonly publicKeyJwk?: JWK;
  readonly keyJwk?: JWK;
  readonly tests: readonly Vector[];
}

type Verify = (vector: Vector, group: Group) => boolean | Promise<boolean>;

const groupsOf = (file: string): readonly Group[] =>
  (
    JSON.parse(readFileSync(join(folder, `${file}_test.json`), "utf8")) as {
      readonly testGroups: readonly Group[];
    }
  ).testGroups;
const bytes = (hex: string): Buffer => Buffer.from(hex, "hex");

/** What is expected to differ, and why. */
interface Difference {
  readonly of: (vector: Vector, group: Group) => boolean;
  readonly verified: boolean;
  readonly why: string;
}

const ofKeySets: readonly Difference[] = [
  {
    of: (_vector, { private: key }) => JSON.stringify(key).includes('"kty":"oct"'),
    verified: false,
    why: "a published set has no symmetric keys: who could verify could sign",
  },
  {
    of: ({ comment }) => comment === "emptyPayload",
    verified: false,
    why: "a token has claims",
  },
  {
    of: ({ comment }) => comment === "Figure20" || comment === "Figure27",
    verified: false,
    why: "the keys name other algorithms (PS256, and ES521, which is none) than the signatures have",
  },
  {
    of: ({ comment }) => comment === "rejectsKeyWithRocaVulnerability",
    verified: true,
    why: "the keys are those that the issuer publishes: how they were made is not looked into",
  },
];

/** What differs from the file; what is only acceptable is to be refused. */
async function differences(
  file: string,
  verify: Verify,
  expected: readonly Difference[] = [],
): Promise<readonly string[]> {
  const found: string[] = [];
  for (const group of groupsOf(file)) {
    for (const vector of group.tests) {
      const { tcId, result, comment } = vector;
      const verified = await verify(vector, group);
      if (verified !== (result === "valid")) {
        const isExpected = expected.some(
          (one) => one.verified === verified && one.of(vector, group),
        );
        if (!isExpected) found.push(`${tcId} ${comment}: ${result}`);
      }
    }
  }
  return found;
}

/** As jwt-validation does it: a key set as an issuer publishes it, and a token. */
async function byKeySet({ jws }: Vector, group: Group): Promise<boolean> {
  const given = group.public ?? group.private ?? {};
  const body = Buffer.from(JSON.stringify("keys" in given ? given : { keys: [given] }));
  const source = new JwksSource({
    location: { kind: "keys", url: "http://idp.test/keys" },
    clock: Date,
  });
  const fetcher = { call: () => Promise.resolve({ status: 200, body, headers: {} }) };
  const keys = {
    withdrawals: 0,
    keysFor: (header: JWSHeaderParameters) => source.keysFor(header, fetcher),
    keysBeside: () => Promise.resolve([]),
    refresh: () => undefined,
  };
  const rules = { algorithms: signatureAlgorithms, issuer: "https://idp.test" };
  try {
    await signedParts(typeof jws === "string" ? jws : JSON.stringify(jws), keys, rules, Date.now());
    return true;
  } catch (error) {
    // The payloads are no claims, which is looked at after the signature.
    return error instanceof errors.JWTInvalid;
  }
}

/** As the signatures of OPA's bundles are verified: the operator's key in PEM, and the algorithm that the file names. */
const byOperatorsKey =
  (algorithm: JwsAlgorithm): Verify =>
  ({ msg = "", sig = "" }, group) => {
    const head = Buffer.from(JSON.stringify({ alg: algorithm })).toString("base64url");
    const jws = { ...parseJws(`${head}.AA.AA`), signed: bytes(msg), signature: bytes(sig) };
    try {
      verifyJws(jws, { algorithm, text: group.publicKeyPem ?? "" });
      return true;
    } catch {
      return false;
    }
  };

const webNames = { RS: "RSASSA-PKCS1-v1_5", PS: "RSA-PSS", ES: "ECDSA", Ed: "Ed25519" } as const;

/** As tokens and proofs of possession are verified: jose imports the key, and the runtime's Web Crypto verifies. */
const byWebCrypto =
  (algorithm: JwsAlgorithm | "EdDSA"): Verify =>
  async ({ msg = "", sig = "" }, group) => {
    const jwk = createPublicKey(group.publicKeyPem ?? "").export({ format: "jwk" }) as JWK;
    const key = (await importJWK(jwk, algorithm)) as webcrypto.CryptoKey;
    const digest = Number(algorithm.slice(2));
    const terms = {
      name: webNames[algorithm.slice(0, 2) as keyof typeof webNames],
      hash: `SHA-${digest}`,
      saltLength: digest / 8,
    };
    return webcrypto.subtle.verify(terms, key, bytes(sig), bytes(msg));
  };

/** As receipts are verified. */
const byCheckingKey: Verify = ({ msg = "", sig = "" }, group) =>
  new CheckingKey(createPublicKey(group.publicKeyPem ?? "")).accepts(bytes(msg), bytes(sig));

const files: readonly { readonly file: string; readonly algorithm: JwsAlgorithm }[] = [
  { file: "ecdsa_secp256r1_sha256_p1363", algorithm: "ES256" },
  { file: "ecdsa_secp384r1_sha384_p1363", algorithm: "ES384" },
  { file: "ecdsa_secp521r1_sha512_p1363", algorithm: "ES512" },
  ...(["2048", "3072", "4096", "8192"] as const).flatMap((bits) =>
    (["256", "384", "512"] as const).map((digest) => ({
      file: `rsa_signature_${bits}_sha${digest}`,
      algorithm: `RS${digest}` as const,
    })),
  ),
  { file: "rsa_pss_2048_sha256_mgf1_32", algorithm: "PS256" },
  { file: "rsa_pss_3072_sha256_mgf1_32", algorithm: "PS256" },
  { file: "rsa_pss_4096_sha256_mgf1_32", algorithm: "PS256" },
  { file: "rsa_pss_2048_sha384_mgf1_48", algorithm: "PS384" },
  { file: "rsa_pss_4096_sha384_mgf1_48", algorithm: "PS384" },
  { file: "rsa_pss_4096_sha512_mgf1_64", algorithm: "PS512" },
];

/** Salts of another length, and another hash in the mask, than RFC 7518 section 3.5 has. */
const otherSalts: readonly { readonly file: string; readonly algorithm: JwsAlgorithm }[] = [
  { file: "rsa_pss_2048_sha256_mgf1_0", algorithm: "PS256" },
  { file: "rsa_pss_2048_sha256_mgf1sha1_20", algorithm: "PS256" },
  { file: "rsa_pss_4096_sha512_mgf1_32", algorithm: "PS512" },
];

describe.skipIf(folder === "")("Wycheproof", () => {
  test.each(["json_web_signature", "json_web_key"])(
    "tokens by a published key set: %s",
    async (file) => {
      expect(await differences(file, byKeySet, ofKeySets)).toEqual([]);
    },
  );

  test.each(files)("$file by the operator's key", async ({ file, algorithm }) => {
    expect(await differences(file, byOperatorsKey(algorithm))).toEqual([]);
  });

  test.each([...files, { file: "ed25519", algorithm: "EdDSA" as const }])(
    "$file by Web Crypto",
    async ({ file, algorithm }) => {
      expect(await differences(file, byWebCrypto(algorithm))).toEqual([]);
    },
  );

  test("ed25519 by the key of receipts", async () => {
    expect(await differences("ed25519", byCheckingKey)).toEqual([]);
  });

  test.each(otherSalts)("nothing that is valid in $file verifies", async ({ file, algorithm }) => {
    for (const verify of [byOperatorsKey(algorithm), byWebCrypto(algorithm)])
      for (const group of groupsOf(file))
        for (const vector of group.tests.filter(({ result }) => result === "valid"))
          expect(await verify(vector, group)).toBe(false);
  });
});
