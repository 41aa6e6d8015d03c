/** Opaque tokens on the way in: looked up at the authorization server, once, and believed for a while. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Provider } from "oidc-provider";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { DpopKey } from "../support/dpop.ts";
import { request, type RawResponse } from "../support/http-client.ts";
import { type IdpReply, StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { oneThread, runWith, type Settings, testThreads } from "../support/program.ts";
import { inbound, merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const identity = { type: "client-secret", client_id: "agent", client_secret: "agent-secret" };
let agent: HttpOrigin;
let idp: StubIdp;
let proxy: ProxyProcess;

beforeAll(async () => {
  agent = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  proxy = await own(ProxyProcess.start(file()));
});

/** What the server says of every token that it knows. */
let claims: Settings = {};

beforeEach(() => {
  claims = {};
  idp.issue = ({ form }) =>
    form.get("token")?.startsWith("known") === true
      ? {
          active: true,
          sub: "alice",
          client_id: "frontend",
          aud: "agent",
          scope: "openid profile",
          exp: Math.floor(Date.now() / 1000) + 300,
          ...claims,
        }
      : { active: false };
});

function file(introspection: Settings = {}, config: Settings = {}): Settings {
  return merge(
    settings({ listener: { reverse_proxy_backend: agent.url, roles: ["reverse"] } }),
    inbound({
      name: "jwt-validation",
      config: {
        issuer: idp.issuer,
        audience: "agent",
        introspection: { identity, ...introspection },
        ...config,
      },
    }),
  );
}

let counter = 0;
const newToken = (): string => `known-${(counter += 1)}`;
const callsFor = (token: string): number =>
  idp.tokenCalls.filter(({ form }) => form.get("token") === token).length;

/** Each thread remembers for itself what was said of a token. */
function expectOneLookUp(token: string): void {
  expect(callsFor(token)).toBeGreaterThan(0);
  expect(callsFor(token)).toBeLessThanOrEqual(testThreads);
}

async function call(
  token: string,
  { through = proxy, fields = {}, scheme = "Bearer" }: Through = {},
): Promise<RawResponse & { readonly path: string }> {
  const path = `/call-${(counter += 1)}`;
  const answer = await request(through.reverse, {
    target: path,
    headers: {
      Host: `${through.reverse.host}:${through.reverse.port}`,
      Authorization: `${scheme} ${token}`,
      ...fields,
    },
  });
  return { ...answer, path };
}

interface Through {
  readonly through?: ProxyProcess;
  readonly fields?: Readonly<Record<string, string>>;
  readonly scheme?: "Bearer" | "DPoP";
}

