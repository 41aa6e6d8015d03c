import { createHmac } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { exportJWK, exportSPKI, generateKeyPair, importJWK, type JWK, SignJWT } from "jose";
import { JwksSource, type KeyFetcher } from "../../../src/oauth/jwks.ts";
import { JwtVerifier, type Verification } from "../../../src/oauth/jwt-verifier.ts";
import { type JwtRules, signatureAlgorithms } from "../../../src/oauth/token-checks.ts";
import { loopbackFetch, StubIdp, type TokenShape } from "../../support/idp.ts";
import { ManualClock } from "../../support/plugin-bench.ts";

let idp: StubIdp;
let clock: ManualClock;

beforeEach(async () => {
  idp = await StubIdp.start();
  clock = new ManualClock();
});
afterEach(() => idp.close());

function verifier(rules: Partial<JwtRules> = {}, maxRemembered?: number): JwtVerifier {
  const fetcher: KeyFetcher = { call: loopbackFetch };
  const source = new JwksSource({ location: { kind: "keys", url: idp.jwksUrl }, clock });
  return new JwtVerifier({
    clock,
    ...(maxRemembered === undefined ? {} : { maxRemembered }),
    keys: {
      get withdrawals() {
        return source.withdrawals;
      },
      keysFor: (header) => source.keysFor(header, fetcher),
      keysBeside: (tried, header) => source.keysBeside(tried, header, fetcher),
      refresh: () => source.warm(fetcher),
    },
    rules: {
      issuer: idp.issuer,
      algorithms: signatureAlgorithms,
      clockSkewMs: 0,
      requireExpiry: true,
      requiredScopes: [],
      requiredClaims: {},
      ...rules,
    },
  });
}

async function outcomeOf(
  shape: TokenShape,
  rules: Partial<JwtRules> = {},
): Promise<Verification["outcome"]> {
  const token = await idp.token(shape, clock.now());
  return (await verifier(rules).verify(token, ["agent"])).outcome;
}

/** A key set of `count` keys and a token by the last of them. */
async function signedByLastOf(
  count: number,
  kid: string | undefined,
  tokenKid: string | undefined,
  exp: number = seconds() + 60,
): Promise<{ readonly token: string; readonly jwks: JWK[] }> {
  const pairs = await Promise.all(
    Array.from({ length: count }, () => generateKeyPair("ES256", { extractable: true })),
  );
  const jwks = await Promise.all(
    pairs.map(async ({ publicKey }) => ({
      ...(await exportJWK(publicKey)),
      ...(kid === undefined ? {} : { kid }),
    })),
  );
  const signer = pairs.at(-1)?.privateKey;
  if (signer === undefined) throw new Error("no key");
  const token = await new SignJWT({ iss: idp.issuer, aud: "agent", exp })
    .setProtectedHeader({ alg: "ES256", ...(tokenKid === undefined ? {} : { kid: tokenKid }) })
    .sign(signer);
  return { token, jwks };
}

const seconds = (): number => Math.floor(clock.now() / 1000);

