import { IssuerBench } from "../../../support/issuer-bench.ts";
import { owner } from "../../../support/owner.ts";
import { Cancellation } from "../../../../src/pipeline/cancellation.ts";
import { createHash, generateKeyPairSync, type KeyObject, X509Certificate } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decodeJwt, decodeProtectedHeader, jwtVerify } from "jose";
import { beforeEach, describe, expect, test } from "vitest";
import type { Decision, Plugin, RequestContext } from "../../../../src/pipeline/plugin.ts";
import { jwtValidation } from "../../../../src/plugins/jwt-validation/plugin.ts";
import { tokenExchange } from "../../../../src/plugins/token-exchange/plugin.ts";
import { tokenExchangeConfig, tokenUrlOf } from "../../../../src/plugins/token-exchange/config.ts";
import { TestAuthority } from "../../../support/certs.ts";
import type { IdpReply, StubIdp } from "../../../support/idp.ts";
import { bearerOf, message, type PluginBench, problemsOf } from "../../../support/plugin-bench.ts";

const own = owner();
let idp: StubIdp;
let bench: PluginBench;
let folder: string;

beforeEach(async () => {
  ({ idp, bench, folder } = await own(IssuerBench.start()));
});

const identity = { type: "client-secret", client_id: "my-client", client_secret: "my-secret" };
const rule = { host: "api.example.com", target_audience: "api" };

function plugin(config: Readonly<Record<string, unknown>> = {}): Plugin {
  return bench.create(tokenExchange, {
    token_url: idp.tokenUrl,
    identity,
    routes: { file: join(folder, "routes.yaml"), rules: [rule] },
    ...config,
  });
}

/** Routes of this test's own file and inline rules. */
function routes(rules: readonly unknown[], file?: string): Readonly<Record<string, unknown>> {
  const path = join(folder, "routes.yaml");
  if (file !== undefined) writeFileSync(path, file);
  return { routes: { file: path, rules } };
}

async function judge(subject: Plugin, context: RequestContext): Promise<Decision> {
  const decision = await subject.onCredential?.(context);
  if (decision === undefined) throw new Error("not asked");
  return decision;
}

function outbound(token = "user-token", to = "api.example.com:80"): RequestContext {
  return message({ to, headers: bearerOf(token) });
}

const authorizationOf = (context: RequestContext): string | undefined =>
  context.headers.get("authorization");