describe("an opaque token", () => {
  test("is let in when it is active, and says who the caller is", async () => {
    const token = newToken();
    const { status, text, path } = await call(token);
    expect(status, text).toBe(200);
    expect(agent.requestFor(path).header("authorization")).toBe(`Bearer ${token}`);
    expect(await proxy.log((line) => line["path"] === path)).toMatchObject({ subject: "alice" });
    const [asked] = idp.tokenCalls.filter(({ form }) => form.get("token") === token);
    expect(asked?.path).toBe("/realms/test/protocol/openid-connect/token/introspect");
    expect(Object.fromEntries(asked?.form ?? [])).toEqual({
      token,
      token_type_hint: "access_token",
      client_id: "agent",
      client_secret: "agent-secret",
    });
    expect(proxy.stderr).not.toContain(token);
  });

  test("is looked up once, whether a hundred requests bring it at once or later", async () => {
    const token = newToken();
    const gate = Promise.withResolvers<void>();
    idp.gate = gate.promise;
    const first = Array.from({ length: 100 }, () => call(token));
    gate.resolve();
    idp.gate = undefined;
    for (const { status } of await Promise.all(first)) expect(status).toBe(200);
    expect((await call(token)).status).toBe(200);
    expectOneLookUp(token);
  });

  test("that is not active is 401, and is looked up once", async () => {
    const answer = await call("stranger");
    expect(answer.status).toBe(401);
    expect(answer.json()).toMatchObject({
      error: "auth.unauthorized",
      message: "token validation failed",
    });
    expect(answer.header("www-authenticate")).toContain('error="invalid_token"');
    const line = await proxy.log((one) => one["path"] === answer.path);
    expect(line).toMatchObject({ cause: "inactive", claim: "active" });
    expect((await call("stranger")).status).toBe(401);
    expectOneLookUp("stranger");
  });

  const bad: readonly (readonly [cause: string, claims: Settings])[] = [
    ["audience_mismatch", { aud: "somebody-else" }],
    ["audience_mismatch", { aud: undefined }],
    ["issuer_mismatch", { iss: "http://evil.test" }],
    ["expired", { exp: 1_000 }],
    ["no_expiry", { exp: undefined }],
    ["malformed", { exp: "tomorrow" }],
    ["not_yet_valid", { nbf: 9_999_999_999 }],
    ["not_access_token", { token_use: "refresh_token" }],
    ["not_access_token", { token_type: "refresh_token" }],
    ["not_access_token", { typ: "Refresh" }],
    ["bound_to_key", { cnf: { jkt: "k".repeat(43) } }],
  ];
  test.each(bad)("%s: %j is 401", async (cause, said) => {
    claims = said;
    const answer = await call(newToken());
    expect(answer.status).toBe(401);
    const line = await proxy.log((one) => one["path"] === answer.path);
    expect(line["cause"]).toBe(cause);
  });

  test("of the named issuer, for several audiences, is let in", async () => {
    claims = { iss: idp.issuer, aud: ["other", "agent"], token_type: "Bearer" };
    expect((await call(newToken())).status).toBe(200);
  });

  test("needs its scopes and claims like any other", async () => {
    const through = await own(
      ProxyProcess.start(
        file({}, { required_scopes: ["admin"], required_claims: { tenant: "a" } }),
      ),
    );
    claims = { tenant: "a" };
    const lacking = await call(newToken(), { through });
    expect(lacking.status).toBe(403);
    expect(lacking.header("www-authenticate")).toContain('error="insufficient_scope"');
    claims = { tenant: "a", scope: "admin" };
    expect((await call(newToken(), { through })).status).toBe(200);
    claims = { tenant: "b", scope: "admin" };
    expect((await call(newToken(), { through })).status).toBe(401);
  });

  test("that is bound to a key needs the proof of it", async () => {
    const key = await DpopKey.make();
    claims = { cnf: key.cnf, token_type: "DPoP" };
    const token = newToken();
    const { host, port } = proxy.reverse;
    const url = `http://${host}:${port}/call-${counter + 1}`;
    const proof = await key.proof({ url, token });
    const good = await call(token, { fields: { DPoP: proof }, scheme: "DPoP" });
    expect(good.status, good.text).toBe(200);
    expect((await call(token)).status).toBe(401);
    expectOneLookUp(token);
  });

  test("is a malformed one where the file names no endpoint, as a JWT is never looked up", async () => {
    const config = merge(
      settings({ listener: { reverse_proxy_backend: agent.url, roles: ["reverse"] } }),
      inbound({
        name: "jwt-validation",
        config: { issuer: idp.issuer, audience: "agent" },
      }),
    );
    const through = await own(ProxyProcess.start(config));
    expect((await call(newToken(), { through })).status).toBe(401);
    const token = await idp.token();
    expect((await call(token)).status).toBe(200);
    expect(callsFor(token)).toBe(0);
  });
});

