/** Secrets of the proxy's own come from the sources of static-inject, wherever a plugin takes one, and rotate without a restart. */
import { rename, writeFile } from "node:fs/promises";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type ProcessOptions, runWith, type Settings } from "../support/program.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { StubProvider } from "../support/stub-provider.ts";

const own = owner();
const hosts = { "api.test": ["127.0.0.1"] };
let target: HttpOrigin;
let idp: StubIdp;
let vault: StubProvider;
/** What the vault has. */
let stored: string;
/** Client secrets that the identity provider takes. */
let taken: Set<string>;

beforeAll(async () => {
  target = await own(HttpOrigin.launch());
});
beforeEach(async () => {
  idp = await own(StubIdp.start());
  vault = await own(StubProvider.start());
  stored = "s3cret-1";
  taken = new Set([stored]);
  vault.on("GET /v1/auth/token/lookup-self", () => [200, { data: { ttl: 0 } }]);
  vault.on("GET /v1/secret/data/agent", () => [200, { data: { data: { value: stored } } }]);
  vault.on("GET /v1/secret/data/none", () => [404, {}]);
  idp.refuse = ({ form }) => {
    if (taken.has(form.get("client_secret") ?? "")) return undefined;
    return { status: 401, body: { error: "invalid_client" } };
  };
  idp.issue = ({ form }) => {
    const secret = form.get("client_secret") ?? "";
    return {
      access_token: `for-${secret.length}`,
      token_type: "Bearer",
      expires_in: 300,
      active: true,
      sub: "alice",
      aud: "agent",
      exp: Math.floor(Date.now() / 1000) + 300,
    };
  };
});

const ofVault = (more: Settings = {}): Settings => ({
  type: "vault",
  address: vault.url,
  auth: { method: "token", token_file: "vault-token" },
  path: "agent",
  field: "value",
  ...more,
});
const withToken: ProcessOptions = { files: { "vault-token": "t-1\n", secret: "s3cret-1\n" } };

const exchange = (identity: Settings, config: Settings = {}): Settings => ({
  name: "token-exchange",
  config: {
    token_url: idp.tokenUrl,
    identity: { type: "client-secret", client_id: "agent", ...identity },
    default_policy: "exchange",
    ...config,
  },
});

const start = (file: Settings, options: ProcessOptions = withToken) =>
  own(ProxyProcess.start(merge(settings({ egress: { hosts } }), file), options));

let counter = 0;
/** One call with a token that nobody has sent before. */
async function call(proxy: ProxyProcess, headers: Readonly<Record<string, string>> = {}) {
  const authority = `api.test:${target.port}`;
  return request(proxy.forward, {
    target: `http://${authority}/x`,
    headers: { Host: authority, Authorization: `Bearer user-${(counter += 1)}`, ...headers },
  });
}

const shown = () => idp.tokenCalls.map(({ form }) => form.get("client_secret"));