function subjectToken(claims: Readonly<Record<string, unknown>>): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "ES256" })}.${part(claims)}.c2ln`;
}

describe("an exchange", () => {
  test("E1 E2 E33 replaces the credential and records the hop", async () => {
    const context = outbound(subjectToken({ sub: "alice" }));
    const decision = await judge(
      plugin(routes([{ ...rule, token_scopes: "read write" }])),
      context,
    );
    expect(decision).toEqual({
      action: "modify",
      reason: "token_replaced",
      details: {
        route_matched: "true",
        route_host: "api.example.com",
        target_audience: "api",
        requested_scopes: "read write",
        cache_hit: "false",
      },
    });
    expect(authorizationOf(context)).toBe("Bearer exchanged-api");
    expect(context.delegation).toEqual([
      { subject: "alice", audience: "api", scopes: ["read", "write"], at: bench.clock.now() },
    ]);
  });

  test("E3 is made once for the same question", async () => {
    const subject = plugin();
    await judge(subject, outbound());
    const again = outbound();
    expect(await judge(subject, again)).toMatchObject({ action: "modify", reason: "cache_hit" });
    expect(authorizationOf(again)).toBe("Bearer exchanged-api");
    expect(idp.tokenCalls).toHaveLength(1);
  });

  test("is remembered across a reload of the configuration", async () => {
    await judge(plugin(), outbound());
    expect(await judge(plugin({ default_policy: "exchange" }), outbound())).toHaveProperty(
      "reason",
      "cache_hit",
    );
  });

  test.each<[string, Readonly<Record<string, unknown>>, string?]>([
    ["Z3 T1 scopes", { token_scopes: ["write"] }],
    ["E5 audience", { target_audience: "other" }],
    ["resource", { resource: "https://api.example.com/v2" }],
    ["TX-01 subject", {}, "another-user"],
  ])("is another one for another %s", async (_what, change, token) => {
    idp.issue = ({ form }) => ({
      access_token: `${form.get("subject_token")}-${idp.tokenCalls.length}`,
      expires_in: 300,
    });
    const subject = plugin(routes([rule, { ...rule, ...change, host: "two.example.com" }]));
    const [one, two] = [outbound(), outbound(token, "two.example.com:80")];
    await judge(subject, one);
    await judge(subject, two);
    expect(authorizationOf(one)).not.toBe(authorizationOf(two));
    expect(idp.tokenCalls).toHaveLength(2);
  });

  test("E12 T1 is made at the route's own endpoint, and remembered for it alone", async () => {
    const token_url = `${idp.origin}/other/token`;
    const subject = plugin(routes([rule, { ...rule, host: "two.example.com", token_url }]));
    await judge(subject, outbound());
    await judge(subject, outbound("user-token", "two.example.com:80"));
    expect(idp.tokenCalls.map((call) => call.path)).toEqual([
      "/realms/test/protocol/openid-connect/token",
      "/other/token",
    ]);
  });

  test("T2 is not used longer than the subject token lives", async () => {
    const subject = plugin();
    const exp = bench.clock.now() / 1000 + 60;
    await judge(subject, outbound(subjectToken({ exp })));
    bench.clock.advance(60_000);
    await judge(subject, outbound(subjectToken({ exp })));
    expect(idp.tokenCalls).toHaveLength(2);
  });

  test("Z19 TX-05 is made once for fifty callers at the same time", async () => {
    const gate = Promise.withResolvers<void>();
    idp.gate = gate.promise;
    const subject = plugin();
    const contexts = Array.from({ length: 50 }, () => outbound());
    const judged = Promise.all(contexts.map((context) => judge(subject, context)));
    gate.resolve();
    await judged;
    expect(idp.tokenCalls).toHaveLength(1);
    expect(new Set(contexts.map(authorizationOf))).toEqual(new Set(["Bearer exchanged-api"]));
  });

  test("leaves other credentials of the client where they are", async () => {
    const headers = { ...bearerOf("user-token"), "X-Api-Key": "own", x_api_key: "own-too" };
    const context = message({ headers });
    await judge(plugin(), context);
    expect([context.headers.get("x-api-key"), context.headers.get("x_api_key")]).toEqual([
      "own",
      "own-too",
    ]);
  });

  test("E15 carries the actor token of a file, and waits for the file", async () => {
    const file = join(folder, "actor");
    const subject = plugin({ actor_token_file: file });
    expect(subject.ready?.()).toMatch(/actor token pending/);
    expect(await judge(subject, outbound())).toMatchObject({ denial: { status: 503 } });
    expect(idp.tokenCalls).toHaveLength(0);
    writeFileSync(file, "actor-token\n");
    bench.clock.advance(1_000);
    await judge(subject, outbound());
    expect(idp.tokenCalls[0]?.form.get("actor_token")).toBe("actor-token");
  });
});

describe("a host", () => {
  test("E7 that no rule names is left alone", async () => {
    const context = outbound("user-token", "other.example.com:80");
    expect(await judge(plugin(), context)).toEqual({
      action: "skip",
      reason: "no_matching_route",
      details: { route_matched: "false" },
    });
    expect(authorizationOf(context)).toBe("Bearer user-token");
  });

  test.each([{ action: "passthrough" }, { passthrough: true }])(
    "E8 with %o is left alone",
    async (how) => {
      const context = outbound();
      expect(await judge(plugin(routes([{ ...rule, ...how }])), context)).toMatchObject({
        reason: "passthrough",
      });
      expect(authorizationOf(context)).toBe("Bearer user-token");
    },
  );

  test.each([
    ["E27 with another port", "api.example.com", "api.example.com:8081", true],
    ["E28 one label below", "*.example.com", "api.example.com:80", true],
    ["E28 two labels below", "*.example.com", "a.b.example.com:80", false],
    ["many labels", "**.example.com", "a.b.example.com:80", true],
    ["another case", "API.Example.COM", "api.example.com:80", true],
  ])("%s: %s for %s matches %s", async (_what, host, to, isMatch) => {
    const decision = await judge(plugin(routes([{ ...rule, host }])), outbound("t", to));
    expect(decision.action === "modify").toBe(isMatch);
  });

  test("E29 is judged by the first rule that names it, those of the file first", async () => {
    const file = "- host: api.example.com\n  target_audience: from-file\n";
    const context = outbound();
    await judge(plugin(routes([rule], file)), context);
    expect(authorizationOf(context)).toBe("Bearer exchanged-from-file");
  });

  test.each([
    ["E32 auth-target.ns.svc.cluster.local:8081", "auth-target"],
    ["E32 simple:80", "simple"],
    ["10.1.2.3:80", ""],
  ])("%s gives audience %j under audience_from_host", async (named, audience) => {
    const subject = plugin({
      ...routes([]),
      default_policy: "exchange",
      audience_from_host: true,
    });
    await judge(subject, outbound("t", named.replace("E32 ", "")));
    expect(idp.tokenCalls[0]?.form.get("audience") ?? "").toBe(audience);
  });

  test("TX-09 is where the bytes go, not what the Host field says", async () => {
    const subject = plugin({ ...routes([rule]), audience_from_host: true });
    const forged = message({
      to: "other.example.com:80",
      host: "api.example.com",
      headers: bearerOf("user-token"),
    });
    expect(await judge(subject, forged)).toHaveProperty("reason", "no_matching_route");
    expect(idp.tokenCalls).toHaveLength(0);
  });
});

describe("a routes file", () => {
  test("E31 T7 is a list, or a map with the key routes; passthrough counts in both", async () => {
    const list = "- host: api.example.com\n  passthrough: true\n";
    const map = "routes:\n  - host: api.example.com\n    passthrough: true\n";
    for (const text of [list, map]) {
      expect(await judge(plugin(routes([], text)), outbound())).toHaveProperty(
        "reason",
        "passthrough",
      );
    }
  });

  test.each([
    [
      "an unknown key",
      "- host: a\n  target_audiance: x\n",
      "routes.yaml:2:3 [0].target_audiance: unknown key (did you mean target_audience?)",
    ],
    [
      "a mistake below routes",
      "\uFEFFroutes:\n  - host: a\n    action: exchang\n",
      'routes.yaml:3:5 routes[0].action: must be "exchange" or "passthrough" (did you mean exchange?)',
    ],
    ["E30 a malformed pattern", '- host: "[invalid"\n', "routes.yaml:1:3 [0].host: "],
    ["the second of two mistakes", "- host: 1\n- hots: b\n", "routes.yaml:2:3 [1].hots: unknown"],
    [
      "text",
      "hello\n",
      "routes.yaml:1:1 must be a list of rules, or a mapping with the key routes",
    ],
    ["malformed YAML", "- host: [\n", "routes.yaml:2:1 "],
    ["a key that stands twice", "- host: a\n  host: b\n", "routes.yaml:2:3 is a key that stands"],
  ])("with %s refuses the start", (_what, text, words) => {
    const config = routes([], text);
    expect(() => plugin(config)).toThrow(words);
  });

  test("is read again when it changes, and its last good content stays", async () => {
    const subject = plugin(routes([], "- host: api.example.com\n  target_audience: one\n"));
    const audienceNow = async (): Promise<string | undefined> => {
      bench.clock.advance(1_000);
      const context = outbound();
      await judge(subject, context);
      return authorizationOf(context);
    };
    expect(await audienceNow()).toBe("Bearer exchanged-one");
    routes([], "- host: api.example.com\n  target_audience: second\n");
    expect(await audienceNow()).toBe("Bearer exchanged-second");
    routes([], "- host: [\n");
    expect(await audienceNow()).toBe("Bearer exchanged-second");
    rmSync(join(folder, "routes.yaml"));
    expect(await audienceNow()).toBe("Bearer exchanged-second");
  });

  test("declares the origins of its token endpoints, and cannot add one later", async () => {
    const text = "- host: a\n  token_url: https://two.example/token\n";
    const config = tokenExchangeConfig.parse({
      token_url: idp.tokenUrl,
      identity,
      ...routes([], text),
    });
    expect(tokenExchange.origins?.(config)).toEqual([idp.origin, "https://two.example"]);
    const subject = plugin(routes([rule], text));
    routes([], "- host: api.example.com\n  token_url: https://three.example/token\n");
    bench.clock.advance(1_000);
    await judge(subject, outbound());
    expect(idp.tokenCalls).toHaveLength(1);
    expect(bench.logged.join()).toContain("needs a reload");
  });
});

describe("a request without a token", () => {
  const without = (): RequestContext => message();

  test("E9 is refused", async () => {
    expect(await judge(plugin(), without())).toMatchObject({
      reason: "no_token",
      denial: {
        code: "upstream.token-exchange-failed",
        message: "missing Authorization header",
        status: 401,
      },
    });
  });

  test("E10 goes on as it is, where the file allows it", async () => {
    const context = without();
    const decision = await judge(plugin({ no_token_policy: "allow" }), context);
    expect(decision).toMatchObject({ action: "skip", reason: "no_token_policy" });
    expect(context.headers.has("authorization")).toBe(false);
  });

  test("E11 T3 gets the proxy's own token, once, from the route's own endpoint", async () => {
    const token_url = `${idp.origin}/other/token`;
    const subject = plugin({
      no_token_policy: "client-credentials",
      ...routes([{ ...rule, token_url }]),
    });
    for (let at = 0; at < 2; at += 1) {
      const context = without();
      await judge(subject, context);
      expect(authorizationOf(context)).toBe("Bearer exchanged-api");
    }
    expect(idp.tokenCalls.map((call) => [call.path, call.form.get("grant_type")])).toEqual([
      ["/other/token", "client_credentials"],
    ]);
  });

  describe.each(["token-exchange", "client-credentials"])(
    "the audience that %s issued",
    (grant) => {
      const asked = (config: object = {}, of: object = rule) => {
        const subject = plugin({
          no_token_policy: "client-credentials",
          ...config,
          ...routes([of]),
        });
        const context = grant === "token-exchange" ? outbound() : without();
        return judge(subject, context).then((decision) => ({ decision, context }));
      };
      const issuing = (claims: object): void => {
        idp.issue = () => ({ access_token: subjectToken({ ...claims }), expires_in: 300 });
      };

      test.each([
        ["is wider", ["archive", "api"], /archive, api, wider than api \(issued_audiences/],
        ["is another", "archive", /archive, not for api \(issued_audiences/],
        ["is none", undefined, /no audience, not for api/],
        ["is nothing readable", { api: 1 }, /no audience, not for api/],
      ])("is refused where it %s", async (_what, aud, problem) => {
        issuing({ aud });
        const { decision, context } = await asked();
        expect(decision).toMatchObject({
          action: "deny",
          denial: { status: 503 },
          details: { problem: expect.stringMatching(problem) },
        });
        expect(authorizationOf(context) ?? "").not.toContain("eyJ");
      });

      test.each([
        ["what was asked for", "api", {}, rule],
        ["what was asked for, in a list", ["api"], {}, rule],
        ["the resource", ["https://a.test/"], {}, { host: rule.host, resource: "https://a.test" }],
        ["wider, and the file says so", ["x", "api"], { issued_audiences: "includes" }, rule],
        [
          "wider, and the rule says so",
          ["x", "api"],
          {},
          { ...rule, issued_audiences: "includes" },
        ],
        ["another, and the file says so", "x", { issued_audiences: "any" }, rule],
        ["not asked for", ["x", "y"], {}, { host: rule.host }],
      ])("is used where it is %s", async (_what, aud, config, of) => {
        issuing({ aud });
        const { context } = await asked(config, of);
        expect(authorizationOf(context)).toBe(`Bearer ${subjectToken({ aud })}`);
      });

      test("cannot be read in an opaque token", async () => {
        const { context } = await asked();
        expect(authorizationOf(context)).toBe("Bearer exchanged-api");
      });
    },
  );

  test("that cannot get the proxy's own token is answered 503 in the Go program's words", async () => {
    idp.tokenReplies.push({ status: 401, body: { error: "invalid_client" } });
    const subject = plugin({ no_token_policy: "client-credentials" });
    expect(await judge(subject, without())).toMatchObject({
      reason: "credentials_grant_failure",
      denial: { status: 503, message: "client credentials token acquisition failed" },
    });
  });

  test("is not one with two credentials: that is refused under every policy", async () => {
    const headers = { Authorization: ["Bearer a", "Bearer b"] };
    const subject = plugin({ no_token_policy: "allow" });
    expect(await judge(subject, message({ headers }))).toHaveProperty("reason", "malformed_header");
  });
});

describe("a failure", () => {
  test.each<[string, IdpReply, number, string | undefined]>([
    [
      "TX-04 invalid_target",
      { status: 400, body: { error: "invalid_target" } },
      403,
      "invalid_target",
    ],
    [
      "TX-04 invalid_scope",
      { status: 400, body: { error: "invalid_scope" } },
      403,
      "invalid_scope",
    ],
    [
      "unauthorized_client",
      { status: 403, body: { error: "unauthorized_client" } },
      503,
      "unauthorized_client",
    ],
    [
      "an audience that the client may not have (Keycloak)",
      {
        status: 400,
        body: {
          error: "invalid_request",
          error_description: "Requested audience not available: s3cret",
        },
      },
      403,
      "invalid_request",
    ],
    [
      "E13 TX-08 invalid_grant",
      { status: 400, body: { error: "invalid_grant" } },
      401,
      "invalid_grant",
    ],
    [
      "RFC 8693 invalid_request",
      { status: 400, body: { error: "invalid_request" } },
      401,
      "invalid_request",
    ],
    ["invalid_client", { status: 401, body: { error: "invalid_client" } }, 503, "invalid_client"],
    ["an error of its own", { status: 400, body: { error: "s3cret-hint" } }, 503, undefined],
    ["a 404 page", { status: 404, body: "<html>" }, 503, undefined],
    ["E14 malformed JSON", { body: "not-json" }, 503, undefined],
    ["TX-03 a token with CR LF", { body: { access_token: "a\r\nb" } }, 503, undefined],
  ])(
    "Z18 %s is answered apart, without the endpoint's words",
    async (_what, reply, status, error) => {
      idp.tokenReplies.push(reply);
      const context = outbound();
      const decision = await judge(plugin(), context);
      if (decision.action !== "deny") throw new Error(decision.action);
      expect(decision.reason).toBe("token_exchange_failed");
      expect(decision.denial).toMatchObject({
        code: "upstream.token-exchange-failed",
        message: "token exchange failed",
        status,
      });
      expect(decision.denial.details).toEqual(
        error === undefined ? undefined : { oauth_error: error },
      );
      expect(JSON.stringify(decision.denial)).not.toMatch(/s3cret|html|user-token|my-secret/);
      expect(authorizationOf(context)).toBe("Bearer user-token");
      expect(context.delegation).toEqual([]);
    },
  );

  test("of the proxy's own registration: the log says what to change", async () => {
    const body = { error: "unauthorized_client", error_description: "Invalid client credentials" };
    idp.tokenReplies.push({ status: 401, body });
    expect(await judge(plugin(), outbound())).toMatchObject({
      denial: { status: 503 },
      details: { refusal: "registration", oauth_error: "unauthorized_client" },
    });
    expect(bench.logged.join("")).toContain("check client_id and the secret");
  });

  test("Z18 5xx is 503, and asked again each time", async () => {
    idp.tokenReplies.push(...Array.from({ length: 3 }, () => ({ status: 500, body: "" })));
    const subject = plugin();
    expect(await judge(subject, outbound())).toMatchObject({ denial: { status: 503 } });
    expect(await judge(subject, outbound())).toHaveProperty("reason", "token_replaced");
  });

  test("TX-04 TX-08 4xx is remembered for a few seconds", async () => {
    idp.tokenReplies.push({ status: 400, body: { error: "invalid_grant" } });
    const subject = plugin();
    for (let at = 0; at < 5; at += 1) {
      expect(await judge(subject, outbound())).toMatchObject({ denial: { status: 401 } });
    }
    expect(idp.tokenCalls).toHaveLength(1);
    bench.clock.advance(5_000);
    expect(await judge(subject, outbound())).toHaveProperty("action", "modify");
  });

  test("CRED-06 leaves no token and no secret in the log", async () => {
    const body = {
      error: "invalid_grant",
      error_description: "bad user-token-very-long-and-secret",
    };
    idp.tokenReplies.push({ status: 400, body });
    await judge(plugin(), outbound("user-token-very-long-and-secret"));
    expect(bench.logged.join("")).toContain("invalid_grant");
    expect(bench.logged.join("")).not.toMatch(/very-long-and-secret|my-secret/);
  });

  test("E14 of a client that went away is nobody's fault", async () => {
    const gone = new Cancellation();
    idp.tokenReplies.push("hang");
    const asked = judge(plugin(), message({ headers: bearerOf("t"), cancellation: gone }));
    gone.abort();
    expect(await asked).toMatchObject({ denial: { code: "pipeline.cancelled" } });
  });
});

describe("the client's credentials", () => {
  test("E25 T5 are awaited: not ready, 503, and the endpoint is not asked", async () => {
    const [id, secret] = [join(folder, "id"), join(folder, "secret")];
    const subject = plugin({
      identity: { type: "client-secret", client_id_file: id, client_secret_file: secret },
    });
    writeFileSync(id, "from-file\n");
    expect(subject.ready?.()).toMatch(/credentials pending .*secret: the file does not exist/);
    expect(await judge(subject, outbound())).toMatchObject({
      denial: { status: 503, code: "upstream.token-exchange-failed" },
    });
    expect(idp.tokenCalls).toHaveLength(0);
    writeFileSync(secret, "s1\n");
    bench.clock.advance(1_000);
    expect(subject.ready?.()).toBe(true);
    await judge(subject, outbound());
    expect(Object.fromEntries(idp.tokenCalls[0]?.form ?? [])).toMatchObject({
      client_id: "from-file",
      client_secret: "s1",
    });
  });

  test("CRED-10 are read again when their file rotates; an empty file keeps the last ones", async () => {
    const file = join(folder, "secret");
    writeFileSync(file, "one");
    const subject = plugin({
      identity: { type: "client-secret", client_id: "c", client_secret_file: file },
    });
    for (const [at, text] of ["one", "two-2", ""].entries()) {
      writeFileSync(file, text);
      bench.clock.advance(1_000);
      await judge(subject, outbound(`token-${at}`));
    }
    expect(idp.tokenCalls.map((call) => call.form.get("client_secret"))).toEqual([
      "one",
      "two-2",
      "two-2",
    ]);
  });

  test("that rotate end the refusals that the old ones caused", async () => {
    const file = join(folder, "secret");
    writeFileSync(file, "wrong");
    const subject = plugin({
      identity: { type: "client-secret", client_id: "c", client_secret_file: file },
    });
    idp.tokenReplies.push({ status: 401, body: { error: "invalid_client" } });
    expect(await judge(subject, outbound())).toMatchObject({ denial: { status: 503 } });
    expect(await judge(subject, outbound())).toMatchObject({ denial: { status: 503 } });
    expect(idp.tokenCalls).toHaveLength(1);
    writeFileSync(file, "right");
    bench.clock.advance(1_000);
    expect(await judge(subject, outbound())).toHaveProperty("reason", "token_replaced");
    expect(idp.tokenCalls[1]?.form.get("client_secret")).toBe("right");
  });

  test("that a reload brings end the refusals of the generation before", async () => {
    idp.tokenReplies.push({ status: 401, body: { error: "invalid_client" } });
    expect(await judge(plugin(), outbound())).toMatchObject({ denial: { status: 503 } });
    const corrected = plugin({ identity: { ...identity, client_secret: "right" } });
    expect(await judge(corrected, outbound())).toHaveProperty("reason", "token_replaced");
  });

  test("E16 are a JWT-SVID of a file for identity.type spiffe", async () => {
    const file = join(folder, "svid");
    const spiffe = { type: "spiffe", client_id: "c", jwt_audience: "idp", jwt_svid_file: file };
    const subject = plugin({ identity: spiffe });
    writeFileSync(file, subjectToken({ aud: ["someone-else"] }));
    expect(subject.ready?.()).toMatch(/not for audience idp/);
    const svid = subjectToken({ aud: ["idp"], exp: bench.clock.now() / 1000 + 60 });
    writeFileSync(file, svid);
    bench.clock.advance(1_000);
    await judge(subject, outbound());
    expect(idp.tokenCalls[0]?.form.get("client_assertion")).toBe(svid);
    bench.clock.advance(60_000);
    expect(subject.ready?.()).toMatch(/expired/);
  });

  test("E26 are refused where there is no source of JWT-SVIDs", () => {
    const spiffe = { type: "spiffe", jwt_audience: "idp" };
    expect(() => plugin({ identity: spiffe })).toThrow("spiffe needs a spiffe block");
  });

  test("E16 of a JWT-SVID alone are sent without a client_id, and kept apart", async () => {
    const spiffe = (name: string): Readonly<Record<string, unknown>> => {
      const file = join(folder, name);
      writeFileSync(file, subjectToken({ aud: ["idp"], sub: name }));
      return { type: "spiffe", jwt_audience: "idp", jwt_svid_file: file };
    };
    for (const name of ["one", "two"]) {
      const subject = plugin({ identity: spiffe(name) });
      expect(subject.ready?.()).toBe(true);
      await judge(subject, outbound());
    }
    expect(idp.tokenCalls).toHaveLength(2);
    const [first] = idp.tokenCalls;
    expect(first?.form.get("client_assertion")).toBe(subjectToken({ aud: ["idp"], sub: "one" }));
    expect(first?.form.has("client_id")).toBe(false);
    const silent = { ...spiffe("three"), client_id: "c", send_client_id: false };
    await judge(plugin({ identity: silent }), outbound());
    expect(idp.tokenCalls[2]?.form.has("client_id")).toBe(false);
  });

  test("are a token that Kubernetes projects, renewed in its file, for one audience", async () => {
    const file = join(folder, "projected");
    const tokenFor = (aud: string, jti: string): string =>
      subjectToken({
        iss: "https://kubernetes.default.svc",
        sub: "system:serviceaccount:agents:weather",
        aud: [aud],
        exp: bench.clock.now() / 1000 + 600,
        jti,
      });
    const kubernetes = {
      type: "kubernetes-service-account",
      jwt_audience: "https://idp.example/realms/agents",
      service_account_token_file: file,
    };
    // The token of every pod is for the cluster's own API: shown to anybody else, it could be used there.
    writeFileSync(file, tokenFor("https://kubernetes.default.svc", "0"));
    const subject = plugin({ identity: kubernetes });
    expect(subject.ready?.()).toBe(
      `credentials pending (${file}: the service account token is not for audience https://idp.example/realms/agents)`,
    );
    const sent: (string | null | undefined)[] = [];
    for (const jti of ["1", "2"]) {
      writeFileSync(file, `${tokenFor(kubernetes.jwt_audience, jti)}\n`);
      bench.clock.advance(1_000);
      await judge(subject, outbound(jti));
      const form = idp.tokenCalls.at(-1)?.form;
      expect(form?.get("client_assertion_type")).toMatch(/:jwt-bearer$/);
      expect(form?.has("client_id")).toBe(false);
      sent.push(decodeJwt(form?.get("client_assertion") ?? "").jti);
    }
    expect(sent).toEqual(["1", "2"]);
    bench.clock.advance(600_000);
    expect(subject.ready?.()).toMatch(/the service account token has expired/);
    const named = plugin({ identity: { ...kubernetes, client_id: "c" } });
    writeFileSync(file, tokenFor(kubernetes.jwt_audience, "3"));
    bench.clock.advance(1_000);
    await judge(named, outbound("3"));
    expect(idp.tokenCalls.at(-1)?.form.get("client_id")).toBe("c");
  });

  test("are no certificate of another key", async () => {
    const [one, other] = [await TestAuthority.create(), await TestAuthority.create()];
    const [key, certificate] = [join(folder, "k.pem"), join(folder, "c.pem")];
    writeFileSync(key, one.keyPem);
    writeFileSync(certificate, other.certificatePem);
    const signing = {
      type: "private-key-jwt",
      client_id: "c",
      signing_key_file: key,
      signing_certificate_file: certificate,
    };
    expect(() => plugin({ identity: signing })).toThrow(
      `${certificate}: it is the certificate of another key`,
    );
  });

  describe("of a key", () => {
    const own = (): string => join(folder, "key.pem");
    const signing = (
      more: Readonly<Record<string, unknown>> = {},
    ): Readonly<Record<string, unknown>> => ({
      identity: {
        type: "private-key-jwt",
        client_id: "my-client",
        signing_key_file: own(),
        ...more,
      },
    });
    const pem = (key: KeyObject, type: "pkcs8" | "pkcs1" | "sec1" = "pkcs8"): string =>
      key.export({ format: "pem", type }).toString();
    const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const edwards = generateKeyPairSync("ed25519");

    test.each([
      ["PKCS#8, P-256", pem(ec.privateKey), ec.publicKey, "ES256"],
      ["SEC1, P-256", pem(ec.privateKey, "sec1"), ec.publicKey, "ES256"],
      ["PKCS#1, RSA", pem(rsa.privateKey, "pkcs1"), rsa.publicKey, "RS256"],
      [
        "a JWK",
        JSON.stringify(edwards.privateKey.export({ format: "jwk" })),
        edwards.publicKey,
        "EdDSA",
      ],
    ] as const)("%s: an assertion is signed for each call", async (_what, text, key, alg) => {
      writeFileSync(own(), text);
      const subject = plugin(signing());
      expect(subject.ready?.()).toBe(true);
      for (const token of ["one", "two"]) await judge(subject, outbound(token));
      const ids = [];
      for (const { form } of idp.tokenCalls) {
        expect(form.get("client_id")).toBe("my-client");
        expect(form.has("client_secret")).toBe(false);
        expect(form.get("client_assertion_type")).toMatch(/:client-assertion-type:jwt-bearer$/);
        const { payload, protectedHeader } = await jwtVerify(
          form.get("client_assertion") ?? "",
          key,
          { currentDate: new Date(bench.clock.now()) },
        );
        expect(protectedHeader).toEqual({ alg, typ: "JWT" });
        const now = Math.floor(bench.clock.now() / 1000);
        const { jti, ...claims } = payload;
        expect(claims).toEqual({
          iss: "my-client",
          sub: "my-client",
          aud: idp.tokenUrl,
          iat: now,
          exp: now + 60,
        });
        ids.push(jti);
      }
      expect(new Set(ids).size).toBe(2);
    });

    test("is named by its id or by its certificate, for an audience of the file", async () => {
      const chain = await TestAuthority.create();
      const certificate = join(folder, "cert.pem");
      writeFileSync(own(), chain.keyPem);
      writeFileSync(certificate, chain.certificatePem);
      const more = {
        signing_key_id: "my-kid",
        signing_algorithm: "ES256",
        signing_certificate_file: certificate,
        jwt_audience: "https://idp.example/realms/agents",
        send_client_id: false,
      };
      await judge(plugin(signing(more)), outbound());
      const form = idp.tokenCalls[0]?.form;
      expect(form?.has("client_id")).toBe(false);
      const assertion = form?.get("client_assertion") ?? "";
      const { raw } = new X509Certificate(chain.certificatePem);
      expect(decodeProtectedHeader(assertion)).toEqual({
        alg: "ES256",
        typ: "JWT",
        kid: "my-kid",
        "x5t#S256": createHash("sha256").update(raw).digest("base64url"),
      });
      expect(decodeJwt(assertion).aud).toBe("https://idp.example/realms/agents");
    });

    test("that is not there yet is awaited, and read again when it changes", async () => {
      const subject = plugin(signing());
      expect(subject.ready?.()).toMatch(/credentials pending .*the file does not exist/);
      writeFileSync(own(), pem(ec.privateKey));
      bench.clock.advance(1_000);
      expect(subject.ready?.()).toBe(true);
      writeFileSync(own(), pem(rsa.privateKey));
      bench.clock.advance(1_000);
      await judge(subject, outbound());
      const header = decodeProtectedHeader(idp.tokenCalls[0]?.form.get("client_assertion") ?? "");
      expect(header.alg).toBe("RS256");
    });

    test.each([
      [
        "a public key",
        ec.publicKey.export({ format: "pem", type: "spki" }).toString(),
        {},
        /no private key/,
      ],
      ["an encrypted key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n", {}, /encrypted/],
      [
        "an algorithm of another key",
        pem(ec.privateKey),
        { signing_algorithm: "RS256" },
        /cannot sign with RS256/,
      ],
      ["nothing", " ", {}, /empty/],
    ] as const)("that is %s is refused at the start, unquoted", (_what, text, more, words) => {
      writeFileSync(own(), text);
      expect(() => plugin(signing(more))).toThrow(words);
      expect(() => plugin(signing(more))).not.toThrow(/BEGIN/);
    });

    test("is signed anew when the endpoint failed", async () => {
      writeFileSync(own(), pem(ec.privateKey));
      idp.tokenReplies.push({ status: 500, body: "" });
      expect(await judge(plugin(signing()), outbound())).toHaveProperty("reason", "token_replaced");
      const ids = idp.tokenCalls.map(
        ({ form }) => decodeJwt(form.get("client_assertion") ?? "").jti,
      );
      expect(new Set(ids).size).toBe(2);
    });
  });

  test("may go into a Basic field", async () => {
    await judge(
      plugin({ identity: { ...identity, client_auth_method: "client_secret_basic" } }),
      outbound(),
    );
    expect(idp.tokenCalls[0]?.authorization).toMatch(/^Basic /);
  });
});

