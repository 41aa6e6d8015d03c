/** static-inject takes credentials from sources that renew them: one fetch for all, without a restart, or a refusal. */
import { generateKeyPairSync } from "node:crypto";
import { mkdtemp, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { secretConfig } from "../../src/plugins/credentials/secret-config.ts";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import { request } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type ProcessOptions, runWith, type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { SpiffeAuthority } from "../support/spiffe-authority.ts";
import { signedBy, StubProvider } from "../support/stub-provider.ts";
import { WorkloadApi } from "../support/workload-api.ts";

const own = owner();
const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const pem = privateKey.export({ format: "pem", type: "pkcs1" }).toString();
const hosts = Object.fromEntries(["api.test", "other.test"].map((name) => [name, ["127.0.0.1"]]));
let target: HttpOrigin;
let provider: StubProvider;

beforeAll(async () => {
  target = await own(HttpOrigin.launch());
});
beforeEach(async () => {
  provider = await own(StubProvider.start());
});

function file(source: Settings, more: Settings = {}): Settings {
  const config = { source: "mappings", placeholder: "P", mappings: { "api.test": source } };
  return merge(
    settings({ egress: { hosts } }),
    merge(outbound({ name: "static-inject", config }), more),
  );
}

const start = (source: Settings, options?: ProcessOptions, more?: Settings) =>
  own(ProxyProcess.start(file(source, more), options));

/** The credential that reached the origin, or the refusal. */
async function sent(proxy: ProxyProcess, path = "/x"): Promise<string> {
  const authority = `api.test:${target.port}`;
  const answer = await request(proxy.forward, {
    target: `http://${authority}${path}`,
    headers: { Host: authority, Authorization: "Bearer P" },
  });
  if (answer.status !== 200) return `${answer.status} ${answer.text}`;
  return target.requestsFor(path).at(-1)?.header("authorization") ?? "";
}

/** A hundred requests at once. */
async function hundred(proxy: ProxyProcess): Promise<Set<string>> {
  return new Set(await Promise.all(Array.from({ length: 100 }, (_, at) => sent(proxy, `/h${at}`))));
}

const soon = (ms: number): string => new Date(Date.now() + ms).toISOString();
const inAnHour = Math.floor(Date.now() / 1000) + 3_600;
/** Each thread renews for itself, and may have the value before a little longer. */
const oneThread = { workers: 1 };
const refused = '"error":"secret.unavailable"';

describe("what is at hand", () => {
  test("a file is used as it is now", async () => {
    const proxy = await start({ type: "file", path: "token" }, { files: { token: "one\n" } });
    expect(await sent(proxy)).toBe("Bearer one");
    await writeFile(proxy.path("next"), "two");
    await rename(proxy.path("next"), proxy.path("token"));
    await eventually(async () => (await sent(proxy)) === "Bearer two");
  });

  test("a variable, or a refusal that names its key", async () => {
    const source = { type: "env", name: "API_TOKEN" };
    const proxy = await start(source, { env: { API_TOKEN: "of-the-environment" } });
    expect(await sent(proxy)).toBe("Bearer of-the-environment");
    const { code, stdout, stderr } = await runWith("check", file(source));
    expect(code).not.toBe(0);
    expect(stdout + stderr).toMatch(/mappings\.api\.test\.name: the variable API_TOKEN is not set/);
  });
});

describe("exec", () => {
  /** Prints a number that grows; each run leaves a line. */
  const script = (output: string): string =>
    `const fs = require("node:fs"); fs.appendFileSync(process.env.LOG, "run\\n");` +
    `const n = fs.readFileSync(process.env.LOG, "utf8").trim().split("\\n").length; ${output}`;

  async function running(output: string, more: Settings = {}, over: Settings = {}) {
    const log = `${target.port}-${Math.random()}`;
    const directory = (await import("node:os")).tmpdir();
    const source = {
      type: "exec",
      command: [process.execPath, "-e", script(output)],
      env: { LOG: `${directory}/${log}` },
      ...more,
    };
    const proxy = await start(source, { env: { SECRET_OF_THE_PROXY: "hidden" } }, over);
    const runs = async (): Promise<number> =>
      (await readFile(`${directory}/${log}`, "utf8").catch(() => "")).split("\n").length - 1;
    return { proxy, runs };
  }

  test("JSON with a ttl is run once for a hundred, and again before its end", async () => {
    const { proxy, runs } = await running(
      'console.log(JSON.stringify({ value: "v" + n, ttl: n === 1 ? 3 : 3600 }))',
    );
    await hundred(proxy);
    expect(await runs()).toBeLessThanOrEqual(2);
    await eventually(async () => (await sent(proxy)) === "Bearer v2");
    expect(await hundred(proxy)).toEqual(new Set(["Bearer v2"]));
    expect(await runs()).toBe(2);
  });

  test("a bare value where ttl is set, without the environment of the proxy", async () => {
    const output =
      "console.log(Object.keys(process.env).filter((k) => /SECRET|HOME/.test(k)).length)";
    const { proxy } = await running(output, { ttl: "1h" });
    expect(await sent(proxy)).toBe("Bearer 0");
  });

  const failures: readonly (readonly [string, string, string, Settings])[] = [
    [
      "a status",
      "console.error('token=hunter2 is bad'); process.exit(3)",
      "ended with status 3: token=[cut] is bad",
      {},
    ],
    ["no expiry", 'console.log(\'{"value":"x"}\')', "neither expires_at nor ttl", {}],
    ["too much", "console.log('x'.repeat(100_000))", "more than 65536 bytes", { ttl: "1h" }],
    [
      "no end",
      "setInterval(() => {}, 1000)",
      "took longer than 300 ms (timeout)",
      { timeout: "300ms" },
    ],
    ["an end that is over", 'console.log(\'{"value":"x","expires_at":1}\')', "has expired", {}],
  ];
  test.each(failures)("%s is a refusal, and the log says why", async (_what, output, why, more) => {
    const { proxy } = await running(output, more);
    const answer = await sent(proxy);
    expect(answer).toContain("503");
    expect(answer).toContain(refused);
    expect(answer).toContain("no value from mappings.api.test (exec)");
    const line = await proxy.log(({ msg }) => msg === "secret not fetched");
    expect(line["problem"]).toContain(why);
    expect(proxy.stderr).not.toContain("hunter2");
  });

  test("several threads run it once between them", async () => {
    const output = 'console.log(JSON.stringify({ value: "v" + n, ttl: 3600 }))';
    const { proxy, runs } = await running(output, {}, { workers: 2 });
    expect(await hundred(proxy)).toEqual(new Set(["Bearer v1"]));
    expect(await runs()).toBe(1);
    const fetches = { source: "mappings.api.test (exec)", result: "ok" };
    expect(await proxy.metric("authbridge_secret_fetches_total", fetches)).toBeGreaterThan(0);
  });
});

describe("vault", () => {
  let values: Record<string, string>;
  let tokens: Set<string>;
  /** Seconds, of tokens that a login gives. */
  let tokenTtl: number;

  function vaultServer(): void {
    values = { token: "v1" };
    tokens = new Set();
    tokenTtl = 3_600;
    provider.on("POST /v1/auth/kubernetes/login", (call) => {
      const { role, jwt, ...rest } = call.json();
      expect(rest).toEqual({});
      if (call.headers["x-vault-namespace"] !== "team")
        return [404, { errors: ["no handler for route"] }];
      if (role !== "agent" || jwt !== "pod-jwt") return [403, { errors: ["permission denied"] }];
      const token = `hvs.${tokens.size}`;
      tokens.add(token);
      const auth = { client_token: token, lease_duration: tokenTtl, renewable: true };
      return [200, { auth: { ...auth, policies: ["default"] }, data: null, lease_id: "" }];
    });
    provider.on("GET /v1/kv/data/apps/api", (call) => {
      if (!tokens.has(String(call.headers["x-vault-token"])))
        return [403, { errors: ["permission denied"] }];
      const metadata = { version: 1, deletion_time: "", destroyed: false };
      return [200, { lease_id: "", lease_duration: 0, data: { data: values, metadata } }];
    });
  }

  const source = (more: Settings = {}): Settings => ({
    type: "vault",
    address: provider.url,
    namespace: "team",
    auth: { method: "kubernetes", role: "agent", token_file: "jwt" },
    mount: "kv",
    path: "apps/api",
    field: "token",
    refresh: "1s",
    ...more,
  });
  const files = { jwt: "pod-jwt\n" };

  test("one login and one read for a hundred; a new version is used without a restart", async () => {
    vaultServer();
    const proxy = await start(source({ refresh: "1h" }), { files });
    expect(await hundred(proxy)).toEqual(new Set(["Bearer v1"]));
    expect(provider.count("POST /v1/auth/kubernetes/login")).toBe(1);
    expect(provider.count("GET /v1/kv/data/apps/api")).toBe(1);
    // A reload that changes something else keeps what was fetched.
    await proxy.reload(file(source({ refresh: "1h" }), { limits: { max_body: "1MiB" } }));
    expect(await sent(proxy)).toBe("Bearer v1");
    expect(provider.calls).toHaveLength(2);
    values = { token: "v2" };
    await proxy.reload(file(source()));
    await eventually(async () => (await sent(proxy)) === "Bearer v2");
    values = { token: "v3" };
    await eventually(async () => (await sent(proxy)) === "Bearer v3");
    // One for each thread that has had to read.
    expect(provider.count("POST /v1/auth/kubernetes/login")).toBeLessThanOrEqual(2);
  });

  test.each([
    ["with secret_id_file, which is read at every login", { secret_id_file: "secret-id" }, "s-1"],
    ["without secret_id_file, where the role needs none", {}, undefined],
  ])("an approle logs in %s", async (_what, auth, secretId) => {
    vaultServer();
    let wanted = secretId;
    provider.on("POST /v1/auth/agents/login", (call) => {
      if (JSON.stringify(call.json()) !== JSON.stringify({ role_id: "r-1", secret_id: wanted }))
        return [400, { errors: ["invalid role or secret ID"] }];
      tokens.add("hvs.role");
      return [200, { auth: { client_token: "hvs.role", lease_duration: 3_600, renewable: true } }];
    });
    const role = { method: "approle", role_id: "r-1", mount: "agents", ...auth };
    const proxy = await start(source({ auth: role }), { files: { "secret-id": "s-1\n" } });
    expect(await sent(proxy)).toBe("Bearer v1");
    if (secretId === undefined) return;
    wanted = "s-2";
    await writeFile(proxy.path("next"), "s-2");
    await rename(proxy.path("next"), proxy.path("secret-id"));
    tokens.clear();
    values = { token: "v2" };
    await eventually(async () => (await sent(proxy)) === "Bearer v2");
    expect(proxy.stderr).not.toMatch(/hvs\.|s-[12]/);
  });

  test("a token that was revoked is had anew, and a server that is away is waited for", async () => {
    vaultServer();
    const proxy = await start(source(), { files });
    expect(await sent(proxy)).toBe("Bearer v1");
    tokens.clear();
    values = { token: "v2" };
    await eventually(async () => (await sent(proxy)) === "Bearer v2");
    expect(provider.count("POST /v1/auth/kubernetes/login")).toBeGreaterThan(1);
    for (const instead of [
      [503, { errors: ["Vault is sealed"] }],
      "reset",
      [200, "<html>"],
    ] as const) {
      provider.instead = instead;
      const before = provider.calls.length;
      await eventually(() => provider.calls.length > before);
      expect(await sent(proxy)).toBe("Bearer v2");
    }
    provider.instead = undefined;
    values = { token: "v3" };
    await eventually(async () => (await sent(proxy)) === "Bearer v3");
    const problems = proxy.logs.filter(({ msg }) => msg === "secret not fetched");
    expect(JSON.stringify(problems)).toContain("503: Vault is sealed");
    expect(proxy.stderr).not.toMatch(/hvs\.|pod-jwt/);
  });

  test("a lease is renewed while the server grants that", async () => {
    vaultServer();
    const asked: string[] = [];
    provider.on("GET /v1/database/creds/app", () => {
      asked.push("read");
      const data = { username: "u", password: asked.length === 1 ? "p1" : "p2" };
      return [200, { lease_id: "lease-1", lease_duration: 2, renewable: true, data }];
    });
    provider.on("POST /v1/sys/leases/renew", (call) => {
      asked.push("renewal");
      expect(call.json()).toEqual({ lease_id: "lease-1", increment: 2 });
      const lease_duration = asked.length === 2 ? 2 : 0;
      return [200, { lease_id: "lease-1", lease_duration, renewable: true }];
    });
    const leased = { engine: "other", mount: "database", path: "creds/app", field: "password" };
    const proxy = await start(source(leased), { files }, oneThread);
    expect(await sent(proxy)).toBe("Bearer p1");
    await eventually(async () => (await sent(proxy)) === "Bearer p2");
    expect(asked.slice(0, 4)).toEqual(["read", "renewal", "renewal", "read"]);
  });

  test("the server's certificate has to be of ca_file, where there is one", async () => {
    const authority = await TestAuthority.create();
    provider = await own(StubProvider.start(await authority.server(["127.0.0.1"])));
    vaultServer();
    const trusted = { ...files, "ca.pem": authority.caPem };
    const proxy = await start(source({ ca_file: "ca.pem" }), { files: trusted });
    expect(await hundred(proxy)).toEqual(new Set(["Bearer v1"]));
    const other = await TestAuthority.create();
    const others = { ...files, "ca.pem": other.caPem };
    const wary = await start(source({ ca_file: "ca.pem" }), { files: others });
    expect(await sent(wary)).toContain("503");
    const { problem } = await wary.log(({ msg }) => msg === "secret not fetched");
    expect(problem).toMatch(/ca_file.*upstream\.tls/);
    const none = { ...files, "ca.pem": "none" };
    const checked = await runWith("check", file(source({ ca_file: "ca.pem" })), { files: none });
    expect(checked.stdout + checked.stderr).toMatch(/api\.test\.ca_file.*not a certificate/);
  });

  const failures: readonly (readonly [string, Settings, string])[] = [
    [
      "a role it does not know",
      { auth: { method: "kubernetes", role: "x", token_file: "jwt" } },
      "403: permission denied",
    ],
    ["a field that is not there", { field: "absent" }, "has no field absent"],
    ["a path that is not there", { path: "apps/none" }, "no secret at kv/data/apps/none"],
    [
      "the wrong version of the engine",
      { engine: "kv-v1", path: "data/apps/api" },
      "has no field token",
    ],
  ];
  test.each(failures)("%s is a refusal", async (_what, more, why) => {
    vaultServer();
    const proxy = await start(source(more), { files });
    expect(await sent(proxy)).toContain("no value from mappings.api.test (vault)");
    const line = await proxy.log(({ msg }) => msg === "secret not fetched");
    expect(line["problem"]).toContain(why);
  });

  test("hung or oversized, it holds a request no longer than max_wait", async () => {
    vaultServer();
    for (const instead of ["hang", [200, "x".repeat(300_000)]] as const) {
      provider.instead = instead;
      const proxy = await start(source({ max_wait: "300ms", timeout: "1s" }), { files });
      expect(await hundred(proxy)).toSatisfy((all: Set<string>) =>
        [...all].every((one) => one.startsWith("503") && one.includes(refused)),
      );
      expect(provider.count("POST /v1/auth/kubernetes/login")).toBeLessThan(50);
    }
  });
});

describe("github_app", () => {
  let issued: number;
  let lifeMs: number;

  function github(): void {
    issued = 0;
    lifeMs = 3_600_000;
    const isApp = async (authorization = ""): Promise<boolean> => {
      const { iss, iat = 0, exp = 0 } = await signedBy(authorization.slice(7), privateKey);
      const now = Date.now() / 1000;
      return (
        authorization.startsWith("Bearer ") && iss === "Iv1.app" && iat < now && exp - now <= 600
      );
    };
    provider.on("GET /api/v3/repos/acme/web/installation", async (call) =>
      (await isApp(call.headers.authorization)) ? [200, { id: 42, app_id: 1 }] : [401, {}],
    );
    provider.on("POST /api/v3/app/installations/42/access_tokens", async (call) => {
      if (!(await isApp(call.headers.authorization)))
        return [401, { message: "A JSON web token could not be decoded" }];
      expect(call.headers).toMatchObject({
        accept: "application/vnd.github+json",
        "x-github-api-version": "2022-11-28",
        "user-agent": expect.stringMatching(/\S/) as string,
      });
      const { permissions, repositories } = call.json();
      if (JSON.stringify(permissions) !== '{"contents":"read"}')
        return [
          422,
          { message: "The permissions requested are not granted to this installation." },
        ];
      expect(repositories).toEqual(["web"]);
      issued += 1;
      return [201, { token: `ghs_${issued}`, expires_at: soon(lifeMs), permissions }];
    });
  }
  const source = (more: Settings = {}): Settings => ({
    type: "github_app",
    app_id: "Iv1.app",
    private_key_file: "app.pem",
    repository: "acme/web",
    api_url: `${provider.url}/api/v3`,
    repositories: ["web"],
    permissions: { contents: "read" },
    ...more,
  });
  const files = { "app.pem": pem };

  test("one token for a hundred, renewed ahead of its end", async () => {
    github();
    lifeMs = 4_000;
    const proxy = await start(source(), { files }, oneThread);
    await eventually(() => issued > 0);
    lifeMs = 3_600_000;
    await eventually(async () => (await sent(proxy)) === `Bearer ghs_${issued}` && issued > 1);
    const renewed = issued;
    expect(await hundred(proxy)).toEqual(new Set([`Bearer ghs_${renewed}`]));
    expect(issued).toBe(renewed);
    expect(provider.count("GET /api/v3/repos/acme/web/installation")).toBe(1);
    const expiry = await proxy.metric("authbridge_secret_expiry_timestamp_seconds");
    expect(expiry).toBeGreaterThan(Date.now() / 1000 + 3_000);
  });

  test.each([
    ["organization", { organization: "acme & co" }, "orgs/acme%20%26%20co"],
    ["user", { user: "alice" }, "users/alice"],
    ["installation_id", { installation_id: 42 }, undefined],
  ])("%s is another way to say which installation", async (_key, named, place) => {
    github();
    if (place !== undefined)
      provider.on(`GET /api/v3/${place}/installation`, () => [200, { id: 42, app_id: 1 }]);
    const proxy = await start(source({ repository: undefined, ...named }), { files });
    expect(await sent(proxy)).toBe(`Bearer ghs_${issued}`);
    const asked = provider.calls
      .map(({ path }) => path)
      .filter((path) => path.endsWith("/installation"));
    expect(new Set(asked)).toEqual(
      new Set(place === undefined ? [] : [`/api/v3/${place}/installation`]),
    );
  });

  test("what the app may not have is refused, in GitHub's words for the operator only", async () => {
    github();
    const proxy = await start(source({ permissions: { contents: "write" } }), { files });
    const answer = await sent(proxy);
    expect(answer).toContain("no value from mappings.api.test (github_app)");
    expect(answer).not.toContain("permissions requested");
    const { problem } = await proxy.log(({ msg }) => msg === "secret not fetched");
    expect(problem).toContain("422: The permissions requested are not granted");
    const { stdout } = await runWith("doctor", file(source()), { files });
    expect(stdout).toMatch(/secret.*mappings\.api\.test \(github_app\).*expires/);
  });

  test("a key that is none, and two installations, are named with their line", async () => {
    const bad = file(source({ installation_id: 1 }));
    const { stdout, stderr } = await runWith("check", bad, { files });
    expect(stdout + stderr).toMatch(
      /\d+:\d+.*mappings\.api\.test\.\w+.*set one of installation_id/,
    );
    const unread = await runWith("check", file(source()), { files: { "app.pem": "garbage" } });
    expect(unread.stdout + unread.stderr).toMatch(
      /\d+:\d+.*mappings\.api\.test\.private_key_file.*no private key/,
    );
    expect(unread.code).not.toBe(0);
  });
});

describe("google", () => {
  const key = (more: object = {}): string =>
    JSON.stringify({
      type: "service_account",
      client_email: "agent@project.iam.gserviceaccount.com",
      private_key_id: "k1",
      private_key: privateKey.export({ format: "pem", type: "pkcs8" }),
      token_uri: `${provider.url}/token`,
      ...more,
    });
  const jwtBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer";
  const idToken = (audience: unknown): string => {
    const claims = { aud: audience, exp: inAnHour };
    return ["{}", JSON.stringify(claims), "s"]
      .map((part) => Buffer.from(part).toString("base64url"))
      .join(".");
  };

  function tokenEndpoint(): void {
    provider.on("POST /token", async ({ form }) => {
      if (form.get("grant_type") !== jwtBearer) return [400, { error: "unsupported_grant_type" }];
      const claims = await signedBy(form.get("assertion") ?? "", privateKey);
      const { iss, aud, exp = 0, iat = 0, scope, sub, target_audience: wanted } = claims;
      if (iss !== "agent@project.iam.gserviceaccount.com" || aud !== `${provider.url}/token`)
        return [400, { error: "invalid_grant", error_description: "Invalid JWT" }];
      expect(exp - iat).toBeLessThanOrEqual(3_600);
      if (wanted !== undefined) return [200, { id_token: idToken(wanted) }];
      const text = `ya29.${String(scope)}.${sub ?? "itself"}`;
      return [200, { access_token: text, expires_in: 3_599, token_type: "Bearer" }];
    });
  }

  test("a service account: scopes, a user of the domain, an audience", async () => {
    tokenEndpoint();
    const base = { type: "google_service_account", credentials_file: "key.json" };
    const files = { "key.json": key() };
    const scoped = { ...base, scopes: ["scope-a"], subject: "alice@example.com" };
    const proxy = await start(scoped, { files });
    expect(await hundred(proxy)).toEqual(new Set(["Bearer ya29.scope-a.alice@example.com"]));
    expect(provider.calls).toHaveLength(1);
    const identified = await start({ ...base, audience: "https://run.test" }, { files });
    expect(await sent(identified)).toBe(`Bearer ${idToken("https://run.test")}`);
    const { stdout, stderr, code } = await runWith("check", file(base), { files });
    expect(code).not.toBe(0);
    expect(stdout + stderr).toMatch(/mappings\.api\.test\.scopes.*either scopes or audience/);
  });

  test("a workload of somewhere else: its own token, the STS, a service account", async () => {
    const audience =
      "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q";
    const account = "/v1/projects/-/serviceAccounts/sa@project.iam.gserviceaccount.com";
    provider.on("POST /sts", ({ form }) => {
      expect(Object.fromEntries(form)).toEqual({
        grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
        audience,
        scope: "https://www.googleapis.com/auth/cloud-platform",
        requested_token_type: "urn:ietf:params:oauth:token-type:access_token",
        subject_token: "own-token",
        subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
      });
      return [200, { access_token: "federated", expires_in: 3_600, token_type: "Bearer" }];
    });
    provider.on("GET /own", ({ headers }) => {
      return headers["x-metadata"] === "yes" ? [200, { id: "own-token" }] : [403, {}];
    });
    provider.on(`POST ${account}:generateAccessToken`, (call) => {
      expect(call.headers.authorization).toBe("Bearer federated");
      expect(call.json()).toEqual({ scope: ["scope-a"], lifetime: "3600s" });
      return [200, { accessToken: "of-the-account", expireTime: soon(3_600_000) }];
    });
    const inKeys = {
      type: "google_workload_identity",
      audience,
      subject_token_file: "own",
      sts_url: `${provider.url}/sts`,
      iam_url: provider.url,
      service_account: "sa@project.iam.gserviceaccount.com",
      scopes: ["scope-a"],
    };
    const proxy = await start(inKeys, { files: { own: "own-token\n" } });
    expect(await sent(proxy)).toBe("Bearer of-the-account");
    const external = {
      type: "external_account",
      audience,
      subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
      token_url: `${provider.url}/sts`,
      service_account_impersonation_url: `${provider.url}${account}:generateAccessToken`,
      credential_source: {
        url: `${provider.url}/own`,
        headers: { "X-Metadata": "yes" },
        format: { type: "json", subject_token_field_name: "id" },
      },
    };
    const { type } = inKeys;
    const inFile = { type, credentials_file: "external.json", scopes: ["scope-a"] };
    const files = { "external.json": JSON.stringify(external) };
    const other = await start(inFile, { files });
    expect(await sent(other)).toBe("Bearer of-the-account");
  });
});

describe("a workload at Google", () => {
  const audience =
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q";
  const email = "sa@project.iam.gserviceaccount.com";
  const account = `/v1/projects/-/serviceAccounts/${email}`;
  const jwt = "urn:ietf:params:oauth:token-type:jwt";
  let asked: Record<string, string>;

  function google(): void {
    asked = {};
    provider.on("POST /sts", ({ form }) => {
      asked = Object.fromEntries(form);
      return [200, { access_token: `of-${asked["subject_token"] ?? ""}`, expires_in: 3_600 }];
    });
    provider.on("GET /own?of=me", () => [200, "own-token\n"]);
    provider.on(`POST ${account}:generateIdToken`, (call) => {
      const claims = { ...call.json(), by: call.headers.authorization, exp: inAnHour };
      const parts = ["{}", JSON.stringify(claims), "s"];
      return [200, { token: parts.map((one) => Buffer.from(one).toString("base64url")).join(".") }];
    });
  }
  const keys = (more: Settings): Settings => ({
    type: "google_workload_identity",
    audience,
    sts_url: `${provider.url}/sts`,
    ...more,
  });

  test("shows the token that subject_token_url gives, as subject_token_type says", async () => {
    google();
    const own = { subject_token_url: `${provider.url}/own?of=me`, scopes: ["scope-a", "scope-b"] };
    const proxy = await start(keys(own));
    expect(await sent(proxy)).toBe("Bearer of-own-token");
    expect(asked).toMatchObject({ audience, scope: "scope-a scope-b", subject_token_type: jwt });
    await proxy.reload(file(keys({ ...own, subject_token_type: "urn:x:saml2" })));
    await eventually(
      async () =>
        (await sent(proxy)) === "Bearer of-own-token" &&
        asked["subject_token_type"] === "urn:x:saml2",
    );
  });

  test("gets an ID token of the service account by id_token_audience", async () => {
    google();
    const more = {
      subject_token_file: "own",
      service_account: email,
      iam_url: `${provider.url}/`,
      id_token_audience: "https://run.test",
    };
    const proxy = await start(keys(more), { files: { own: "own-token" } });
    const [, claims = ""] = (await sent(proxy)).split(".");
    expect(JSON.parse(Buffer.from(claims, "base64url").toString())).toEqual({
      audience: "https://run.test",
      includeEmail: true,
      by: "Bearer of-own-token",
      exp: inAnHour,
    });
  });

  test("shows a JWT-SVID for jwt_svid_audience", async () => {
    google();
    const authority = SpiffeAuthority.create();
    const agent = await own(WorkloadApi.start());
    agent.update({ svid: authority.svid("/agent"), bundle: authority.caDer });
    const spiffe = { socket: agent.address };
    const source = keys({ jwt_svid_audience: "sts.test", scopes: ["scope-a"] });
    const proxy = await start(source, {}, { spiffe });
    expect(await sent(proxy)).toMatch(/^Bearer of-/);
    expect(agent.audiences).toContain("sts.test");
    const { stdout, stderr } = await runWith("check", file(source));
    expect(stdout + stderr).toMatch(/\.jwt_svid_audience: needs a spiffe block/);
  });

  const refusals: readonly (readonly [string, Settings, string])[] = [
    ...[
      "subject_token_file",
      "subject_token_url",
      "jwt_svid_audience",
      "audience",
      "subject_token_type",
      "service_account",
      "sts_url",
      "iam_url",
    ].map(
      (key) =>
        [
          key,
          { credentials_file: "x", scopes: ["a"], [key]: "http://x.test" },
          "no effect with credentials_file",
        ] as const,
    ),
    [
      "iam_url",
      { audience, subject_token_file: "x", scopes: ["a"], iam_url: "http://x.test" },
      "no effect without service_account",
    ],
    [
      "subject_token_url",
      { audience, subject_token_file: "x", subject_token_url: "http://x.test", scopes: ["a"] },
      "set one of",
    ],
    [
      "service_account",
      { audience, subject_token_file: "x", id_token_audience: "y" },
      "required for an ID token",
    ],
    ["scopes", { audience, subject_token_file: "x" }, "either scopes or id_token_audience"],
  ];
  test("keys that exclude or need each other are named", () => {
    for (const [key, source, words] of refusals) {
      const given =
        key === "service_account" && "credentials_file" in source
          ? { ...source, [key]: email }
          : source;
      const { error } = secretConfig.safeParse({ type: "google_workload_identity", ...given });
      const said = error?.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
      expect(said, JSON.stringify(source)).toEqual([
        expect.stringMatching(new RegExp(`^${key}: .*${words}`)),
      ]);
    }
  });
});

describe("oauth", () => {
  test("a refresh token that is replaced is written, and the next fetch uses it", async () => {
    let current = "r1";
    let count = 0;
    provider.on("POST /token", ({ form, headers }) => {
      expect(headers.authorization).toBeUndefined();
      expect(form.get("client_id")).toBe("agent");
      expect(form.get("client_secret")).toBe("hush");
      if (form.get("grant_type") !== "refresh_token" || form.get("refresh_token") !== current)
        return [400, { error: "invalid_grant" }];
      count += 1;
      current = `r${count + 1}`;
      const expires_in = count === 1 ? 3 : 3_600;
      return [
        200,
        { access_token: `a${count}`, token_type: "Bearer", expires_in, refresh_token: current },
      ];
    });
    const source = {
      type: "oauth_refresh_token",
      token_url: `${provider.url}/token`,
      refresh_token_file: "refresh",
      identity: { type: "client-secret", client_id: "agent", client_secret_file: "secret" },
    };
    const files = { refresh: "r1\n", secret: "hush" };
    const proxy = await start(source, { files });
    await hundred(proxy);
    expect(count).toBeLessThanOrEqual(2);
    await eventually(async () => (await sent(proxy)) === "Bearer a2");
    expect((await readFile(proxy.path("refresh"), "utf8")).trim()).toBe("r3");
    expect(proxy.stderr).not.toMatch(/hush|\br[123]\b/);
  });

  test("rotated_token_file takes what replaces the refresh token, and the newer of the two files counts", async () => {
    const used: string[] = [];
    provider.on("POST /token", ({ form }) => {
      used.push(form.get("refresh_token") ?? "");
      const refresh_token = `${used.at(-1) ?? ""}+`;
      return [
        200,
        { access_token: `a${used.length}`, token_type: "Bearer", expires_in: 3_600, refresh_token },
      ];
    });
    const directory = await mkdtemp(join(tmpdir(), "authbridge-rotated-"));
    await own({ close: () => rm(directory, { recursive: true }) });
    const [given, rotated] = [join(directory, "given"), join(directory, "rotated")];
    await writeFile(given, "r1\n", { mode: 0o400 });
    const source = {
      type: "oauth_refresh_token",
      token_url: `${provider.url}/token`,
      refresh_token_file: given,
      rotated_token_file: rotated,
      client_id: "pub",
    };
    const first = await start(source, {}, oneThread);
    expect(await sent(first)).toBe("Bearer a1");
    expect(await readFile(given, "utf8")).toBe("r1\n");
    expect(await readFile(rotated, "utf8")).toBe("r1+\n");
    expect((await stat(rotated)).mode & 0o777).toBe(0o600);
    expect(await sent(await start(source, {}, oneThread))).toBe("Bearer a2");
    // Consent that was given anew.
    await writeFile(join(directory, "new"), "s1");
    await rename(join(directory, "new"), given);
    const later = new Date(Date.now() + 60_000);
    await utimes(given, later, later);
    expect(await sent(await start(source, {}, oneThread))).toBe("Bearer a3");
    expect(used).toEqual(["r1", "r1+", "s1"]);
  });

  test("a public client, and one that asks for itself", async () => {
    provider.on("POST /token", ({ form }) => {
      const { grant_type: grant = "", client_id: id = "", scope = "" } = Object.fromEntries(form);
      return [
        200,
        {
          access_token: `${grant}.${id}.${scope.replace(" ", ",")}`,
          token_type: "Bearer",
          expires_in: 300,
        },
      ];
    });
    const common = { token_url: `${provider.url}/token`, scopes: ["a", "b"] };
    const open = {
      ...common,
      type: "oauth_refresh_token",
      refresh_token_file: "r",
      client_id: "pub",
    };
    const proxy = await start(open, { files: { r: "r1" } });
    expect(await sent(proxy)).toBe("Bearer refresh_token.pub.a,b");
    const identity = { type: "client-secret", client_id: "self", client_secret: "s" };
    const itself = await start({ ...common, type: "oauth_client_credentials", identity });
    expect(await sent(itself)).toBe("Bearer client_credentials.self.a,b");
  });
});
