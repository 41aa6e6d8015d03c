/** The opa plugin through the whole program: every surface, every engine, and what happens when an engine is in trouble. */
import { copyFile, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import { get, RawClient, type RawResponse, request, statusOf } from "../support/http-client.ts";
import { readChunk } from "../support/http-message.ts";
import { fixture } from "../support/opa-cases.ts";
import { BundleServer, StubOpa } from "../support/opa-server.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runWith, type Settings, testThreads } from "../support/program.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
let origin: HttpOrigin;
let cases: ProxyProcess;

const opa = (config: Settings): Settings => ({ name: "opa", config });
const chain = (config: Settings): Settings => ({ plugins: [opa(config)] });

/** The program with opa in both directions. */
function proxyWith(config: Settings, over: Settings = {}): Promise<ProxyProcess> {
  return own(
    ProxyProcess.start(
      settings({
        listener: { reverse_proxy_backend: origin.url },
        pipeline: { inbound: chain(config), outbound: chain(config) },
        ...over,
      }),
    ),
  );
}

const through = (proxy: ProxyProcess, path: string): Promise<RawResponse> =>
  get(proxy.forward, `${origin.url}${path}`, { Connection: "close" });

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  cases = await proxyWith({ bundle_path: fixture("cases").path });
});

beforeEach(() => {
  origin.requests.length = 0;
});

describe("a bundle with policy.wasm", () => {
  test("N1, N2: plain requests are allowed, or refused with the reason of the policy", async () => {
    expect((await through(cases, "/true")).status).toBe(200);
    const refused = await through(cases, "/reason");
    expect(refused.status).toBe(403);
    expect(refused.json()).toEqual({
      error: "policy.forbidden",
      message: "access denied for tool",
      plugin: "opa",
    });
    expect(origin.requestsFor("/reason")).toEqual([]);
  });

  test("N7: what comes in is judged by the documents of its direction", async () => {
    const refused = await get(cases.reverse, "/which");
    expect(refused.status).toBe(403);
    expect(refused.json()).toMatchObject({ message: "authbridge/inbound/request" });
    const answered = await get(cases.reverse, "/at-answer/which");
    expect(answered.json()).toMatchObject({ message: "authbridge/inbound/response" });
  });

  test("an answer that the policy refuses does not reach the client, whatever it holds", async () => {
    const refused = await through(cases, "/at-answer/reason");
    expect(refused.status).toBe(403);
    expect(refused.text).not.toContain("hello from the origin");
    expect(origin.requestsFor("/at-answer/reason")).toHaveLength(1);
  });

  test.each(["forward", "reverse"] as const)(
    "P3: a stream is refused before its first byte (%s)",
    async (surface) => {
      const path = `/at-answer/false?${surface}`;
      origin.on("/at-answer/false", async ({ connection }) => {
        await connection.send(
          "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n8\r\ndata: 1\n\r\n",
        );
      });
      const target = surface === "forward" ? `${origin.url}${path}` : path;
      const answer = await get(cases[surface], target);
      expect(answer.status).toBe(403);
      expect(answer.json()).toMatchObject({ error: "policy.forbidden", message: "policy denied" });
    },
  );

  test("a decision that takes too long is refused, and delays nobody else", async () => {
    const proxy = await proxyWith({
      bundle_path: fixture("cases").path,
      decision_timeout: "1500ms",
    });
    const slow = through(proxy, "/slow");
    const health = await proxy.health("/healthz");
    expect(health.status).toBe(200);
    expect((await slow).json()).toMatchObject({ message: "OPA decision timed out" });
    await proxy.log(({ msg }) => msg === "opa evaluation took too long and was ended");
    expect((await through(proxy, "/true")).status).toBe(200);
  });

  test("every decision is one line of the log, without what the message held", async () => {
    await through(cases, "/deny?q=confidential");
    const line = await cases.log(
      ({ msg, reason, path }) =>
        msg === "opa decision" &&
        reason === "policy_denied" &&
        path === "authbridge/outbound/request",
    );
    expect(line).toMatchObject({ plugin: "opa", result: "deny" });
    expect(line["decision_id"]).toMatch(/^[0-9a-f-]{36}$/);
    expect(cases.stderr).not.toContain("confidential");
  });

  test("a document that the policy was built without is undefined", async () => {
    const config = { bundle_path: fixture("allow").path };
    const lax = await proxyWith(config);
    expect((await through(lax, "/")).status).toBe(200);
    const strict = await proxyWith({ ...config, on_undefined: "deny" });
    const answer = await through(strict, "/");
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({
      message: "the policy defines no decision for authbridge/outbound/response",
    });
    await strict.log(({ msg }) => msg.startsWith("opa policy was built without"));
  });

  test("N4: undefined is no consent where the chain's default is deny", async () => {
    const config = { bundle_path: fixture("cases").path };
    const proxy = await proxyWith(config, {
      pipeline: { outbound: { ...chain(config), default: "deny" } },
    });
    expect((await through(proxy, "/none")).status).toBe(403);
    expect((await through(proxy, "/true")).status).toBe(200);
  });

  test("the file is read again when it changes, and a bad one does not take its place", async () => {
    const folder = await mkdtemp(join(tmpdir(), "authbridge-opa-"));
    const path = join(folder, "bundle.tar.gz");
    const put = async (name: string): Promise<void> => {
      await copyFile(fixture(name).path, `${path}.next`);
      await rename(`${path}.next`, path);
    };
    await put("cases");
    const proxy = await proxyWith({ bundle_path: path });
    expect((await through(proxy, "/false")).status).toBe(403);
    await put("rego");
    await eventually(async () => {
      expect((await through(proxy, "/false")).status).toBe(403);
      return proxy.logs.some(({ problem }) => String(problem).includes("only Rego source"));
    });
    await put("allow");
    await eventually(async () => (await through(proxy, "/false")).status === 200);
    expect(await proxy.metric("authbridge_plugin_events_total", { event: "policy_rejected" })).toBe(
      1,
    );
    await rm(folder, { recursive: true });
  });

  test.each([
    ["rego", /opa build -t wasm -e authbridge\/inbound\/request/],
    ["clock", /the policy calls time\.now_ns\(\)/],
  ])("`check` refuses the bundle %s with its place in the file", async (name, problem) => {
    const config = settings({ pipeline: { outbound: chain({ bundle_path: fixture(name).path }) } });
    const { code, stderr } = await runWith("check", config);
    expect(code).toBe(2);
    expect(stderr).toMatch(problem);
    expect(stderr).toMatch(
      /proxy\.yaml:\d+:\d+ pipeline\.outbound\.plugins\[0\]\.config\.bundle_path/,
    );
    expect(stderr).not.toMatch(/ at .*\.ts/);
  });
});