describe("those who act for the user", () => {
  /** The claim for these actors, the current one first. */
  const act = (...names: readonly string[]): object | undefined =>
    names.reduceRight<object | undefined>(
      (before, sub) => ({ sub, ...(before === undefined ? {} : { act: before }) }),
      undefined,
    );
  const issuing = (claims: Readonly<Record<string, unknown>>): void => {
    idp.issue = () => ({
      access_token: subjectToken({ aud: "api", ...claims }),
      token_type: "Bearer",
      expires_in: 300,
    });
  };
  const delegated = (...names: readonly string[]): RequestContext =>
    outbound(subjectToken({ sub: "alice", act: act(...names) }));

  test.each([
    ["the proxy after them", act("proxy", "planner", "ui")],
    ["the same", act("planner", "ui")],
  ])("are named by the issued token: %s", async (_what, chain) => {
    issuing({ act: chain });
    const context = delegated("planner", "ui");
    expect(await judge(plugin(), context)).toHaveProperty("reason", "token_replaced");
  });

  test.each([
    ["none of them", undefined],
    ["the proxy alone", act("proxy")],
    ["one of them", act("proxy", "ui")],
    ["others", act("proxy", "planner", "somebody")],
    ["others before them", act("planner", "ui", "somebody")],
    ["nobody in particular", { sub: 7 }],
    ["a namesake of another issuer", { sub: "planner", iss: "https://x", act: { sub: "ui" } }],
  ])("are not lost: a token that names %s is not used", async (_what, chain) => {
    issuing({ act: chain });
    expect(await judge(plugin(), delegated("planner", "ui"))).toMatchObject({
      denial: { status: 503 },
      details: { problem: expect.stringContaining("issued_actors: any") },
    });
    const relaxed = plugin({ issued_actors: "any" });
    const decision = await judge(relaxed, delegated("planner", "ui"));
    expect(decision).toHaveProperty("reason", "token_replaced");
    // What one instance took is not there for one that asks for more.
    expect(await judge(plugin(), delegated("planner", "ui"))).toHaveProperty("action", "deny");
  });

  test("are at most as many as the file says, and the endpoint is not asked for more", async () => {
    issuing({ act: act("proxy", "b", "a") });
    const subject = plugin({ max_actors: 3 });
    expect(await judge(subject, delegated("b", "a"))).toHaveProperty("reason", "token_replaced");
    expect(await judge(subject, delegated("d", "c", "b", "a"))).toMatchObject({
      action: "deny",
      reason: "too_many_actors",
      denial: { code: "policy.forbidden" },
      details: { actors: "4", max_actors: "3" },
    });
    expect(idp.tokenCalls).toHaveLength(1);
    issuing({ act: act("proxy", "c", "b", "a") });
    expect(await judge(subject, delegated("c", "b", "a"))).toMatchObject({
      denial: { status: 503 },
      details: { problem: expect.stringContaining("max_actors") },
    });
  });

  test("count with the actor that the proxy adds", async () => {
    const file = join(folder, "actor");
    writeFileSync(file, "actor-token");
    const subject = plugin({ max_actors: 2, actor_token_file: file });
    issuing({ act: act("proxy", "ui") });
    expect(await judge(subject, delegated("ui"))).toHaveProperty("reason", "token_replaced");
    expect(await judge(subject, delegated("planner", "ui"))).toHaveProperty(
      "reason",
      "too_many_actors",
    );
  });

  test("are read from a chain of any length, and refused where nobody could be named", async () => {
    const endless = delegated(...Array.from({ length: 1_000 }, (_, at) => `agent-${at}`));
    expect(await judge(plugin(), endless)).toMatchObject({
      reason: "too_many_actors",
      details: { actors: "more than 64" },
    });
    for (const claim of ["planner", [], {}, { sub: "" }, { sub: "a", act: 7 }]) {
      const context = outbound(subjectToken({ sub: "alice", act: claim }));
      expect(await judge(plugin(), context)).toMatchObject({
        reason: "malformed_actors",
        denial: { code: "auth.unauthorized" },
      });
    }
    expect(idp.tokenCalls).toHaveLength(0);
  });
});