describe("claims", () => {
  test("D9 of a good token are handed on", async () => {
    const verified = await verifier().verify(await idp.token({}, clock.now()), ["agent"]);
    expect(verified).toMatchObject({
      outcome: "verified",
      token: {
        subject: "alice",
        clientId: "frontend",
        audience: ["agent"],
        scopes: ["openid", "profile"],
        expiresAt: seconds() + 300,
      },
    });
  });

  const now = Math.floor(Date.now() / 1000);
  test.each<[string, TokenShape]>([
    ["D11 exp in the past", { claims: { exp: now - 10 } }],
    ["D12 another issuer", { claims: { iss: "https://other.example" } }],
    ["D13 another audience", { claims: { aud: "other" } }],
    ["D13 no audience", { without: ["aud"] }],
    ["JWT-12 an audience that only begins alike", { claims: { aud: "agent-2" } }],
    ["Z22 no exp", { without: ["exp"] }],
    ["JWT-04 no issuer", { without: ["iss"] }],
    ["JWT-04 nbf in the future", { claims: { nbf: now + 60 } }],
    ["exp just past, which has no leeway by default", { claims: { exp: now - 1 } }],
    ["JWT-04 iat more than a minute ahead", { claims: { iat: now + 70 } }],
    ["JWT-04 iat far in the future", { claims: { iat: now + 3_600 } }],
    ["JWT-04 exp as text", { claims: { exp: "9999999999" as unknown as number } }],
    ["JWT-04 exp beyond all calendars", { claims: { exp: 1e18 } }],
    ["JWT-04 a negative iat", { claims: { iat: -1 } }],
    ["JWT-12 an ID token of Keycloak", { claims: { typ: "ID" } }],
    ["JWT-12 an ID token by its at_hash", { claims: { at_hash: "x" } }],
    ["JWT-03 an unknown kid", { header: { kid: "../../etc/passwd" } }],
    ["JWT-03 a kid of 10 KB", { header: { kid: "k".repeat(10_000) } }],
  ])("%s: refused", async (_what, shape) => {
    expect(await outcomeOf(shape)).toBe("invalid");
  });

  test.each([
    ["a trailing slash", (issuer: string) => `${issuer}/`],
    ["another case", (issuer: string) => issuer.toUpperCase()],
  ])("JWT-04 issuer with %s: refused", async (_what, change) => {
    expect(await outcomeOf({ claims: { iss: change(idp.issuer) } })).toBe("invalid");
  });

  test.each<[string, TokenShape, Partial<JwtRules>]>([
    ["D15 the second of two audiences", { claims: { aud: ["x", "agent"] } }, {}],
    ["Z22 no exp, where the file allows it", { without: ["exp"] }, { requireExpiry: false }],
    ["just expired, within the skew", { claims: { exp: now - 5 } }, { clockSkewMs: 60_000 }],
    [
      "issued by a clock ahead, within the skew",
      { claims: { iat: now + 5 } },
      { clockSkewMs: 60_000 },
    ],
    ["issued by a clock that is a little ahead", { claims: { iat: now + 50 } }, {}],
    ["valid from a moment that is about to come", { claims: { nbf: now + 20 } }, {}],
    ["exp with a fraction (RFC 7519 section 2)", { claims: { exp: now + 100.5 } }, {}],
    ["the type that the file asks for", { header: { typ: "at+jwt" } }, { tokenType: "at+jwt" }],
    ["a required claim", { claims: { tenant: "a" } }, { requiredClaims: { tenant: ["a", "b"] } }],
    ["a required member", { claims: { groups: ["x"] } }, { requiredClaims: { groups: ["x"] } }],
    ["a required scope", {}, { requiredScopes: ["profile"] }],
    [
      "a token bound to a key, where the file accepts it",
      { claims: { cnf: { jkt: "k" } } },
      { acceptsBound: true },
    ],
  ])("%s: accepted", async (_what, shape, rules) => {
    expect(await outcomeOf(shape, rules)).toBe("verified");
  });

  test.each<[string, TokenShape, Partial<JwtRules>]>([
    ["another type than the file asks for", {}, { tokenType: "at+jwt" }],
    [
      "a required claim with another value",
      { claims: { tenant: "c" } },
      { requiredClaims: { tenant: ["a"] } },
    ],
    ["a required claim that is only inherited", {}, { requiredClaims: { constructor: ["a"] } }],
  ])("%s: refused", async (_what, shape, rules) => {
    expect(await outcomeOf(shape, rules)).toBe("invalid");
  });

  test("without a required scope: told apart from a bad token", async () => {
    expect(await outcomeOf({}, { requiredScopes: ["admin"] })).toBe("insufficient_scope");
  });
});