describe("answers that are read", () => {
  const path = "/at-answer/result";
  let proxy: ProxyProcess;
  const call = (result: unknown) => {
    origin.on(path, () => reply(200, JSON.stringify({ jsonrpc: "2.0", id: 1, result })));
    return post();
  };
  const post = () =>
    request(proxy.forward, {
      method: "POST",
      target: `${origin.url}${path}`,
      headers: { "Content-Type": "application/json", Connection: "close" },
      body: '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}',
    });

  beforeAll(async () => {
    const config = { bundle_path: fixture("cases").path, include: ["mcp.result"] };
    proxy = await own(ProxyProcess.start(settings(outbound("mcp-parser", opa(config)))));
  });

  test("N8: the result of a call is judged before it is passed on", async () => {
    expect((await call({ safe: true })).status).toBe(200);
    const refused = await call({ safe: false, text: "hidden" });
    expect(refused.status).toBe(403);
    expect(refused.text).toContain("the result is not safe");
    expect(refused.text).not.toContain("hidden");
  });

  test("N8: so is the result that comes as an event: the stream is cut before it", async () => {
    const event = (result: unknown): string => {
      const text = `data: ${JSON.stringify({ jsonrpc: "2.0", id: 1, result })}\n\n`;
      return `${text.length.toString(16)}\r\n${text}\r\n`;
    };
    origin.on(path, async ({ connection }) => {
      await connection.send(
        `HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n${event({ safe: true })}${event({ safe: false })}`,
      );
    });
    const client = await RawClient.connect(proxy.forward);
    client.write({
      method: "POST",
      target: `${origin.url}${path}`,
      headers: { "Content-Type": "application/json" },
      body: '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}',
    });
    const { head } = await client.head();
    expect(statusOf(head)).toBe(200);
    expect((await readChunk(client.reader)).toString()).toContain('"safe":true');
    await expect(readChunk(client.reader)).rejects.toThrow();
    client.close();
  });

  test("what is no call passes whatever its size", async () => {
    origin.on("/at-answer/true", () => reply(200, "x".repeat(3 * 1024 * 1024)));
    const answer = await through(proxy, "/at-answer/true");
    expect(answer.status).toBe(200);
    expect(answer.body).toHaveLength(3 * 1024 * 1024);
  });
});