describe("the endpoint", () => {
  const broken: readonly (readonly [string, IdpReply])[] = [
    ["a refused client", { status: 401, body: { error: "invalid_client" } }],
    ["a fault", { status: 500, body: "oops" }],
    ["a redirect", { status: 302, body: "", headers: { location: "http://evil.test" } }],
    ["no JSON", { body: "active" }],
    ["a list", { body: [true] }],
    ["active as a text", { body: { active: "true", aud: "agent", exp: 9_999_999_999 } }],
    ["nothing of active", { body: { sub: "alice", aud: "agent", exp: 9_999_999_999 } }],
    ["a broken connection, twice", "reset"],
  ];
  test.each(broken)(
    "that answers %s is 503, and asked again by the next request",
    async (_n, said) => {
      const token = newToken();
      idp.tokenReplies.push(said, ...(said === "reset" ? [said] : []));
      const answer = await call(token);
      expect(answer.status, answer.text).toBe(503);
      expect(answer.json()).toMatchObject({
        error: "upstream.unreachable",
        message: "token validation is not available",
      });
      const line = await proxy.log((one) => one["path"] === answer.path);
      expect(line).toMatchObject({ outcome: "unavailable", cause: "introspection_unavailable" });
      expect((await call(token)).status).toBe(200);
      const labels = { plugin: "jwt-validation", event: "introspection_failed" };
      expect(await proxy.metric("authbridge_plugin_events_total", labels)).toBeGreaterThan(0);
    },
  );

  test("is not asked by more requests at once than max_pending", async () => {
    const bounded = oneThread("each thread asks as many at once", file({ max_pending: 1 }));
    const through = await own(ProxyProcess.start(bounded));
    const gate = Promise.withResolvers<void>();
    idp.gate = gate.promise;
    const before = idp.tokenCalls.length;
    const first = call(newToken(), { through });
    await expect.poll(() => idp.tokenCalls.length).toBe(before + 1);
    const second = await call(newToken(), { through });
    expect(second.status).toBe(503);
    const line = await through.log((one) => one["path"] === second.path);
    expect(line["problem"]).toContain("introspection.max_pending");
    gate.resolve();
    idp.gate = undefined;
    expect((await first).status).toBe(200);
  });

  test("is asked for every request with cache_ttl 0s, by Basic where the file says so", async () => {
    const introspection = {
      cache_ttl: "0s",
      require_audience: false,
      url: `${idp.origin}/look-up`,
      identity: { ...identity, client_auth_method: "client_secret_basic" },
    };
    const through = await own(ProxyProcess.start(file(introspection)));
    claims = { aud: undefined };
    const token = newToken();
    for (let round = 0; round < 2; round += 1)
      expect((await call(token, { through })).status).toBe(200);
    const asked = idp.tokenCalls.filter(({ form }) => form.get("token") === token);
    expect(asked.map(({ path }) => path)).toEqual(["/look-up", "/look-up"]);
    const basic = Buffer.from("agent:agent-secret").toString("base64");
    expect(asked[0]?.authorization).toBe(`Basic ${basic}`);
  });

  test("needs an identity, and keys without a value are errors", async () => {
    for (const introspection of [{}, null]) {
      const config = merge(
        settings({ listener: { reverse_proxy_backend: agent.url, roles: ["reverse"] } }),
        inbound({
          name: "jwt-validation",
          config: { issuer: idp.issuer, audience: "agent", introspection },
        }),
      );
      const { code, stdout, stderr } = await runWith("check", config);
      expect(code).toBe(2);
      expect(stdout + stderr).toContain("introspection");
    }
  });
});

test("an authorization server that issues opaque tokens for the agent", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  await own({ close: () => void server.close() });
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const client = (id: string): object => ({
    client_id: id,
    client_secret: `${id}-secret`,
    grant_types: ["client_credentials"],
    redirect_uris: [],
    response_types: [],
  });
  const provider = new Provider(issuer, {
    clients: [client("frontend"), client("agent")] as never,
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope: "tools",
          audience: "https://agent.example/",
          accessTokenFormat: "opaque",
          accessTokenTTL: 120,
        }),
      },
    },
    cookies: { keys: ["k"] },
  });
  const respond = provider.callback();
  server.on("request", (incoming, response) => void respond(incoming, response));
  const ask = async (path: string, form: Readonly<Record<string, string>>): Promise<Response> =>
    fetch(issuer + path, {
      method: "POST",
      headers: {
        authorization: `Basic ${Buffer.from("frontend:frontend-secret").toString("base64")}`,
      },
      body: new URLSearchParams(form),
    });
  const issued = (await (
    await ask("/token", {
      grant_type: "client_credentials",
      scope: "tools",
      resource: "https://agent.example/",
    })
  ).json()) as { access_token: string };
  const introspection = {
    url: `${issuer}/token/introspection`,
    identity: { ...identity, client_auth_method: "client_secret_basic" },
    cache_ttl: "0s",
  };
  const through = await own(
    ProxyProcess.start(
      file(introspection, {
        issuer,
        audience: "https://agent.example/",
        required_scopes: ["tools"],
        wait_for_keys: false,
      }),
    ),
  );
  const good = await call(issued.access_token, { through });
  expect(good.status, good.text + through.stderr).toBe(200);
  await ask("/token/revocation", { token: issued.access_token });
  expect((await call(issued.access_token, { through })).status).toBe(401);
});
