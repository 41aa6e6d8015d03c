/** token-exchange on the way out: which token the destination sees, what the provider was asked, and what goes wrong. */
import { generateKeyPairSync } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { jwtVerify } from "jose";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get, openTunnel, type RawResponse } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runWith, type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange";
const accessToken = "urn:ietf:params:oauth:token-type:access_token";
const code = "upstream.token-exchange-failed";

let target: HttpOrigin;
let idp: StubIdp;
let other: StubIdp;
let proxy: ProxyProcess;

/** Every name of these tests is the target. */
const names = [
  "plain.test",
  "target.test",
  "api.example.test",
  "api.sub.example.test",
  "first.test",
  "through.test",
  "inline-through.test",
  "scoped-a.test",
  "scoped-b.test",
  "resource.test",
  "elsewhere.test",
  "auth-target-service.ns.svc.cluster.local",
  "fails.test",
  "crowd.test",
  "allowed-plain.test",
  "denied.test",
];
const hosts = Object.fromEntries(names.map((name) => [name, ["127.0.0.1"]]));
const identity = { type: "client-secret", client_id: "my-client", client_secret: "my-secret" };

function exchanging(config: Settings, over: Settings = {}): Promise<ProxyProcess> {
  return ProxyProcess.start(
    merge(
      settings(merge({ egress: { hosts } }, over)),
      outbound(
        { name: "denier", config: { path: "/policy-denies" } },
        { name: "recorder", config: { file: "records" } },
        {
          name: "token-exchange",
          config: { token_url: idp.tokenUrl, identity, routes: { file: "routes.yaml" }, ...config },
        },
      ),
    ),
    {
      files: {
        "routes.yaml":
          "- {host: first.test, target_audience: from-file}\n- {host: through.test, action: passthrough}\n",
      },
    },
  );
}

beforeAll(async () => {
  target = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  other = await own(StubIdp.start());
  proxy = await own(
    exchanging({
      audience_from_host: true,
      routes: {
        file: "routes.yaml",
        rules: [
          { host: "first.test", target_audience: "never" },
          { host: "target.test", target_audience: "target-aud" },
          { host: "inline-through.test", passthrough: true },
          { host: "*.example.test", target_audience: "example" },
          { host: "scoped-a.test", target_audience: "scoped", token_scopes: "openid a" },
          { host: "scoped-b.test", target_audience: "scoped", token_scopes: "openid b" },
          { host: "resource.test", target_audience: "r", resource: "https://resource.test/api" },
          { host: "elsewhere.test", target_audience: "target-aud", token_url: other.tokenUrl },
          { host: "*.ns.svc.cluster.local" },
          { host: "fails.test", target_audience: "fails" },
          { host: "crowd.test", target_audience: "crowd" },
          { host: "denied.test", target_audience: "denied" },
        ],
      },
    }),
  );
});

let counter = 0;

interface Seen {
  readonly answer: RawResponse;
  /** Authorization at the target, when the request came through. */
  readonly authorization: string | undefined;
  readonly reached: boolean;
}

async function call(
  name: string,
  token: string | undefined,
  through = proxy,
  path = `/call-${(counter += 1)}`,
): Promise<Seen> {
  const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  const answer = await get(through.forward, `http://${name}:${target.port}${path}`, headers);
  const [request] = target.requestsFor(path);
  return {
    answer,
    authorization: request?.header("authorization"),
    reached: request !== undefined,
  };
}

/** A subject token as users have: a JWT of five minutes. */
const subject = (sub: string): Promise<string> => idp.token({ claims: { sub } });

const callsFor = (audience: string): URLSearchParams[] =>
  idp.tokenCalls.map(({ form }) => form).filter((form) => form.get("audience") === audience);

async function lastInvocation(through = proxy): Promise<Settings> {
  const { events } = (await through.sessions("/v1/sessions/default")).json() as {
    events: { phase: string; invocations?: { outbound?: Settings[] } }[];
  };
  const event = events.findLast((one) => one.phase !== "response");
  const all = event?.invocations?.outbound ?? [];
  const found = all.find((one) => one["plugin"] === "token-exchange");
  if (found === undefined) throw new Error("no invocation of token-exchange");
  return found;
}

