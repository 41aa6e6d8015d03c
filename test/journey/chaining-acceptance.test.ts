/** A chain counts only when it has been proved: at the start, on a reload, from the command line, and in what is shown. */
import { X509Certificate } from "node:crypto";
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { stringify } from "yaml";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import { get, openTunnel } from "../support/http-client.ts";
import { HttpOrigin, type OriginConnection, reply, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runWith, type Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";
import { closedPort, StubParent } from "../support/stub-parent.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
let origin: HttpOrigin;
let parent: StubParent;
let authority: TestAuthority;
let other: TestAuthority;

interface StatusView {
  readonly spec: Record<string, unknown> | null;
  readonly status: Record<string, unknown> | null;
  readonly condition: {
    readonly accepted: boolean;
    readonly probed: boolean;
    readonly failures: readonly { endpoint: string; hop: string; message: string }[];
  };
}

beforeAll(async () => {
  authority = await TestAuthority.create("good root");
  other = await TestAuthority.create("other root");
  origin = await own(HttpOrigin.launch());
  origin.on("/broken", () => reply(503, "no"));
  parent = await own(StubParent.start());
});

const block = (url: string, over: Settings = {}): Settings =>
  settings({
    reload: { debounce: "20ms" },
    upstream_proxy: {
      http_proxy: url,
      https_proxy: url,
      readiness_endpoints: [`${origin.url}/ready`],
      readiness_timeout: "1s",
      readiness_retry: "0s",
      ...over,
    },
  });

async function shown(proxy: ProxyProcess): Promise<StatusView> {
  const config = JSON.parse((await proxy.stats("/config")).text) as {
    upstream_proxy_status: StatusView;
  };
  const reload = JSON.parse((await proxy.stats("/reload/status")).text) as {
    upstream_proxy: StatusView;
  };
  expect(reload.upstream_proxy).toEqual(config.upstream_proxy_status);
  return config.upstream_proxy_status;
}

describe("at the start", () => {
  test("an endpoint that answers through the chain lets it serve, and the proof is shown", async () => {
    parent.heads.length = 0;
    const proxy = await own(ProxyProcess.start(block(parent.url, { no_proxy: "b.test a.test" })));
    expect(parent.lines).toEqual([`GET ${origin.url}/ready HTTP/1.1`]);
    expect(await shown(proxy)).toMatchObject({
      spec: { http_proxy: parent.url, no_proxy: ["b.test", "a.test"] },
      status: { http_proxy: parent.url, readiness_endpoints: [`${origin.url}/ready`] },
      condition: { accepted: true, probed: true, failures: [] },
    });
    expect(await proxy.metric("authbridge_upstream_proxy_accepted")).toBe(1);
    expect(await proxy.metric("authbridge_upstream_proxy_probes_total", { result: "ok" })).toBe(1);
  });

  test("one that does not ends the process with 2, the place in the file and the hop", async () => {
    const ended = await runWith("run", block(`http://127.0.0.1:${await closedPort()}`));
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(/proxy\.yaml:\d+:\d+.*upstream_proxy\.readiness_endpoints/);
    expect(ended.stderr).toMatch(/hop that failed is tcp.*ECONNREFUSED/);
  });

  test("--probe=never serves without asking", async () => {
    const file = stringify(block(`http://127.0.0.1:${await closedPort()}`));
    const serving = await own(ProxyProcess.start(file, { args: ["--probe=never"] }));
    expect(await shown(serving)).toMatchObject({ condition: { accepted: true, probed: false } });
    const port = await closedPort();
    const checked = await runWith("check", block(`http://127.0.0.1:${port}`), {
      args: ["--probe=never"],
    });
    expect(checked.code).toBe(0);
    const wrong = await runWith("check", block(parent.url), { args: ["--probe=perhaps"] });
    expect(wrong.code).toBe(2);
  });
});

describe("check --probe", () => {
  test("succeeds where the chain works, and check alone does not ask", async () => {
    parent.heads.length = 0;
    expect((await runWith("check", block(parent.url))).code).toBe(0);
    expect(parent.heads).toEqual([]);
    const ended = await runWith("check", block(parent.url), { args: ["--probe"] });
    expect(ended.code).toBe(0);
    expect(ended.stderr).toContain(`probe: reached ${origin.url}/ready`);
    expect(JSON.parse(ended.stdout)).toMatchObject({
      upstream_proxy_status: { spec: { http_proxy: parent.url } },
    });
  });

  const refusals: readonly (readonly [hop: string, make: () => Promise<Settings>, RegExp])[] = [
    ["tcp", async () => block(`http://127.0.0.1:${await closedPort()}`), /ECONNREFUSED/],
    ["dns", async () => block("http://no-such-proxy.invalid:3128"), /no-such-proxy\.invalid/],
    [
      "tls",
      async () => {
        const secured = await own(StubParent.start(await other.server(["127.0.0.1"])));
        return block(secured.url);
      },
      /presented: .*issued by other root/,
    ],
    [
      "auth",
      async () => {
        const asking = await own(StubParent.start());
        asking.act = () => reply(407, "who?");
        return block(asking.url);
      },
      /credentials \(407\)/,
    ],
    [
      "connect",
      async () => {
        const refusing = await own(StubParent.start());
        refusing.act = () => reply(403, "no tunnels");
        return block(refusing.url, { readiness_endpoints: ["https://192.0.2.1/"] });
      },
      /CONNECT 192\.0\.2\.1:443 with status 403/,
    ],
    [
      "connect",
      async () => {
        const silent = await own(StubParent.start());
        silent.act = () => undefined;
        return block(silent.url, { readiness_endpoints: ["https://192.0.2.1/"] });
      },
      /did not answer CONNECT 192\.0\.2\.1:443 in 1000 ms/,
    ],
    [
      "http",
      async () => block(parent.url, { readiness_endpoints: [`${origin.url}/broken`] }),
      /status 503/,
    ],
  ];
  test.each(refusals)("names the hop %s", async (hop, make, why) => {
    const ended = await runWith("check", await make(), { args: ["--probe"] });
    expect(ended.code).toBe(2);
    expect(ended.stderr).toContain(`the hop that failed is ${hop}:`);
    expect(ended.stderr).toMatch(why);
  });
});

describe("a reload", () => {
  async function serving(): Promise<ProxyProcess> {
    const proxy = await own(
      ProxyProcess.start(block(parent.url), {
        files: { "good.pem": authority.caPem, "other.pem": other.caPem },
      }),
    );
    expect((await get(proxy.forward, `${origin.url}/served`)).status).toBe(200);
    return proxy;
  }

  const bad: readonly (readonly [what: string, hop: string, make: () => Promise<Settings>])[] = [
    ["a bad parent", "tcp", async () => block(`http://127.0.0.1:${await closedPort()}`)],
    [
      "a bad CA",
      "tls",
      async () => {
        const secured = await own(StubParent.start(await authority.server(["127.0.0.1"])));
        return block(secured.url, { trusted_ca: "other.pem" });
      },
    ],
    [
      "an endpoint that cannot be reached",
      "http",
      async () => block(parent.url, { readiness_endpoints: [`${origin.url}/broken`] }),
    ],
  ];
  test.each(bad)(
    "to %s leaves the accepted chain serving, and says why",
    async (_what, hop, make) => {
      const proxy = await serving();
      const candidate = await make();
      const error = await proxy.refusedReload(candidate);
      expect(error).toContain(`the hop that failed is ${hop}:`);
      const view = await shown(proxy);
      expect(view.status).toMatchObject({ http_proxy: parent.url });
      const wanted = candidate["upstream_proxy"] as { http_proxy: string };
      expect(view.spec).toMatchObject({ http_proxy: wanted.http_proxy });
      expect(view.condition.accepted).toBe(false);
      expect(view.condition.failures).toMatchObject([{ hop }]);
      expect(await proxy.metric("authbridge_upstream_proxy_accepted")).toBe(0);
      expect(await proxy.metric("authbridge_upstream_proxy_probes_total", { result: hop })).toBe(1);
      expect((await get(proxy.forward, `${origin.url}/still`)).status).toBe(200);
    },
  );

  test("to a good parent takes over, and a tunnel through the old one goes on", async () => {
    const proxy = await serving();
    const echo = await own(TcpOrigin.start(echoBack));
    const { client } = await openTunnel(proxy.forward, echo.authority);
    client.send("one");
    expect((await client.reader.exactly(3)).toString()).toBe("one");
    const secured = await own(StubParent.start(await authority.server(["127.0.0.1"])));
    await proxy.reload(block(secured.url, { trusted_ca: proxy.path("good.pem") }));
    expect(await shown(proxy)).toMatchObject({
      status: { http_proxy: secured.url },
      condition: { accepted: true, failures: [] },
    });
    parent.heads.length = 0;
    expect((await get(proxy.forward, `${origin.url}/new`)).status).toBe(200);
    expect(parent.heads).toEqual([]);
    expect(secured.lines.at(-1)).toContain("/new");
    client.send("two");
    expect((await client.reader.exactly(3)).toString()).toBe("two");
    client.close();
  });

  test("is tried again while the endpoint is what is missing", async () => {
    const proxy = await serving();
    let isUp = false;
    origin.on("/later", () => (isUp ? reply(200, "up") : reply(503, "down")));
    const endpoints = { readiness_endpoints: [`${origin.url}/later`], readiness_retry: "100ms" };
    await proxy.refusedReload(block(parent.url, endpoints));
    isUp = true;
    await eventually(async () => (await shown(proxy)).condition.accepted);
    expect((await shown(proxy)).status).toMatchObject({
      readiness_endpoints: endpoints.readiness_endpoints,
    });
  });

  test("follows the files that the block names", async () => {
    const asking = await own(StubParent.start());
    const seen = (): string => /Basic (\S+)/.exec(asking.heads.at(-1) ?? "")?.[1] ?? "";
    const proxy = await own(
      ProxyProcess.start(
        settings({
          reload: { debounce: "20ms" },
          upstream_proxy: {
            http_proxy: { url: asking.url, username: "u", password_file: "password" },
          },
        }),
        { files: { password: "first" } },
      ),
    );
    await get(proxy.forward, `${origin.url}/`);
    expect(Buffer.from(seen(), "base64").toString()).toBe("u:first");
    await writeFile(proxy.path("next"), "second\n");
    await rename(proxy.path("next"), proxy.path("password"));
    await eventually(async () => (await proxy.reloadStatus()).reloads_ok === 1);
    await get(proxy.forward, `${origin.url}/`);
    expect(Buffer.from(seen(), "base64").toString()).toBe("u:second");
  });
});

async function echoBack(connection: OriginConnection): Promise<void> {
  for (let part = await connection.reader.some(); part !== undefined;) {
    await connection.send(part);
    part = await connection.reader.some();
  }
  connection.end();
}

describe("trust", () => {
  const certificates = async (path: string): Promise<X509Certificate[]> => {
    const pem = await readFile(path, "utf8");
    const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g) ?? [];
    expect(blocks.join("")).toBe(pem);
    return blocks.map((text) => new X509Certificate(text));
  };

  test("the bundle holds the roots, trusted_ca and the bridge's CA, and follows accepted changes only", async () => {
    const chain = (over: Settings): Settings =>
      merge(block(parent.url, { trust_bundle_file: "out/bundle.pem", ...over }), {
        tls_bridge: { mode: "enabled", ca_dir: "ca", generate_ca: true },
      });
    const directory = await own(
      ProxyProcess.start(
        merge(block(parent.url), { tls_bridge: { mode: "enabled", ca: "ephemeral" } }),
      ),
    );
    const bundle = join(directory.directory, "out", "bundle.pem");
    const proxy = await own(
      ProxyProcess.start(
        chain({ trusted_ca: "good.pem", trust_bundle_file: bundle, system_roots: false }),
        { files: { "good.pem": authority.caPem, "other.pem": other.caPem } },
      ),
    );
    const bridge = new X509Certificate(await readFile(proxy.path("ca/ca.crt")));
    const names = async (): Promise<string[]> =>
      (await certificates(bundle)).map(({ fingerprint256 }) => fingerprint256);
    const good = new X509Certificate(authority.caPem).fingerprint256;
    const second = new X509Certificate(other.caPem).fingerprint256;
    expect(await names()).toEqual([bridge.fingerprint256, good]);
    const next = { trusted_ca: proxy.path("other.pem"), trust_bundle_file: bundle };
    await proxy.refusedReload(
      merge(chain({ ...next, readiness_endpoints: [`${origin.url}/broken`] }), {
        tls_bridge: { ca_dir: proxy.path("ca") },
      }),
    );
    expect(await names()).toEqual([bridge.fingerprint256, good]);
    await proxy.reload(merge(chain(next), { tls_bridge: { ca_dir: proxy.path("ca") } }));
    const all = await names();
    expect(all).toContain(second);
    expect(all).not.toContain(good);
    expect(all.length).toBeGreaterThan(50);
  });

  test("a parent that opens TLS works with its CA in trusted_ca, from a directory", async () => {
    const secure = await own(TlsOrigin.start(await other.server(["127.0.0.1"])));
    secure.on("/ready", (_request, response) => void response.end("ok"));
    const endpoint = { readiness_endpoints: [`https://127.0.0.1:${secure.port}/ready`] };
    const refused = await runWith("check", block(parent.url, endpoint), { args: ["--probe"] });
    expect(refused.stderr).toContain("the hop that failed is tls");
    const directory = await other.write();
    const accepted = await runWith(
      "check",
      block(parent.url, { ...endpoint, trusted_ca: directory }),
      { args: ["--probe"] },
    );
    expect(accepted.stderr).not.toContain("hop");
    expect(accepted.code).toBe(0);
  });

  test.each([
    ["a file that is missing", { trusted_ca: "none.pem" }, /trusted_ca/],
    ["a file without certificates", { trusted_ca: "empty.pem" }, /holds no PEM certificate/],
    ["no roots at all", { system_roots: false }, /needs trusted_ca/],
    ["a bundle that cannot be written", { trust_bundle_file: "/proc/bundle.pem" }, /trust_bundle/],
  ])("%s is refused", async (_what, over, why) => {
    const ended = await runWith("run", block(parent.url, over), { files: { "empty.pem": "x" } });
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(why);
  });
});