describe("tunnels", () => {
  test("a CONNECT that the policy refuses is 403, and nothing is dialled", async () => {
    const stub = await own(StubOpa.start());
    stub.answer = ({ input }) => ({
      result: {
        allow: input["host"] !== origin.authority,
        reason: `no tunnel to ${String(input["host"])}`,
      },
    });
    const proxy = await proxyWith({ server_url: stub.url });
    await eventually(async () => (await proxy.health("/readyz")).status === 200);
    const before = origin.connections.length;
    const client = await RawClient.connect(proxy.forward);
    const answer = await client.ask({ method: "CONNECT", target: origin.authority });
    client.close();
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({ message: `no tunnel to ${origin.authority}` });
    expect(origin.connections).toHaveLength(before);
    expect(stub.calls[0]?.input).toMatchObject({
      method: "CONNECT",
      path: "",
      direction: "outbound",
    });
  });

  test("requests inside a bridged tunnel are judged one by one", async () => {
    const authority = await TestAuthority.create();
    const name = "api.allowed.test";
    const secure = await own(TlsOrigin.start(await authority.server([name])));
    const proxy = await own(
      BridgeProxy.start({
        ports: [secure.port],
        originCa: authority.caPem,
        plugins: [opa({ bundle_path: fixture("cases").path })],
        otherwise: "deny",
      }),
    );
    expect((await proxy.get(secure.at(name), "/true")).status).toBe(200);
    expect(await proxy.get(secure.at(name), "/reason")).toMatchObject({ status: 403 });
    expect(await proxy.get(secure.at(name), "/at-answer/reason")).toMatchObject({ status: 403 });
    expect(secure.seen.map(({ url }) => url)).toEqual(["/true", "/at-answer/reason"]);
  });
});

describe("a bundle server", () => {
  const polling = { agent_id: "spiffe://td/agent", polling_min_delay: 0.1, polling_max_delay: 0.2 };

  test("N6: that is down at the start makes the proxy not ready, and is asked until it answers", async () => {
    const server = await new BundleServer(fixture("cases").bytes, '"1"').listen();
    const { port, url } = server;
    await server.close();
    const proxy = await proxyWith({ ...polling, bundle_url: url });
    const before = await proxy.health("/readyz");
    expect(before.status).toBe(503);
    expect(before.text).toMatch(/opa/);
    const early = await through(proxy, "/true");
    expect(early.status).toBe(503);
    expect(early.json()).toMatchObject({
      error: "upstream.unreachable",
      message: "opa policy engine not initialized",
    });
    const back = await own(new BundleServer(fixture("cases").bytes, '"1"').listen(port));
    await eventually(async () => (await proxy.health("/readyz")).status === 200);
    expect((await through(proxy, "/true")).status).toBe(200);
    expect(back.asked[0]?.url).toBe("/bundles?spiffe=td%2Fagent");
  });

  test("N12: is asked with the last ETag; a new bundle is used, a bad one is not", async () => {
    const server = await own(new BundleServer(fixture("cases").bytes, '"1"').listen());
    const proxy = await proxyWith({ ...polling, bundle_url: server.url });
    const sent = (status: number): number => server.statuses.filter((one) => one === status).length;
    await eventually(() => sent(200) >= testThreads && sent(304) >= 3);
    // Both directions share one poll, and each thread has its own.
    expect([sent(200), sent(200) + sent(304)]).toEqual([testThreads, server.statuses.length]);
    expect((await through(proxy, "/false")).status).toBe(403);
    server.put(Buffer.from("no bundle"), '"2"');
    await proxy.log(({ problem }) => problem === "the bundle is not a gzip archive");
    expect((await through(proxy, "/false")).status).toBe(403);
    server.failure = 500;
    await proxy.log(({ problem }) => problem === "the bundle server answered 500");
    expect((await through(proxy, "/false")).status).toBe(403);
    expect((await proxy.health("/readyz")).status).toBe(200);
    server.failure = undefined;
    server.put(fixture("allow").bytes, '"3"');
    await eventually(async () => (await through(proxy, "/false")).status === 200);
  });

  test("N12: a reload of the file keeps the policy and the poll", async () => {
    const server = await own(new BundleServer(fixture("cases").bytes, '"1"').listen());
    const file = (over: Settings): Settings =>
      settings({
        pipeline: {
          outbound: chain({
            agent_id: "a",
            polling_min_delay: 60,
            polling_max_delay: 60,
            bundle_url: server.url,
            ...over,
          }),
        },
      });
    const proxy = await own(ProxyProcess.start(file({})));
    await eventually(async () => (await proxy.health("/readyz")).status === 200);
    await proxy.reload(file({ on_undefined: "deny" }));
    expect((await through(proxy, "/none")).status).toBe(403);
    expect((await proxy.health("/readyz")).status).toBe(200);
    expect((await through(proxy, "/true")).status).toBe(200);
    // Each thread polls for itself.
    expect(server.asked).toHaveLength(testThreads);
  });
});