describe("a signature", () => {
  test.each<[string, string | undefined, string | undefined, number]>([
    ["the last of three keys with one kid", "same", "same", 3],
    ["the last of three keys without kid", undefined, undefined, 3],
    ["the last of three keys, the token has no kid", "same", undefined, 3],
    ["the last key within the bound", "same", "same", 16],
  ])("by %s: accepted", async (_what, kid, tokenKid, count) => {
    const { token, jwks } = await signedByLastOf(count, kid, tokenKid);
    idp.jwksReplies.push({ body: { keys: jwks } });
    expect((await verifier().verify(token, ["agent"])).outcome).toBe("verified");
  });

  test("by a key beyond the bound, or by none of several: refused", async () => {
    const { token, jwks } = await signedByLastOf(17, "same", "same");
    for (const keys of [jwks, jwks.slice(0, 3)]) {
      idp.jwksReplies.push({ body: { keys } });
      expect(await verifier().verify(token, ["agent"])).toEqual({
        outcome: "invalid",
        fault: expect.objectContaining({ cause: "bad_signature" }),
      });
    }
  });

  test("by the second of two keys does not make an expired token good", async () => {
    const { token, jwks } = await signedByLastOf(2, "same", "same", seconds() - 60);
    idp.jwksReplies.push({ body: { keys: jwks } });
    expect(await verifier().verify(token, ["agent"])).toMatchObject({
      fault: { cause: "expired", claim: "exp" },
    });
  });

  test("D14 by another key under a known kid: refused", async () => {
    const { privateKey } = await generateKeyPair("ES256");
    const forged = await new SignJWT({ iss: idp.issuer, aud: "agent", exp: seconds() + 60 })
      .setProtectedHeader({ alg: "ES256", kid: "key-1" })
      .sign(privateKey);
    expect((await verifier().verify(forged, ["agent"])).outcome).toBe("invalid");
  });

  test("by a new key that the issuer put under the old kid: verified, and the old one refused", async () => {
    const judge = verifier();
    const old = await idp.token({}, clock.now());
    expect((await judge.verify(old, ["agent"])).outcome).toBe("verified");
    await idp.rotate({ kid: "key-1" });
    const fresh = await Promise.all(
      ["a", "b", "c"].map((sub) => idp.token({ claims: { sub } }, clock.now())),
    );
    const outcomes = await Promise.all(fresh.map(async (token) => judge.verify(token, ["agent"])));
    expect(outcomes.map(({ outcome }) => outcome)).toEqual(fresh.map(() => "verified"));
    expect((await judge.verify(old, ["agent"])).outcome).toBe("invalid");
    expect(idp.jwksCalls).toBeLessThanOrEqual(4);
  });

  test("JWT-03 by a key that the token brings along: refused", async () => {
    const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
    const jwk = await exportJWK(publicKey);
    const forged = await new SignJWT({ iss: idp.issuer, aud: "agent", exp: seconds() + 60 })
      .setProtectedHeader({ alg: "ES256", kid: "key-1", jwk, jku: "http://127.0.0.1:1/" })
      .sign(privateKey);
    expect((await verifier().verify(forged, ["agent"])).outcome).toBe("invalid");
  });

  test("JWT-02 over a header with an unknown critical extension: refused", async () => {
    const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
    const jwk = { ...(await exportJWK(publicKey)), kid: "own", alg: "ES256" };
    idp.jwksReplies.push({ body: { keys: [jwk] } });
    const token = await new SignJWT({ iss: idp.issuer, aud: "agent", exp: seconds() + 60 })
      .setProtectedHeader({ alg: "ES256", kid: "own", crit: ["x-odd"], "x-odd": 1 })
      .sign(privateKey, { crit: { "x-odd": true } });
    expect(await verifier().verify(token, ["agent"])).toEqual({
      outcome: "invalid",
      fault: expect.objectContaining({ cause: "malformed" }),
    });
  });

  test("JWT-02 with HS256 over the public RSA key as the secret: refused", async () => {
    await idp.rotate({ alg: "RS256" });
    const key = await importJWK(idp.publicJwk, "RS256", { extractable: true });
    if (key instanceof Uint8Array) throw new Error("symmetric");
    const header = { alg: "HS256", kid: idp.publicJwk.kid };
    const claims = { iss: idp.issuer, aud: "agent", exp: seconds() + 60 };
    const signed = [header, claims]
      .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
      .join(".");
    const mac = createHmac("sha256", await exportSPKI(key))
      .update(signed)
      .digest("base64url");
    expect((await verifier().verify(`${signed}.${mac}`, ["agent"])).outcome).toBe("invalid");
  });

  test("JWT-02 with an algorithm that is not on the list: refused", async () => {
    expect(await outcomeOf({}, { algorithms: ["RS256"] })).toBe("invalid");
  });

  test.each([
    ["alg none", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0."],
    ["five parts (JWE)", "a.b.c.d.e"],
    ["a detached payload", "eyJhbGciOiJFUzI1NiJ9..c2ln"],
    ["1 MB", `a.${"b".repeat(1_000_000)}.c`],
    ["an opaque word", "opaque"],
    ["nothing", ""],
    ["spaces inside", "a .b.c"],
  ])("JWT-02 JWT-07 in the shape of %s: refused", async (_what, token) => {
    const { outcome } = await verifier().verify(token, ["agent"]);
    expect(outcome).toBe("invalid");
    expect(idp.jwksCalls).toBe(0);
  });
});

describe("memory", () => {
  test("answers a known token at once and without the issuer", async () => {
    const judge = verifier();
    const token = await idp.token({}, clock.now());
    const verify = async () => judge.verify(token, ["agent"]);
    await Promise.all(Array.from({ length: 10 }, verify));
    expect(idp.jwksCalls).toBe(1);
    await idp.close();
    expect(judge.verify(token, ["agent"])).toMatchObject({ outcome: "verified" });
  });

  test("still asks for the audience of each request", async () => {
    const judge = verifier();
    const token = await idp.token({}, clock.now());
    await judge.verify(token, ["agent"]);
    expect(judge.verify(token, ["other"])).toMatchObject({ outcome: "invalid" });
  });

  test("ends with the token", async () => {
    const judge = verifier();
    const token = await idp.token({}, clock.now());
    await judge.verify(token, ["agent"]);
    clock.advance(301_000);
    expect((await judge.verify(token, ["agent"])).outcome).toBe("invalid");
  });

  test("does not outlive a clock that is set back to before the token begins", async () => {
    const judge = verifier();
    const token = await idp.token({ claims: { nbf: seconds() } }, clock.now());
    expect((await judge.verify(token, ["agent"])).outcome).toBe("verified");
    clock.advance(-3_600_000);
    expect((await judge.verify(token, ["agent"])).outcome).toBe("invalid");
    clock.advance(3_600_000);
    expect((await judge.verify(token, ["agent"])).outcome).toBe("verified");
  });

  test("ends when the issuer withdraws a key", async () => {
    const judge = verifier();
    const old = await idp.token({}, clock.now());
    await judge.verify(old, ["agent"]);
    await idp.rotate();
    const fresh = await idp.token({}, clock.now());
    expect((await judge.verify(fresh, ["agent"])).outcome).toBe("verified");
    expect((await judge.verify(old, ["agent"])).outcome).toBe("invalid");
  });

  test("ends when a key is withdrawn while only remembered tokens arrive", async () => {
    const judge = verifier();
    const long = { claims: { exp: seconds() + 3_600 } };
    const token = await idp.token(long, clock.now());
    expect((await judge.verify(token, ["agent"])).outcome).toBe("verified");
    await idp.rotate();
    clock.advance(5 * 60_000);
    // The refresh runs behind the first of them.
    await vi.waitFor(async () => {
      expect((await judge.verify(token, ["agent"])).outcome).toBe("invalid");
    });
    expect(idp.jwksCalls).toBeGreaterThan(1);
  });

  test("is not for tokens as long as a head, which are verified each time", async () => {
    const judge = verifier();
    const groups = Array.from({ length: 2_000 }, (_, at) => `/tenants/group-${at}`);
    const token = await idp.token({ claims: { groups } }, clock.now());
    expect(token.length).toBeGreaterThan(41_000);
    for (let at = 0; at < 2; at += 1) {
      const verification = judge.verify(token, ["agent"]);
      expect(verification).toBeInstanceOf(Promise);
      expect((await verification).outcome).toBe("verified");
    }
  });

  test("is bounded", async () => {
    const judge = verifier({}, 4);
    const tokens = await Promise.all(
      Array.from({ length: 6 }, (_, at) => idp.token({ claims: { jti: `${at}` } }, clock.now())),
    );
    for (const token of tokens) await judge.verify(token, ["agent"]);
    const known = tokens.filter((token) => !(judge.verify(token, ["agent"]) instanceof Promise));
    expect(known.length).toBeLessThanOrEqual(4);
  });
});

test("J3 keys that could never be fetched are not the token's fault", async () => {
  const token = await idp.token({}, clock.now());
  const judge = verifier();
  await idp.close();
  expect((await judge.verify(token, ["agent"])).outcome).toBe("keys_unavailable");
});
