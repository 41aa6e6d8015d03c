import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { errors } from "jose";
import { JwksSource, KeysUnavailable, type KeyLocation } from "../../../src/oauth/jwks.ts";
import { type IdpReply, loopbackFetch, StubIdp } from "../../support/idp.ts";
import { ManualClock } from "../../support/plugin-bench.ts";

let idp: StubIdp;
let clock: ManualClock;
let problems: (string | undefined)[];

beforeEach(async () => {
  idp = await StubIdp.start();
  clock = new ManualClock();
  problems = [];
});
afterEach(() => idp.close());

const fetcher = {
  call: loopbackFetch,
  onFetch: (problem: string | undefined) => void problems.push(problem),
};
const header = { alg: "ES256", kid: "key-1" };

function source(location: KeyLocation = { kind: "keys", url: idp.jwksUrl }): JwksSource {
  return new JwksSource({ location, clock });
}

/** Lets a fetch that nobody waits for come to its end. */
async function settled(count: number): Promise<void> {
  while (problems.length < count) await new Promise((resolve) => setImmediate(resolve));
}

describe("keys", () => {
  test("are fetched once, when they are first asked for", async () => {
    const keys = source();
    expect(idp.jwksCalls).toBe(0);
    await Promise.all(Array.from({ length: 20 }, () => keys.keysFor(header, fetcher)));
    expect(idp.jwksCalls).toBe(1);
  });

  test("Z1 of a rotation are found at the first token that has the new id", async () => {
    const keys = source();
    await keys.keysFor(header, fetcher);
    await idp.rotate();
    await keys.keysFor({ alg: "ES256", kid: "key-2" }, fetcher);
    expect(idp.jwksCalls).toBe(2);
  });

  test("of a new id are found soon where the clock is set back after a miss", async () => {
    const keys = source();
    await keys.keysFor(header, fetcher);
    const later = { alg: "ES256", kid: "key-2" };
    await expect(keys.keysFor(later, fetcher)).rejects.toThrow(errors.JWKSNoMatchingKey);
    await idp.rotate();
    clock.advance(-3_600_000);
    await expect(keys.keysFor(later, fetcher)).rejects.toThrow(errors.JWKSNoMatchingKey);
    clock.advance(15_000);
    expect(await keys.keysFor(later, fetcher)).toHaveLength(1);
  });

  test("Z1 of rotations that follow each other are found at once", async () => {
    const keys = source();
    await keys.keysFor(header, fetcher);
    for (const kid of ["key-2", "key-3", "key-4", "key-5"]) {
      await idp.rotate();
      await keys.keysFor({ alg: "ES256", kid }, fetcher);
    }
    expect(idp.jwksCalls).toBe(5);
  });

  test("JWT-05 of unknown ids cost two fetches, and one more per cool-down", async () => {
    const keys = source();
    await keys.keysFor(header, fetcher);
    const flood = async (): Promise<void> => {
      for (let at = 0; at < 50; at += 1) {
        const unknown = { alg: "ES256", kid: `../../${at}` };
        await expect(keys.keysFor(unknown, fetcher)).rejects.toThrow(errors.JWKSNoMatchingKey);
      }
    };
    await flood();
    expect(idp.jwksCalls).toBe(3);
    clock.advance(15_000);
    await flood();
    expect(idp.jwksCalls).toBe(4);
  });

  test("of a client that keeps an old token do not stand in the way of a rotation", async () => {
    const keys = source();
    await keys.keysFor(header, fetcher);
    await idp.rotate();
    await keys.keysFor({ alg: "ES256", kid: "key-2" }, fetcher);
    for (let at = 0; at < 50; at += 1) {
      await expect(keys.keysFor(header, fetcher)).rejects.toThrow(errors.JWKSNoMatchingKey);
    }
    expect(idp.jwksCalls).toBe(2);
    await idp.rotate();
    await keys.keysFor({ alg: "ES256", kid: "key-3" }, fetcher);
    expect(idp.jwksCalls).toBe(3);
  });

  test("that took the place of others under their id are found, within a bound", async () => {
    const keys = source();
    const tried = await keys.keysFor(header, fetcher);
    expect(await keys.keysBeside(tried, header, fetcher)).toEqual([]);
    await idp.rotate({ kid: "key-1" });
    const newer = await keys.keysBeside(tried, header, fetcher);
    expect(newer).toHaveLength(1);
    expect(idp.jwksCalls).toBe(3);
    // Whoever tried the old key meanwhile gets the new one without another fetch.
    expect(await keys.keysBeside(tried, header, fetcher)).toEqual(newer);
    for (let at = 0; at < 50; at += 1) await keys.keysBeside(newer, header, fetcher);
    expect(idp.jwksCalls).toBe(4);
  });

  test("J1 are refreshed behind a request once they have aged", async () => {
    const keys = source();
    await keys.keysFor(header, fetcher);
    clock.advance(5 * 60_000);
    await keys.keysFor(header, fetcher);
    await settled(2);
    expect(idp.jwksCalls).toBe(2);
  });

  test("are kept through an outage of the issuer, for a day", async () => {
    const keys = source();
    await keys.keysFor(header, fetcher);
    await idp.close();
    for (const wait of [5 * 60_000, 3_600_000, 20 * 3_600_000]) {
      clock.advance(wait);
      await keys.keysFor(header, fetcher);
    }
    clock.advance(3 * 3_600_000);
    await expect(keys.keysFor(header, fetcher)).rejects.toThrow(KeysUnavailable);
  });

  test("that were withdrawn are counted, so that what they verified can be forgotten", async () => {
    const keys = source();
    await keys.keysFor(header, fetcher);
    await idp.rotate({ keepOld: true });
    await keys.keysFor({ alg: "ES256", kid: "key-2" }, fetcher);
    expect(keys.withdrawals).toBe(0);
    await idp.rotate();
    await keys.keysFor({ alg: "ES256", kid: "key-3" }, fetcher);
    expect(keys.withdrawals).toBe(1);
  });

  test("must fit the algorithm that the token names", async () => {
    const keys = source();
    const confused = { alg: "RS256", kid: "key-1" };
    await expect(keys.keysFor(confused, fetcher)).rejects.toThrow(errors.JWKSNoMatchingKey);
    const symmetric = { alg: "HS256", kid: "key-1" };
    await expect(keys.keysFor(symmetric, fetcher)).rejects.toThrow(errors.JOSENotSupported);
  });
});

