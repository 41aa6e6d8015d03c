/** Before there is a token: metadata of the protected resource from the file, challenges that lead to it, and browsers. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { ClientCredentialsProvider } from "@modelcontextprotocol/sdk/client/auth-extensions.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { exportJWK, generateKeyPair } from "jose";
import { Provider } from "oidc-provider";
import { beforeAll, describe, expect, test } from "vitest";
import { get, request, type RawResponse } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { McpTestServer } from "../support/mcp-server.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runWith, type Settings } from "../support/program.ts";
import { inbound, merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const page = "https://ui.example.test";

function guarded(backend: string, config: Settings, ...others: unknown[]): Settings {
  const plugins = inbound({ name: "jwt-validation", config }, ...others);
  return merge(settings(plugins), {
    listener: { roles: ["reverse"], reverse_proxy_backend: backend },
  });
}

/** An authorization server of oidc-provider that gives one client tokens for any resource. */
async function authorizationServer(scope: string): Promise<{ issuer: string; server: Server }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const { privateKey } = await generateKeyPair("ES256", { extractable: true });
  const provider = new Provider(issuer, {
    jwks: { keys: [{ ...(await exportJWK(privateKey)), alg: "ES256", use: "sig" }] },
    clients: [
      {
        client_id: "page",
        client_secret: "secret-of-the-page-0123456789abcdef",
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
        scope,
        id_token_signed_response_alg: "ES256",
      },
    ],
    scopes: [scope],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource) => ({
          scope,
          audience: resource,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
  });
  const answer = provider.callback();
  server.on("request", (asked, response) => void answer(asked, response));
  return { issuer, server };
}

test("a client of the MCP SDK finds the authorization server through the proxy, and gets in", async () => {
  const tools = await own(McpTestServer.start());
  const { issuer, server } = await authorizationServer("tools:use");
  await own({ close: async () => (server.closeAllConnections(), void server.close()) });
  const config = (resource: string): Settings => ({
    issuer,
    discovery: true,
    audience: resource,
    required_scopes: ["tools:use"],
    protected_resource: { resource },
  });
  const proxy = await own(
    ProxyProcess.start(guarded(tools.url, config("http://unknown.test/mcp"))),
  );
  const resource = `http://127.0.0.1:${proxy.reverse.port}/mcp`;
  await proxy.reload(guarded(tools.url, config(resource)));
  const secret = { clientId: "page", clientSecret: "secret-of-the-page-0123456789abcdef" };
  const authProvider = new ClientCredentialsProvider({
    ...secret,
    scope: "tools:use",
    expectedIssuer: issuer,
  });
  const transport = new StreamableHTTPClientTransport(new URL(resource), { authProvider });
  const client = new Client({ name: "page", version: "1" });
  await client.connect(transport);
  const { tools: listed } = await client.listTools();
  expect(listed.length).toBeGreaterThan(0);
  await client.close();
  expect(authProvider.tokens()?.scope).toBe("tools:use");
  // No request without a token has reached the server.
  expect(tools.requests.every(({ headers }) => headers.authorization !== undefined)).toBe(true);
});