describe("an exchange", () => {
  test("E1, E2: the provider gets the RFC 8693 form and the target gets the new token", async () => {
    const token = await subject("alice");
    const { answer, authorization } = await call("target.test", token);
    expect(answer.status).toBe(200);
    expect(authorization).toBe("Bearer exchanged-target-aud");
    const [form, ...more] = callsFor("target-aud");
    expect(more).toEqual([]);
    expect(Object.fromEntries(form ?? [])).toEqual({
      grant_type: exchangeGrant,
      subject_token: token,
      subject_token_type: accessToken,
      requested_token_type: accessToken,
      audience: "target-aud",
      client_id: "my-client",
      client_secret: "my-secret",
    });
    expect(await lastInvocation()).toMatchObject({
      action: "modify",
      reason: "token_replaced",
      details: { target_audience: "target-aud", route_host: "target.test" },
    });
  });

  test("E3: the same call again is answered from the cache", async () => {
    const token = await subject("bob");
    await call("target.test", token);
    const asked = idp.tokenCalls.length;
    const { authorization } = await call("target.test", token);
    expect(authorization).toBe("Bearer exchanged-target-aud");
    expect(idp.tokenCalls).toHaveLength(asked);
    expect(await lastInvocation()).toMatchObject({ action: "modify", reason: "cache_hit" });
  });

  test("E5, TX-01: another user and another audience are other entries", async () => {
    idp.issue = ({ form }) => ({
      access_token: `${form.get("audience")}-for-${JSON.parse(Buffer.from(form.get("subject_token")?.split(".")[1] ?? "", "base64url").toString()).sub}`,
      token_type: "Bearer",
      expires_in: 300,
    });
    const [carol, dave] = [await subject("carol"), await subject("dave")];
    expect((await call("target.test", carol)).authorization).toBe("Bearer target-aud-for-carol");
    expect((await call("target.test", dave)).authorization).toBe("Bearer target-aud-for-dave");
    expect((await call("api.example.test", carol)).authorization).toBe("Bearer example-for-carol");
    expect((await call("target.test", carol)).authorization).toBe("Bearer target-aud-for-carol");
  });

  test("Z3: two routes with one audience and different scopes have different tokens", async () => {
    idp.issue = ({ form }) => ({
      access_token: `scoped-${form.get("scope")?.replace(" ", "-")}`,
      token_type: "Bearer",
      expires_in: 300,
    });
    const token = await subject("erin");
    expect((await call("scoped-a.test", token)).authorization).toBe("Bearer scoped-openid-a");
    expect((await call("scoped-b.test", token)).authorization).toBe("Bearer scoped-openid-b");
  });

  test("E12: a route's own token endpoint is the only one that is called", async () => {
    const before = idp.tokenCalls.length;
    const token = await subject("frank");
    expect((await call("elsewhere.test", token)).authorization).toBe("Bearer exchanged-target-aud");
    expect(idp.tokenCalls).toHaveLength(before);
    expect(other.tokenCalls).toHaveLength(1);
  });

  test("a route's resource is sent", async () => {
    await call("resource.test", await subject("grace"));
    expect(callsFor("r").at(-1)?.get("resource")).toBe("https://resource.test/api");
  });

  test("E32: audience_from_host is the first label of the destination", async () => {
    await call("auth-target-service.ns.svc.cluster.local", await subject("heidi"));
    expect(callsFor("auth-target-service")).toHaveLength(1);
  });

  test("TX-09: a Host that differs from the target names no audience: 421", async () => {
    const asked = idp.tokenCalls.length;
    const answer = await get(proxy.forward, `http://plain.test:${target.port}/`, {
      Host: `auth-target-service.ns.svc.cluster.local:${target.port}`,
      Authorization: `Bearer ${await subject("ivan")}`,
    });
    expect(answer.status).toBe(421);
    expect(idp.tokenCalls).toHaveLength(asked);
  });

  test("E33: the delegation gains a hop for the record", async () => {
    await call("target.test", await subject("judy"));
    expect(JSON.stringify(await lastInvocation())).not.toContain("exchanged");
  });

  test("CRED-06: no token and no secret is in the log, the events, /config or /metrics", async () => {
    const token = await subject("mallory");
    const { authorization } = await call("target.test", token);
    const shown = [
      proxy.stderr,
      (await proxy.sessions("/v1/sessions/default")).text,
      (await proxy.sessions("/v1/pipeline")).text,
      (await proxy.stats("/config")).text,
      (await proxy.stats("/metrics")).text,
    ].join("\n");
    for (const secret of [token, authorization?.slice(7) ?? "-", "my-secret"]) {
      expect(shown).not.toContain(secret);
    }
  });
});

