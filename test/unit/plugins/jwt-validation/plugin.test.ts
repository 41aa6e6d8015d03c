import { IssuerBench } from "../../../support/issuer-bench.ts";
import { owner } from "../../../support/owner.ts";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, test, vi } from "vitest";
import type { Decision, Plugin, RequestContext } from "../../../../src/pipeline/plugin.ts";
import { jwtValidation } from "../../../../src/plugins/jwt-validation/plugin.ts";
import { jwtValidationConfig } from "../../../../src/plugins/jwt-validation/config.ts";
import { keyLocationOf } from "../../../../src/plugins/jwt-validation/key-location.ts";
import { Placeholders } from "../../../../src/plugins/credentials/shared-placeholders.ts";
import { DpopKey } from "../../../support/dpop.ts";
import type { StubIdp, TokenShape } from "../../../support/idp.ts";
import {
  answered,
  bearerOf,
  message,
  type MessageShape,
  type PluginBench,
  problemsOf,
} from "../../../support/plugin-bench.ts";

const own = owner();
let idp: StubIdp;
let bench: PluginBench;
let folder: string;

beforeEach(async () => {
  ({ idp, bench, folder } = await own(IssuerBench.start()));
});

function plugin(config: Readonly<Record<string, unknown>> = {}): Plugin {
  const given = { issuer: idp.issuer, audience: "agent", ...config };
  return bench.create(jwtValidation, given);
}

function inbound(shape: MessageShape = {}): RequestContext {
  return message({ direction: "inbound", to: "127.0.0.1:8000", host: "agent.ns.svc", ...shape });
}

async function judge(subject: Plugin, context: RequestContext): Promise<Decision> {
  const decision = await subject.onRequest?.(context);
  if (decision === undefined) throw new Error("not asked");
  return decision;
}

async function withToken(
  shape: TokenShape = {},
  config: Readonly<Record<string, unknown>> = {},
): Promise<Decision> {
  const token = await idp.token(shape, bench.clock.now());
  return judge(plugin(config), inbound({ headers: bearerOf(token) }));
}

describe("a path", () => {
  const defaults = [
    "/.well-known/agent.json",
    "/readyz",
    "/livez",
    "/metrics",
    "/healthz",
    "/healthz?verbose=true",
  ];
  test.each(defaults)("D1 D2 %s needs no token", async (path) => {
    expect(await judge(plugin(), inbound({ path }))).toMatchObject({
      action: "skip",
      reason: "path_bypass",
    });
  });

  test.each([
    "/test",
    "/api/v1/agents",
    "/",
    "/metrics/cadvisor",
    "/.well-known/foo/bar",
    "/healthz/../admin",
    "/healthz%2f..%2fadmin",
    "/HEALTHZ",
    "/admin?x=/healthz",
    "/healthz/%2e%2e/admin",
    "/admin;/healthz",
    "/healthz;/admin",
    "/healthz\\..\\admin",
    "//healthz",
    "///.well-known/mcp",
    "/./healthz",
    "/foo/../healthz",
  ])("D3 JWT-08 %s needs a token", async (path) => {
    expect(await judge(plugin(), inbound({ path }))).toMatchObject({ reason: "no_header" });
  });

  test("D5 of the file's own list counts instead of the default one", async () => {
    const subject = plugin({ bypass_paths: ["/public/*", " /status "] });
    const reasons = [];
    for (const path of ["/public/index.html", "/status", "/private/data", "/healthz"]) {
      reasons.push((await judge(subject, inbound({ path }))).reason);
    }
    expect(reasons).toEqual(["path_bypass", "path_bypass", "no_header", "no_header"]);
  });

  test("JWT-09 is that of the request, whatever headers claim", async () => {
    const headers = {
      "X-Forwarded-Uri": "/healthz",
      "X-Original-URL": "/healthz",
      "x-envoy-original-path": "/healthz",
      "User-Agent": "kube-probe/1.30",
    };
    expect(await judge(plugin(), inbound({ headers }))).toMatchObject({ reason: "no_header" });
  });

  test("D1 that is bypassed keeps the client's own Authorization", async () => {
    const context = inbound({ path: "/healthz", headers: { Authorization: "Basic abc" } });
    await judge(plugin(), context);
    expect(context.headers.get("authorization")).toBe("Basic abc");
  });
});

