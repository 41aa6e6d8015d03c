/** The examples do what their READMEs say. */
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { get, getThrough } from "../../examples/demo/requests.ts";
import { App } from "../../src/app/app.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import { request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { StubParent } from "../support/stub-parent.ts";

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function start(
  example: string,
  env: Record<string, string>,
  name = "config.yaml",
): Promise<App> {
  const file = `examples/${example}/${name}`;
  const log = createLogger("silent");
  const app = await App.start({ file, lenient: false, env, version: "test", log });
  closing.push(() => app.close(0));
  return app;
}

/** A service that remembers the fields of its latest request. */
async function service(): Promise<{ port: number; seen: () => IncomingHttpHeaders | undefined }> {
  let seen: IncomingHttpHeaders | undefined;
  const server = createServer((request, response) => {
    seen = request.headers;
    response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closing.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { port: (server.address() as AddressInfo).port, seen: () => seen };
}

test("hello-plugin greets the service behind the proxy", async () => {
  const agent = await service();
  const AGENT_URL = `http://127.0.0.1:${agent.port}`;
  const app = await start("hello-plugin", { PROXY_PORT: "0", AGENT_URL });
  const answer = await get(`http://127.0.0.1:${app.addresses.reverse?.port}/`);
  expect(answer.status).toBe(200);
  expect(agent.seen()?.["x-greeting"]).toBe("good day, somebody");
});

describe("token-exchange-routes", () => {
  async function call(host: string, token: string | undefined) {
    const idp = await StubIdp.start();
    closing.push(() => idp.close());
    const origin = await service();
    const env = { PROXY_PORT: "0", TOKEN_URL: idp.tokenUrl, CLIENT_SECRET: "s3cret" };
    const app = await start("token-exchange-routes", env);
    const port = app.addresses.forward?.port ?? 0;
    const { status } = await getThrough(port, `http://${host}:${origin.port}/`, token);
    const form = Object.fromEntries(idp.tokenCalls[0]?.form ?? []);
    return { status, form, authorization: origin.seen()?.authorization };
  }

  test.each([
    ["weather.tools.example.test", { audience: "weather-tool", scope: "weather.read" }],
    [
      "archive.tools.example.test",
      { audience: "archive", resource: "https://archive.tools.example.test/api" },
    ],
    ["maps.tools.example.test", { audience: "tools" }],
  ])("%s gets a token of its audience", async (host, wanted) => {
    const { status, form, authorization } = await call(host, "user-token");
    expect(status).toBe(200);
    expect(form).toMatchObject({ ...wanted, subject_token: "user-token" });
    expect(authorization).toBe(`Bearer exchanged-${wanted.audience}`);
  });

  test("a call without a token gets one of the agent's own", async () => {
    const { form, authorization } = await call("maps.tools.example.test", undefined);
    expect(form).toMatchObject({ grant_type: "client_credentials", audience: "tools" });
    expect(authorization).toBe("Bearer exchanged-tools");
  });

  test("a passthrough host gets the request as it is", async () => {
    const { form, authorization } = await call("status.example.test", "user-token");
    expect(form).toEqual({});
    expect(authorization).toBe("Bearer user-token");
  });

  test("a host without a rule is not reached", async () => {
    const { status, authorization } = await call("elsewhere.example.test", "user-token");
    expect(status).toBe(403);
    expect(authorization).toBeUndefined();
  });
});

describe("opa", () => {
  test.each([
    ["GET", "weather.example.test", "/v1/now", 200, undefined],
    ["POST", "weather.example.test", "/v1/now", 403, "POST is not allowed on weather.example.test"],
    ["GET", "weather.example.test", "/admin", 403, "GET is not allowed on weather.example.test"],
    ["POST", "tickets.example.test", "/v1/tickets", 200, undefined],
    ["GET", "elsewhere.example.test", "/", 403, "this agent has no business there"],
    ["GET", "weather.example.test", "/v1/program", 403, "answers of this type are kept out"],
  ])("%s http://%s%s is %i", async (method, host, path, status, reason) => {
    const origin = await HttpOrigin.launch(({ target }) =>
      reply(200, "{}", {
        "Content-Type": target === "/v1/program" ? "application/x-executable" : "application/json",
      }),
    );
    closing.push(() => origin.close());
    const app = await start("opa", { PROXY_PORT: "0" });
    const answer = await request(
      { host: "127.0.0.1", port: app.addresses.forward?.port ?? 0 },
      {
        method,
        target: `http://${host}:${origin.port}${path}`,
        headers: { Host: `${host}:${origin.port}`, Connection: "close" },
      },
    );
    expect(answer.status, answer.text).toBe(status);
    if (reason !== undefined) {
      expect(answer.json()).toMatchObject({ error: "policy.forbidden", plugin: "opa" });
      expect(answer.text).toContain(reason);
    }
  });

  test("a tunnel to a host without a rule is 403", async () => {
    const app = await start("opa", { PROXY_PORT: "0" });
    const address = { host: "127.0.0.1", port: app.addresses.forward?.port ?? 0 };
    const target = "elsewhere.example.test:443";
    const answer = await request(address, { method: "CONNECT", target });
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({ message: "this agent has no business there" });
  });
});

describe("corporate-proxy", () => {
  async function parent(): Promise<StubParent> {
    const made = await StubParent.start();
    closing.push(() => made.close());
    return made;
  }

  test("goes through the parent, but not to the intranet, and only once the endpoint has answered", async () => {
    const site = await parent();
    const origin = await service();
    const env = {
      PROXY_PORT: "0",
      PARENT_URL: site.url,
      READY_URL: `http://127.0.0.1:${origin.port}/`,
    };
    const app = await start("corporate-proxy", env);
    expect(site.lines).toEqual([`GET http://127.0.0.1:${origin.port}/ HTTP/1.1`]);
    const port = app.addresses.forward?.port ?? 0;
    site.heads.length = 0;
    const intranet = await getThrough(port, `http://intranet.example.test:${origin.port}/`);
    expect([intranet.status, site.heads]).toEqual([200, []]);
    const api = await getThrough(port, `http://api.example.test:${origin.port}/`);
    expect([api.status, site.lines]).toEqual([200, [`CONNECT 127.0.0.1:${origin.port} HTTP/1.1`]]);
    await site.close();
    await expect(start("corporate-proxy", env)).rejects.toThrow(/problem/);
  });

  test("takes the parent from OpenShift's object", async () => {
    const env = { PROXY_PORT: "0", PROXY_RESOURCE: "examples/corporate-proxy/cluster-proxy.json" };
    const app = await start("corporate-proxy", env, "openshift.yaml");
    const { port = 0 } = app.addresses.stats ?? {};
    const { text } = await request(
      { host: "127.0.0.1", port },
      {
        target: "/config",
        headers: { Host: `127.0.0.1:${port}` },
      },
    );
    expect(JSON.parse(text)).toMatchObject({
      upstream_proxy_status: { status: { http_proxy: "http://proxy.corp.example:3128" } },
    });
    expect(text).toContain("api-int.demo.corp.example");
  });
});