describe("routes", () => {
  test("E7: a host without a route keeps its Authorization", async () => {
    const { answer, authorization } = await call("plain.test", "as-it-was");
    expect(answer.status).toBe(200);
    expect(authorization).toBe("Bearer as-it-was");
    expect(await lastInvocation()).toMatchObject({ action: "skip", reason: "no_matching_route" });
  });

  test.each(["through.test", "inline-through.test"])(
    "E8: the passthrough route %s keeps it too",
    async (name) => {
      const { authorization } = await call(name, "as-it-was");
      expect(authorization).toBe("Bearer as-it-was");
    },
  );

  test("E27, E31: rules of the file match whatever the port", async () => {
    await call("first.test", await subject("kate"));
    expect(callsFor("from-file")).toHaveLength(1);
  });

  test("E29: the first rule that matches decides, the file's before the inline ones", () => {
    expect(callsFor("never")).toEqual([]);
  });

  test("E28: * is one label", async () => {
    const { authorization } = await call("api.sub.example.test", "as-it-was");
    expect(authorization).toBe("Bearer as-it-was");
  });

  test("a change of the routes file is noticed", async () => {
    await writeFile(
      proxy.path("routes.yaml"),
      "- {host: first.test, target_audience: changed}\n- {host: through.test, action: passthrough}\n",
    );
    const token = await subject("leo");
    await eventually(async () => {
      await call("first.test", token);
      return callsFor("changed").length > 0;
    }, 15_000);
  });
});

describe("without a bearer", () => {
  test("E9: the default is 401", async () => {
    const { answer, reached } = await call("target.test", undefined);
    expect(answer.status).toBe(401);
    expect(answer.json()).toMatchObject({
      error: code,
      message: "missing Authorization header",
      plugin: "token-exchange",
    });
    expect(reached).toBe(false);
    expect(await lastInvocation()).toMatchObject({ action: "deny", reason: "no_token" });
  });

  test("E10: no_token_policy allow forwards without a token", async () => {
    const here = await own(
      exchanging({
        no_token_policy: "allow",
        routes: { rules: [{ host: "target.test", target_audience: "x" }] },
      }),
    );
    const { answer, authorization } = await call("target.test", undefined, here);
    expect(answer.status).toBe(200);
    expect(authorization).toBeUndefined();
  });

  test("E11: client-credentials gets a token of its own, once, at the route's endpoint", async () => {
    const here = await own(
      exchanging({
        no_token_policy: "client-credentials",
        routes: {
          rules: [
            { host: "target.test", target_audience: "cc", token_scopes: "s1" },
            { host: "elsewhere.test", target_audience: "cc-other", token_url: other.tokenUrl },
          ],
        },
      }),
    );
    const first = await call("target.test", undefined, here);
    const second = await call("target.test", undefined, here);
    for (const { authorization } of [first, second]) {
      expect(authorization).toMatch(/^Bearer /);
    }
    const forms = callsFor("cc");
    expect(forms).toHaveLength(1);
    expect(Object.fromEntries(forms[0] ?? [])).toEqual({
      grant_type: "client_credentials",
      audience: "cc",
      scope: "s1",
      client_id: "my-client",
      client_secret: "my-secret",
    });
    await call("elsewhere.test", undefined, here);
    expect(callsFor("cc-other")).toEqual([]);
    expect(other.tokenCalls.at(-1)?.form.get("audience")).toBe("cc-other");
  });
});