describe("an issuer that does not answer", () => {
  test("Z2 means unavailable, and the next fetch recovers", async () => {
    const keys = source();
    idp.jwksReplies.push("reset");
    await expect(keys.keysFor(header, fetcher)).rejects.toThrow(KeysUnavailable);
    expect(keys.hasKeys).toBe(false);
    clock.advance(250);
    await keys.keysFor(header, fetcher);
    expect(keys.hasKeys).toBe(true);
  });

  test("is asked at growing intervals, not at every request", async () => {
    const keys = source();
    idp.jwksReplies.push(...Array.from({ length: 100 }, () => ({ status: 500, body: "" })));
    for (let at = 0; at < 60; at += 1) {
      await expect(keys.keysFor(header, fetcher)).rejects.toThrow(KeysUnavailable);
      clock.advance(100);
    }
    expect(idp.jwksCalls).toBe(5);
  });

  test.each<[string, IdpReply]>([
    ["0 keys", { body: { keys: [] } }],
    ["no key that verifies", { body: { keys: [{ kty: "oct", k: "c2VjcmV0", kid: "key-1" }] } }],
    ["101 keys", { body: { keys: Array.from({ length: 101 }, () => ({ kty: "EC" })) } }],
    ["HTML", { body: "<html>" }],
    ["10 MB", { body: "x".repeat(10_000_000) }],
    ["a redirect", { status: 302, body: "", headers: { location: "http://127.0.0.1:1/" } }],
    ["null keys", { body: { keys: [null, 1, "x"] } }],
  ])("JWT-06 answers with %s, which is no key set", async (_what, reply) => {
    idp.jwksReplies.push(reply);
    await expect(source().keysFor(header, fetcher)).rejects.toThrow(KeysUnavailable);
    expect(problems[0]).toBeTypeOf("string");
  });
});

describe("discovery", () => {
  const located = (): KeyLocation => ({
    kind: "discovery",
    url: `${idp.issuer}/.well-known/openid-configuration`,
    issuer: idp.issuer,
  });

  test("finds the key set that the issuer names", async () => {
    await source(located()).keysFor(header, fetcher);
    expect(idp.jwksCalls).toBe(1);
  });

  test.each([
    ["another issuer", { issuer: "https://evil.example" }, "another issuer"],
    ["another origin", { jwks_uri: "https://evil.example/keys" }, "another origin"],
    ["no address", { jwks_uri: 7 }, "no jwks_uri"],
    ["a file", { jwks_uri: "file:///etc/passwd" }, "no jwks_uri"],
  ])("refuses a document that names %s", async (_what, change, words) => {
    idp.jwksReplies.push({ body: { issuer: idp.issuer, jwks_uri: idp.jwksUrl, ...change } });
    await expect(source(located()).keysFor(header, fetcher)).rejects.toThrow(words);
  });
});