describe("the metadata", () => {
  let agent: HttpOrigin;
  let idp: StubIdp;
  beforeAll(async () => {
    [agent, idp] = await Promise.all([own(HttpOrigin.launch()), own(StubIdp.start())]);
  });

  const metadata = "/.well-known/oauth-protected-resource";

  test("says what the settings are, at both of its addresses, to everybody", async () => {
    const proxy = await own(
      ProxyProcess.start(
        guarded(agent.url, {
          issuer: idp.issuer,
          audience: "agent",
          required_scopes: ["read", "write"],
          dpop: { required: true, algorithms: ["ES256"] },
          protected_resource: {
            resource: "https://agent.example.test/mcp",
            authorization_servers: ["https://login.example.test/realm"],
            resource_name: "The agent",
          },
        }),
      ),
    );
    for (const path of [metadata, `${metadata}/mcp`, `${metadata}/mcp?x=1`]) {
      const answer = await get(proxy.reverse, path);
      expect(answer.status).toBe(200);
      expect(answer.header("content-type")).toBe("application/json");
      expect(answer.json()).toEqual({
        resource: "https://agent.example.test/mcp",
        authorization_servers: ["https://login.example.test/realm"],
        scopes_supported: ["read", "write"],
        bearer_methods_supported: ["header"],
        resource_name: "The agent",
        tls_client_certificate_bound_access_tokens: true,
        dpop_signing_alg_values_supported: ["ES256"],
        dpop_bound_access_tokens_required: true,
      });
    }
    const posted = await request(proxy.reverse, { method: "POST", target: metadata, body: "x" });
    expect(posted.status).toBe(405);
    expect(posted.header("allow")).toBe("GET, HEAD");
    const head = await request(proxy.reverse, { method: "HEAD", target: metadata });
    expect([head.status, head.text]).toEqual([200, ""]);
    expect(agent.requestsFor(metadata)).toHaveLength(0);
    const refused = await get(proxy.reverse, "/mcp");
    const challenge = refused.header("www-authenticate") ?? "";
    expect(refused.status).toBe(401);
    expect(challenge).toContain(
      'resource_metadata="https://agent.example.test/.well-known/oauth-protected-resource/mcp"',
    );
    expect(challenge).toContain('scope="read write"');
    expect(challenge).not.toContain("error=");
  });

  test("has every word of the block, in place of what follows from the settings", async () => {
    const words = {
      resource: "https://agent.example.test",
      authorization_servers: ["https://login.example.test/realm"],
      scopes_supported: ["other"],
      bearer_methods_supported: [],
      tls_client_certificate_bound_access_tokens: true,
      resource_name: "The agent",
      resource_documentation: "https://agent.example.test/docs",
      resource_policy_uri: "https://agent.example.test/policy",
      resource_tos_uri: "https://agent.example.test/terms",
    };
    const given = { issuer: idp.issuer, audience: "agent", required_scopes: ["read"] };
    const document = async (over: Settings): Promise<unknown> => {
      const proxy = await own(ProxyProcess.start(guarded(agent.url, { ...given, ...over })));
      return (await get(proxy.reverse, metadata)).json();
    };
    expect(await document({ bound_tokens: "refuse", protected_resource: words })).toEqual(words);
    const { tls_client_certificate_bound_access_tokens: _, ...others } = words;
    const without = { ...words, tls_client_certificate_bound_access_tokens: false };
    expect(
      await document({ dpop: { algorithms: ["ES256"] }, protected_resource: without }),
    ).toEqual({ ...others, dpop_signing_alg_values_supported: ["ES256"] });
  });

  test("is in the challenge of a token without scope, with the scopes that it needs", async () => {
    const proxy = await own(
      ProxyProcess.start(
        guarded(agent.url, {
          issuer: idp.issuer,
          audience: "agent",
          required_scopes: ["write"],
          protected_resource: { resource: "https://agent.example.test" },
        }),
      ),
    );
    const token = await idp.token();
    const answer = await get(proxy.reverse, "/mcp", { Authorization: `Bearer ${token}` });
    expect(answer.status).toBe(403);
    const challenge = answer.header("www-authenticate") ?? "";
    expect(challenge).toContain('error="insufficient_scope"');
    expect(challenge).toContain('scope="write"');
    expect(challenge).toContain(
      'resource_metadata="https://agent.example.test/.well-known/oauth-protected-resource"',
    );
    expect((await get(proxy.reverse, metadata)).json()).toMatchObject({
      authorization_servers: [idp.issuer],
      scopes_supported: ["write"],
    });
  });
});