describe("a request without a usable token", () => {
  test("D6 is told that the header is missing, with the bare challenge", async () => {
    expect(await judge(plugin(), inbound())).toEqual({
      action: "deny",
      reason: "no_header",
      denial: {
        code: "auth.unauthorized",
        message: "missing Authorization header",
        headers: { "WWW-Authenticate": 'Bearer realm="authbridge"' },
      },
      details: { expected_issuer: idp.issuer },
    });
  });

  test.each<[string, string | string[]]>([
    ["D7 another scheme", "Basic abc"],
    ["JWT-01 an empty bearer", "Bearer "],
    ["JWT-01 the word alone", "Bearer"],
    ["JWT-01 two fields", ["Bearer a.b.c", "Bearer d.e.f"]],
    ["JWT-01 a comma-joined list", "Bearer a.b.c, Bearer d.e.f"],
    ["JWT-01 a comma-joined list with another scheme", "Basic abc, Bearer d.e.f"],
    ["a token with a space in it", "Bearer a b"],
    ["an empty field", ""],
  ])("%s: 401, malformed", async (_what, Authorization) => {
    expect(await judge(plugin(), inbound({ headers: { Authorization } }))).toMatchObject({
      reason: "malformed_header",
      denial: {
        code: "auth.unauthorized",
        message: "invalid Authorization header format",
        headers: { "WWW-Authenticate": 'Bearer realm="authbridge", error="invalid_request"' },
      },
    });
  });

  test("JWT-01 is not helped by a token in the query", async () => {
    const token = await idp.token({}, bench.clock.now());
    const path = `/?access_token=${token}`;
    expect(await judge(plugin(), inbound({ path }))).toMatchObject({ reason: "no_header" });
  });
});

describe("a token", () => {
  test.each(["Bearer", "bearer", "BEARER"])("D8 D9 under %s is let in", async (scheme) => {
    const token = await idp.token({}, bench.clock.now());
    const context = inbound({ headers: { Authorization: `${scheme} ${token}` } });
    expect(await judge(plugin(), context)).toEqual({
      action: "allow",
      reason: "authorized",
      details: {
        token_subject: "alice",
        token_audience: "agent",
        token_scopes: "openid,profile",
      },
    });
    expect(context.identity).toMatchObject({
      subject: "alice",
      clientId: "frontend",
      scopes: ["openid", "profile"],
    });
    expect(context.headers.get("authorization")).toBe(`${scheme} ${token}`);
  });

  test("D10 D11 D12 D13 that does not hold is refused without saying why to the client", async () => {
    const decision = await withToken({ claims: { iss: "https://other.example" } });
    expect(decision).toMatchObject({
      action: "deny",
      reason: "jwt_failed",
      denial: {
        code: "auth.unauthorized",
        message: "token validation failed",
        headers: { "WWW-Authenticate": 'Bearer realm="authbridge", error="invalid_token"' },
      },
      details: { expected_issuer: idp.issuer, expected_audiences: "agent" },
    });
  });

  test("D16 D17 for one of several allowed audiences is let in, others are not", async () => {
    const config = { audience: undefined, allowed_audiences: ["a", "b"] };
    expect(await withToken({ claims: { aud: ["x", "b"] } }, config)).toHaveProperty(
      "action",
      "allow",
    );
    expect(await withToken({ claims: { aud: ["x", "y"] } }, config)).toHaveProperty(
      "reason",
      "jwt_failed",
    );
  });

  test("D27 with several audiences is recorded with commas", async () => {
    expect(await withToken({ claims: { aud: ["agent", "other"] } })).toMatchObject({
      details: { token_audience: "agent,other" },
    });
  });

  test("Z22 without exp is refused, unless the file says otherwise", async () => {
    expect(await withToken({ without: ["exp"] })).toHaveProperty("reason", "jwt_failed");
    expect(await withToken({ without: ["exp"] }, { require_exp: false })).toHaveProperty(
      "action",
      "allow",
    );
  });

  test("without a required scope is answered 403 with the scope's name (RFC 6750)", async () => {
    expect(await withToken({}, { required_scopes: ["admin"] })).toMatchObject({
      reason: "insufficient_scope",
      denial: {
        code: "policy.forbidden",
        headers: {
          "WWW-Authenticate":
            'Bearer realm="authbridge", error="insufficient_scope", scope="admin"',
        },
      },
    });
  });

  test("that was seen before is judged at once", async () => {
    const subject = plugin();
    const headers = bearerOf(await idp.token({}, bench.clock.now()));
    await judge(subject, inbound({ headers }));
    expect(subject.onRequest?.(inbound({ headers }))).toHaveProperty("action", "allow");
    expect(bench.counted).toContain("verified_from_cache");
  });
});

