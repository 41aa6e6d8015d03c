/** The reverse proxy with jwt-validation: who comes in, and what the agent sees of them. */
import { createHmac } from "node:crypto";
import { exportJWK, exportSPKI, generateKeyPair, importJWK, SignJWT, UnsecuredJWT } from "jose";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get, RawClient, request, type RawResponse } from "../support/http-client.ts";
import { StubIdp, type TokenShape } from "../support/idp.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type Settings } from "../support/program.ts";
import { inbound, merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let agent: HttpOrigin;
let idp: StubIdp;
let proxy: ProxyProcess;

beforeAll(async () => {
  agent = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  proxy = await own(
    guarded(idp, { audience: "agent", allowed_audiences: ["agent-b"] }, [
      { name: "recorder", config: { file: "records" } },
    ]),
  );
});

/** A proxy before the agent with jwt-validation and what comes after it. */
function guarded(
  provider: StubIdp,
  config: Settings,
  after: unknown[] = [],
  over: Settings = {},
): Promise<ProxyProcess> {
  return ProxyProcess.start(
    merge(
      settings(merge({ listener: { reverse_proxy_backend: agent.url, roles: ["reverse"] } }, over)),
      inbound({ name: "jwt-validation", config: { issuer: provider.issuer, ...config } }, ...after),
    ),
  );
}

let counter = 0;

/** A request to a path of its own, so that what the agent saw can be found. */
async function call(
  authorization: string | undefined,
  target = proxy,
): Promise<{ answer: RawResponse; reached: boolean }> {
  const path = `/call-${(counter += 1)}`;
  const headers = authorization === undefined ? {} : { Authorization: authorization };
  const answer = await get(target.reverse, path, headers);
  return { answer, reached: agent.requestsFor(path).length > 0 };
}

async function expectUnauthorized(
  authorization: string | undefined,
  message = "token validation failed",
): Promise<void> {
  const { answer, reached } = await call(authorization);
  expect(answer.status, answer.text).toBe(401);
  expect(answer.json()).toEqual({
    error: "auth.unauthorized",
    message,
    plugin: "jwt-validation",
  });
  expect(answer.header("www-authenticate")).toMatch(/^Bearer\b/);
  expect(reached).toBe(false);
}

async function expectAllowed(authorization: string, target = proxy): Promise<void> {
  const { answer, reached } = await call(authorization, target);
  expect(answer.status, answer.text).toBe(200);
  expect(reached).toBe(true);
}

/** What jwt-validation said about the last message. */
async function lastInvocation(): Promise<Settings> {
  const { events } = (await proxy.sessions("/v1/sessions/default")).json() as {
    events: { phase: string; invocations?: { inbound?: Settings[] } }[];
  };
  const event = events.findLast((one) => one.phase !== "response");
  const found = event?.invocations?.inbound?.find((one) => one["plugin"] === "jwt-validation");
  if (found === undefined) throw new Error("no invocation of jwt-validation");
  return found;
}

describe("bypass paths", () => {
  test("D1, J1: /healthz needs no token, and the token of the client passes untouched", async () => {
    const answer = await get(proxy.reverse, "/healthz", { Authorization: "Bearer whatever" });
    expect(answer.status).toBe(200);
    expect(agent.requestFor("/healthz").header("authorization")).toBe("Bearer whatever");
    expect(await lastInvocation()).toMatchObject({ action: "skip", reason: "path_bypass" });
  });

  test.each(["/.well-known/agent.json", "/readyz", "/livez", "/metrics", "/healthz?verbose=true"])(
    "D2: %s is bypassed",
    async (path) => {
      expect((await get(proxy.reverse, path)).status).toBe(200);
    },
  );

  test.each(["/test", "/api/v1/agents", "/", "/metrics/cadvisor", "/.well-known/foo/bar"])(
    "D3: %s is not bypassed",
    async (path) => {
      expect((await get(proxy.reverse, path)).status).toBe(401);
    },
  );

  test.each([
    "//healthz",
    "///.well-known/mcp",
    "/./healthz",
    "/foo/../healthz",
    "/healthz/../admin",
    "/healthz/%2e%2e/admin",
    "/healthz%2f..%2fadmin",
    "/healthz%2F..%2Fadmin",
    "/healthz/..%2fadmin",
    "/HEALTHZ",
    "/healthz;/admin",
    "/healthz;x=1",
    "/healthz\\..\\admin",
    "/healthz/..;/admin",
    "/admin?/healthz",
    "/admin#/healthz",
    "/.well-known/../admin",
    "/.well-known/%2e%2e",
    "/.well-known/x%2f..%2f..%2fadmin",
  ])("JWT-08: %s is no way around the door", async (path) => {
    const before = agent.requests.length;
    const answer = await get(proxy.reverse, path);
    expect([400, 401]).toContain(answer.status);
    expect(agent.requests).toHaveLength(before);
  });

  test.each([
    ["X-Forwarded-Uri", "/healthz"],
    ["X-Original-URL", "/healthz"],
    ["X-Envoy-Original-Path", "/healthz"],
    ["User-Agent", "kube-probe/1.30"],
    ["X-HTTP-Method-Override", "OPTIONS"],
  ])("JWT-09: %s opens nothing", async (name, value) => {
    const answer = await get(proxy.reverse, "/private", { [name]: value });
    expect(answer.status).toBe(401);
  });

  test("an absolute-form target is judged by its own path", async () => {
    const answer = await get(proxy.reverse, "http://agent.test/private?/healthz");
    expect([400, 401]).toContain(answer.status);
  });
});

describe("the Authorization field", () => {
  test("D6, J1: no Authorization is 401 auth.unauthorized with a challenge that names no error", async () => {
    await expectUnauthorized(undefined, "missing Authorization header");
    expect(await lastInvocation()).toMatchObject({ action: "deny", reason: "no_header" });
    const { answer } = await call(undefined);
    // RFC 6750 section 3.1: a request without credentials gets no error code.
    expect(answer.header("www-authenticate")).not.toContain("error=");
  });

  test("D7: another scheme is 401", async () => {
    await expectUnauthorized("Basic abc", "invalid Authorization header format");
    expect(await lastInvocation()).toMatchObject({ action: "deny", reason: "malformed_header" });
  });

  test("JWT-01: an empty bearer is 401", async () => {
    await expectUnauthorized("Bearer ", "invalid Authorization header format");
  });

  test("JWT-01: a token in the query is none", async () => {
    const answer = await get(proxy.reverse, `/query?access_token=${await idp.token()}`);
    expect(answer.status).toBe(401);
  });

  test("JWT-01: two Authorization fields are refused, in either order", async () => {
    const good = `Bearer ${await idp.token()}`;
    for (const pair of [
      [good, "Bearer x"],
      ["Bearer x", good],
      [good, good],
    ]) {
      const before = agent.requests.length;
      const answer = await request(proxy.reverse, {
        target: "/two",
        headers: pair.map((value) => ["Authorization", value] as const),
      });
      expect([400, 401]).toContain(answer.status);
      expect(agent.requests).toHaveLength(before);
    }
  });

  test("JWT-01: two tokens joined by a comma are 401", async () => {
    const good = await idp.token();
    const { answer, reached } = await call(`Bearer ${good}, Bearer ${good}`);
    expect(answer.status).toBe(401);
    expect(reached).toBe(false);
  });

  test("D8: the scheme's case does not matter", async () => {
    await expectAllowed(`bearer ${await idp.token()}`);
    await expectAllowed(`BEARER ${await idp.token()}`);
  });
});

describe("tokens", () => {
  const shaped = async (shape: TokenShape): Promise<string> => `Bearer ${await idp.token(shape)}`;
  const soon = (seconds: number): number => Math.floor(Date.now() / 1000) + seconds;

  test("D9, J1: a good token passes, unchanged, with the caller's identity", async () => {
    const authorization = await shaped({});
    await expectAllowed(authorization);
    expect(agent.requests.at(-1)?.header("authorization")).toBe(authorization);
    expect(await lastInvocation()).toMatchObject({
      action: "allow",
      reason: "authorized",
      details: { token_subject: "alice", token_audience: "agent", token_scopes: "openid,profile" },
    });
    const records = await proxy.records("records");
    expect(records.findLast((line) => line["hook"] === "request")).toMatchObject({
      subject: "alice",
    });
  });

  test("D27: several audiences are joined by a comma in the record", async () => {
    await expectAllowed(await shaped({ claims: { aud: ["x", "agent"] } }));
    expect(await lastInvocation()).toMatchObject({ details: { token_audience: "x,agent" } });
  });

  test("D15, D17: one matching audience of an array is enough", async () => {
    await expectAllowed(await shaped({ claims: { aud: ["other", "agent"] } }));
  });

  test("D16: any of the accepted audiences is enough", async () => {
    await expectAllowed(await shaped({ claims: { aud: "agent-b" } }));
  });

  const bad: readonly (readonly [name: string, shape: () => TokenShape])[] = [
    ["D11: an expired token", () => ({ claims: { exp: soon(-5), iat: soon(-300) } })],
    ["D12: another issuer", () => ({ claims: { iss: "http://evil.test/realms/test" } })],
    ["JWT-04: the issuer with a slash", () => ({ claims: { iss: `${idp.issuer}/` } })],
    ["JWT-04: the issuer in capitals", () => ({ claims: { iss: idp.issuer.toUpperCase() } })],
    ["D13, JWT-12: another audience", () => ({ claims: { aud: "other-agent" } })],
    ["D13: no audience", () => ({ without: ["aud"] })],
    ["D13: an empty audience list", () => ({ claims: { aud: [] } })],
    ["D16: none of the accepted audiences", () => ({ claims: { aud: ["a", "b"] } })],
    ["Z22, JWT-04: no exp", () => ({ without: ["exp"] })],
    ["JWT-04: nbf in the future", () => ({ claims: { nbf: soon(300) } })],
    ["JWT-04: iat far in the future", () => ({ claims: { iat: soon(86_400), exp: soon(90_000) } })],
    ["JWT-04: exp as text", () => ({ claims: { exp: "9999999999" as unknown as number } })],
    ["JWT-04: exp as an object", () => ({ claims: { exp: {} as unknown as number } })],
    ["no issuer", () => ({ without: ["iss"] })],
    ["a DPoP-bound token as a bearer token", () => ({ claims: { cnf: { jkt: "k".repeat(43) } } })],
    ["a token bound to a TLS client", () => ({ claims: { cnf: { "x5t#S256": "x".repeat(43) } } })],
    ["a token bound in a way nobody knows", () => ({ claims: { cnf: {} } })],
    ["JWT-03: a kid with a path", () => ({ header: { kid: "../../etc/passwd" } })],
    ["JWT-03: a kid with SQL", () => ({ header: { kid: "x' OR '1'='1" } })],
    ["JWT-03: a kid of 10 KB", () => ({ header: { kid: "k".repeat(10_000) } })],
  ];
  test.each(bad)("%s is 401", async (_name, shape) => {
    await expectUnauthorized(await shaped(shape()));
  });

  test("D10: an invalid token names the error in its challenge", async () => {
    const { answer } = await call("Bearer not.a.token");
    expect(answer.status).toBe(401);
    expect(answer.header("www-authenticate")).toContain('error="invalid_token"');
    expect(await lastInvocation()).toMatchObject({ action: "deny", reason: "jwt_failed" });
  });

  test("D10, D14: a token signed by another key is 401, also with our kid", async () => {
    const { privateKey } = await generateKeyPair("ES256");
    const token = await new SignJWT({ iss: idp.issuer, aud: "agent", sub: "mallory" })
      .setProtectedHeader({ alg: "ES256", kid: idp.publicJwk.kid ?? "" })
      .setIssuedAt()
      .setExpirationTime("5m")
      .sign(privateKey);
    await expectUnauthorized(`Bearer ${token}`);
  });

  test("D14: a changed payload is 401", async () => {
    const [header = "", , signature = ""] = (await idp.token()).split(".");
    const payload = Buffer.from(
      JSON.stringify({ iss: idp.issuer, aud: "agent", sub: "root", exp: soon(300) }),
    ).toString("base64url");
    await expectUnauthorized(`Bearer ${header}.${payload}.${signature}`);
  });

  test("JWT-02: alg none is 401", async () => {
    const token = new UnsecuredJWT({ iss: idp.issuer, aud: "agent", sub: "a", exp: soon(300) });
    await expectUnauthorized(`Bearer ${token.encode()}`);
  });

  test("JWT-02: HS256 with the public key as its secret is 401", async () => {
    const key = await importJWK(idp.publicJwk, "ES256", { extractable: true });
    if (key instanceof Uint8Array) throw new Error("not a public key");
    const encode = (value: unknown): string =>
      Buffer.from(JSON.stringify(value)).toString("base64url");
    for (const secret of [await exportSPKI(key), JSON.stringify(await exportJWK(key))]) {
      const head = encode({ alg: "HS256", kid: idp.publicJwk.kid });
      const body = encode({ iss: idp.issuer, aud: "agent", sub: "a", exp: soon(300) });
      const mac = createHmac("sha256", secret).update(`${head}.${body}`).digest("base64url");
      await expectUnauthorized(`Bearer ${head}.${body}.${mac}`);
    }
  });

  test("JWT-03: keys that the token itself brings are ignored", async () => {
    const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
    const jwk = await exportJWK(publicKey);
    const evil = await own(StubIdp.start());
    const extras: Readonly<Record<string, unknown>>[] = [
      { jwk },
      { jku: evil.jwksUrl, kid: "evil" },
      { x5u: `${evil.origin}/x5u` },
    ];
    for (const extra of extras) {
      const token = await new SignJWT({ iss: idp.issuer, aud: "agent", sub: "m" })
        .setProtectedHeader({ alg: "ES256", ...extra })
        .setExpirationTime("5m")
        .setIssuedAt()
        .sign(privateKey);
      await expectUnauthorized(`Bearer ${token}`);
    }
    expect(evil.jwksCalls).toBe(0);
  });

  test.each([
    [
      "a JWE",
      "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA",
    ],
    ["a detached payload", "eyJhbGciOiJFUzI1NiJ9..AAAA"],
    ["an opaque token", "2YotnFZFEjr1zCsicMWpAA"],
    ["dots alone", ".."],
    ["not base64", "a!b.c!d.e!f"],
  ])("JWT-07: %s is 401", async (_name, token) => {
    const { answer, reached } = await call(`Bearer ${token}`);
    expect(answer.status).toBe(401);
    expect(reached).toBe(false);
  });

  test("JWT-07: a token of 1 MB is 401 or 431 and closes nothing else", async () => {
    const { answer } = await call(`Bearer ${"a".repeat(1_000_000)}`);
    expect([401, 431]).toContain(answer.status);
    await expectAllowed(`Bearer ${await idp.token()}`);
  });

  test("no part of any token is in the log", async () => {
    const token = await idp.token({ claims: { sub: "logged" } });
    await expectAllowed(`Bearer ${token}`);
    await expectUnauthorized(`Bearer ${token}x`);
    expect(proxy.stderr).not.toContain(token.slice(0, 40));
    expect((await proxy.sessions("/v1/sessions/default")).text).not.toContain(token.slice(0, 40));
  });

  test("a token stops being good when it expires, although it was verified before", async () => {
    const token = await idp.token({ claims: { exp: soon(2), sub: "short" } });
    await expectAllowed(`Bearer ${token}`);
    await eventually(async () => (await call(`Bearer ${token}`)).answer.status === 401);
  });
});

describe("what the agent sees", () => {
  const withToken = async (headers: Readonly<Record<string, string>> = {}) => ({
    Authorization: `Bearer ${await idp.token()}`,
    ...headers,
  });

  test("J2: a client of IPv4 has its own address, where the listener is on every one", async () => {
    const over = { listener: { reverse_proxy_addr: "[::]:0" } };
    const open = await own(guarded(idp, { audience: "agent", bypass_paths: ["/open"] }, [], over));
    expect((await get({ ...open.reverse, host: "127.0.0.1" }, "/open")).status).toBe(200);
    const [seen] = agent.requestsFor("/open");
    expect(seen?.header("x-forwarded-for")).toBe("127.0.0.1");
    const bad = await own(RawClient.connect({ ...open.reverse, host: "127.0.0.1" }));
    await bad.send("GET / HTTP/1.1\r\nbad field\r\n\r\n").response();
    expect(await open.log(({ msg }) => msg === "refused")).toMatchObject({ client: "127.0.0.1" });
  });

  test("J2: Host is the backend's, and the client's goes into X-Forwarded-Host", async () => {
    await get(proxy.reverse, "/hosted", await withToken({ Host: "agent.example" }));
    const { head } = agent.requestFor("/hosted");
    expect(head.all("host")).toEqual([agent.authority]);
    expect(head.header("x-forwarded-host")).toBe("agent.example");
    expect(head.header("x-forwarded-proto")).toBe("http");
    expect(head.header("x-forwarded-for")).toBe("127.0.0.1");
  });

  test("X-Forwarded-For is appended to", async () => {
    await get(proxy.reverse, "/chained", await withToken({ "X-Forwarded-For": "10.9.8.7" }));
    expect(agent.requestFor("/chained").header("x-forwarded-for")).toBe("10.9.8.7, 127.0.0.1");
  });

  test("J4: other fields pass unchanged", async () => {
    await get(proxy.reverse, "/untouched", await withToken({ "X-Untouched": "yes" }));
    expect(agent.requestFor("/untouched").header("x-untouched")).toBe("yes");
  });

  test("J6: Accept-Encoding is kept when no plugin reads bodies", async () => {
    await get(proxy.reverse, "/encoded", await withToken({ "Accept-Encoding": "gzip, br" }));
    expect(agent.requestFor("/encoded").header("accept-encoding")).toBe("gzip, br");
  });

  test.each(["X-User", "x_user", "X.User", "X-Forwarded-User", "x_forwarded_email", "REMOTE_USER"])(
    "JWT-10: the client's own %s is removed",
    async (name) => {
      const path = `/identity-${name}`;
      await get(proxy.reverse, path, await withToken({ [name]: "root" }));
      expect(agent.requestFor(path).head.text).not.toContain("root");
    },
  );

  test("JWT-10: identity headers are removed on bypassed paths too", async () => {
    await get(proxy.reverse, "/readyz?identity", { "X-User": "root" });
    expect(agent.requests.at(-1)?.head.text).not.toContain("root");
  });

  test("J12: a plugin is told once how a message ended, allowed or denied", async () => {
    await get(proxy.reverse, "/finish", await withToken());
    const finishes = async (): Promise<Settings[]> =>
      (await proxy.records("records")).filter(
        (line) => line["hook"] === "finish" && line["path"] === "/finish",
      );
    await eventually(async () => (await finishes()).length > 0);
    expect(await finishes()).toMatchObject([{ status: 200 }]);
  });

  test("a backend that resets is 502, and the next request is served", async () => {
    agent.on("/reset", ({ connection }) => connection.reset());
    const answer = await request(proxy.reverse, {
      method: "POST",
      target: "/reset",
      headers: await withToken(),
      body: "x",
    });
    expect(answer.status).toBe(502);
    await expectAllowed(`Bearer ${await idp.token()}`);
  });
});

describe("with plugins that change the message", () => {
  let changing: ProxyProcess;
  beforeAll(async () => {
    changing = await own(
      ProxyProcess.start(
        merge(
          settings({
            listener: { reverse_proxy_backend: agent.url, roles: ["reverse"] },
            limits: { response_timeout: "600ms", max_body: "1MiB" },
          }),
          inbound(
            { name: "body-recorder", config: { file: "records" } },
            {
              name: "header-mutator",
              config: { set: { "X-Api-Key": "REALKEY" }, delete: ["Authorization"] },
            },
            { name: "request-body-writer", config: { body: '{"sanitized":"payload"}' } },
            { name: "denier", config: { path: "/denied" } },
          ),
        ),
      ),
    );
  });

  test("J3: what a plugin sets and deletes reaches the agent", async () => {
    await get(changing.reverse, "/j3", { Authorization: "Bearer x", "X-Api-Key": "PLACEHOLDER" });
    const { head } = agent.requestFor("/j3");
    expect(head.all("x-api-key")).toEqual(["REALKEY"]);
    expect(head.header("authorization")).toBeUndefined();
  });

  test("J5: a replaced body arrives with its own length and no coding", async () => {
    await request(changing.reverse, {
      method: "POST",
      target: "/j5",
      headers: { "Content-Encoding": "identity" },
      body: "original",
    });
    const seen = agent.requestFor("/j5");
    expect(seen.text).toBe('{"sanitized":"payload"}');
    expect(seen.head.all("content-length")).toEqual(["23"]);
    expect(seen.header("content-encoding")).toBeUndefined();
  });

  test("J5: a body over the limit is 413", async () => {
    const answer = await request(changing.reverse, {
      method: "POST",
      target: "/j5-large",
      body: Buffer.alloc(1024 * 1024 + 1),
    });
    expect(answer.status).toBe(413);
    expect(agent.requestsFor("/j5-large")).toEqual([]);
  });

  test("J6: Accept-Encoding is taken off where a plugin reads bodies", async () => {
    await get(changing.reverse, "/j6", { "Accept-Encoding": "gzip" });
    expect(agent.requestFor("/j6").header("accept-encoding") ?? "identity").toBe("identity");
    for (const [path, value] of [
      ["/j6-identity", "identity"],
      ["/j6-nothing-else", "identity;q=1, *;q=0"],
    ] as const) {
      await get(changing.reverse, path, { "Accept-Encoding": value });
      expect(agent.requestFor(path).header("accept-encoding")).toBe(value);
    }
  });

  test("J12: a denied message is finished once, by the plugins that were asked", async () => {
    await get(changing.reverse, "/denied");
    const finishes = await eventually(async () => {
      const found = (await changing.records("records")).filter(
        (line) => line["hook"] === "finish" && line["path"] === "/denied",
      );
      return found.length > 0 && found;
    });
    expect(finishes).toMatchObject([{ status: 403, deniedBy: "denier" }]);
  });

  test("a silent backend is 504", async () => {
    agent.on("/silent", () => {});
    const answer = await get(changing.reverse, "/silent");
    expect(answer.status).toBe(504);
    expect(answer.json()).toMatchObject({ error: "upstream.timeout" });
  });

  test("a backend that is not there is 502", async () => {
    const gone = await HttpOrigin.launch();
    const { url } = gone;
    await gone.close();
    const alone = await own(
      ProxyProcess.start(settings({ listener: { reverse_proxy_backend: url } })),
    );
    const answer = await get(alone.reverse, "/");
    expect(answer.status).toBe(502);
    expect(answer.json()).toMatchObject({ error: "upstream.refused" });
  });
});

describe("a token as long as a head", () => {
  const many = (count: number): TokenShape => ({
    claims: { groups: Array.from({ length: count }, (_, at) => `/tenants/group-${at}`) },
  });

  test.each([700, 1_100, 1_900])("with %i groups is accepted", async (count) => {
    const token = await idp.token(many(count));
    expect(token.length).toBeGreaterThan(count * 22);
    await expectAllowed(`Bearer ${token}`);
    await expectAllowed(`Bearer ${token}`);
  });

  test("beyond limits.max_header_bytes is 431 with the key, and passes where the key allows it", async () => {
    const token = await idp.token(many(4_000));
    const { answer, reached } = await call(`Bearer ${token}`);
    expect(answer.status).toBe(431);
    expect(answer.text).toContain("limits.max_header_bytes");
    expect(reached).toBe(false);
    const wide = await own(
      guarded(idp, { audience: "agent" }, [], { limits: { max_header_bytes: "256KiB" } }),
    );
    await expectAllowed(`Bearer ${token}`, wide);
  });
});

describe("before there is a token", () => {
  const metadata = "https://agent.example.test/.well-known/oauth-protected-resource/mcp";
  const preflight = {
    Origin: "https://ui.example.test",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization",
  };
  let open: ProxyProcess;
  beforeAll(async () => {
    open = await own(
      guarded(idp, {
        audience: "agent",
        cors_preflight: "pass",
        resource_metadata: metadata,
        required_scopes: ["write"],
      }),
    );
  });

  async function ask(
    target: ProxyProcess,
    method: string,
    headers: Readonly<Record<string, string>>,
  ): Promise<{ answer: RawResponse; reached: boolean }> {
    const path = `/call-${(counter += 1)}`;
    const answer = await request(target.reverse, {
      method,
      target: path,
      headers: [["Host", "agent.test"], ...Object.entries(headers)],
    });
    return { answer, reached: agent.requestsFor(path).length > 0 };
  }

  test.each(["/mcp", "", "/servers/mcp"])(
    "the metadata of a protected resource at %j needs none",
    async (resource) => {
      const path = `/.well-known/oauth-protected-resource${resource}`;
      expect((await get(proxy.reverse, path)).status).toBe(200);
    },
  );

  test("the challenge names the metadata where the file does", async () => {
    const bare = await call(undefined, open);
    expect(bare.answer.status).toBe(401);
    expect(bare.answer.header("www-authenticate")).toBe(
      `Bearer realm="authbridge", resource_metadata="${metadata}"`,
    );
    const bad = await call("Bearer a.b.c", open);
    expect(bad.answer.header("www-authenticate")).toBe(
      `Bearer realm="authbridge", resource_metadata="${metadata}", error="invalid_token"`,
    );
    const poor = await call(`Bearer ${await idp.token()}`, open);
    expect(poor.answer.status).toBe(403);
    expect(poor.answer.header("www-authenticate")).toContain(`resource_metadata="${metadata}"`);
    expect((await call(undefined)).answer.header("www-authenticate")).not.toContain("resource");
  });

  test("a preflight reaches the agent where the file lets it pass, and only there", async () => {
    expect(await ask(open, "OPTIONS", preflight)).toMatchObject({
      answer: { status: 200 },
      reached: true,
    });
    expect(await ask(proxy, "OPTIONS", preflight)).toMatchObject({
      answer: { status: 401 },
      reached: false,
    });
  });

  const { Origin, "Access-Control-Request-Method": asked } = preflight;
  test.each<[string, string, Readonly<Record<string, string>>]>([
    ["a GET with its fields", "GET", preflight],
    ["a POST with its fields", "POST", preflight],
    ["OPTIONS alone", "OPTIONS", {}],
    ["OPTIONS without a method", "OPTIONS", { Origin }],
    ["OPTIONS without an origin", "OPTIONS", { "Access-Control-Request-Method": asked }],
    ["one with a token that is none", "OPTIONS", { ...preflight, Authorization: "Bearer a.b.c" }],
  ])("%s is no preflight", async (_what, method, headers) => {
    const { answer, reached } = await ask(open, method, headers);
    expect(answer.status).toBe(401);
    expect(reached).toBe(false);
  });
});

describe("readiness", () => {
  const ready = async (target: ProxyProcess): Promise<number> =>
    (await target.health("/readyz")).status;

  test("waits for the first keys, asks again without traffic, and /livez answers meanwhile", async () => {
    const provider = await own(StubIdp.start());
    const failure = { status: 500, body: "out of order" };
    provider.jwksReplies.push(...Array.from({ length: 2 }, () => failure));
    const here = await own(guarded(provider, { audience: "agent" }));
    const before = await here.health("/readyz");
    if (provider.jwksReplies.length > 0) {
      expect(before.status).toBe(503);
      expect(before.text).toContain("jwt-validation");
    }
    expect((await here.health("/livez")).status).toBe(200);
    expect((await here.health("/healthz")).status).toBe(200);
    await eventually(async () => (await ready(here)) === 200, 20_000);
    expect(provider.jwksReplies).toHaveLength(0);
    await expectAllowed(`Bearer ${await provider.token()}`, here);
  });

  test("of a provider that is not there is 503, with wait_for_keys: false 200", async () => {
    const gone = await StubIdp.start();
    const { issuer } = gone;
    await gone.close();
    const config = { audience: "agent", issuer };
    const waiting = await own(guarded(idp, config));
    expect(await ready(waiting)).toBe(503);
    const eager = await own(guarded(idp, { ...config, wait_for_keys: false }));
    expect(await ready(eager)).toBe(200);
    expect((await call(`Bearer ${await idp.token()}`, eager)).answer.status).toBe(503);
  });

  test("is not lost when the provider goes away later", async () => {
    const provider = await StubIdp.start();
    const here = await own(guarded(provider, { audience: "agent" }));
    await eventually(async () => (await ready(here)) === 200, 20_000);
    await provider.close();
    expect(await ready(here)).toBe(200);
  });
});

describe("the key set", () => {
  test("Z1: a key that was rotated in after the first request is accepted at once", async () => {
    const provider = await own(StubIdp.start());
    const here = await own(guarded(provider, { audience: "agent" }));
    await expectAllowed(`Bearer ${await provider.token()}`, here);
    const old = await provider.token({ claims: { sub: "before" } });
    await provider.rotate({ keepOld: true });
    await expectAllowed(`Bearer ${await provider.token()}`, here);
    await expectAllowed(`Bearer ${old}`, here);
  });

  test("a key that took the place of another under its kid is accepted at once", async () => {
    const provider = await own(StubIdp.start());
    const here = await own(guarded(provider, { audience: "agent" }));
    const old = await provider.token();
    await expectAllowed(`Bearer ${old}`, here);
    await provider.rotate({ kid: "key-1" });
    await expectAllowed(`Bearer ${await provider.token()}`, here);
    expect((await call(`Bearer ${old}`, here)).answer.status).toBe(401);
  });

  test("rotations that follow each other are accepted, also after a token of an unknown key", async () => {
    const provider = await own(StubIdp.start());
    const here = await own(guarded(provider, { audience: "agent" }));
    await expectAllowed(`Bearer ${await provider.token()}`, here);
    const unknown = await provider.token({ header: { kid: "nobody" } });
    expect((await call(`Bearer ${unknown}`, here)).answer.status).toBe(401);
    for (let count = 0; count < 4; count += 1) {
      const old = await provider.token({ claims: { jti: `${count}` } });
      await provider.rotate();
      await expectAllowed(`Bearer ${await provider.token()}`, here);
      expect((await call(`Bearer ${old}`, here)).answer.status).toBe(401);
    }
  });

  test("JWT-05: a flood of unknown kids fetches the key set a few times at most", async () => {
    const provider = await own(StubIdp.start());
    const here = await own(guarded(provider, { audience: "agent" }));
    await expectAllowed(`Bearer ${await provider.token()}`, here);
    const tokens = await Promise.all(
      Array.from({ length: 60 }, (_x, count) =>
        provider.token({ header: { kid: `kid-${count}` } }),
      ),
    );
    const answers = await Promise.all(tokens.map((token) => call(`Bearer ${token}`, here)));
    expect(new Set(answers.map(({ answer }) => answer.status))).toEqual(new Set([401]));
    expect(provider.jwksCalls).toBeLessThanOrEqual(3);
    await expectAllowed(`Bearer ${await provider.token()}`, here);
  });

  test("Z2, JWT-06: 503 while the keys could never be fetched, 200 once they can", async () => {
    const provider = await own(StubIdp.start());
    for (let count = 0; count < 3; count += 1) {
      provider.jwksReplies.push({ status: 500, body: "out of order" });
    }
    const here = await own(guarded(provider, { audience: "agent" }));
    const token = await provider.token();
    const { answer, reached } = await call(`Bearer ${token}`, here);
    expect(answer.status).toBe(503);
    expect(answer.json()).toMatchObject({ error: "upstream.unreachable" });
    expect(reached).toBe(false);
    await eventually(
      async () => (await call(`Bearer ${token}`, here)).answer.status === 200,
      15_000,
    );
  });

  test("JWT-06: the last good keys serve while the provider is gone", async () => {
    const provider = await StubIdp.start();
    const here = await own(guarded(provider, { audience: "agent" }));
    await expectAllowed(`Bearer ${await provider.token()}`, here);
    const later = await provider.token({ claims: { sub: "bob" } });
    await provider.close();
    await expectAllowed(`Bearer ${later}`, here);
  });

  test.each([
    ["no keys", { body: { keys: [] } }],
    ["10 MB", { body: "x".repeat(10_000_000) }],
    ["HTML", { body: "<html>login</html>", headers: { "content-type": "text/html" } }],
    [
      "a redirect to somewhere private",
      { status: 302, body: "", headers: { location: "http://169.254.169.254/keys" } },
    ],
  ])("JWT-06: a provider that answers %s lets nobody in", async (_name, answer) => {
    const provider = await own(StubIdp.start());
    for (let count = 0; count < 20; count += 1) provider.jwksReplies.push(answer);
    const here = await own(guarded(provider, { audience: "agent" }));
    const { answer: said, reached } = await call(`Bearer ${await provider.token()}`, here);
    expect([401, 503]).toContain(said.status);
    expect(reached).toBe(false);
  });

  test("OpenID Connect discovery finds the keys", async () => {
    const provider = await own(StubIdp.start());
    const here = await own(guarded(provider, { audience: "agent", discovery: true }));
    await expectAllowed(`Bearer ${await provider.token()}`, here);
  });

  test("D20, D21, D23: where the keys are follows from the issuer, keycloak_url or jwks_url", async () => {
    const provider = await own(StubIdp.start());
    const fromKeycloak = await own(
      guarded(provider, {
        audience: "agent",
        issuer: "http://public.test/realms/test",
        keycloak_url: provider.origin,
        keycloak_realm: "test",
      }),
    );
    const token = await provider.token({ claims: { iss: "http://public.test/realms/test" } });
    await expectAllowed(`Bearer ${token}`, fromKeycloak);
    const explicit = await own(
      guarded(provider, {
        audience: "agent",
        jwks_url: provider.jwksUrl,
        keycloak_url: "http://127.0.0.1:9",
        keycloak_realm: "nowhere",
      }),
    );
    await expectAllowed(`Bearer ${await provider.token()}`, explicit);
  });

  test("D22: half of the keycloak keys is no address: the issuer's is used", async () => {
    const provider = await own(StubIdp.start());
    const here = await own(guarded(provider, { audience: "agent", keycloak_realm: "other" }));
    await expectAllowed(`Bearer ${await provider.token()}`, here);
  });
});

describe("algorithms and extensions", () => {
  test("JWT-02: an algorithm outside the list and a critical extension nobody knows are 401", async () => {
    const { privateKey, publicKey } = await generateKeyPair("ES256");
    const keys = [{ ...(await exportJWK(publicKey)), kid: "k", alg: "ES256" }];
    const keyServer = await own(HttpOrigin.launch(() => reply(200, JSON.stringify({ keys }))));
    const issuer = "http://issuer.test";
    const config = { issuer, audience: "agent", jwks_url: `${keyServer.url}/keys` };
    const token = (header: Readonly<Record<string, unknown>>, crit: Record<string, boolean>) =>
      new SignJWT({ iss: issuer, aud: "agent", sub: "a" })
        .setProtectedHeader({ alg: "ES256", kid: "k", ...header })
        .setExpirationTime("5m")
        .setIssuedAt()
        .sign(privateKey, { crit });
    const open = await own(guarded(idp, config));
    await expectAllowed(`Bearer ${await token({}, {})}`, open);
    const critical = await token({ crit: ["x"], x: 1 }, { x: true });
    expect((await call(`Bearer ${critical}`, open)).answer.status).toBe(401);
    const strict = await own(guarded(idp, { ...config, algorithms: ["RS256"] }));
    expect((await call(`Bearer ${await token({}, {})}`, strict)).answer.status).toBe(401);
  });
});

describe("options", () => {
  test("required scopes and claims, clock skew, custom bypass paths, missing exp allowed", async () => {
    const provider = await own(StubIdp.start());
    const here = await own(
      guarded(provider, {
        audience: "agent",
        clock_skew: "30s",
        require_exp: false,
        required_scopes: ["profile"],
        required_claims: { tenant: ["a", "b"] },
        bypass_paths: ["/public/*", "/status"],
      }),
    );
    const good = { tenant: "a" };
    await expectAllowed(`Bearer ${await provider.token({ claims: good })}`, here);
    const past = Math.floor(Date.now() / 1000) - 10;
    await expectAllowed(`Bearer ${await provider.token({ claims: { ...good, exp: past } })}`, here);
    await expectAllowed(`Bearer ${await provider.token({ claims: good, without: ["exp"] })}`, here);
    const lacking = await call(
      `Bearer ${await provider.token({ claims: { ...good, scope: "openid" } })}`,
      here,
    );
    expect(lacking.answer.status).toBe(403);
    expect(lacking.answer.header("www-authenticate")).toContain("insufficient_scope");
    const foreign = await call(`Bearer ${await provider.token({ claims: { tenant: "c" } })}`, here);
    expect([401, 403]).toContain(foreign.answer.status);
    // D5
    expect((await get(here.reverse, "/public/index.html")).status).toBe(200);
    expect((await get(here.reverse, "/status")).status).toBe(200);
    expect((await get(here.reverse, "/private/data")).status).toBe(401);
    expect((await get(here.reverse, "/healthz")).status).toBe(401);
  });

  test("D24, D26: without any audience key the file of the operator is the audience, and readiness waits for it", async () => {
    const provider = await own(StubIdp.start());
    const here = await own(guarded(provider, { audience_file: "client-id.txt" }));
    expect((await here.health("/readyz")).status).toBe(503);
    const early = await call(`Bearer ${await provider.token()}`, here);
    expect(early.answer.status).toBe(503);
    expect(early.answer.json()).toMatchObject({
      error: "upstream.unreachable",
      message: "identity not yet configured (credentials pending)",
    });
    const { writeFile } = await import("node:fs/promises");
    await writeFile(here.path("client-id.txt"), "agent\n");
    await eventually(async () => (await here.health("/readyz")).status === 200, 10_000);
    await expectAllowed(`Bearer ${await provider.token()}`, here);
    // The file is read again when it changes.
    await writeFile(here.path("client-id.txt"), "renamed\n");
    await eventually(async () => {
      const token = await provider.token({ claims: { aud: "renamed" } });
      return (await call(`Bearer ${token}`, here)).answer.status === 200;
    }, 10_000);
  });

  test("D26: per-host audiences come from the first label of Host, and are ready at once", async () => {
    const provider = await own(StubIdp.start());
    const here = await own(
      guarded(provider, { audience_mode: "per-host", allowed_hosts: ["*.agents.test"] }),
    );
    expect((await here.health("/readyz")).status).toBe(200);
    const bearer = { Authorization: `Bearer ${await provider.token({ claims: { aud: "one" } })}` };
    const at = (host: string) => get(here.reverse, "/per-host", { ...bearer, Host: host });
    expect((await at("one.agents.test")).status).toBe(200);
    expect((await at("two.agents.test")).status).toBe(401);
    expect((await at("one.evil.test")).status).toBe(401);
  });
});

describe("streams", () => {
  test("a slow answer of the agent is passed on as it comes", async () => {
    let go: (() => void) | undefined;
    agent.on("/stream", async ({ connection }) => {
      await connection.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n",
      );
      await new Promise<void>((resolve) => (go = resolve));
      connection.end("data: 2\n\n");
    });
    agent.on("/plain", () => reply(200, "x"));
    const client = await own(RawClient.connect(proxy.reverse));
    client.write({
      target: "/stream",
      headers: { Authorization: `Bearer ${await idp.token()}` },
    });
    expect(await client.reader.until("data: 1\n\n")).toContain("200 OK");
    go?.();
    await client.reader.until("data: 2\n\n");
  });
});
