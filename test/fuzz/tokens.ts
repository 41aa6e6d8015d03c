/** Tokens, key sets and answers of identity providers. */
import { createSecretKey, generateKeyPairSync, sign, webcrypto } from "node:crypto";
import { parseJws, verifyJws } from "../../src/opa/jws.ts";
import { readKeyDocument } from "../../src/oauth/jwks-document.ts";
import { JwtVerifier } from "../../src/oauth/jwt-verifier.ts";
import { readTokenResponse } from "../../src/oauth/token-response.ts";
import { unverifiedClaims } from "../../src/oauth/unverified-claims.ts";
import { caught, type Target, texts } from "./target.ts";

const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const pem = publicKey.export({ type: "spki", format: "pem" }).toString();
const now = Date.UTC(2026, 0, 1);

function token(header: object, claims: object): string {
  const head = Buffer.from(JSON.stringify(header)).toString("base64url");
  const signed = `${head}.${Buffer.from(JSON.stringify(claims)).toString("base64url")}`;
  const signature = sign("sha256", Buffer.from(signed), {
    key: privateKey,
    dsaEncoding: "ieee-p1363",
  });
  return `${signed}.${signature.toString("base64url")}`;
}

const claims = { iss: "https://idp.example", aud: ["agent"], sub: "user", exp: now / 1_000 + 60 };
const issued = [
  token({ alg: "ES256" }, claims),
  token({ alg: "ES256", typ: "at+jwt", kid: "1" }, { ...claims, act: { sub: "a" }, scope: "a b" }),
];
const others = [
  token({ alg: "ES256" }, { ...claims, iss: "https://other.example" }),
  token({ alg: "ES256" }, { ...claims, exp: 1 }),
  token({ alg: "none" }, claims),
  token({ alg: "HS256" }, claims),
  token({ alg: "ES256", crit: ["b64"], b64: false }, claims),
];

async function verifier(): Promise<JwtVerifier> {
  const key = await webcrypto.subtle.importKey(
    "spki",
    publicKey.export({ type: "spki", format: "der" }),
    { name: "ECDSA", namedCurve: "P-256" },
    true,
    ["verify"],
  );
  return new JwtVerifier({
    keys: {
      withdrawals: 0,
      keysFor: () => Promise.resolve([key]),
      keysBeside: () => Promise.resolve([]),
      refresh: () => undefined,
    },
    rules: {
      issuer: claims.iss,
      algorithms: ["ES256"],
      clockSkewMs: 0,
      requireExpiry: true,
      requiredScopes: [],
      requiredClaims: {},
    },
    clock: { now: () => now },
  });
}

let verifying: Promise<JwtVerifier> | undefined;

/** The bytes that a signature covers, and the signature. */
function meaning(text: string): string {
  const [head = "", payload = "", signature = ""] = text.split(".");
  return `${head}.${payload}.${Buffer.from(signature, "base64url").toString("hex")}`;
}

const jwt: Target = {
  name: "jwt",
  covers: [
    "/src/oauth/jwt",
    "/src/oauth/token-checks.ts",
    "/src/oauth/unverified-claims.ts",
    "/src/oauth/actor-chain.ts",
    "/src/opa/jws.ts",
  ],
  seeds: texts(...issued, ...others),
  words: [
    ".",
    "=",
    "-",
    "_",
    "+",
    "/",
    " ",
    "eyJhbGciOiJub25lIn0",
    "eyJhbGciOiJIUzI1NiJ9",
    ...issued.flatMap((text) => text.split(".")),
  ],
  async check(bytes) {
    const text = bytes.toString("latin1");
    unverifiedClaims(text);
    const jws = caught(() => verifyJws(parseJws(text), { algorithm: "ES256", text: pem }), Error);
    verifying ??= verifier();
    const result = await (await verifying).verify(text, ["agent"]);
    const outcome = `${result.outcome} ${"value" in jws ? "fits" : jws.refusal.replaceAll(/"[^]*"|with .*,/g, "")}`;
    const isGenuine = issued.some((one) => meaning(one) === meaning(text));
    const isSigned = isGenuine || others.some((one) => meaning(one) === meaning(text));
    if (result.outcome === "verified" && !isGenuine)
      return { outcome, problem: "a token that nobody issued is taken" };
    if ("value" in jws && !isSigned)
      return { outcome, problem: "a signature fits that nobody made" };
    return { outcome };
  },
};

const rsa = generateKeyPairSync("rsa", { modulusLength: 2_048 }).publicKey.export({
  format: "jwk",
});
const keySet: Target = {
  name: "key-set",
  covers: ["/src/oauth/jwks-document.ts"],
  seeds: texts(
    JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), kid: "1", use: "sig" }] }),
    JSON.stringify({
      keys: [
        { ...rsa, alg: "RS256", key_ops: ["verify"] },
        { ...rsa, use: "enc" },
      ],
    }),
    JSON.stringify({
      keys: [
        createSecretKey(Buffer.from("secret")).export({ format: "jwk" }),
        privateKey.export({ format: "jwk" }),
      ],
    }),
    '{"keys":[null,1,{"kty":"OKP","crv":"Ed25519","x":"AA"}]}',
  ),
  words: [
    '"keys":',
    "[",
    "]",
    "{",
    "}",
    ",",
    '"kty":"RSA"',
    '"d":"AA",',
    '"use":"sig"',
    '"kid":',
    "null",
    '"k":"AA",',
    '"alg":"none",',
    "1e9",
  ],
  check(bytes) {
    const read = readKeyDocument(bytes);
    if (typeof read === "string") return { outcome: read.replaceAll(/\d+/g, "") };
    const isSecret = read.keys.some((key) => key.kty === "oct" || key.d !== undefined);
    return {
      outcome: `${Math.min(3, read.keys.length)} keys`,
      problem: isSecret ? "a key that is no public one is kept" : undefined,
    };
  },
};

const tokenResponse: Target = {
  name: "token-response",
  covers: ["/src/oauth/token-response.ts", "/src/oauth/refusal"],
  seeds: texts(
    '{"access_token":"a","token_type":"Bearer","expires_in":60,"issued_token_type":"urn:ietf:params:oauth:token-type:access_token"}',
    '{"error":"invalid_grant","error_description":"no"}',
    '{"access_token":"a b","token_type":"N_A","expires_in":"60"}',
    "<html>",
  ),
  words: [
    '"access_token":',
    '"token_type":"DPoP",',
    '"expires_in":',
    "-1",
    "1e99",
    "null",
    "{",
    "}",
    '"',
    "\\n",
    "\\u0000",
    '"error":"',
    "\xff",
  ],
  check(bytes, dice) {
    const status = dice.oneOf([200, 200, 201, 204, 302, 400, 401, 403, 429, 500]);
    const read = readTokenResponse({ status, headers: {}, body: bytes }, now);
    if (read.kind !== "issued") return { outcome: read.kind };
    const isClean = status === 200 && /^[\x21-\x7e]+$/.test(read.token.reveal());
    return {
      outcome: "issued",
      problem: isClean ? undefined : `${status}: a token that fits no field`,
    };
  },
};

export const targets: readonly Target[] = [jwt, keySet, tokenResponse];