describe("the issuer's keys", () => {
  test("J3 that could never be fetched mean 503, not 401", async () => {
    const token = await idp.token({}, bench.clock.now());
    idp.jwksReplies.push({ status: 500, body: "" });
    const subject = plugin();
    const headers = bearerOf(token);
    const refused = await judge(subject, inbound({ headers }));
    expect(refused).toMatchObject({
      reason: "validator_missing",
      denial: { code: "upstream.unreachable" },
    });
    bench.clock.advance(1_000);
    expect(await judge(subject, inbound({ headers }))).toHaveProperty("action", "allow");
  });

  test("Z1 may rotate, and outlive a reload of the configuration", async () => {
    const before = plugin();
    await judge(before, inbound({ headers: bearerOf(await idp.token({}, bench.clock.now())) }));
    await idp.rotate();
    const after = plugin({ clock_skew: "5s" });
    const headers = bearerOf(await idp.token({}, bench.clock.now()));
    expect(await judge(after, inbound({ headers }))).toHaveProperty("action", "allow");
    expect(idp.jwksCalls).toBe(2);
  });

  test("are fetched at the start without holding it up", async () => {
    const subject = plugin();
    idp.jwksReplies.push("hang");
    await subject.start?.(new AbortController().signal);
    expect(subject.ready?.()).toMatch(/keys are not available: not fetched yet/);
    expect(plugin({ wait_for_keys: false }).ready?.()).toBe(true);
  });

  test("are asked for again by whoever asks whether it is ready", async () => {
    const subject = plugin();
    idp.jwksReplies.push({ status: 500, body: "" });
    expect(subject.ready?.()).toMatch(/not fetched yet/);
    await vi.waitFor(() => expect(subject.ready?.()).toMatch(/answered 500/));
    bench.clock.advance(250);
    await vi.waitFor(() => expect(subject.ready?.()).toBe(true));
  });

  test("can be found through discovery", async () => {
    expect(await withToken({}, { discovery: true })).toHaveProperty("action", "allow");
  });
});

