/** What the operator's listeners answer. */
import { beforeAll, describe, expect, test } from "vitest";
import { get, openTunnel, request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let origin: HttpOrigin;
let idp: StubIdp;
let proxy: ProxyProcess;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  proxy = await own(
    ProxyProcess.start(
      settings({
        listener: { reverse_proxy_backend: origin.url },
        egress: { hosts: { "target.test": ["127.0.0.1"], "plain.test": ["127.0.0.1"] } },
        pipeline: {
          inbound: {
            plugins: [
              { name: "jwt-validation", config: { issuer: idp.issuer, audience: "agent" } },
              {
                name: "anything",
                config: {
                  client_secret: "hide-1",
                  judge_bearer: "hide-2",
                  api_key: "hide-3",
                  nested: { jwt_password: "hide-4", fine: "show-1" },
                  list: [{ credential: "hide-5", name: "show-2" }],
                  max_token: 12345,
                  token: { access_token: "hide-6", kind: "show-3" },
                },
              },
            ],
          },
          outbound: {
            plugins: [
              {
                name: "token-exchange",
                config: {
                  token_url: idp.tokenUrl,
                  identity: { type: "client-secret", client_id: "a", client_secret: "hide-7" },
                  routes: { rules: [{ host: "target.test", target_audience: "target" }] },
                },
              },
            ],
          },
        },
      }),
    ),
  );
});

describe("pages", () => {
  test("M16: / is a page that links the others", async () => {
    const answer = await proxy.stats("/");
    expect(answer.status).toBe(200);
    expect(answer.header("content-type")).toMatch(/^text\/html/);
    for (const link of ["/config", "/stats", "/reload/status", "/metrics"]) {
      expect(answer.text).toContain(link);
    }
  });

  test("M16: /config is the effective configuration as JSON", async () => {
    const answer = await proxy.stats("/config");
    expect(answer.header("content-type")).toMatch(/^application\/json/);
    expect(answer.json()).toMatchObject({
      mode: "proxy-sidecar",
      listener: { reverse_proxy_backend: origin.url },
      pipeline: { inbound: { plugins: [{ name: "jwt-validation" }, { name: "anything" }] } },
    });
  });

  test("M17: /config hides secrets wherever they stand, and nothing else", async () => {
    const { text } = await proxy.stats("/config");
    expect(text).not.toMatch(/hide-\d/);
    for (const shown of ["show-1", "show-2", "show-3", "12345"]) expect(text).toContain(shown);
    expect(text.match(/\[REDACTED\]/g)).toHaveLength(7);
  });

  test("what is not there is 404, and writing is 405", async () => {
    expect((await proxy.stats("/nowhere")).status).toBe(404);
    const { host, port } = proxy.address("stats");
    const headers = { Host: `${host}:${port}`, Connection: "close" };
    const posted = await request({ host, port }, { method: "POST", target: "/config", headers });
    expect(posted.status).toBe(405);
  });

  test("a page of another site cannot read them through a name of its own", async () => {
    const answer = await get(proxy.address("stats"), "/config", { Host: "evil.test" });
    expect(answer.status).toBe(421);
    expect(answer.text).not.toContain("pipeline");
  });

  test("/healthz is empty and always 200", async () => {
    const answer = await proxy.health("/healthz");
    expect(answer).toMatchObject({ status: 200, text: "" });
    expect((await proxy.health("/readyz")).status).toBe(200);
  });

  test("/reload/status has the shape of the Go program", async () => {
    expect(Object.keys(await proxy.reloadStatus()).sort()).toEqual([
      "active_config_sha256",
      "last_attempt",
      "last_error",
      "last_success",
      "reloads_failed",
      "reloads_ok",
    ]);
  });
});

