/** A check that cannot be made refuses the message, and is told from a refusal: a dependency is down, nobody misbehaves. */
import { beforeAll, describe, expect, test } from "vitest";
import { get, type RawResponse } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type LogLine, type Settings } from "../support/program.ts";
import {
  inbound,
  journeyPlugins,
  merge,
  outbound,
  ProxyProcess,
  settings,
} from "../support/proxy.ts";
import { startTail } from "../support/tail.ts";
import { eventually } from "../support/eventually.ts";

const own = owner();
/** Nobody listens on port 1 of loopback. */
const nowhere = "http://127.0.0.1:1";
let origin: HttpOrigin;
let idp: StubIdp;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
});

const hosts = { "svc.test": ["127.0.0.1"] };
const exchange = (tokenUrl: string): Settings => ({
  name: "token-exchange",
  config: {
    token_url: tokenUrl,
    identity: { type: "client-secret", client_id: "a", client_secret: "b" },
    routes: { rules: [{ host: "svc.test", target_audience: "target" }] },
  },
});

const start = (...parts: Settings[]): Promise<ProxyProcess> =>
  own(ProxyProcess.start(parts.reduce(merge, settings({ egress: { hosts } }))));

const toService = (proxy: ProxyProcess): Promise<RawResponse> =>
  get(proxy.forward, `http://svc.test:${origin.port}/x`, { Authorization: "Bearer users-token" });

/** The one flow of this proxy as log, metric and event tell it. */
async function told(
  proxy: ProxyProcess,
): Promise<{ readonly line: LogLine; readonly kind: unknown; readonly phase: unknown }> {
  const line = await proxy.log(({ msg }) => msg === "flow");
  const outcome = String(line["outcome"]);
  expect(await proxy.metric("authbridge_flows_total", { outcome })).toBe(1);
  const { events } = (await proxy.sessions("/v1/sessions/default")).json() as {
    events: { phase: string; error?: { kind: string } }[];
  };
  return { line, kind: events.at(-1)?.error?.kind, phase: events.at(-1)?.phase };
}

describe("unavailable, and not denied", () => {
  test("an identity provider whose keys cannot be had", async () => {
    const proxy = await start(
      { listener: { reverse_proxy_backend: origin.url, roles: ["reverse"] } },
      inbound({
        name: "jwt-validation",
        config: { issuer: idp.issuer, jwks_url: `${nowhere}/jwks`, audience: "agent" },
      }),
    );
    const answer = await get(proxy.reverse, "/x", { Authorization: `Bearer ${await idp.token()}` });
    expect(answer.status).toBe(503);
    const { line, kind, phase } = await told(proxy);
    expect(line).toMatchObject({ outcome: "unavailable", cause: "keys_unavailable" });
    expect(line["problem"]).toContain("keys are not available");
    expect({ kind, phase }).toEqual({ kind: "backend_error", phase: "denied" });
    const { host, port } = proxy.address("sessions");
    const tail = await own(startTail("--url", `http://${host}:${port}`, "--decision", "error"));
    await eventually(() => tail.out().includes("keys_unavailable"));
    expect(tail.out()).toContain("error ");
  });

  test("a token endpoint that does not answer", async () => {
    const proxy = await start(outbound(exchange(`${nowhere}/token`)));
    expect((await toService(proxy)).status).toBe(503);
    const { line } = await told(proxy);
    expect(line).toMatchObject({ outcome: "unavailable", cause: "token_exchange_failed" });
    expect(line["problem"]).toContain("upstream.refused");
  });

  test("a token endpoint that does not know the proxy itself", async () => {
    const proxy = await start(outbound(exchange(idp.tokenUrl)));
    idp.tokenReplies.push({ status: 401, body: { error: "invalid_client" } });
    expect((await toService(proxy)).status).toBe(503);
    expect((await told(proxy)).line).toMatchObject({ outcome: "unavailable" });
  });

  test("an OPA server that does not answer, although its status is 403", async () => {
    const proxy = await start(outbound({ name: "opa", config: { server_url: nowhere } }));
    const { status } = await toService(proxy);
    expect([403, 503]).toContain(status);
    expect((await told(proxy)).line).toMatchObject({ outcome: "unavailable", plugin: "opa" });
  });

  test("a plugin that fails", async () => {
    const proxy = await start(
      { plugin_modules: [journeyPlugins] },
      outbound({ name: "faulty", config: { hook: "request" } }),
    );
    expect((await toService(proxy)).status).toBe(500);
    expect((await told(proxy)).line).toMatchObject({
      outcome: "unavailable",
      cause: "plugin_fault",
    });
  });
});

describe("denied, as before", () => {
  test("a subject token that the endpoint does not take", async () => {
    const proxy = await start(outbound(exchange(idp.tokenUrl)));
    idp.tokenReplies.push({ status: 400, body: { error: "invalid_grant" } });
    expect((await toService(proxy)).status).toBe(401);
    const { line, kind } = await told(proxy);
    expect(line).toMatchObject({ outcome: "denied" });
    expect(kind).toBe("policy");
  });

  test("a destination that no rule allows, and a code that nobody declared", async () => {
    for (const plugin of [
      { name: "egress-policy", config: { allow: ["other.test"] } },
      { name: "denier", config: { code: "test.undeclared" } },
    ]) {
      const proxy = await start({ plugin_modules: [journeyPlugins] }, outbound(plugin));
      await toService(proxy);
      expect((await told(proxy)).line).toMatchObject({ outcome: "denied", plugin: plugin.name });
    }
  });
});