describe("OpenShift's Proxy", () => {
  const resource = (status: Settings, spec: Settings = {}): string =>
    JSON.stringify({
      apiVersion: "config.openshift.io/v1",
      kind: "Proxy",
      metadata: { name: "cluster" },
      spec: { httpProxy: "http://unproved.test:1", ...spec },
      status,
    });

  test("its status drives the chain, its spec's endpoints prove it, and a change is followed", async () => {
    const next = await own(StubParent.start());
    parent.heads.length = 0;
    const proxy = await own(
      ProxyProcess.start(
        settings({
          reload: { debounce: "20ms" },
          upstream_proxy: {
            from_openshift: { path: "cluster.json" },
            automatic_no_proxy: { cluster: false, service_network: "172.30.0.0/16" },
          },
        }),
        {
          files: {
            "cluster.json": resource(
              { httpProxy: parent.url, httpsProxy: parent.url, noProxy: ".svc,api-int.test" },
              { readinessEndpoints: [`${origin.url}/ready`] },
            ),
          },
        },
      ),
    );
    expect(parent.lines).toEqual([`GET ${origin.url}/ready HTTP/1.1`]);
    expect((await shown(proxy)).status).toMatchObject({
      http_proxy: parent.url,
      no_proxy: ["172.30.0.0/16", ".svc", "api-int.test"],
      readiness_endpoints: [`${origin.url}/ready`],
    });
    await writeFile(proxy.path("next"), resource({ httpProxy: next.url, noProxy: "" }));
    await rename(proxy.path("next"), proxy.path("cluster.json"));
    await eventually(async () => (await proxy.reloadStatus()).reloads_ok === 1);
    expect((await shown(proxy)).status).toMatchObject({ http_proxy: next.url, https_proxy: "" });
  });

  test.each([
    ["another kind", '{"apiVersion":"v1","kind":"ConfigMap"}', /not a Proxy resource/],
    ["no YAML", "{", /neither YAML nor JSON/],
  ])("%s is refused", async (_what, text, why) => {
    const config = settings({ upstream_proxy: { from_openshift: { path: "cluster.json" } } });
    const ended = await runWith("check", config, { files: { "cluster.json": text } });
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(why);
  });
});