describe("the audience", () => {
  test.each([{ audience: "agent" }, { allowed_audiences: ["agent"] }])(
    "D25 that is written inline, as %j, waits for no file",
    (keys) => {
      expect(plugin({ audience: undefined, wait_for_keys: false, ...keys }).ready?.()).toBe(true);
    },
  );

  test("D24 D26 of a file is awaited, and read again when it changes", async () => {
    const file = join(folder, "client-id.txt");
    const subject = plugin({ audience: undefined, audience_file: file });
    const headers = bearerOf(await idp.token({}, bench.clock.now()));
    expect(subject.ready?.()).toMatch(/does not exist/);
    expect(await judge(subject, inbound({ headers }))).toMatchObject({
      reason: "validator_missing",
      denial: {
        code: "upstream.unreachable",
        message: "identity not yet configured (credentials pending)",
      },
    });
    writeFileSync(file, "agent\n");
    bench.clock.advance(1_000);
    expect(await judge(subject, inbound({ headers }))).toHaveProperty("action", "allow");
    expect(subject.ready?.()).toBe(true);
    writeFileSync(file, "renamed-agent\n");
    bench.clock.advance(1_000);
    expect(await judge(subject, inbound({ headers }))).toHaveProperty("reason", "jwt_failed");
  });

  test("D26 J4 per host is the first label of the Host field, with a warning about that", async () => {
    const subject = plugin({ audience: undefined, audience_mode: "per-host" });
    const headers = bearerOf(await idp.token({}, bench.clock.now()));
    expect(await judge(subject, inbound({ headers, host: "Agent.ns.svc:8080" }))).toHaveProperty(
      "action",
      "allow",
    );
    expect(await judge(subject, inbound({ headers, host: "other.ns.svc" }))).toMatchObject({
      reason: "jwt_failed",
      details: { expected_audience_host: "other.ns.svc" },
    });
    expect(bench.logged.join()).toContain("allowed_hosts");
  });

  test("J4 per host is taken only from hosts that the file lists", async () => {
    const subject = plugin({
      audience: undefined,
      audience_mode: "per-host",
      allowed_hosts: ["agent.*.svc"],
    });
    const headers = bearerOf(await idp.token({}, bench.clock.now()));
    const asked = async (host: string) => (await judge(subject, inbound({ headers, host }))).action;
    expect(await asked("agent.ns.svc:80")).toBe("allow");
    expect(await asked("agent.evil.example")).toBe("deny");
    expect(await asked("10.0.0.1")).toBe("deny");
    expect(await asked("")).toBe("deny");
  });
});

describe("identity fields of the client", () => {
  test.each([
    "X-User",
    "x_user",
    "X.User",
    "X-Auth-Request-Email",
    "x_forwarded.user",
    "REMOTE_USER",
  ])("JWT-10 %s is removed, with and without a token", async (name) => {
    const token = bearerOf(await idp.token({}, bench.clock.now()));
    for (const context of [
      inbound({ headers: { ...token, [name]: "admin" } }),
      inbound({ path: "/healthz", headers: { [name]: "admin" } }),
    ]) {
      await judge(plugin(), context);
      expect(context.headers.has(name)).toBe(false);
    }
  });

  test("are those that the file lists", async () => {
    const headers = {
      ...bearerOf(await idp.token({}, bench.clock.now())),
      "X-User": "kept",
      X_Tenant: "gone",
    };
    const context = inbound({ headers });
    await judge(plugin({ identity_headers: ["X-Tenant"] }), context);
    expect([context.headers.has("X_Tenant"), context.headers.get("x-user")]).toEqual([
      false,
      "kept",
    ]);
  });
});

