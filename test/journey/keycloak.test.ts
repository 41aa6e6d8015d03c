/**
 * The story of docs/keycloak.md against the server itself, whose distribution `KEYCLOAK_HOME` names; skipped where there is
 * none. `.ci/keycloak` fetches it and runs this file.
 */
import { spawn } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { decodeJwt, exportJWK, SignJWT } from "jose";
import { beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { temporaryDirectory, TestAuthority } from "../support/certs.ts";
import { selfSignedCertificate } from "../support/client-certificate.ts";
import { eventually } from "../support/eventually.ts";
import { freePort } from "../support/free-port.ts";
import { get, type RawResponse } from "../support/http-client.ts";
import { Keycloak } from "../support/keycloak.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type LogLine, type Settings } from "../support/program.ts";
import { merge, ProxyProcess } from "../support/proxy.ts";
import { jwtAnswer, WorkloadApi } from "../support/workload-api.ts";

const home = process.env["KEYCLOAK_HOME"] ?? "";
const example = fileURLToPath(new URL("../../examples/keycloak/", import.meta.url));
const client = "weather-agent";
const spiffeId = "spiffe://example.org/weather-agent";
const inMinutes = 600_000;

const own = owner();
const certificate = selfSignedCertificate(client);
const spire = generateKeyPairSync("ec", { namedCurve: "P-256" });
let keycloak: Keycloak;
let spireKeys: HttpOrigin;
let authority: TestAuthority;
let folder: string;

/** An agent with its proxy: the files of the example, on free ports, with another identity where the test has one. */
interface Sidecar {
  readonly proxy: ProxyProcess;
  /** What a user's call of the agent comes to, from the tool's mouth. */
  call(token: string, path?: string): Promise<RawResponse>;
}

async function sidecar(
  identity: Settings = {},
  files: Readonly<Record<string, string>> = {},
  { url = keycloak.url, over = {} }: { readonly url?: string; readonly over?: Settings } = {},
): Promise<Sidecar> {
  const agentPort = await freePort();
  const settings = parse(await readFile(`${example}config.yaml`, "utf8")) as Settings & {
    pipeline: { outbound: { plugins: { config: Settings }[] } };
  };
  const [exchange] = settings.pipeline.outbound.plugins;
  if (exchange === undefined) throw new Error("the example has no token-exchange");
  exchange.config = merge(exchange.config, {
    provider_url: url,
    routes: { file: `${example}routes.yaml` },
    identity: {
      ...(Object.keys(identity).length > 0 ? { client_secret: undefined } : {}),
      ...identity,
    },
  });
  const proxy = await own(
    ProxyProcess.start(
      merge(merge(settings, over), {
        listener: {
          reverse_proxy_addr: "127.0.0.1:0",
          reverse_proxy_backend: `http://127.0.0.1:${agentPort}`,
          forward_proxy_addr: "127.0.0.1:0",
          health_addr: "127.0.0.1:0",
        },
        stats: { address: "127.0.0.1:0" },
        tls_bridge: { upstream_ca_bundle: "idp-ca.pem" },
      }),
      {
        env: { KEYCLOAK_URL: keycloak.url, AGENT_SECRET: "change-me" },
        files: { "idp-ca.pem": authority.caPem, ...files },
      },
    ),
  );
  const forward = `http://${proxy.forward.host}:${proxy.forward.port}`;
  const agent = spawn(process.execPath, [`${example}agent.ts`], {
    env: {
      ...process.env,
      AGENT_PORT: String(agentPort),
      TOOL_PORT: String(await freePort()),
      NODE_USE_ENV_PROXY: "1",
      HTTP_PROXY: forward,
      http_proxy: forward,
      NO_PROXY: "",
      no_proxy: "",
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  await own({ close: () => void agent.kill("SIGKILL") });
  await new Promise((resolve) => agent.stdout.once("data", resolve));
  await eventually(async () => (await proxy.health("/readyz")).status === 200);
  return {
    proxy,
    call: (token, path = "/weather") =>
      get(proxy.reverse, path, { Authorization: `Bearer ${token}` }),
  };
}

/** A call that gets no token: its status, and the line of the log that says why the token endpoint refused. */
async function refused(
  here: Sidecar,
  path?: string,
): Promise<{ readonly status: number; readonly line: LogLine }> {
  const { proxy } = here;
  const isRefusal = ({ msg }: LogLine): boolean => msg === "token endpoint refused";
  const before = proxy.logs.filter(isRefusal).length;
  const { status } = await here.call(await keycloak.login("alice"), path);
  const line = await eventually(() => proxy.logs.filter(isRefusal)[before] ?? false);
  const { error, description, refusal, remedy } = line;
  process.stdout.write(`${JSON.stringify({ status, error, description, refusal, remedy })}\n`);
  return { status, line };
}

async function svid(): Promise<string> {
  return new SignJWT({})
    .setProtectedHeader({ alg: "ES256", kid: "spire-1", typ: "JWT" })
    .setSubject(spiffeId)
    .setAudience(keycloak.issuer)
    .setIssuedAt()
    .setExpirationTime("5m")
    .sign(spire.privateKey);
}

describe.skipIf(home === "")("Keycloak", { timeout: inMinutes }, () => {
  let usual: Sidecar;

  beforeAll(async () => {
    authority = await TestAuthority.create();
    folder = await temporaryDirectory();
    const server = await authority.server();
    const files = { cert: "server.crt", key: "server.key", trusted: "agent.crt" };
    await writeFile(`${folder}/server.crt`, server.cert);
    await writeFile(`${folder}/server.key`, server.key);
    await writeFile(`${folder}/agent.crt`, certificate.cert);
    spireKeys = await own(HttpOrigin.launch());
    const keys = [
      { ...(await exportJWK(spire.publicKey)), kid: "spire-1", alg: "ES256", use: "jwt-svid" },
    ];
    spireKeys.on("/keys", () =>
      reply(200, JSON.stringify({ keys }), { "Content-Type": "application/json" }),
    );
    keycloak = await own(
      Keycloak.start({
        home,
        realm: "agents",
        realmFile: `${example}realm.json`,
        features: ["client-auth-federated", "spiffe"],
        env: {
          AGENT_CERTIFICATE: certificate.cert.replace(/-----[^-]+-----|\s/g, ""),
        },
        tls: Object.fromEntries(
          Object.entries(files).map(([name, file]) => [name, `${folder}/${file}`]),
        ) as typeof files,
      }),
    );
    usual = await sidecar();
  }, inMinutes);

  test("exchanges a user's token for one of the tool", async () => {
    const token = await keycloak.login("alice");
    const answer = await usual.call(token);
    expect(answer.status, usual.proxy.stderr).toBe(200);
    expect(answer.json()).toMatchObject({
      aud: "weather-tool",
      azp: client,
      sub: decodeJwt(token).sub,
      scope: expect.stringContaining("weather.read"),
    });
    expect(usual.proxy.stderr).not.toContain(token);
  });

  test("refuses a caller whose token is for somebody else", async () => {
    expect((await usual.call(await keycloak.login("alice", "admin-cli"))).status).toBe(401);
    expect(await usual.proxy.log(({ cause }) => cause === "audience_mismatch")).toBeDefined();
  });

  test("has no token for an audience that the agent may not have: 403", async () => {
    const { status, line } = await refused(usual, "/billing");
    expect(status).toBe(403);
    expect(line).toMatchObject({
      refusal: "caller-right",
      description: "Requested audience not available: billing-tool",
    });
  });

  test.each([
    ["the agent's client is disabled", client, { enabled: false }, /client is enabled/],
    ["the tool's client is disabled", "weather-tool", { enabled: false }, /enable the client/],
    [
      "exchange is not enabled",
      client,
      { attributes: { "standard.token.exchange.enabled": "false" } },
      /Standard Token Exchange/,
    ],
  ])(
    "answers 503 while %s, and says in the log what to change",
    async (_what, id, change, remedy) => {
      await keycloak.changeClient(id, change);
      const { status, line } = await refused(usual);
      expect(status).toBe(503);
      expect(line).toMatchObject({
        refusal: "registration",
        remedy: expect.stringMatching(remedy),
      });
      await keycloak.changeClient(id, {
        enabled: true,
        ...(id === client ? { attributes: { "standard.token.exchange.enabled": "true" } } : {}),
      });
      expect((await usual.call(await keycloak.login("alice"))).status).toBe(200);
    },
  );

  test("answers 503 to a wrong secret, and takes the right one as soon as the file has it", async () => {
    const here = await sidecar(
      { type: "client-secret", client_secret_file: "secret.txt" },
      { "secret.txt": "wrong-secret" },
    );
    const { status, line } = await refused(here);
    expect(status).toBe(503);
    expect(line).toMatchObject({ status: 401, refusal: "registration" });
    expect(here.proxy.stderr).not.toContain("wrong-secret");
    const token = await keycloak.login("alice");
    expect((await here.call(token)).status).toBe(503);
    await writeFile(here.proxy.path("secret.txt"), "change-me\n");
    await eventually(async () => (await here.call(token)).status === 200);
  });

  test("takes tokens of a new key at once, and of the one after it", async () => {
    const kids = new Set<string | undefined>();
    for (const priority of [200, 300]) {
      await keycloak.rotateKeys(priority);
      const token = await keycloak.login("alice");
      kids.add(Buffer.from(token.split(".")[0] ?? "", "base64url").toString());
      expect((await usual.call(token)).status).toBe(200);
    }
    expect(kids.size).toBe(2);
  });

  describe("knows the agent", () => {
    const twice = async (here: Sidecar): Promise<void> => {
      for (let count = 0; count < 2; count += 1) {
        const answer = await here.call(await keycloak.login("alice"));
        expect(answer.status, here.proxy.stderr).toBe(200);
        expect(answer.json()).toMatchObject({ aud: "weather-tool", azp: client });
      }
    };

    test.each([{}, { jwt_audience: "realm" }])(
      "by assertions that it signs (private_key_jwt) %o",
      async ({ jwt_audience: audience }) => {
        await keycloak.changeClient(client, { clientAuthenticatorType: "client-jwt" });
        const here = await sidecar(
          {
            type: "private-key-jwt",
            signing_key_file: "agent.key",
            ...(audience === undefined ? {} : { jwt_audience: keycloak.issuer }),
          },
          { "agent.key": certificate.key },
        );
        await twice(here);
      },
    );

    test("by its certificate (tls_client_auth)", async () => {
      await keycloak.changeClient(client, { clientAuthenticatorType: "client-x509" });
      const here = await sidecar(
        {
          type: "tls-client-auth",
          client_certificate_file: "agent.crt",
          client_certificate_key_file: "agent.key",
        },
        { "agent.crt": certificate.cert, "agent.key": certificate.key },
        { url: keycloak.secureUrl },
      );
      await twice(here);
    });

    test("by its JWT-SVID (jwt-spiffe), which says who it is", async () => {
      await keycloak.create("/identity-provider/instances", {
        alias: "spire",
        providerId: "spiffe",
        config: { issuer: "spiffe://example.org", bundleEndpoint: `${spireKeys.url}/keys` },
      });
      await keycloak.changeClient(client, { clientAuthenticatorType: "federated-jwt" });
      const spiffe = {
        type: "spiffe",
        client_id: undefined,
        jwt_audience: keycloak.issuer,
        jwt_svid_file: "svid.jwt",
      };
      const files = { "svid.jwt": await svid() };
      await twice(await sidecar(spiffe, files));
      // With a client_id beside it, Keycloak compares that with the SPIFFE ID.
      const named = await sidecar({ ...spiffe, client_id: client }, files);
      const { status, line } = await refused(named);
      expect(status).toBe(503);
      expect(line).toMatchObject({
        refusal: "registration",
        remedy: expect.stringContaining("send_client_id"),
      });
      await twice(await sidecar({ ...spiffe, client_id: client, send_client_id: false }, files));
    });

    test("by its JWT-SVID from the Workload API", async () => {
      const api = await own(WorkloadApi.start());
      api.onJwt = async () => jwtAnswer(spiffeId, await svid());
      const identity = { type: "spiffe", client_id: undefined, jwt_audience: keycloak.issuer };
      const over = { spiffe: { socket: api.address, mirror_files: false } };
      await twice(await sidecar(identity, {}, { over }));
      expect(api.audiences).toEqual([keycloak.issuer]);
    });
  });

  test("is awaited while it restarts, and its new keys are taken without a restart of the proxy", async () => {
    const here = await sidecar();
    const token = await keycloak.login("alice");
    await keycloak.down();
    expect((await here.call(token)).status).toBe(503);
    await keycloak.up();
    await eventually(async () => {
      const answer = await here.call(await keycloak.login("alice"));
      return answer.status === 200;
    });
  });
});
