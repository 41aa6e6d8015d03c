import { generateKeyPairSync } from "node:crypto";
import { describe, expect, test } from "vitest";
import { type BundleVerification, verifyBundle } from "../../../src/opa/bundle-signature.ts";
import { type JwsAlgorithm, jwsAlgorithms } from "../../../src/opa/jws.ts";
import { type Files, type Signing, signatureOf } from "../../support/bundles.ts";

const rsa = generateKeyPairSync("rsa", { modulusLength: 2_048 });
const curves = {
  ES256: generateKeyPairSync("ec", { namedCurve: "P-256" }),
  ES384: generateKeyPairSync("ec", { namedCurve: "P-384" }),
  ES512: generateKeyPairSync("ec", { namedCurve: "P-521" }),
};
const secret = "shared by the two of them";

function keysOf(alg: string): { key: Signing["key"]; text: string } {
  if (alg.startsWith("HS")) return { key: secret, text: secret };
  const pair = alg.startsWith("ES") ? curves[alg as keyof typeof curves] : rsa;
  const text = pair.publicKey.export({ type: "spki", format: "pem" }).toString();
  return { key: pair.privateKey, text };
}

interface Terms {
  readonly alg?: JwsAlgorithm;
  readonly keyId?: string;
  readonly scope?: string;
  readonly keyScope?: string;
  readonly excluded?: readonly string[];
}

function verification({ alg = "HS256", keyId, scope, keyScope, excluded = [] }: Terms = {}) {
  const key = { algorithm: alg, scope: keyScope, text: () => keysOf(alg).text };
  const made: BundleVerification = {
    keys: new Map([["k", key]]),
    keyId,
    scope,
    isExcluded: (name) => excluded.includes(name),
  };
  return made;
}

const files = { "policy.wasm": "bytes", "data.json": '{"a":1}', ".manifest": '{"revision":"1"}' };
const hs256: Signing = { alg: "HS256", key: secret };

function check(given: Files, signing: Signing, terms: Terms = {}, over: Files = {}): void {
  const all: Files = { ...given, ".signatures.json": signatureOf(given, signing), ...over };
  const bytes = Object.entries(all).map(([name, content]): [string, Buffer] => [
    name,
    Buffer.from(content),
  ]);
  verifyBundle(new Map(bytes), verification(terms));
}

test.each(jwsAlgorithms)("%s", (alg) => {
  const { key } = keysOf(alg);
  expect(() => check(files, { alg, key }, { alg })).not.toThrow();
  const changed = { "policy.wasm": "other" };
  expect(() => check(files, { alg, key }, { alg }, changed)).toThrow(
    /"policy\.wasm" is not the file that was signed/,
  );
});

test("data and manifests are signed by what they say, in the spelling of signers", () => {
  const spelled = {
    "data.json":
      ' { "b": [1.0, -0, 1e2, 12345678901234567890], "a": "<\\u2028é\\u001f\\/>", "é": null, "z": {}}\n',
    ".manifest": '{"roots": [""], "revision": "1"}',
    "a/data.yaml": "two: 2\none: [true]\n",
    "policy.rego": "package p\n",
  };
  const hashedAs = {
    "data.json": '{"a":"<\\u2028é\\u001f/>","b":[1.0,-0,1e2,12345678901234567890],"z":{},"é":null}',
    ".manifest": '{"revision":"1","roots":[""]}',
    "a/data.yaml": '{"one":[true],"two":2}',
  };
  expect(() => check(spelled, { ...hs256, hashedAs })).not.toThrow();
});

describe("a bundle is refused", () => {
  const other = generateKeyPairSync("rsa", { modulusLength: 2_048 });

  test.each<[string, Signing, Terms, Files, RegExp]>([
    [
      "with a file more",
      hs256,
      {},
      { "x.json": "{}" },
      /"x\.json" is not in the bundle's signature/,
    ],
    [
      "that is signed with another key",
      { alg: "RS256", key: other.privateKey },
      { alg: "RS256" },
      {},
      /the signature does not fit/,
    ],
    [
      "that is signed with the public key as a secret",
      { alg: "HS256", key: keysOf("RS256").text },
      { alg: "RS256" },
      {},
      /signed with "HS256", and not RS256/,
    ],
    ["whose signature says none", { ...hs256, alg: "none" }, {}, {}, /signed with "none"/],
    ["of a key that nobody knows", { ...hs256, kid: "x" }, {}, {}, /has no key "x"/],
    ["with a scope", { ...hs256, scope: "write" }, {}, {}, /scope is "write", and not ""/],
    ["without the scope", hs256, { scope: "read" }, {}, /scope is "", and not "read"/],
    ["without the key's scope", hs256, { keyScope: "read" }, {}, /scope is "", and not "read"/],
    ["with digests that prove nothing", { ...hs256, hash: ["MD5", "md5"] }, {}, {}, /"MD5", which/],
    ["with no digests", { ...hs256, payload: { files: [] } }, {}, {}, /is not in the bundle's/],
    [
      "that lacks a file",
      {
        ...hs256,
        payload: { files: [{ name: "gone.rego", hash: "00", algorithm: "SHA-256" }] },
      },
      { excluded: Object.keys(files) },
      {},
      /names "gone\.rego", which is not in the bundle/,
    ],
    ["with two signatures", hs256, {}, { ".signatures.json": '{"signatures":["a","b"]}' }, /one/],
    ["with none", hs256, {}, { ".signatures.json": "{}" }, /not exactly one/],
    ["that is garbled", hs256, {}, { ".signatures.json": "[" }, /not in the format/],
    [
      "of a signer of its own",
      hs256,
      {},
      { ".signatures.json": '{"signatures":["a"],"plugin":"custom"}' },
      /not in the format of OPA's own/,
    ],
  ])("%s", (_what, signing, terms, over, problem) => {
    expect(() => check(files, signing, terms, over)).toThrow(problem);
  });

  test("that is not signed", () => {
    expect(() => verifyBundle(new Map(), verification())).toThrow(
      /is not signed, and verification/,
    );
  });
});

test("the key that is named counts, whatever the signature says; files that are excluded may change", () => {
  expect(() => check(files, { ...hs256, kid: "x" }, { keyId: "k" })).not.toThrow();
  const terms = { excluded: ["data.json"], scope: "read" };
  const signing = { ...hs256, scope: "read" };
  expect(() => check(files, signing, terms, { "data.json": "{}" })).not.toThrow();
});