describe("what cannot be exchanged", () => {
  /** A fresh subject each time: refusals are remembered for a while. */
  async function failing(name: string): Promise<Seen> {
    return call("fails.test", await subject(`fail-${name}`));
  }

  test.each(["invalid_target", "invalid_scope", "access_denied"])(
    "E13, Z18, TX-04: the provider's %s is 403 and remembered for a while",
    async (error) => {
      const secret = "idp-internal-detail";
      idp.tokenReplies.push({ status: 400, body: { error, error_description: secret } });
      const token = await subject(`refused-${error}-${idp.tokenCalls.length}`);
      const asked = idp.tokenCalls.length;
      const { answer, reached } = await call("fails.test", token);
      expect(answer.status).toBe(403);
      expect(answer.json()).toMatchObject({ error: code, plugin: "token-exchange" });
      expect(answer.text).not.toContain(secret);
      expect(reached).toBe(false);
      const again = await call("fails.test", token);
      expect(again.answer.status).toBe(403);
      expect(idp.tokenCalls).toHaveLength(asked + 1);
    },
  );

  // RFC 8693 section 2.2.2 answers invalid_request for a subject token that is not acceptable.
  test.each(["invalid_grant", "invalid_request"])(
    "TX-08: the provider's %s is 401",
    async (error) => {
      idp.tokenReplies.push({ status: 400, body: { error } });
      const { answer, reached } = await failing(error);
      expect(answer.status).toBe(401);
      expect(answer.json()).toMatchObject({ error: code });
      expect(reached).toBe(false);
    },
  );

  const broken: readonly (readonly [string, Parameters<StubIdp["tokenReplies"]["push"]>[0]])[] = [
    ["500", { status: 500, body: { error: "server_error", error_description: "stack trace" } }],
    ["503", { status: 503, body: "<html>maintenance</html>" }],
    ["no JSON", { body: "not-json" }],
    ["HTML", { body: "<html>", headers: { "content-type": "text/html" } }],
    ["no access_token", { body: { token_type: "Bearer" } }],
    ["a token with CR and LF", { body: { access_token: "a\r\nX-Evil: 1", token_type: "Bearer" } }],
    ["a token that is no text", { body: { access_token: { a: 1 }, token_type: "Bearer" } }],
    ["10 MB", { body: "x".repeat(10_000_000) }],
    ["a redirect", { status: 302, body: "", headers: { location: "http://127.0.0.1:9/" } }],
    ["a reset", "reset"],
  ];
  test.each(broken)(
    "E14, Z18, TX-03: a provider that answers %s is 503, and the user's token goes nowhere",
    async (name, answer) => {
      for (let count = 0; count < 5; count += 1) idp.tokenReplies.push(answer);
      const seen = await failing(name);
      idp.tokenReplies.length = 0;
      expect(seen.answer.status).toBe(503);
      expect(seen.answer.json()).toEqual({
        error: code,
        message: "token exchange failed",
        plugin: "token-exchange",
      });
      expect(seen.reached).toBe(false);
    },
  );

  test("a single 500 or reset of the provider is tried again", async () => {
    idp.tokenReplies.push({ status: 500, body: {} });
    expect((await failing("once-500")).answer.status).toBe(200);
    idp.tokenReplies.push("reset");
    expect((await failing("once-reset")).answer.status).toBe(200);
  });

  test("E14: a provider that is not there is 503", async () => {
    const here = await own(
      exchanging({ token_url: "http://127.0.0.1:1/token", default_policy: "exchange" }),
    );
    const { answer, reached } = await call("target.test", await subject("nobody"), here);
    expect(answer.status).toBe(503);
    expect(answer.json()).toMatchObject({ error: code });
    expect(reached).toBe(false);
  });

  test("TX-07: a message that policy refuses is not exchanged", async () => {
    const asked = idp.tokenCalls.length;
    const seen = await call("denied.test", await subject("policy"), proxy, "/policy-denies");
    expect(seen.answer.status).toBe(403);
    expect(seen.answer.json()).toMatchObject({ error: "policy.forbidden", plugin: "denier" });
    expect(idp.tokenCalls).toHaveLength(asked);
  });

  test("TX-06: the provider's address is not opened for the agent by being configured", async () => {
    const strict = await own(
      ProxyProcess.start(
        merge(
          settings({ egress: { allow_ips: [] } }),
          outbound({ name: "token-exchange", config: { token_url: idp.tokenUrl, identity } }),
        ),
      ),
    );
    const answer = await get(strict.forward, idp.tokenUrl);
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({ error: "upstream.address-forbidden" });
  });
});