describe("a client secret", () => {
  const command = [process.execPath, "-e", "console.log('s3cret-1')"];
  test.each<readonly [string, () => Settings]>([
    ["file", () => ({ type: "file", path: "secret" })],
    ["env", () => ({ type: "env", name: "OWN_SECRET" })],
    ["exec", () => ({ type: "exec", command, ttl: "1h" })],
    ["vault", ofVault],
  ])("of %s is shown to the token endpoint, and nowhere else", async (_type, source) => {
    const entry = exchange({ client_secret: source() });
    const proxy = await start(outbound(entry), { ...withToken, env: { OWN_SECRET: "s3cret-1" } });
    const answers = await Promise.all(Array.from({ length: 100 }, async () => call(proxy)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(new Set(shown())).toEqual(new Set(["s3cret-1"]));
    expect((await proxy.health("/readyz")).status).toBe(200);
    const { text } = await proxy.stats("/config");
    expect(text + proxy.stderr).not.toContain("s3cret");
  });

  test("that is replaced is used without a restart, and nothing fails meanwhile", async () => {
    const entry = exchange({ client_secret: { type: "file", path: "secret" } });
    const proxy = await start(outbound(entry));
    expect((await call(proxy)).status).toBe(200);
    stored = "s3cret-2";
    taken.add(stored);
    const calls = Array.from({ length: 50 }, async () => call(proxy));
    await writeFile(proxy.path("next"), stored);
    await rename(proxy.path("next"), proxy.path("secret"));
    calls.push(...Array.from({ length: 50 }, async () => call(proxy)));
    expect((await Promise.all(calls)).every(({ status }) => status === 200)).toBe(true);
    await eventually(async () => {
      await call(proxy);
      return shown().at(-1) === stored;
    });
  });

  test("that the endpoint no longer takes is read anew at once, for a hundred at once", async () => {
    const proxy = await start(
      merge({ workers: 1 }, outbound(exchange({ client_secret: ofVault() }))),
    );
    expect((await call(proxy)).status).toBe(200);
    stored = "s3cret-2";
    taken = new Set([stored]);
    const answers = await Promise.all(Array.from({ length: 100 }, async () => call(proxy)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    const read = (): number => vault.count("GET /v1/secret/data/agent");
    expect(read()).toBe(2);
    // What nobody takes is not read again for each who is refused.
    taken = new Set();
    const refused = await Promise.all(Array.from({ length: 100 }, async () => call(proxy)));
    expect(new Set(refused.map(({ status }) => status))).toEqual(new Set([503]));
    expect(read()).toBeLessThan(5);
  });

  test("that a vault has no more of is refused by the name of its key, and comes without a restart", async () => {
    const client_secret = ofVault({ path: "none", max_wait: "100ms" });
    const proxy = await start(outbound(exchange({ client_secret })));
    expect((await proxy.health("/readyz")).status).toBe(503);
    const answer = await call(proxy);
    expect([answer.status, answer.text]).toEqual([
      503,
      expect.stringContaining("upstream.token-exchange-failed") as string,
    ]);
    expect(idp.tokenCalls).toHaveLength(0);
    await proxy.log(({ reason }) => String(reason).includes("identity.client_secret (vault)"));
    vault.on("GET /v1/secret/data/none", () => [200, { data: { data: { value: stored } } }]);
    await eventually(async () => (await call(proxy)).status === 200);
  });

  test("is fetched once for two threads, and kept over a reload", async () => {
    const client_secret = ofVault();
    const file = (more: Settings) =>
      merge(
        settings({ egress: { hosts }, workers: 2 }),
        outbound(exchange({ client_secret }, more)),
      );
    const proxy = await start(file({}));
    await Promise.all(Array.from({ length: 100 }, async () => call(proxy)));
    const read = (): number => vault.count("GET /v1/secret/data/agent");
    expect(read()).toBe(1);
    const generation = await proxy.reloadStatus();
    await proxy.rewriteConfig(file({ audience_from_host: true }));
    await eventually(async () => (await proxy.reloadStatus()).reloads_ok > generation.reloads_ok);
    const answers = await Promise.all(Array.from({ length: 100 }, async () => call(proxy)));
    expect(answers.every(({ status }) => status === 200)).toBe(true);
    expect(read()).toBe(1);
  });

  test("is shown to the introspection endpoint; without one the token is not judged", async () => {
    const file = (client_secret: Settings) =>
      merge(
        settings({ listener: { reverse_proxy_backend: target.url, roles: ["reverse"] } }),
        inbound({
          name: "jwt-validation",
          config: {
            issuer: idp.issuer,
            audience: "agent",
            introspection: { identity: { type: "client-secret", client_id: "a", client_secret } },
          },
        }),
      );
    const ask = async (proxy: ProxyProcess) =>
      request(proxy.reverse, {
        target: "/y",
        headers: { Host: "agent.test", Authorization: `Bearer opaque-${(counter += 1)}` },
      });
    const proxy = await start(file(ofVault()));
    expect((await ask(proxy)).status).toBe(200);
    expect(shown()).toEqual(["s3cret-1"]);
    stored = "s3cret-2";
    taken = new Set([stored]);
    expect((await ask(proxy)).status).toBe(200);
    expect(shown()).toEqual(["s3cret-1", "s3cret-1", "s3cret-2"]);
    const without = await start(file(ofVault({ path: "none", max_wait: "100ms" })));
    expect((await ask(without)).status).toBe(503);
    await without.log(({ problem }) =>
      String(problem).includes("introspection.identity.client_secret (vault)"),
    );
  });

  test("also where a source asks with it", async () => {
    const source = {
      type: "oauth_client_credentials",
      token_url: idp.tokenUrl,
      identity: { type: "client-secret", client_id: "agent", client_secret: ofVault() },
    };
    const mappings = { "api.test": source };
    const config = { source: "mappings", placeholder: "P", mappings };
    const proxy = await start(outbound({ name: "static-inject", config }));
    expect((await call(proxy, { Authorization: "Bearer P" })).status).toBe(200);
    expect(shown()).toEqual(["s3cret-1"]);
  });
});

describe("a bearer token", () => {
  async function classified(bearer: Settings, headers: Settings = {}) {
    const service = await own(HttpOrigin.launch());
    service.answer = () => reply(200, '{"score": 0}', { "Content-Type": "application/json" });
    target.answer = () => reply(200, `Text ${(counter += 1)}`, { "Content-Type": "text/plain" });
    const config = { classifier: { url: service.url, bearer, headers } };
    const proxy = await start(outbound({ name: "prompt-guard", config }));
    const told = (): string | undefined => service.requests.at(-1)?.header("authorization");
    return { proxy, service, told };
  }

  test("of a vault is shown to the service, and a new one is used without a restart", async () => {
    const headers = { "X-Api-Key": { type: "file", path: "secret" } };
    const { proxy, told, service } = await classified(ofVault({ refresh: "1s" }), headers);
    expect((await call(proxy)).status).toBe(200);
    expect(told()).toBe("Bearer s3cret-1");
    expect(service.requests.at(-1)?.header("x-api-key")).toBe("s3cret-1");
    stored = "s3cret-2";
    await eventually(async () => {
      expect((await call(proxy)).status).toBe(200);
      return told() === "Bearer s3cret-2";
    });
    expect((await proxy.stats("/config")).text + proxy.stderr).not.toContain("s3cret");
  });

  test("that there is none of: the service is not asked, and its plugin does as the file says", async () => {
    const { proxy, service } = await classified(ofVault({ path: "none", max_wait: "100ms" }));
    const answer = await call(proxy);
    expect(answer.status).toBe(403);
    expect(service.requests).toHaveLength(0);
    const { text } = await proxy.stats("/config");
    expect(text).not.toContain("vault-token");
  });
});

test("what cannot be is refused by its key, before anything serves", async () => {
  const verdict = async (...plugins: unknown[]) =>
    (await runWith("check", merge(settings(), outbound(...plugins)))).stderr;
  const token = { type: "github_app", app_id: 1, private_key_file: "k", user: "u" };
  expect(await verdict(exchange({ client_secret: token }))).toMatch(
    /identity\.client_secret\.type: must be file, env, exec or vault/,
  );
  const secret = { type: "file", path: "secret" };
  expect(await verdict(exchange({ client_secret: secret, client_secret_file: "x" }))).toMatch(
    /identity\.client_secret_file: has no effect beside client_secret/,
  );
  expect(await verdict(exchange({ client_secret: { type: "env", name: "NOT_SET" } }))).toMatch(
    /identity\.client_secret\.name: the variable NOT_SET is not set/,
  );
  expect(await verdict(exchange({ client_secret: ofVault({ feld: "x" }) }))).toMatch(
    /identity\.client_secret.*feld/,
  );
});