describe("what the block may say", () => {
  const bad: readonly (readonly [what: string, block: Settings, RegExp])[] = [
    ["a scheme", { http_proxy: "ftp://proxy.test:1" }, /must start with http:\/\//],
    ["no URL", { http_proxy: "http://" }, /must be a URL/],
    ["a path", { http_proxy: "http://proxy.test/path" }, /must end after host and port/],
    ["a slash in a password", { http_proxy: "http://u:12/3@proxy.test:1" }, /must/],
    [
      "two passwords",
      { http_proxy: { url: "http://p.test", username: "u", password: "a", password_env: "B" } },
      /one of/,
    ],
    ["a password alone", { http_proxy: { url: "http://p.test", password: "a" } }, /username/],
    [
      "a variable that is not set",
      { http_proxy: { url: "http://p.test", username: "u", password_env: "NOT_SET" } },
      /not set/,
    ],
    ["an entry of no_proxy", { no_proxy: "http://x.test" }, /no_proxy entry/],
    ["a route to nowhere", { routes: [{ host: "a.test" }] }, /proxy and direct/],
    [
      "a route both ways",
      { routes: [{ host: "a.test", proxy: "http://p.test", direct: true }] },
      /proxy and direct/,
    ],
    ["an endpoint", { readiness_endpoints: ["ready.test"] }, /not an http or https URL/],
    ["two sources", { http_proxy: "http://p.test", from_openshift: { path: "x" } }, /leave out/],
  ];
  test.each(bad)("%s is refused with its place", async (_what, upstream, why) => {
    const ended = await runWith("check", settings({ upstream_proxy: upstream }));
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(/proxy\.yaml:\d+:\d+/);
    expect(ended.stderr).toMatch(why);
    expect(ended.stderr).not.toContain("12/3");
  });
});