describe("caching and crowds", () => {
  test("Z19, TX-05: fifty first calls at once are one exchange", async () => {
    const token = await subject("crowd");
    let open: (() => void) | undefined;
    idp.gate = new Promise((resolve) => (open = resolve));
    const calls = Array.from({ length: 50 }, () => call("crowd.test", token));
    await eventually(() => callsFor("crowd").length > 0);
    open?.();
    idp.gate = undefined;
    const seen = await Promise.all(calls);
    expect(new Set(seen.map(({ answer }) => answer.status))).toEqual(new Set([200]));
    expect(callsFor("crowd")).toHaveLength(1);
  });

  test("E4: a token of 30 seconds or less is not cached", async () => {
    idp.issue = () => ({ access_token: "short", token_type: "Bearer", expires_in: 30 });
    const token = await subject("short");
    await call("target.test", token);
    const asked = idp.tokenCalls.length;
    await call("target.test", token);
    expect(idp.tokenCalls).toHaveLength(asked + 1);
  });

  test("TX-02: expires_in of -1 or of nonsense is never cached", async () => {
    for (const expires_in of [-1, "soon", Number.MAX_SAFE_INTEGER * 2]) {
      idp.issue = () => ({ access_token: "odd", token_type: "Bearer", expires_in });
      const token = await subject(`odd-${expires_in}`);
      const { answer } = await call("target.test", token);
      expect([200, 503]).toContain(answer.status);
      const asked = idp.tokenCalls.length;
      await call("target.test", token);
      if (expires_in === -1) expect(idp.tokenCalls.length).toBeGreaterThan(asked);
    }
  });

  test("an entry never outlives the subject token", async () => {
    idp.issue = () => ({ access_token: "long", token_type: "Bearer", expires_in: 3600 });
    const exp = Math.floor(Date.now() / 1000) + 2;
    const token = await idp.token({ claims: { sub: "brief", exp } });
    const first = await call("target.test", token);
    expect(first.answer.status).toBe(200);
    const asked = idp.tokenCalls.length;
    await eventually(() => Date.now() / 1000 > exp + 1);
    idp.tokenReplies.push({ status: 400, body: { error: "invalid_grant" } });
    const later = await call("target.test", token);
    idp.tokenReplies.length = 0;
    expect(later.answer.status).toBe(401);
    expect(later.reached).toBe(false);
    expect(idp.tokenCalls.length - asked).toBeLessThanOrEqual(1);
  });
});

