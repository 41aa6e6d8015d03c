import { beforeEach, expect, test } from "vitest";
import { OpaqueVerifier } from "../../../src/oauth/introspection.ts";
import type { Verification } from "../../../src/oauth/jwt-verifier.ts";
import { signatureAlgorithms } from "../../../src/oauth/token-checks.ts";
import { Secret } from "../../../src/secret.ts";
import { ManualClock } from "../../support/plugin-bench.ts";

const start = 1_800_000_000_000;
let clock: ManualClock;
let asked: string[];
let claims: Readonly<Record<string, unknown>>;

beforeEach(() => {
  clock = new ManualClock(start);
  asked = [];
  claims = { active: true, aud: "agent", exp: start / 1_000 + 90 };
});

function verifier(ttlMs = 60_000): OpaqueVerifier {
  return new OpaqueVerifier(
    {
      url: "http://idp.test/introspect",
      call: (_url, request) => {
        asked.push(new URLSearchParams(String(request?.body)).get("token") ?? "");
        const body = Buffer.from(JSON.stringify(claims));
        return Promise.resolve({ status: 200, headers: {}, body });
      },
      client: () => ({
        method: "client_secret_post",
        clientId: "agent",
        clientSecret: new Secret("s"),
      }),
      onCall: () => undefined,
    },
    {
      rules: {
        issuer: "http://idp.test",
        algorithms: signatureAlgorithms,
        clockSkewMs: 0,
        requireExpiry: true,
        requiredScopes: [],
        requiredClaims: {},
      },
      requireAudience: true,
      ttlMs,
      maxPending: 10,
    },
    clock,
  );
}

const outcomeOf = async (said: Verification | Promise<Verification>): Promise<string> =>
  (await said).outcome;

test("a response is believed for the TTL and not longer than the token lives", async () => {
  const subject = verifier();
  expect(await outcomeOf(subject.verify("t", ["agent"]))).toBe("verified");
  clock.advance(59_000);
  expect(subject.verify("t", ["agent"])).not.toBeInstanceOf(Promise);
  clock.advance(2_000);
  expect(await outcomeOf(subject.verify("t", ["agent"]))).toBe("verified");
  expect(asked).toHaveLength(2);
  // The second response is 61 s old at the end, but the token is over after 90 s.
  clock.advance(29_000);
  expect(await outcomeOf(subject.verify("t", ["agent"]))).toBe("invalid");
  expect(asked).toHaveLength(3);
});

test("a refusal is believed for ten seconds", async () => {
  const subject = verifier();
  claims = { active: false };
  expect(await outcomeOf(subject.verify("t", ["agent"]))).toBe("invalid");
  claims = { active: true, aud: "agent", exp: start / 1_000 + 90 };
  clock.advance(9_000);
  expect(await outcomeOf(subject.verify("t", ["agent"]))).toBe("invalid");
  clock.advance(2_000);
  expect(await outcomeOf(subject.verify("t", ["agent"]))).toBe("verified");
});

test("tokens that nobody knows push no good one out", async () => {
  const subject = verifier();
  await subject.verify("good", ["agent"]);
  claims = { active: false };
  for (let count = 0; count < 11_000; count += 1) await subject.verify(`bad-${count}`, ["agent"]);
  asked.length = 0;
  expect(await outcomeOf(subject.verify("good", ["agent"]))).toBe("verified");
  expect(asked).toHaveLength(0);
});

test("what was asked before it was to be forgotten is not remembered", async () => {
  const subject = verifier();
  claims = { ...claims, sub: "alice" };
  const asking = subject.verify("t", ["agent"]);
  expect(subject.forget(({ subject: sub }) => sub === "alice")).toEqual([]);
  expect(await outcomeOf(asking)).toBe("verified");
  await subject.verify("t", ["agent"]);
  expect(asked).toHaveLength(2);
  expect(subject.forget(({ subject: sub }) => sub === "bob")).toEqual([]);
  expect(subject.forget(({ subject: sub }) => sub === "alice")).toHaveLength(1);
  await subject.verify("t", ["agent"]);
  expect(asked).toHaveLength(3);
});

test("a response of 20 KB is not remembered", async () => {
  const subject = verifier();
  claims = { ...claims, groups: "g".repeat(20_000) };
  for (let round = 0; round < 2; round += 1) {
    expect(await outcomeOf(subject.verify("t", ["agent"]))).toBe("verified");
  }
  expect(asked).toHaveLength(2);
});