describe("counters", () => {
  test("Z4, D28: /stats counts what jwt-validation decided", async () => {
    const good = { Authorization: `Bearer ${await idp.token()}` };
    await get(proxy.reverse, "/a", good);
    await get(proxy.reverse, "/b", good);
    await get(proxy.reverse, "/healthz");
    await get(proxy.reverse, "/c");
    await get(proxy.reverse, "/d", { Authorization: "Bearer bad" });
    await get(proxy.reverse, "/e", { Authorization: "Bearer worse" });
    await get(proxy.reverse, "/f", { Authorization: "Basic abc" });
    expect((await proxy.stats("/stats")).json()).toMatchObject({
      inbound_approvals: { authorized: 2, passthrough: 1 },
      inbound_denials: { no_header: 1, malformed_header: 1, jwt_failed: 2 },
    });
  });

  test("Z4: /stats counts what token-exchange did", async () => {
    const ask = (name: string, headers: Record<string, string> = {}) =>
      get(proxy.forward, `http://${name}:${origin.port}/`, headers);
    const bearer = { Authorization: `Bearer ${await idp.token()}` };
    await ask("target.test", bearer);
    await ask("target.test", bearer);
    await ask("target.test");
    await ask("plain.test", bearer);
    idp.tokenReplies.push({ status: 400, body: { error: "invalid_target" } });
    await ask("target.test", {
      Authorization: `Bearer ${await idp.token({ claims: { sub: "b" } })}`,
    });
    expect((await proxy.stats("/stats")).json()).toMatchObject({
      outbound_approvals: { no_matching_route: 1 },
      outbound_denials: { no_token: 1, token_exchange_failed: 1 },
      outbound_replace_tokens: { replace_token: 1, cache_hit: 1 },
    });
  });

  test("M16: /stats has the five maps of the Go program and only non-zero counters", async () => {
    const fresh = await own(ProxyProcess.start(settings()));
    const stats = (await fresh.stats("/stats")).json();
    expect(stats).toEqual({
      inbound_approvals: {},
      inbound_denials: {},
      outbound_approvals: {},
      outbound_denials: {},
      outbound_replace_tokens: {},
    });
  });

  test("/metrics is Prometheus text with everything that is promised, and no hosts or users", async () => {
    const { client } = await openTunnel(proxy.forward, origin.authority);
    client.close();
    const answer = await proxy.stats("/metrics");
    expect(answer.header("content-type")).toMatch(/^text\/plain/);
    const samples = answer.text.split("\n").filter((line) => !line.startsWith("#"));
    for (const promised of [
      /^authbridge_flows_total\{.*outbound/,
      /^authbridge_decisions_total\{.*jwt-validation/,
      /^authbridge_phase_duration_seconds_count\{.*phase="/,
      /tunnel/,
      /bytes_total/,
      /plugin="token-exchange"/,
      /hit/,
      /plugin="jwt-validation"/,
      /reloads_total/,
      /event_?loop/,
      /^process_resident_memory_bytes /,
    ]) {
      expect(
        samples.filter((line) => promised.test(line)),
        String(promised),
      ).not.toEqual([]);
    }
    expect(answer.text).not.toMatch(/target\.test|plain\.test|alice|127\.0\.0\.1/);
  });
});

test("B9: /v1/plugins lists every plugin that can be configured, with the fields of its schema", async () => {
  const { host, port } = proxy.address("sessions");
  const answer = await fetch(`http://${host}:${port}/v1/plugins`);
  const { plugins } = (await answer.json()) as {
    plugins: { name: string; fields: { name: string; required: boolean }[] }[];
  };
  const names = plugins.map(({ name }) => name);
  expect(names).toEqual(
    expect.arrayContaining(["jwt-validation", "token-exchange", "static-inject", "egress-policy"]),
  );
  expect(names).not.toEqual(expect.arrayContaining(["cpex"]));
  const validation = plugins.find(({ name }) => name === "jwt-validation");
  expect(validation?.fields).toContainEqual(
    expect.objectContaining({ name: "issuer", required: true }),
  );
});