describe("the client", () => {
  const form = (): Readonly<Record<string, string>> =>
    Object.fromEntries(idp.tokenCalls.at(-1)?.form ?? []);
  const rules = [{ host: "target.test", target_audience: "client" }];

  test("the secret may go into the Authorization field instead", async () => {
    const here = await own(
      exchanging({
        routes: { rules },
        identity: {
          ...identity,
          client_secret: "a:b c",
          client_auth_method: "client_secret_basic",
        },
      }),
    );
    await call("target.test", await subject("basic"), here);
    expect(form()).not.toHaveProperty("client_secret");
    // RFC 6749 section 2.3.1: both halves are form-encoded before they are joined.
    const encoded = Buffer.from("my-client:a%3Ab+c").toString("base64");
    expect(idp.tokenCalls.at(-1)?.authorization).toBe(`Basic ${encoded}`);
  });

  test.each([
    ["jwt-spiffe", undefined],
    ["jwt-spiffe", "jwt-spiffe"],
    ["jwt-bearer", "jwt-bearer"],
  ])("E16: a client assertion from a file is announced as %s", async (announced, given) => {
    const here = await own(
      exchanging({
        routes: { rules },
        identity: {
          type: "spiffe",
          client_id: "spiffe-client",
          jwt_audience: "idp",
          jwt_svid_file: "svid.jwt",
          ...(given === undefined ? {} : { assertion_type: given }),
        },
      }),
    );
    expect((await here.health("/readyz")).status).toBe(503);
    await writeFile(here.path("svid.jwt"), `${await idp.token({ claims: { aud: "idp" } })}\n`);
    await eventually(async () => (await here.health("/readyz")).status === 200, 10_000);
    await call("target.test", await subject(`spiffe-${String(given)}`), here);
    expect(form()).toMatchObject({
      client_id: "spiffe-client",
      client_assertion_type: `urn:ietf:params:oauth:client-assertion-type:${announced}`,
    });
    expect(form()["client_assertion"]).toMatch(/^ey/);
    expect(form()).not.toHaveProperty("client_secret");
  });

  test("a client assertion is signed for each exchange with the key of a file", async () => {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const here = await own(
      exchanging({
        routes: { rules },
        identity: {
          type: "private-key-jwt",
          client_id: "signing-client",
          signing_key_file: "signing.pem",
          signing_key_id: "kid-1",
        },
      }),
    );
    expect((await here.health("/readyz")).status).toBe(503);
    const pem = privateKey.export({ format: "pem", type: "pkcs8" });
    await writeFile(here.path("signing.pem"), pem);
    await eventually(async () => (await here.health("/readyz")).status === 200, 10_000);
    const seen = new Set<string | undefined>();
    for (const name of ["signed-1", "signed-2"]) {
      const { reached } = await call("target.test", await subject(name), here);
      expect(reached).toBe(true);
      expect(form()).toMatchObject({
        client_id: "signing-client",
        client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
      });
      const { payload, protectedHeader } = await jwtVerify(
        form()["client_assertion"] ?? "",
        publicKey,
        { audience: idp.tokenUrl, issuer: "signing-client", subject: "signing-client" },
      );
      expect(protectedHeader).toMatchObject({ alg: "ES256", kid: "kid-1" });
      expect(payload.exp).toBe((payload.iat ?? 0) + 60);
      seen.add(payload.jti);
    }
    expect(seen.size).toBe(2);
    expect(here.stderr).not.toContain(form()["client_assertion"]);
  });

  test("a JWT-SVID alone says who the client is", async () => {
    const here = await own(
      exchanging({
        routes: { rules },
        identity: { type: "spiffe", jwt_audience: "idp", jwt_svid_file: "svid.jwt" },
      }),
    );
    await writeFile(here.path("svid.jwt"), `${await idp.token({ claims: { aud: "idp" } })}\n`);
    await eventually(async () => (await here.health("/readyz")).status === 200, 10_000);
    await call("target.test", await subject("without-client-id"), here);
    expect(form()["client_assertion"]).toMatch(/^ey/);
    expect(form()).not.toHaveProperty("client_id");
  });

  test("check refuses a key file that holds no private key, at its key", async () => {
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const text = publicKey.export({ format: "pem", type: "spki" }).toString();
    const config = {
      token_url: idp.tokenUrl,
      identity: { type: "private-key-jwt", client_id: "c", signing_key_file: "key.pem" },
    };
    const file = merge(settings(), outbound({ name: "token-exchange", config }));
    const { code, stderr } = await runWith("check", file, { files: { "key.pem": text } });
    expect(code, stderr).toBe(2);
    expect(stderr).toMatch(/config\.identity\.signing_key_file: .*no private key/);
  });

  test("E15: an actor token goes with the exchange", async () => {
    const here = await own(exchanging({ routes: { rules }, actor_token_file: "actor" }));
    await writeFile(here.path("actor"), "actor-token\n");
    await eventually(async () => (await here.health("/readyz")).status === 200, 10_000);
    await call("target.test", await subject("acted-for"), here);
    expect(form()).toMatchObject({ actor_token: "actor-token" });
    expect(form()["actor_token_type"]).toMatch(/^urn:ietf:params:oauth:token-type:/);
  });

  test("E25, CRED-10: credential files make it ready, and their rotation is noticed", async () => {
    const here = await own(
      exchanging({
        routes: { rules },
        identity: { type: "client-secret", client_id_file: "id", client_secret_file: "secret" },
      }),
    );
    const notReady = await here.health("/readyz");
    expect(notReady.status).toBe(503);
    expect(notReady.text).toContain("outbound plugin not ready: token-exchange");
    const asked = idp.tokenCalls.length;
    const early = await call("target.test", await subject("early"), here);
    expect(early.answer.status).toBe(503);
    expect(idp.tokenCalls).toHaveLength(asked);
    await writeFile(here.path("id"), "file-client\n");
    await writeFile(here.path("secret"), "first-secret\n");
    await eventually(async () => (await here.health("/readyz")).status === 200, 10_000);
    await call("target.test", await subject("from-file"), here);
    expect(form()).toMatchObject({ client_id: "file-client", client_secret: "first-secret" });
    await writeFile(here.path("secret"), "second-secret\n");
    await eventually(async () => {
      await call("target.test", await subject(`rotated-${Date.now()}`), here);
      return form()["client_secret"] === "second-secret";
    }, 10_000);
  });

  test("E18, E19, E20: the endpoint is derived from the provider", async () => {
    const here = await own(
      exchanging({
        token_url: undefined,
        provider: "keycloak",
        provider_url: `${idp.origin}/`,
        provider_realm: "test",
        keycloak_url: "http://127.0.0.1:9",
        routes: { rules },
      }),
    );
    await call("target.test", await subject("derived"), here);
    expect(idp.tokenCalls.at(-1)?.path).toBe("/realms/test/protocol/openid-connect/token");
  });
});

