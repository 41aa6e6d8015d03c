/** What events keep of bodies, and what they never keep. */
import { describe, expect, test } from "vitest";
import { type BodyPolicy, ContentPolicy } from "../../../src/session/content.ts";
import type { SessionEvent } from "../../../src/session/event.ts";
import { compilePatterns, Redaction } from "../../../src/session/redaction.ts";

function event(fields: Partial<SessionEvent>): SessionEvent {
  return {
    sessionId: "s",
    at: "2026-01-01T00:00:00.000Z",
    direction: "outbound",
    phase: "request",
    requestId: "f",
    host: "h",
    ...fields,
  };
}

function policy(bodies: BodyPolicy, maxChars = 1_000): ContentPolicy {
  return new ContentPolicy({ bodies, maxChars, redaction: new Redaction() });
}

const inference = {
  model: "m-1",
  messages: [
    { role: "user", content: "x".repeat(2_000) },
    { role: "user", content: "the newest" },
  ],
  toolCalls: [{ id: "1", name: "pay", arguments: '{"to":"bob"}' }],
  totalTokens: 42,
};

describe("bodies", () => {
  test("off: names, ids and counts stay, content goes", () => {
    const mcp = {
      method: "tools/call",
      rpcId: 7,
      params: { name: "pay", arguments: { to: "bob" } },
    };
    const shaped = policy("off").shaped(event({ mcp, inference }));
    expect(shaped.mcp).toEqual({ method: "tools/call", rpcId: 7, params: { name: "pay" } });
    expect(shaped.inference).toEqual({
      model: "m-1",
      toolCalls: [{ name: "pay" }],
      totalTokens: 42,
    });
  });

  test("truncated: the newest message has precedence, the shape stays", () => {
    const shaped = policy("truncated").shaped(event({ inference })).inference as typeof inference;
    expect(shaped.messages[1]?.content).toBe("the newest");
    expect(shaped.messages[0]?.content).toMatch(/^x{900,1000}…\(truncated\)$/);
    expect(shaped.toolCalls).toEqual(inference.toolCalls);
  });

  test("full: everything stays, as a copy that a parser can no longer change", () => {
    const live = { method: "message/send", artifact: "" };
    const shaped = policy("full").shaped(event({ a2a: live, inference }));
    live.artifact = "added later";
    expect(shaped.a2a).toEqual({ method: "message/send", artifact: "" });
    expect(shaped.inference).toEqual(inference);
  });

  test("a view without end or bottom is cut and not followed", () => {
    const loop: Record<string, unknown> = { name: "n" };
    loop["self"] = loop;
    const wide = { items: Array.from({ length: 100_000 }, (_, index) => index) };
    const shaped = policy("full").shaped(event({ mcp: loop, a2a: wide }));
    expect(JSON.stringify(shaped).length).toBeLessThan(500_000);
  });

  test("an event without content is the same object", () => {
    const plain = event({ httpPath: "/v1/resource/of/some/length" });
    expect(policy("truncated").shaped(plain)).toBe(plain);
  });
});

describe("secrets", () => {
  const secrets = [
    "Bearer abcdefghijkl",
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl",
    "ghp_abcdefghijklmnopqrst",
    "sk-proj-abcdefghijklmnop",
    "AKIAIOSFODNN7EXAMPLE",
    "abph_c29tZWhhbmRsZXNvbWU",
    "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----",
    "https://user:hunter2-and-more@",
    "https://user:hunter2@and-more@",
    "password=hunter2hunter2",
    "?access_token=0123456789abcdef",
  ];
  for (const secret of secrets) {
    test(`are taken out of text: ${secret.slice(0, 12)}`, () => {
      const text = `before ${secret} after`;
      const clean = new Redaction().text(text);
      expect(clean).toContain("[REDACTED]");
      expect(clean).toMatch(/^before .* after$/);
      expect(clean).not.toContain(secret.slice(-8));
    });
  }

  test("are taken out of every part of an event that strangers fill", () => {
    const secret = "ghp_abcdefghijklmnopqrst";
    const shaped = policy("full").shaped(
      event({
        httpPath: `/hooks/${secret}`,
        mcp: { params: { arguments: { header: secret, [secret]: 1 } }, token: "short" },
        error: { kind: "policy", code: "c", message: `not ${secret}` },
        invocations: {
          outbound: [
            {
              plugin: "p",
              action: "deny",
              phase: "request",
              reason: "r",
              path: `/${secret}`,
              details: { why: secret, n: 1 },
            },
          ],
        },
      }),
    );
    expect(JSON.stringify(shaped)).not.toContain(secret);
    expect(shaped.mcp).toMatchObject({ token: "[REDACTED]" });
    expect(shaped.invocations?.outbound?.[0]?.details).toEqual({ why: "[REDACTED]", n: 1 });
  });

  test("under a secret's name go at any depth; counts stay", () => {
    const view = { api_key: { nested: ["k1"] }, maxTokens: 12, cookies: [{ cookie: "c" }] };
    expect(policy("full").shaped(event({ mcp: view })).mcp).toEqual({
      api_key: { nested: ["[REDACTED]"] },
      maxTokens: 12,
      cookies: [{ cookie: "[REDACTED]" }],
    });
  });

  test("operators' patterns are RE2: the ones that could run for ever do not, the others are refused", async () => {
    const { patterns, problems } = await compilePatterns(["(a+)+$", "EMP-\\d{4}", "(?=x)", "x*"]);
    expect(problems.map(({ index }) => index)).toEqual([2, 3]);
    const redaction = new Redaction(patterns);
    expect(redaction.text("see EMP-1234 now")).toBe("see [REDACTED] now");
    // One that backtracks would not come back.
    const text = `${"a".repeat(5_000)}!`;
    expect(redaction.text(text)).toBe(text);
  });

  test("searching a megabyte comes back, whatever it is made of", () => {
    const redaction = new Redaction();
    for (const piece of [
      "eyJ-",
      "Bearer ",
      "token=",
      "://",
      "sk-",
      "-----BEGIN PRIVATE KEY-----",
      "a.",
      'password": "',
    ]) {
      // A search that took the square of a megabyte would not come back.
      expect(redaction.text(piece.repeat(1_000_000 / piece.length)).length, piece).toBeGreaterThan(
        0,
      );
    }
  });
});