describe("placeholder mode", () => {
  test("F1 F7 gives the agent a new handle for each request and never the token", async () => {
    const subject = plugin({ placeholder_mode: true });
    const token = await idp.token({}, bench.clock.now());
    const seen = new Set<string | undefined>();
    for (let at = 0; at < 3; at += 1) {
      const context = inbound({ headers: bearerOf(token) });
      const decision = await judge(subject, context);
      expect(decision).toMatchObject({ action: "modify", reason: "placeholder_minted" });
      expect(decision.details?.["placeholder"]).toMatch(/^abph_.{6}$/);
      seen.add(context.headers.get("authorization"));
    }
    expect(seen.size).toBe(3);
    for (const value of seen) expect(value).toMatch(/^Bearer abph_[\w-]{43}$/);
  });

  test("a handle lasts as long as its token is taken, clock_skew included", async () => {
    const subject = plugin({ placeholder_mode: true, clock_skew: "1m" });
    const exp = Math.floor(bench.clock.now() / 1_000) + 10;
    const token = await idp.token({ claims: { exp } }, bench.clock.now());
    bench.clock.advance(40_000);
    const context = inbound({ headers: bearerOf(token) });
    expect(await judge(subject, context)).toMatchObject({ reason: "placeholder_minted" });
    const handle = context.headers.get("authorization")?.slice("Bearer ".length) ?? "";
    const kept = new Placeholders(bench.deps);
    expect(await kept.resolve(handle)).toBeDefined();
    bench.clock.advance(31_000);
    expect(await kept.resolve(handle)).toBeUndefined();
  });

  test("the response has the next nonce of DPoP, though the proof does not go on", async () => {
    const subject = plugin({ placeholder_mode: true, dpop: { nonce: true } });
    const key = await DpopKey.make();
    const token = await idp.token({ claims: { cnf: key.cnf } }, bench.clock.now());
    const call = async (nonce?: string): Promise<readonly [RequestContext, Decision]> => {
      const proof = await key.proof({ url: "http://agent.ns.svc/", token, nonce });
      const context = inbound({ headers: { Authorization: `DPoP ${token}`, DPoP: proof } });
      return [context, await judge(subject, context)];
    };
    const [, refused] = await call();
    const given = refused.action === "deny" ? refused.denial.headers?.["DPoP-Nonce"] : undefined;
    for (const [passedMs, isRenewed] of [
      [0, false],
      [120_000, true],
    ] as const) {
      bench.clock.advance(passedMs);
      const [context, decision] = await call(String(given));
      expect(decision).toMatchObject({ reason: "placeholder_minted" });
      answered(context, "text/plain");
      expect(subject.wantsAnswer?.(context)).toBe(isRenewed);
      await subject.onResponse?.(context);
      expect(context.response?.headers.has("dpop-nonce")).toBe(isRenewed);
    }
  });
});

describe("the configuration", () => {
  test("D4 refuses bypass patterns that let everything by", () => {
    for (const pattern of ["", "  ", "*", "/*", "[invalid"]) {
      const problems = problemsOf(jwtValidation, { issuer: "https://i", bypass_paths: [pattern] });
      expect(problems.join()).toContain("bypass_paths");
    }
  });

  test("D19 refuses a missing issuer, a key that it does not know and F6 a bad duration", () => {
    expect(problemsOf(jwtValidation, {}).join()).toContain("issuer");
    expect(problemsOf(jwtValidation, { issuer: "https://i", isuer: 1 }).join()).toContain("isuer");
    const problems = problemsOf(jwtValidation, { issuer: "https://i", placeholder_ttl: "bogus" });
    expect(problems.join()).toContain("placeholder_ttl");
  });

  test.each([
    ["D20 from the issuer", {}, "https://id.example/realms/r/protocol/openid-connect/certs"],
    [
      "D21 from Keycloak's inner address",
      { keycloak_url: "http://keycloak:8080/", keycloak_realm: "rossoctl" },
      "http://keycloak:8080/realms/rossoctl/protocol/openid-connect/certs",
    ],
    [
      "D22 from the issuer when only half of that is there",
      { keycloak_url: "http://keycloak:8080" },
      "https://id.example/realms/r/protocol/openid-connect/certs",
    ],
    [
      "D23 as jwks_url says",
      { jwks_url: "https://keys.example/k", keycloak_url: "http://k", keycloak_realm: "r" },
      "https://keys.example/k",
    ],
  ])("places the key set %s", (_what, keys, url) => {
    const config = jwtValidationConfig.parse({ issuer: "https://id.example/realms/r", ...keys });
    expect(keyLocationOf(config)).toEqual({ kind: "keys", url });
    expect(jwtValidation.origins?.(config)).toEqual([new URL(url).origin]);
  });

  test("JWT-02 J2 offers no symmetric algorithm", () => {
    const problems = problemsOf(jwtValidation, { issuer: "https://i", algorithms: ["HS256"] });
    expect(problems).toHaveLength(1);
  });
});