describe("tunnels", () => {
  test("CONNECT to a host with an exchange route is opened without any exchange", async () => {
    const asked = idp.tokenCalls.length;
    const { client, answer } = await openTunnel(proxy.forward, `target.test:${target.port}`);
    await own(client);
    expect(answer.status).toBe(200);
    expect(idp.tokenCalls).toHaveLength(asked);
  });

  test("CRED-05: a refusal reflects nothing of the request", async () => {
    const token = "reflect-me-not";
    idp.tokenReplies.push({ status: 400, body: { error: "invalid_target" } });
    const { answer } = await call("fails.test", token);
    expect(answer.head.text + answer.text).not.toContain(token);
  });

  test("CRED-05: TRACE never comes back with the credential", async () => {
    const { request } = await import("../support/http-client.ts");
    const answer = await request(proxy.forward, {
      method: "TRACE",
      target: `http://target.test:${target.port}/trace`,
      headers: { Authorization: `Bearer ${await subject("trace")}` },
    });
    expect(answer.text).not.toContain("exchanged");
    expect([200, 400, 405]).toContain(answer.status);
  });
});

describe("a token for more than was asked for", () => {
  test.each(["no bearer", "a bearer"])("with %s is not sent", async (what) => {
    const here = await own(
      exchanging({
        no_token_policy: "client-credentials",
        routes: {
          rules: [
            { host: "target.test", target_audience: "weather-tool" },
            {
              host: "elsewhere.test",
              target_audience: "weather-tool",
              issued_audiences: "includes",
            },
          ],
        },
      }),
    );
    const wide = await idp.token({ claims: { aud: ["archive", "tools", "weather-tool"] } });
    idp.issue = () => ({ access_token: wide, token_type: "Bearer", expires_in: 300 });
    const bearer = what === "a bearer" ? await subject("wide") : undefined;
    const { answer, authorization } = await call("target.test", bearer, here);
    expect(answer.status).toBe(503);
    expect(authorization).toBeUndefined();
    const allowed = await call("elsewhere.test", bearer, here);
    expect(allowed.authorization).toBe(`Bearer ${wide}`);
  });
});
