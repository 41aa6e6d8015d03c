/** The workload's own identity, from the Workload API, proves the proxy to the token endpoint. */
import { X509Certificate } from "node:crypto";
import { beforeAll, describe, expect, test } from "vitest";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import { get } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { oneThread, runWith, type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { SpiffeAuthority } from "../support/spiffe-authority.ts";
import { StrictIdp } from "../support/strict-idp.ts";
import { jwtAnswer, jwtSvid, WorkloadApi } from "../support/workload-api.ts";

const own = owner();
const authority = SpiffeAuthority.create();
const spiffeId = "spiffe://example.org/agent";
const audience = "https://idp.example/realms/agents";
const byToken = { type: "spiffe", jwt_audience: audience };

let target: HttpOrigin;
let idp: StubIdp;

beforeAll(async () => {
  target = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
});

interface Here {
  readonly identity: Settings;
  readonly api: WorkloadApi;
  readonly tokenUrl?: string;
  readonly over?: Settings;
  readonly files?: Readonly<Record<string, string>>;
}

function exchanging({
  identity,
  api,
  tokenUrl,
  over = {},
  files = {},
}: Here): Promise<ProxyProcess> {
  const rules = [{ host: "tool.test", target_audience: "tool" }];
  const config = {
    token_url: tokenUrl ?? idp.tokenUrl,
    identity,
    routes: { file: "none.yaml", rules },
  };
  return own(
    ProxyProcess.start(
      merge(
        settings({
          egress: { hosts: { "tool.test": ["127.0.0.1"] } },
          spiffe: { socket: api.address, mirror_files: false },
        }),
        merge(outbound({ name: "token-exchange", config }), over),
      ),
      { files },
    ),
  );
}

let counter = 0;

/** A call for a user who has not called before. */
async function call(proxy: ProxyProcess): Promise<number> {
  const token = await idp.token({ claims: { sub: `user-${(counter += 1)}` } });
  const url = `http://tool.test:${target.port}/${counter}`;
  return (await get(proxy.forward, url, { Authorization: `Bearer ${token}` })).status;
}

const isReady = async (proxy: ProxyProcess): Promise<boolean> =>
  (await proxy.health("/readyz")).status === 200;

describe("a JWT-SVID of the Workload API", () => {
  test.each(["jwt-spiffe", "jwt-bearer"])(
    "is the client's assertion (%s), the same one while it is young",
    async (type) => {
      const api = await own(WorkloadApi.start());
      const identity = type === "jwt-spiffe" ? byToken : { ...byToken, assertion_type: type };
      const over = oneThread("each thread has JWT-SVIDs of its own", {});
      const proxy = await exchanging({ identity, api, over });
      await eventually(() => isReady(proxy));
      const before = idp.tokenCalls.length;
      expect([await call(proxy), await call(proxy)]).toEqual([200, 200]);
      const forms = idp.tokenCalls.slice(before).map(({ form }) => form);
      expect(forms).toHaveLength(2);
      for (const form of forms) {
        expect(form.get("client_assertion_type")).toBe(
          `urn:ietf:params:oauth:client-assertion-type:${type}`,
        );
        expect(form.has("client_id")).toBe(false);
      }
      const [first, second] = forms.map((form) => form.get("client_assertion") ?? "");
      expect(first).toBe(second);
      expect(first).toMatch(/^ey/);
      expect(api.audiences).toEqual([audience]);
      expect(proxy.stderr).not.toContain(first);
    },
  );

  test("goes with the client_id of the file, where there is one", async () => {
    const api = await own(WorkloadApi.start());
    const proxy = await exchanging({ identity: { ...byToken, client_id: "agent" }, api });
    await eventually(async () => (await call(proxy)) === 200);
    expect(idp.tokenCalls.at(-1)?.form.get("client_id")).toBe("agent");
  });

  test("that has ended while nobody called is replaced for the next call", async () => {
    const api = await own(WorkloadApi.start());
    const ends = (): number => Math.floor(Date.now() / 1_000) + 2;
    api.onJwt = (aud) =>
      jwtAnswer(spiffeId, jwtSvid({ sub: spiffeId, aud: [aud], exp: ends(), n: counter }));
    const proxy = await exchanging({ identity: byToken, api });
    await eventually(async () => (await call(proxy)) === 200);
    const end = Date.now() + 2_500;
    await eventually(() => Date.now() > end);
    const asked = api.audiences.length;
    expect(await call(proxy)).toBe(200);
    expect(api.audiences.length).toBeGreaterThan(asked);
  });

  test("that the agent does not give leaves the proxy unready, with the reason, until it does", async () => {
    const api = await own(WorkloadApi.start());
    const { onJwt } = api;
    api.onJwt = () => ({ status: 7, words: "no identity issued" });
    const proxy = await exchanging({ identity: byToken, api });
    const answer = await eventually(async () => {
      const answer = await proxy.health("/readyz");
      return answer.text.includes("no identity issued") && answer;
    });
    expect(answer.status).toBe(503);
    const asked = idp.tokenCalls.length;
    expect(await call(proxy)).toBe(503);
    expect(idp.tokenCalls).toHaveLength(asked);
    await proxy.log(
      ({ msg, reason }) =>
        msg === "token endpoint not usable" && /no identity issued/.test(String(reason)),
    );
    api.onJwt = onJwt;
    await eventually(async () => (await call(proxy)) === 200);
    await eventually(() => isReady(proxy));
  });
});

describe("an X.509-SVID of the Workload API", () => {
  test("is the client's certificate, and its successor is", async () => {
    const api = await own(WorkloadApi.start());
    const servers = await TestAuthority.create();
    const strict = await own(
      StrictIdp.start({
        server: await servers.server(),
        clientCa: authority.caPem,
        clients: [
          {
            client_id: "agent",
            token_endpoint_auth_method: "tls_client_auth",
            tls_client_auth_san_uri: spiffeId,
          },
        ],
      }),
    );
    const proxy = await exchanging({
      identity: { type: "tls-client-auth", client_id: "agent" },
      api,
      tokenUrl: strict.tokenUrl,
      over: { tls_bridge: { upstream_ca_bundle: "ca.pem" } },
      files: { "ca.pem": servers.caPem },
    });
    expect((await proxy.health("/readyz")).status).toBe(503);
    // The second comes from an intermediate, which has to be shown along with it.
    for (const svid of [authority.svid("/agent"), authority.intermediate().svid("/agent")]) {
      api.update({ svid, bundle: authority.caDer });
      const { fingerprint256 } = new X509Certificate(svid.cert);
      await eventually(async () => {
        const status = await call(proxy);
        return status === 200 && strict.granted.at(-1)?.fingerprint === fingerprint256;
      });
    }
    expect(strict.granted.at(-1)?.method).toBe("tls_client_auth");
    expect(strict.refused).toEqual([]);
    await eventually(() => isReady(proxy));
    expect(proxy.stderr).not.toContain("PRIVATE KEY");
  });
});

describe("check", () => {
  const refused = async (identity: Settings): Promise<string> => {
    const config = { token_url: "https://idp.test/token", identity };
    const file = merge(settings(), outbound({ name: "token-exchange", config }));
    const { code, stderr } = await runWith("check", file);
    expect(code, stderr).toBe(2);
    return stderr;
  };

  test("refuses an identity for which there is no source", async () => {
    expect(await refused(byToken)).toMatch(
      /config\.identity\.type: spiffe needs a spiffe block.*identity\.jwt_svid_file/,
    );
    expect(await refused({ type: "tls-client-auth", client_id: "agent" })).toMatch(
      /config\.identity\.type: tls-client-auth needs a spiffe block.*client_certificate_file/,
    );
  });

  test("refuses half of a certificate", async () => {
    const half = { type: "tls-client-auth", client_id: "agent", client_certificate_file: "c" };
    expect(await refused(half)).toMatch(/identity\.client_certificate_key_file: is required/);
  });
});