describe("an OPA server", () => {
  let stub: StubOpa;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    stub = await own(StubOpa.start());
    proxy = await proxyWith({ server_url: stub.url, decision_timeout: "300ms" });
    await eventually(async () => (await proxy.health("/readyz")).status === 200);
  });

  test("decides over connections that stay open", async () => {
    const before = stub.connections;
    for (let asked = 0; asked < 5; asked += 1) {
      expect((await through(proxy, "/true")).status).toBe(200);
      expect((await through(proxy, "/reason")).json()).toMatchObject({
        message: "access denied for tool",
      });
    }
    expect(stub.connections - before).toBeLessThanOrEqual(2);
  });

  test("that does not answer in time refuses", async () => {
    const answer = await through(proxy, "/slow");
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({
      error: "policy.forbidden",
      message: "OPA decision timed out",
    });
  });

  test("that answers an error refuses, and the client is not told more", async () => {
    const answer = await through(proxy, "/conflict");
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({ message: "OPA decision error" });
  });

  test("never sees a credential, of the agent or of the proxy", async () => {
    const injecting = await own(
      ProxyProcess.start(
        settings({
          pipeline: {
            outbound: {
              plugins: [
                opa({ server_url: stub.url }),
                {
                  name: "static-inject",
                  config: {
                    source: "mappings",
                    mappings: { "127.0.0.1": "real-key" },
                    hosts: ["127.0.0.1"],
                    placeholder: "dev-key",
                    inject_header: "x-api-key",
                    allow_plaintext: true,
                  },
                },
              ],
            },
          },
        }),
      ),
    );
    await eventually(async () => (await injecting.health("/readyz")).status === 200);
    stub.calls.length = 0;
    const answer = await get(injecting.forward, `${origin.url}/true`, {
      Authorization: "Bearer dev-key",
    });
    expect(answer.status, answer.text).toBe(200);
    expect(origin.requestFor("/true").header("x-api-key")).toBe("real-key");
    expect(stub.calls.map(({ path }) => path)).toEqual([
      "authbridge/outbound/request",
      "authbridge/outbound/response",
    ]);
    expect(JSON.stringify(stub.calls)).not.toMatch(/real-key|dev-key/);
  });

  test.each([
    ["a file", (path: string) => ({ bearer_token_file: path })],
    ["a source", (path: string) => ({ bearer_token: { type: "file", path } })],
  ])("behind a Unix socket decides all the same, with a token of %s", async (_from, token) => {
    const folder = await mkdtemp(join(tmpdir(), "authbridge-opa-"));
    const socket = join(folder, "opa.sock");
    const local = await own(StubOpa.start(socket));
    await writeFile(join(folder, "token"), "s0cket-token");
    const judged = await proxyWith({
      server_url: `unix://${socket}`,
      ...token(join(folder, "token")),
    });
    await eventually(async () => (await judged.health("/readyz")).status === 200);
    expect((await through(judged, "/true")).status).toBe(200);
    expect((await through(judged, "/false")).status).toBe(403);
    expect(local.calls[0]?.headers).toMatchObject({ authorization: "Bearer s0cket-token" });
    expect(judged.stderr).not.toContain("s0cket-token");
    await local.close();
    expect((await through(judged, "/true")).status).toBe(403);
  });
});