describe("a browser", () => {
  let agent: HttpOrigin;
  let idp: StubIdp;
  beforeAll(async () => {
    agent = await own(
      HttpOrigin.launch(() =>
        reply(200, "hello", { "Access-Control-Allow-Origin": "*", Vary: "Accept" }),
      ),
    );
    idp = await own(StubIdp.start());
  });

  const started = (cors: object, ...others: unknown[]) =>
    own(
      ProxyProcess.start(
        guarded(agent.url, { issuer: idp.issuer, audience: "agent", cors }, ...others),
      ),
    );
  const preflight = (proxy: ProxyProcess, more: object = {}): Promise<RawResponse> =>
    request(proxy.reverse, {
      method: "OPTIONS",
      target: "/preflight",
      headers: {
        Origin: page,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,mcp-protocol-version",
        ...more,
      },
    });

  test("gets its preflight answered, and can read every response of the proxy", async () => {
    const proxy = await started(
      { allowed_origins: [page], allow_credentials: true, max_age: "1m" },
      { name: "denier", config: {} },
    );
    const answer = await preflight(proxy);
    expect(answer.status).toBe(204);
    expect(answer.header("content-length")).toBeUndefined();
    expect(answer.header("access-control-allow-origin")).toBe(page);
    expect(answer.header("access-control-allow-credentials")).toBe("true");
    expect(answer.header("access-control-allow-methods")).toContain("POST");
    expect(answer.header("access-control-allow-headers")).toContain("MCP-Protocol-Version");
    expect(answer.header("access-control-max-age")).toBe("60");
    expect(answer.header("vary")).toContain("Origin");
    expect(agent.requestsFor("/preflight")).toHaveLength(0);
    for (const more of [{}, { Authorization: `Bearer ${await idp.token()}` }]) {
      const refused = await get(proxy.reverse, "/", { Origin: page, ...more });
      expect([401, 403]).toContain(refused.status);
      expect(refused.header("access-control-allow-origin")).toBe(page);
      expect(refused.header("access-control-expose-headers")).toContain("WWW-Authenticate");
      expect(refused.header("vary")).toBe("Origin");
    }
  });

  test("reads responses of the agent with the fields of the file", async () => {
    const proxy = await started({ allowed_origins: [page] });
    const authorization = `Bearer ${await idp.token()}`;
    const allowed = await get(proxy.reverse, "/a", { Origin: page, Authorization: authorization });
    expect(allowed.head.all("access-control-allow-origin")).toEqual([page]);
    expect(allowed.head.all("vary").join()).toContain("Origin");
    expect(allowed.head.all("vary").join()).toContain("Accept");
    const other = await get(proxy.reverse, "/a", {
      Origin: "https://evil.test",
      Authorization: authorization,
    });
    expect(other.status).toBe(200);
    expect(other.header("access-control-allow-origin")).toBeUndefined();
    expect(other.head.all("vary").join()).toContain("Origin");
  });

  test("is told the methods, the fields and the time of the file, and no others", async () => {
    const own_ = {
      allowed_methods: ["PUT"],
      allowed_headers: ["X-Mine"],
      exposed_headers: ["X-Told"],
    };
    const proxy = await started({ allowed_origins: [page], max_age: "0s", ...own_ });
    const asked = {
      "Access-Control-Request-Method": "PUT",
      "Access-Control-Request-Headers": "x-mine",
    };
    const answer = await preflight(proxy, asked);
    expect(answer.status).toBe(204);
    expect(answer.header("access-control-allow-methods")).toBe("PUT");
    expect(answer.header("access-control-allow-headers")).toBe("X-Mine");
    expect(answer.header("access-control-expose-headers")).toBe("X-Told");
    expect(answer.header("access-control-max-age")).toBe("0");
    for (const other of [
      { "Access-Control-Request-Method": "POST" },
      { "Access-Control-Request-Headers": "authorization" },
    ])
      expect((await preflight(proxy, { ...asked, ...other })).status).toBe(403);
  });

  test.each([
    ["another origin", { Origin: "https://evil.test" }],
    ["an origin that only begins alike", { Origin: `${page}.evil.test` }],
    ["no origin", { Origin: "null" }],
    ["another method", { "Access-Control-Request-Method": "PATCH" }],
    ["another field", { "Access-Control-Request-Headers": "x-evil" }],
  ])("of %s is refused", async (_name, more) => {
    const proxy = await started({ allowed_origins: [page] });
    const answer = await preflight(proxy, more);
    expect(answer.status).toBe(403);
    expect(answer.header("access-control-allow-methods")).toBeUndefined();
    expect(agent.requestsFor("/preflight")).toHaveLength(0);
  });

  test("asks the agent itself where the file says so", async () => {
    const proxy = await started({ allowed_origins: ["*"], preflight: "pass" });
    const answer = await preflight(proxy);
    expect(answer.text).toBe("hello");
    expect(agent.requestsFor("/preflight")).toHaveLength(1);
    const refused = await get(proxy.reverse, "/", { Origin: page });
    expect(refused.status).toBe(401);
    expect(refused.header("access-control-allow-origin")).toBe("*");
    // An OPTIONS that is no preflight needs a token.
    const bare = await request(proxy.reverse, { method: "OPTIONS", target: "/bare" });
    expect(bare.status).toBe(401);
  });

  test("never gets * with credentials, and one way only", async () => {
    const checked = async (more: Settings): Promise<string> => {
      const config = { issuer: idp.issuer, audience: "agent", ...more };
      const { code, stderr } = await runWith("check", guarded(agent.url, config));
      expect(code).toBe(2);
      return stderr;
    };
    const open = { allowed_origins: ["*"], allow_credentials: true, exposed_headers: ["*"] };
    const ofStar = await checked({ cors: open });
    expect(ofStar).toContain("cors.allow_credentials: cannot be true with the origin *");
    expect(ofStar).toContain("cors.exposed_headers: has *, which is no wildcard with");
    expect(await checked({ cors: { allowed_origins: [page] }, cors_preflight: "pass" })).toContain(
      "cors.preflight",
    );
    const names = { allowed_methods: ["*", "get"], allowed_headers: ["*"] };
    const ofNames = await checked({ cors: { allowed_origins: ["https://App.test/"], ...names } });
    expect(ofNames).toContain("cors.allowed_origins[0]: must be an origin");
    for (const key of ["allowed_methods", "allowed_headers"])
      expect(ofNames).toContain(`cors.${key}[0]: must be a name: a star stands for nothing here`);
    expect(ofNames).toContain("cors.allowed_methods[1]: must be in capitals");
  });
});