describe("a placeholder", () => {
  const minted = async (): Promise<string> => {
    const door = bench.create(jwtValidation, {
      issuer: idp.issuer,
      audience: "agent",
      placeholder_mode: true,
      placeholder_ttl: "1m",
    });
    const token = await idp.token({}, bench.clock.now());
    const context = message({ direction: "inbound", headers: bearerOf(token) });
    await door.onRequest?.(context);
    return authorizationOf(context)?.replace("Bearer ", "") ?? "";
  };

  test("F1 is exchanged as the token that it stands for", async () => {
    const context = outbound(await minted());
    await judge(plugin({ resolve_placeholders: true }), context);
    expect(authorizationOf(context)).toBe("Bearer exchanged-api");
    expect(idp.tokenCalls[0]?.form.get("subject_token")).toMatch(/^eyJ/);
  });

  test("F2 F8 that is unknown or has ended is refused", async () => {
    const subject = plugin({ resolve_placeholders: true });
    const handle = await minted();
    bench.clock.advance(60_000);
    for (const token of ["abph_unknownhandle", handle]) {
      expect(await judge(subject, outbound(token))).toMatchObject({
        reason: "placeholder_unresolved",
        denial: { code: "auth.unauthorized", message: "unresolvable credential placeholder" },
      });
    }
    expect(idp.tokenCalls).toHaveLength(0);
  });

  test("F3 does not get into the way of an ordinary token", async () => {
    const subject = plugin({ resolve_placeholders: true });
    expect(await judge(subject, outbound())).toHaveProperty("reason", "token_replaced");
  });

  test("F4 CRED-01 goes unchanged to a host that gets no exchange", async () => {
    const handle = await minted();
    const context = outbound(handle, "other.example.com:80");
    await judge(plugin({ resolve_placeholders: true }), context);
    expect(authorizationOf(context)).toBe(`Bearer ${handle}`);
  });
});

