/** token-broker on the way out: what the broker is asked, which token the destination sees, and what goes wrong. */
import { writeFile } from "node:fs/promises";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import { get, RawClient, renderRequest, request } from "../support/http-client.ts";
import { HttpOrigin, type RecordedRequest, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { oneThread, runWith, type Settings } from "../support/program.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { allEvents } from "../support/session-events.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import { StubIdp } from "../support/idp.ts";

const own = owner();
const hostNames = ["api.test", "endpoints.test", "through.test", "file.test", "other.test"];
const hosts = Object.fromEntries(hostNames.map((name) => [name, ["127.0.0.1"]]));
let target: HttpOrigin;
let broker: HttpOrigin;
let proxy: ProxyProcess;

const issued = (token: string): string =>
  reply(200, JSON.stringify({ token }), { "Content-Type": "application/json" });
const usual = ({ head }: RecordedRequest): string =>
  issued(`brokered-${(head.all("authorization")[0] ?? "").slice("Bearer ".length)}`);

function brokering(config: Settings = {}, over: Settings = {}): Settings {
  return merge(
    settings(merge({ egress: { hosts } }, over)),
    outbound("mcp-parser", {
      name: "token-broker",
      config: { broker_url: broker.url, ...config },
    }),
  );
}

const routes = [
  { host: "api.test" },
  {
    host: "endpoints.test",
    authorization_endpoint: "https://idp.test/authorize",
    token_endpoint: "https://idp.test/token",
  },
  { host: "through.test", action: "passthrough" },
];

beforeAll(async () => {
  target = await own(HttpOrigin.launch());
  broker = await own(HttpOrigin.launch());
  const why = "each thread asks the broker for itself, and its bounds hold for each";
  const config = brokering({ routes: { rules: routes }, max_pending: 4, max_pending_per_token: 2 });
  proxy = await own(ProxyProcess.start(oneThread(why, config)));
});

beforeEach(() => {
  broker.requests.length = 0;
  broker.answer = usual;
});

let counter = 0;

async function call(name: string, token: string | undefined, through = proxy) {
  const path = `/call-${(counter += 1)}`;
  const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  const answer = await get(through.forward, `http://${name}:${target.port}${path}`, headers);
  return { answer, seen: target.requestsFor(path)[0] };
}

const errorOf = (answer: { readonly text: string }): Record<string, unknown> =>
  JSON.parse(answer.text) as Record<string, unknown>;

describe("a token of the broker", () => {
  test("O8: takes the place of the caller's, and the broker is told for which server", async () => {
    const { answer, seen } = await call("api.test", "user-token-abc");
    expect(answer.status).toBe(200);
    expect(seen?.head.all("authorization")).toEqual(["Bearer brokered-user-token-abc"]);
    expect(broker.requests).toHaveLength(1);
    const [asked] = broker.requests;
    expect(asked).toMatchObject({ method: "POST", target: "/sessions/token" });
    expect(asked?.head.all("authorization")).toEqual(["Bearer user-token-abc"]);
    expect(asked?.header("x-server-url")).toBe(`http://api.test:${target.port}`);
    expect(asked?.header("x-authorization-endpoint")).toBeUndefined();
    expect(asked?.header("x-token-endpoint")).toBeUndefined();
  });

  test("is asked for anew by every request: only the broker knows when consent ends", async () => {
    await call("api.test", "again");
    await call("api.test", "again");
    expect(broker.requests).toHaveLength(2);
  });

  test("O12: the endpoints of a route are told for that route and for no other", async () => {
    await call("endpoints.test", "user");
    expect(broker.requests[0]?.header("x-authorization-endpoint")).toBe(
      "https://idp.test/authorize",
    );
    expect(broker.requests[0]?.header("x-token-endpoint")).toBe("https://idp.test/token");
  });

  test("O11: a host without a route, and one that is passed through, keep what they have", async () => {
    for (const name of ["other.test", "through.test"]) {
      const { answer, seen } = await call(name, "own");
      expect(answer.status).toBe(200);
      expect(seen?.head.all("authorization")).toEqual(["Bearer own"]);
      expect((await call(name, undefined)).answer.status).toBe(200);
    }
    expect(broker.requests).toHaveLength(0);
  });

  test("O11: a route without a bearer token is 401, whatever else is in its place", async () => {
    const { answer, seen } = await call("api.test", undefined);
    expect(answer.status).toBe(401);
    expect(answer.header("www-authenticate")).toMatch(/^Bearer /);
    expect(errorOf(answer)).toMatchObject({
      error: "auth.missing-token",
      message: "broker route requires authorization token",
      plugin: "token-broker",
    });
    expect(seen).toBeUndefined();
    for (const values of [["Basic abc"], ["Bearer a", "Bearer b"], ["Bearer a, Bearer b"]]) {
      const refused = await request(proxy.forward, {
        target: `http://api.test:${target.port}/none`,
        headers: [
          ["Host", `api.test:${target.port}`],
          ...values.map((value): [string, string] => ["Authorization", value]),
        ],
      });
      expect(refused.status, values.join()).toBe(401);
    }
    expect(broker.requests).toHaveLength(0);
    expect(target.requestsFor("/none")).toHaveLength(0);
  });

  test("O13: a server behind the bridge is https, and a slash behind the broker's address is one", async () => {
    const authority = await TestAuthority.create("origins");
    const { cert, key } = await authority.server(["api.allowed.test"]);
    const origin = await own(TlsOrigin.start({ cert, key }));
    const bridge = await own(
      BridgeProxy.start({
        ports: [origin.port],
        originCa: authority.caPem,
        plugins: [
          {
            name: "token-broker",
            config: { broker_url: `${broker.url}/base/`, default_policy: "broker" },
          },
        ],
      }),
    );
    const answer = await bridge.get(
      `api.allowed.test:${origin.port}`,
      "/x",
      "Authorization: Bearer user\r\n",
    );
    expect(answer.status).toBe(200);
    expect(origin.seen[0]?.headers.authorization).toBe("Bearer brokered-user");
    expect(broker.requests[0]?.target).toBe("/base/sessions/token");
    expect(broker.requests[0]?.header("x-server-url")).toBe(
      `https://api.allowed.test:${origin.port}`,
    );
  });
});

describe("no token of the broker", () => {
  test("O9: the broker's status and words, without its address and without the token", async () => {
    broker.answer = () =>
      reply(
        403,
        JSON.stringify({
          message: `consent\r\nis missing: ${broker.url}/sessions/token ${broker.authority} for secret-user-token`,
        }),
        { "Content-Type": "application/json", "Retry-After": "7" },
      );
    const { answer, seen } = await call("api.test", "secret-user-token");
    expect(answer.status).toBe(403);
    expect(errorOf(answer)).toMatchObject({ error: "upstream.broker-error" });
    expect(errorOf(answer)["message"]).toMatch(/^consent is missing: /);
    expect(answer.header("retry-after")).toBe("7");
    expect(answer.text).not.toContain(String(broker.port));
    expect(answer.text).not.toContain("secret-user-token");
    expect(seen).toBeUndefined();
    expect(broker.requests[0]?.header("x-server-url")).toBe(`http://api.test:${target.port}`);
  });

  test.each([400, 401, 404, 429, 500, 503])(
    "O9: status %d is the caller's, too",
    async (status) => {
      broker.answer = () => reply(status, "<html>no json</html>");
      const { answer } = await call("api.test", "user");
      expect(answer.status).toBe(status);
      expect(errorOf(answer)["error"]).toBe("upstream.broker-error");
      if (status === 401) expect(answer.header("www-authenticate")).toMatch(/^Bearer /);
    },
  );

  test("O10: what is no token is 502, and the answer does not say where the broker is", async () => {
    const answers = [
      reply(200, "{"),
      reply(200, "{}"),
      reply(200, "[]"),
      reply(200, '{"token":""}'),
      reply(200, '{"token":7}'),
      reply(200, '{"token":"a b"}'),
      reply(200, String.raw`{"token":"a\r\nX-Evil: 1"}`),
      reply(200, '{"token":"one","token":"two"}'),
      reply(204),
      reply(302, "", { Location: "http://elsewhere.test/" }),
      reply(407, "{}"),
      "no HTTP at all\r\n\r\n",
    ];
    for (const text of answers) {
      broker.answer = () => text;
      const { answer, seen } = await call("api.test", "user");
      expect(answer.status, text).toBe(502);
      expect(errorOf(answer)["error"], text).toBe("upstream.broker-unavailable");
      expect(answer.text, text).not.toMatch(/127\.0\.0\.1|elsewhere/);
      expect(seen, text).toBeUndefined();
    }
  });

  test("O10: a broker that is not there is 502", async () => {
    const gone = await HttpOrigin.launch();
    const { url } = gone;
    await gone.close();
    const alone = await own(
      ProxyProcess.start(brokering({ broker_url: url, default_policy: "broker" })),
    );
    const { answer } = await call("api.test", "user", alone);
    expect(answer.status).toBe(502);
    expect(errorOf(answer)).toMatchObject({ error: "upstream.broker-unavailable" });
    expect(answer.text).not.toContain("127.0.0.1");
  });

  test("a broker that says nothing is given up after timeout", async () => {
    broker.answer = () => undefined;
    const short = await own(
      ProxyProcess.start(brokering({ default_policy: "broker", timeout: "200ms" })),
    );
    const { answer } = await call("api.test", "user", short);
    expect(answer.status).toBe(502);
    expect(errorOf(answer)["message"]).toContain("timeout");
  });

  test("an MCP client reads the refusal as an error of JSON-RPC, with no challenge in the 200", async () => {
    broker.answer = () => reply(401, '{"message":"log in first"}');
    const answer = await request(proxy.forward, {
      method: "POST",
      target: `http://api.test:${target.port}/mcp`,
      headers: [
        ["Host", `api.test:${target.port}`],
        ["Authorization", "Bearer user"],
        ["Content-Type", "application/json"],
      ],
      body: '{"jsonrpc":"2.0","id":"call-1","method":"tools/call","params":{"name":"x"}}',
    });
    expect(answer.status).toBe(200);
    expect(answer.header("www-authenticate")).toBeUndefined();
    expect(errorOf(answer)).toMatchObject({
      id: "call-1",
      error: { code: -32_000, message: "log in first", data: { error: "upstream.broker-error" } },
    });
  });
});

describe("while a user's consent is pending", () => {
  /** Holds every answer of the broker until it is let go. */
  function hold(): { readonly release: () => void } {
    const gate = Promise.withResolvers<undefined>();
    broker.answer = async (asked) => {
      await gate.promise;
      return usual(asked);
    };
    return { release: () => gate.resolve(undefined) };
  }

  test("requests of one token for one server wait for one call", async () => {
    const { release } = hold();
    const calls = Array.from({ length: 20 }, () => call("api.test", "crowd"));
    await eventually(() => broker.requests.length === 1);
    const pending = await eventually(async () => {
      const count = await proxy.metric("authbridge_plugin_events_total", {
        plugin: "token-broker",
        event: "call_shared",
      });
      return count >= 19 ? count : false;
    });
    release();
    const all = await Promise.all(calls);
    expect(pending).toBe(19);
    expect(all.map(({ answer }) => answer.status)).toEqual(Array.from({ length: 20 }, () => 200));
    expect(broker.requests).toHaveLength(1);
  });

  test("more than max_pending_per_token, and more than max_pending, are turned away and counted", async () => {
    const before = await refused();
    const { release } = hold();
    const held = [call("api.test", "one"), call("endpoints.test", "one")];
    await eventually(() => broker.requests.length === 2);
    // Another port is another server.
    const path = `http://api.test:1/third`;
    const third = await get(proxy.forward, path, { Authorization: "Bearer one" });
    expect(third.status).toBe(503);
    expect(third.header("retry-after")).toBeDefined();
    expect(errorOf(third)).toMatchObject({
      error: "upstream.broker-unavailable",
      message: expect.stringContaining("max_pending_per_token"),
    });
    held.push(call("api.test", "two"), call("endpoints.test", "two"));
    await eventually(() => broker.requests.length === 4);
    const fifth = await call("api.test", "three");
    expect(fifth.answer.status).toBe(503);
    expect(errorOf(fifth.answer)["message"]).toMatch(/max_pending\b(?!_)/);
    // Hosts that need no token are not held up.
    expect((await call("other.test", "three")).answer.status).toBe(200);
    release();
    expect((await Promise.all(held)).map(({ answer }) => answer.status)).toEqual([
      200, 200, 200, 200,
    ]);
    expect((await refused()) - before).toBe(2);
    expect((await call("api.test", "three")).answer.status).toBe(200);
  });

  function refused(): Promise<number> {
    return proxy.metric("authbridge_plugin_events_total", {
      plugin: "token-broker",
      event: "overloaded",
    });
  }

  test("as many as max_pending are asked at once, although each is held", async () => {
    const many = await own(
      ProxyProcess.start(brokering({ default_policy: "broker", max_pending: 40 })),
    );
    const { release } = hold();
    const calls = Array.from({ length: 40 }, (_, index) => call("api.test", `user-${index}`, many));
    await eventually(() => broker.requests.length === 40);
    release();
    const all = await Promise.all(calls);
    expect(all.every(({ answer }) => answer.status === 200)).toBe(true);
    expect(new Set(all.map(({ seen }) => seen?.header("authorization")))).toEqual(
      new Set(Array.from({ length: 40 }, (_, index) => `Bearer brokered-user-${index}`)),
    );
  });

  test("a client that goes away ends the call, and gives its place back", async () => {
    const { release } = hold();
    const clients = await Promise.all([1, 2].map(() => RawClient.connect(proxy.forward)));
    for (const [index, client] of clients.entries())
      client.send(
        renderRequest({
          target: `http://${index === 0 ? "api" : "endpoints"}.test:${target.port}/gone`,
          headers: [
            ["Host", `${index === 0 ? "api" : "endpoints"}.test:${target.port}`],
            ["Authorization", "Bearer leaver"],
          ],
        }),
      );
    await eventually(() => broker.requests.length === 2);
    for (const client of clients) client.close();
    broker.answer = usual;
    // A third server has no place while the two are asked for; nothing listens on its port.
    await eventually(async () => {
      const third = await get(proxy.forward, "http://api.test:1/", {
        Authorization: "Bearer leaver",
      });
      return errorOf(third)["error"] !== "upstream.broker-unavailable";
    });
    expect((await call("api.test", "leaver")).answer.status).toBe(200);
    release();
    expect(target.requestsFor("/gone")).toHaveLength(0);
  });
});

describe("records", () => {
  test("events say which route, which server and what came of it, and hold no token", async () => {
    broker.answer = () => issued("brokered-and-secret");
    const { answer } = await call("api.test", "asked-and-secret");
    expect(answer.status).toBe(200);
    const read = async (path: string): Promise<string> => (await proxy.sessions(path)).text;
    const text = await eventually(async () => {
      const events = JSON.stringify(await allEvents(read));
      return events.includes("token_replaced") && events;
    });
    expect(text).toContain(`"server_url":"http://api.test:${target.port}"`);
    expect(text).toContain('"route_host":"api.test"');
    const logs = proxy.logs.map((line) => JSON.stringify(line)).join("\n");
    expect(text + logs).not.toMatch(/and-secret/);
  });
});

describe("the file", () => {
  const check = async (config: Settings, files: Record<string, string> = {}) =>
    runWith("check", brokering(config), { files });

  test("a routes file is a bare list, must be there, and is read again when it changes", async () => {
    const config = { routes: { file: "broker.yaml", rules: [{ host: "other.test" }] } };
    const missing = await check(config);
    expect(missing.code).toBe(2);
    expect(missing.stderr).toMatch(/routes\.file.*broker\.yaml/);
    const rule = "{host: file.test, token_endpoint: 'https://idp.test/token'}";
    const running = await own(
      ProxyProcess.start(brokering(config), { files: { "broker.yaml": `- ${rule}\n` } }),
    );
    expect((await call("file.test", "user", running)).answer.status).toBe(200);
    expect(broker.requests[0]?.header("x-token-endpoint")).toBe("https://idp.test/token");
    await call("other.test", "user", running);
    expect(broker.requests).toHaveLength(2);
    await writeFile(
      running.path("broker.yaml"),
      "routes:\n- {host: file.test, action: passthrough}\n",
    );
    await eventually(async () => {
      const { seen } = await call("file.test", "user", running);
      return seen?.header("authorization") === "Bearer user";
    });
  });

  test.each([
    ["no address", { broker_url: undefined }, "broker_url"],
    ["an address of another kind", { broker_url: "ftp://broker.test" }, "broker_url"],
    ["an address with a query", { broker_url: "http://broker.test/?a=b" }, "broker_url"],
    ["an address with a password", { broker_url: "http://u:p@broker.test/" }, "broker_url"],
    ["an unknown policy", { default_policy: "exchange" }, "default_policy"],
    ["an unknown action", { routes: { rules: [{ host: "a", action: "exchange" }] } }, "action"],
    ["an unknown key", { brokerurl: "x" }, "did you mean broker_url"],
    ["a pattern that is none", { routes: { rules: [{ host: "[invalid" }] } }, "host"],
  ])("%s is refused where it stands", async (_name, config, words) => {
    const { code, stderr } = await check(config);
    expect(code, stderr).toBe(2);
    expect(stderr).toContain(words);
  });

  test("empty keys are keys that are not set", async () => {
    const rules = [
      { host: "a.test", action: "", authorization_endpoint: "", token_endpoint: null },
    ];
    const { code, stderr } = await check({ default_policy: "", routes: { file: "", rules } });
    expect(code, stderr).toBe(0);
  });
});

describe("placeholders", () => {
  test("the token behind a handle is what the broker sees", async () => {
    const idp = await own(StubIdp.start());
    const agent = await own(HttpOrigin.launch());
    const both = await own(
      ProxyProcess.start(
        merge(
          brokering(
            { default_policy: "broker", resolve_placeholders: true },
            { listener: { reverse_proxy_backend: agent.url } },
          ),
          inbound({
            name: "jwt-validation",
            config: {
              issuer: idp.issuer,
              jwks_url: idp.jwksUrl,
              audience: "agent",
              placeholder_mode: true,
            },
          }),
        ),
      ),
    );
    const token = await idp.token({ claims: { aud: "agent" } });
    const answer = await get(both.reverse, "/hello", { Authorization: `Bearer ${token}` });
    expect(answer.status).toBe(200);
    const handle = (agent.requests[0]?.header("authorization") ?? "").slice("Bearer ".length);
    expect(handle).toMatch(/^abph_/);
    await call("api.test", handle, both);
    expect(broker.requests[0]?.header("authorization")).toBe(`Bearer ${token}`);
    expect((await call("api.test", "abph_unknown", both)).answer.status).toBe(401);
    expect(broker.requests).toHaveLength(1);
  });
});