describe("named places", () => {
  const places = [{ header: "x-api-key" }, { basic: "user" }, { basic: "password" }];
  const sent = (headers: Readonly<Record<string, string>>): RequestContext => message({ headers });
  const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString("base64")}`;

  test("hold the token, and Authorization does not count beside them", async () => {
    const context = sent({ "x-api-key": "mine", ...bearerOf("other") });
    await judge(plugin({ places }), context);
    expect(context.headers.get("x-api-key")).toBe("exchanged-api");
    expect(authorizationOf(context)).toBe("Bearer other");
    expect(idp.tokenCalls[0]?.form.get("subject_token")).toBe("mine");
  });

  test("a JWT goes before the user of git", async () => {
    const token = subjectToken({ sub: "a" });
    const context = sent({ authorization: basic(`x-access-token:${token}`) });
    await judge(plugin({ places }), context);
    expect(authorizationOf(context)).toBe(basic("x-access-token:exchanged-api"));
    expect(context.echo?.clean(`said ${basic("x-access-token:exchanged-api")}`)).toBe(
      `said ${basic(`x-access-token:${token}`)}`,
    );
  });

  test("with different tokens are refused, and nobody is asked", async () => {
    const context = sent({ authorization: basic("one:two") });
    expect(await judge(plugin({ places }), context)).toHaveProperty("reason", "ambiguous_token");
    expect(idp.tokenCalls).toHaveLength(0);
  });

  test("of a rule stand in place of the plugin's, also where the rule is in the file", async () => {
    const file = '- { host: api.example.com, target_audience: api, places: [{ query: "t" }] }';
    const context = message({ path: "/x?t=mine", headers: { "x-api-key": "no" } });
    await judge(plugin({ places, ...routes([], file) }), context);
    expect(context.sentPath).toBe("/x?t=exchanged-api");
    expect(context.path).toBe("/x?t=mine");
  });

  test("without a token are named in the refusal and in explain", async () => {
    expect(await judge(plugin({ places }), sent({}))).toMatchObject({
      reason: "no_token",
      denial: { message: "no token in: header x-api-key, basic user, basic password" },
    });
    const said = await plugin({ places }).describeCredential?.(sent({}));
    expect(said).toMatch(/^header x-api-key, basic user, basic password: a token exchanged at/);
    const context = sent({});
    await judge(plugin({ places, no_token_policy: "client-credentials" }), context);
    expect(authorizationOf(context)).toBe("Bearer exchanged-api");
  });

  test("do not go with bound tokens", () => {
    const base = { token_url: "https://id.example/token", identity };
    const config = { ...base, places, routes: { rules: [{ ...rule, dpop: "caller" }] } };
    expect(problemsOf(tokenExchange, config).join()).toContain("routes.rules.0.dpop: dpop needs");
    expect(problemsOf(tokenExchange, { ...base, places, dpop: "process" }).join()).toContain(
      "dpop",
    );
    const file = "- { host: a, dpop: process }";
    expect(() => plugin({ places, ...routes([], file) })).toThrow("does not go with places");
  });
});

describe("the configuration", () => {
  const base = { token_url: "https://id.example/token", identity };

  test.each<[string, Readonly<Record<string, unknown>>, string]>([
    ["E17 no token endpoint", { identity }, "token_url is required"],
    [
      "generic without token_url",
      { identity, provider: "generic", provider_url: "http://k" },
      "token_url",
    ],
    ["E21 an unknown provider", { ...base, provider: "entra-id" }, "provider"],
    ["E21 an unknown default_policy", { ...base, default_policy: "drop" }, "default_policy"],
    ["E22 no identity", { token_url: base.token_url }, "identity"],
    ["E22 no identity type", { ...base, identity: { client_id: "c" } }, "identity.type"],
    ["E22 an unknown identity type", { ...base, identity: { type: "mtls" } }, "identity.type"],
    [
      "a signed assertion without a key",
      { ...base, identity: { type: "private-key-jwt", client_id: "c" } },
      "signing_key_file",
    ],
    [
      "a secret without an id in the form",
      { ...base, identity: { ...identity, send_client_id: false } },
      "send_client_id",
    ],
    [
      "E21 an unknown assertion type",
      { ...base, identity: { ...identity, assertion_type: "x" } },
      "assertion_type",
    ],
    [
      "E30 a malformed pattern",
      { ...base, routes: { rules: [{ host: "[invalid" }] } },
      "routes.rules.0.host",
    ],
    ["an unknown key", { ...base, tokenurl: "x" }, "tokenurl"],
  ])("%s: refused", (_what, config, words) => {
    expect(problemsOf(tokenExchange, config).join()).toContain(words);
  });

  test.each([
    ["E18 keycloak_*", { keycloak_url: "http://keycloak:8080", keycloak_realm: "rossoctl" }],
    ["E19 a trailing slash", { provider_url: "http://keycloak:8080/", provider_realm: "rossoctl" }],
    [
      "E20 provider_* before keycloak_*",
      {
        keycloak_url: "http://old",
        keycloak_realm: "old",
        provider_url: "http://keycloak:8080",
        provider_realm: "rossoctl",
      },
    ],
  ])("derives the token endpoint from %s", (_what, keys) => {
    expect(tokenUrlOf(tokenExchangeConfig.parse({ identity, ...keys }))).toBe(
      "http://keycloak:8080/realms/rossoctl/protocol/openid-connect/token",
    );
  });

  test("E23 E24 has the Go program's files as defaults, and warns of what is deprecated or defaulted", () => {
    const config = tokenExchangeConfig.parse(base);
    expect(config.routes.file).toBe("/etc/authproxy/routes.yaml");
    const subject = plugin({
      token_url: undefined,
      keycloak_url: idp.origin,
      keycloak_realm: "test",
      identity: { type: "client-secret" },
    });
    expect(subject.ready?.()).toMatch(/\/shared\/client-(id|secret).txt/);
    expect(bench.logged.join()).toMatch(/deprecated.*no_token_policy/s);
  });
});
