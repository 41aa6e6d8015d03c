/** ext-authz over gRPC: what a service of Envoy's API sees, what its verdicts do, and what happens without one. */
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { realpathSync } from "node:fs";
import { createServer, type ServerHttp2Stream, type Http2Server } from "node:http2";
import { mkdtemp, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { ServerCredentials } from "@grpc/grpc-js";
import { describe, expect, test } from "vitest";
import { deniedAnswer, GrpcAuthz, okAnswer, setFields, struct } from "../support/authz-server.ts";
import { TestAuthority } from "../support/certs.ts";
import { clientCertificate } from "../support/client-certificate.ts";
import { freePort } from "../support/free-port.ts";
import { get, RawClient } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { oneThread, runProgram, runWith } from "../support/program.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { eventOf } from "../support/session-events.ts";

const own = owner();

function authz(url: string, more: object = {}, service: object = {}) {
  const initial_metadata = [{ key: "x-key", value: "of-the-proxy" }];
  const grpc_service = { target_uri: url, timeout: "20s", initial_metadata, ...service };
  const config = { grpc_service, ...more };
  return { name: "ext-authz", config };
}

async function outboundWith(service: GrpcAuthz, more: object = {}, ...others: unknown[]) {
  const origin = await own(HttpOrigin.launch());
  const plugins = outbound(...others, authz(service.url, more));
  const proxy = await own(ProxyProcess.start(settings(plugins)));
  const client = await own(RawClient.connect(proxy.forward));
  return { origin, proxy, client };
}

describe("the question", () => {
  test("has what Envoy's has, outbound", async () => {
    const service = await own(GrpcAuthz.start());
    const { origin, client } = await outboundWith(service, {
      context_extensions: { zone: "blue" },
      with_request_body: { max_request_bytes: 100 },
    });
    const answer = await client.ask({
      method: "POST",
      target: `${origin.url}/items/7?a=1&b=2`,
      headers: [
        ["X-Twice", "one"],
        ["X-Twice", "two"],
        ["Authorization", "Bearer of-the-agent"],
        ["Proxy-Authorization", "Basic bm90OmZvci1vdGhlcnM="],
      ],
      body: "hello",
    });
    expect(answer.status).toBe(200);
    expect(origin.requestFor("/items/7").text).toBe("hello");
    const { source, destination, request, context_extensions: extensions } = service.last;
    expect(source.address.socket_address.address).toBe("127.0.0.1");
    expect(source.address.socket_address.port_value).toBeGreaterThan(0);
    expect(destination.address.socket_address).toMatchObject({
      address: "127.0.0.1",
      port_value: origin.port,
    });
    expect(extensions).toEqual({ zone: "blue" });
    expect(Number(request.time.seconds)).toBeGreaterThan(1_700_000_000);
    expect(request.http).toMatchObject({
      method: "POST",
      path: "/items/7?a=1&b=2",
      query: "a=1&b=2",
      host: origin.authority,
      scheme: "http",
      protocol: "HTTP/1.1",
      size: "5",
      body: "hello",
    });
    expect(request.http.id).not.toBe("");
    expect(request.http.headers).toMatchObject({
      ":authority": origin.authority,
      ":method": "POST",
      ":path": "/items/7?a=1&b=2",
      ":scheme": "http",
      "x-twice": "one,two",
      authorization: "Bearer of-the-agent",
      "content-length": "5",
      "x-envoy-auth-partial-body": "false",
    });
    expect(request.http.headers).not.toHaveProperty("proxy-authorization");
    expect(service.calls[0]?.metadata.get("x-key")).toEqual(["of-the-proxy"]);
  });

  test("has what the parsers found", async () => {
    const service = await own(GrpcAuthz.start());
    const { origin, client } = await outboundWith(
      service,
      { include: ["mcp.params"] },
      { name: "mcp-parser" },
    );
    const call = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "search" } };
    await client.ask({
      method: "POST",
      target: `${origin.url}/mcp`,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(call),
    });
    const { authbridge } = service.last.metadata_context.filter_metadata;
    expect(JSON.stringify(authbridge)).toContain('"search"');
    expect(JSON.stringify(authbridge)).toContain('"tools/call"');
  });

  test("is chosen from by the file", async () => {
    const service = await own(GrpcAuthz.start());
    const { origin, client } = await outboundWith(service, {
      allowed_headers: { patterns: [{ prefix: "x-" }, { safe_regex: { regex: "acc.*" } }] },
      disallowed_headers: { patterns: ["x-secret"] },
      encode_raw_headers: true,
      with_request_body: { max_request_bytes: 4, allow_partial_message: true, pack_as_bytes: true },
    });
    await client.ask({
      method: "POST",
      target: `${origin.url}/`,
      headers: { "X-Shown": "yes", "X-Secret": "no", Accept: "*/*", Cookie: "no" },
      body: "longer than four",
    });
    const { header_map: map, raw_body: body } = service.last.request.http;
    const shown = map.headers.map(({ key, raw_value: value }) => [key, value.toString()]);
    const names = shown.map(([name]) => name);
    expect(shown).toContainEqual(["x-shown", "yes"]);
    expect(shown).toContainEqual(["x-envoy-auth-partial-body", "true"]);
    expect(names).toContain("accept");
    expect(names).not.toContain("x-secret");
    expect(names).not.toContain("cookie");
    expect(body.toString()).toBe("long");
    expect(origin.requestFor("/").text).toBe("longer than four");
  });

  test("is about a longer body only where the file says so: 413 names the key", async () => {
    const service = await own(GrpcAuthz.start());
    const { origin, proxy, client } = await outboundWith(service, {
      with_request_body: { max_request_bytes: 4 },
    });
    const known = await client.ask({ method: "POST", target: `${origin.url}/a`, body: "five!" });
    expect(known.status).toBe(413);
    expect(known.text).toContain("with_request_body.max_request_bytes");
    const other = await own(RawClient.connect(proxy.forward));
    const chunked = await other.ask({
      method: "POST",
      target: `${origin.url}/b`,
      headers: { "Transfer-Encoding": "chunked" },
      body: "5\r\nfive!\r\n0\r\n\r\n",
    });
    expect(chunked.status).toBe(413);
    expect(service.calls).toHaveLength(0);
    expect(origin.requests).toHaveLength(0);
  });

  test("has the same inbound, and the destination is the backend", async () => {
    const service = await own(GrpcAuthz.start());
    const backend = await own(HttpOrigin.launch());
    const file = merge(settings(inbound(authz(service.url))), {
      listener: { roles: ["reverse"], reverse_proxy_backend: backend.url },
    });
    const proxy = await own(ProxyProcess.start(file));
    service.answer = ({ attributes }) =>
      attributes.request.http.headers["authorization"] === "Bearer good"
        ? { status: { code: 0 }, ok_response: { headers: setFields({ "X-User": "alice" }) } }
        : deniedAnswer(401, '{"why":"no"}', {
            "www-authenticate": 'Bearer realm="r"',
            "content-type": "application/json",
          });
    const refused = await get(proxy.reverse, "/private");
    expect(refused.status).toBe(401);
    expect(refused.header("www-authenticate")).toBe('Bearer realm="r"');
    expect(refused.json()).toEqual({ why: "no" });
    const passed = await get(proxy.reverse, "/private", {
      Authorization: "Bearer good",
      "X-User": "mallory",
    });
    expect(passed.status).toBe(200);
    expect(backend.requestFor("/private").head.all("x-user")).toEqual(["alice"]);
    expect(service.last.request.http).toMatchObject({ scheme: "http", host: "agent.test" });
  });
});

describe("the question about a client", () => {
  test("names its program where the file looks it up", async () => {
    const service = await own(GrpcAuthz.start());
    for (const include_executable of [false, true]) {
      const { origin, client } = await outboundWith(service, { include_executable });
      expect((await client.ask({ target: `${origin.url}/` })).status).toBe(200);
      const executable = include_executable ? { executable: realpathSync(process.execPath) } : {};
      expect(service.last.source.labels).toEqual(executable);
    }
  });

  test("has its certificate and the name that it asked for where the file says so", async () => {
    const service = await own(GrpcAuthz.start());
    const origin = await own(HttpOrigin.launch());
    const spiffeId = "spiffe://test/agent";
    const shown = clientCertificate(spiffeId);
    const authority = await TestAuthority.create();
    const server = await authority.server();
    const files = { "tls.crt": server.cert, "tls.key": server.key, "clients.crt": shown.ca };
    const file = (more: object) =>
      merge(settings(outbound(authz(service.url, more))), {
        listener: {
          forward_proxy_tls: {
            cert_file: "./tls.crt",
            key_file: "./tls.key",
            client_ca_file: "./clients.crt",
          },
        },
        callers: { clients: [{ name: "cert-agent", certificate: spiffeId }] },
      });
    const proxy = await own(ProxyProcess.start(file({}), { files }));
    const told = async () => {
      const { cert, key } = shown;
      const { host, port } = proxy.forward;
      const secure = { host, port, servername: "localhost", ca: authority.caPem, cert, key };
      const socket = connect(secure);
      socket.write(`GET ${origin.url}/ HTTP/1.1\r\nHost: ${origin.authority}\r\n\r\n`);
      const [head] = (await once(socket, "data")) as [Buffer];
      socket.destroy();
      expect(head.toString()).toContain("HTTP/1.1 200");
      const { source, tls_session: session } = service.last;
      expect(source.principal).toBe("cert-agent");
      return { certificate: decodeURIComponent(source.certificate), sni: session?.sni };
    };
    expect(await told()).toEqual({ certificate: "", sni: undefined });
    await proxy.reload(file({ include_peer_certificate: true, include_tls_session: true }));
    const { certificate, sni } = await told();
    expect(new X509Certificate(certificate).raw).toEqual(new X509Certificate(shown.cert).raw);
    expect(sni).toBe("localhost");
  });
});

describe("a verdict", () => {
  test("changes the request and the response as its append actions say", async () => {
    const service = await own(GrpcAuthz.start());
    service.answer = () => ({
      status: { code: 0 },
      ok_response: {
        headers: [
          { header: { key: "x-set", value: "new" } },
          { header: { key: "x-append", value: "two" }, append: { value: true } },
          { header: { key: "x-append-action", value: "two" }, append_action: 0 },
          { header: { key: "x-absent", value: "mine" }, append_action: 1 },
          { header: { key: "x-there", value: "mine" }, append_action: 1 },
          { header: { key: "x-over", value: "mine" }, append_action: 2 },
          { header: { key: "x-none", value: "mine" }, append_action: 3 },
        ],
        headers_to_remove: ["X-Remove", "Host", ":path", "authorization"],
        response_headers_to_add: [
          { header: { key: "x-added", value: "yes" } },
          { header: { key: "set-cookie", value: "a=1" } },
          { header: { key: "set-cookie", value: "b=2" } },
        ],
        query_parameters_to_set: [{ key: "b", value: "3 4" }],
        query_parameters_to_remove: ["c"],
      },
      dynamic_metadata: struct({ user: "alice", level: 3, trusted: true }),
    });
    const { origin, proxy, client } = await outboundWith(service);
    const answer = await client.ask({
      target: `${origin.url}/p?a=1&b=2&c=3`,
      headers: {
        "X-Set": "old",
        "X-Append": "one",
        "X-Append-Action": "one",
        "X-There": "theirs",
        "X-Over": "theirs",
        "X-Remove": "gone",
        Authorization: "Bearer gone",
      },
    });
    expect(answer.status).toBe(200);
    expect(answer.header("x-added")).toBe("yes");
    expect(answer.head.all("set-cookie")).toEqual(["a=1", "b=2"]);
    const seen = origin.requestFor("/p");
    expect(seen.target).toBe("/p?a=1&b=3%204");
    expect(seen.head.all("x-set")).toEqual(["new"]);
    expect(seen.head.all("x-append")).toEqual(["one", "two"]);
    expect(seen.head.all("x-append-action")).toEqual(["one", "two"]);
    expect(seen.header("x-absent")).toBe("mine");
    expect(seen.header("x-there")).toBe("theirs");
    expect(seen.header("x-over")).toBe("mine");
    expect(seen.header("x-none")).toBeUndefined();
    expect(seen.header("x-remove")).toBeUndefined();
    expect(seen.header("authorization")).toBeUndefined();
    expect(seen.header("host")).toBe(origin.authority);
    const read = async (path: string) => (await proxy.sessions(path)).text;
    const event = await eventOf(read, ({ phase }) => phase === "request");
    expect(JSON.stringify(event)).toContain('"metadata.user":"alice"');
    expect(JSON.stringify(event)).toContain('"metadata.level":"3"');
  });

  test("that denies is passed on, without what belongs to the connection", async () => {
    const service = await own(GrpcAuthz.start());
    service.answer = () =>
      deniedAnswer(429, "slow down", {
        "retry-after": "7",
        "x-why": "quota",
        "transfer-encoding": "chunked",
        connection: "upgrade",
        "content-length": "3",
        ":status": "200",
      });
    const { origin, client } = await outboundWith(service);
    const answer = await client.ask({ target: `${origin.url}/` });
    expect(answer.status).toBe(429);
    expect(answer.text).toBe("slow down");
    expect(answer.header("retry-after")).toBe("7");
    expect(answer.header("x-why")).toBe("quota");
    expect(answer.header("transfer-encoding")).toBeUndefined();
    expect(answer.header("content-type")).toBe("text/plain");
    // The connection goes on, in step.
    service.answer = () => okAnswer;
    expect((await client.ask({ target: `${origin.url}/` })).status).toBe(200);
  });

  test.each([
    ["without a body", () => ({ status: { code: 7 } })],
    ["with an ok_response and another status", () => ({ status: { code: 16 }, ok_response: {} })],
  ])("that denies %s is 403", async (_name, answer) => {
    const service = await own(GrpcAuthz.start());
    service.answer = answer;
    const { origin, client } = await outboundWith(service);
    const refused = await client.ask({ target: `${origin.url}/` });
    expect(refused.status).toBe(403);
    expect(refused.json()).toMatchObject({ error: "policy.forbidden", plugin: "ext-authz" });
    expect(origin.requests).toHaveLength(0);
  });

  test.each([
    ["authorization", "Bearer other", "allow_headers"],
    ["cookie", "a=b", "allow_headers"],
    ["host", "other.test", "allow_headers"],
    [":path", "/other", "allow_headers"],
    ["transfer-encoding", "chunked", "transfer-encoding"],
    ["content-length", "0", "content-length"],
    ["x-split", "a\r\nx-evil: 1", "x-split"],
    ["bad name", "a", "bad"],
  ])("that sets %s is refused", async (key, value, named) => {
    const service = await own(GrpcAuthz.start());
    service.answer = () => ({
      status: { code: 0 },
      ok_response: { headers: [{ header: { key, value } }] },
    });
    const { origin, client } = await outboundWith(service);
    const refused = await client.ask({ target: `${origin.url}/` });
    expect(refused.status).toBe(403);
    expect(refused.text).toContain(named);
    expect(origin.requests).toHaveLength(0);
  });

  test("sets credentials and the path where the file says so", async () => {
    const service = await own(GrpcAuthz.start());
    service.answer = () => ({
      status: { code: 0 },
      ok_response: {
        headers: setFields({ authorization: "Bearer of-the-service", ":path": "/x?y" }),
      },
    });
    const { origin, client } = await outboundWith(service, {
      allow_headers: ["authorization", ":path"],
    });
    expect((await client.ask({ target: `${origin.url}/` })).status).toBe(200);
    expect(origin.requestFor("/x")).toMatchObject({ target: "/x?y" });
    expect(origin.requestFor("/x").header("authorization")).toBe("Bearer of-the-service");
  });

  test("is asked for before credentials are attached", async () => {
    const service = await own(GrpcAuthz.start());
    service.answer = () => ({
      status: { code: 0 },
      ok_response: { headers: setFields({ "x-user": "alice" }) },
    });
    const inject = {
      name: "static-inject",
      config: { source: "mappings", mappings: { "127.0.0.1": "REAL" } },
    };
    const { origin, client } = await outboundWith(service, {}, inject);
    const headers = { Authorization: "Bearer PLACEHOLDER" };
    expect((await client.ask({ target: `${origin.url}/`, headers })).status).toBe(200);
    expect(service.last.request.http.headers["authorization"]).toBe("Bearer PLACEHOLDER");
    expect(origin.requestFor("/").header("x-user")).toBe("alice");
    expect(origin.requestFor("/").header("authorization")).toBe("Bearer REAL");
  });
});

/** A server of HTTP/2 that speaks gRPC badly. */
async function broken(answer: (stream: ServerHttp2Stream) => void) {
  const server: Http2Server = createServer();
  const sessions = new Set<{ destroy(): void }>();
  server.on("session", (session) => sessions.add(session));
  server.on("stream", (stream) => {
    stream.on("error", () => undefined);
    answer(stream);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return own({
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      for (const session of sessions) session.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  });
}

const grpcHead = { ":status": 200, "content-type": "application/grpc" };
const okMessage = Buffer.from([0, 0, 0, 0, 4, 0x0a, 0, 0x1a, 0]);

describe("no verdict", () => {
  const faults: [string, (stream: ServerHttp2Stream) => void][] = [
    ["no trailers", (stream) => (stream.respond(grpcHead), stream.end(okMessage))],
    ["a reset within the answer", (stream) => (stream.respond(grpcHead), stream.close(2))],
    ["HTTP status 503", (stream) => (stream.respond({ ":status": 503 }), stream.end())],
    ["no gRPC", (stream) => (stream.respond({ ":status": 200 }), stream.end(okMessage))],
    ["garbage", (stream) => ended(stream, Buffer.from([0, 0, 0, 0, 2, 0xff, 0xff]))],
    ["an empty message", (stream) => ended(stream, Buffer.from([0, 0, 0, 0, 0]))],
    ["a compressed message", (stream) => ended(stream, Buffer.from([1, 0, 0, 0, 0]))],
    ["an oversized message", (stream) => ended(stream, Buffer.from([0, 1, 0, 0, 0]))],
    ["half a message", (stream) => ended(stream, okMessage.subarray(0, 7))],
    ["two messages", (stream) => ended(stream, Buffer.concat([okMessage, okMessage]))],
    ["no message", (stream) => ended(stream, Buffer.alloc(0))],
    ["another gRPC status", (stream) => ended(stream, okMessage, "14")],
  ];
  const ended = (stream: ServerHttp2Stream, body: Buffer, status = "0"): void => {
    stream.respond(grpcHead, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": status }));
    stream.end(body);
  };

  test("of any kind is a refusal", async () => {
    const origin = await own(HttpOrigin.launch());
    let answer: (stream: ServerHttp2Stream) => void = (stream) => ended(stream, okMessage);
    const service = await broken((stream) => answer(stream));
    const proxy = await own(ProxyProcess.start(settings(outbound(authz(service.url)))));
    expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(200);
    for (const [name, fault] of faults) {
      answer = fault;
      const refused = await get(proxy.forward, `${origin.url}/${name.replaceAll(" ", "-")}`);
      expect(refused.status, name).toBe(403);
      expect(refused.text, name).toContain("failure_mode_allow");
    }
    answer = (stream) => ended(stream, okMessage);
    expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(200);
    expect(origin.requests).toHaveLength(2);
  });

  test("from one that is away, hangs, or does not speak HTTP/2", async () => {
    const origin = await own(HttpOrigin.launch());
    const service = await own(GrpcAuthz.start());
    service.answer = () => "hang";
    const places = [`http://127.0.0.1:${await freePort()}`, service.url, origin.url];
    for (const url of places) {
      const plugin = authz(url, { status_on_error: { code: 503 } }, { timeout: "300ms" });
      const proxy = await own(ProxyProcess.start(settings(outbound(plugin))));
      const refused = await get(proxy.forward, `${origin.url}/asked`);
      expect(refused.status, url).toBe(503);
      expect(refused.json()).toMatchObject({ plugin: "ext-authz" });
    }
    expect(origin.requestsFor("/asked")).toHaveLength(0);
  });

  test("lets pass only where the file says so", async () => {
    const origin = await own(HttpOrigin.launch());
    const marked = { failure_mode_allow: true, failure_mode_allow_header_add: true };
    const plugin = authz(`http://127.0.0.1:${await freePort()}`, marked);
    const proxy = await own(ProxyProcess.start(settings(outbound(plugin))));
    expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(200);
    expect(origin.requestFor("/").header("x-envoy-auth-failure-mode-allowed")).toBe("true");
    const service = await own(GrpcAuthz.start());
    await proxy.reload(settings(outbound(authz(service.url, marked))));
    const headers = { "X-Envoy-Auth-Failure-Mode-Allowed": "true" };
    expect((await get(proxy.forward, `${origin.url}/judged`, headers)).status).toBe(200);
    const seen = origin.requestFor("/judged");
    expect(seen.header("x-envoy-auth-failure-mode-allowed")).toBeUndefined();
  });

  test("is over when the service is back", async () => {
    const origin = await own(HttpOrigin.launch());
    const first = await GrpcAuthz.start();
    const proxy = await own(ProxyProcess.start(settings(outbound(authz(first.url)))));
    expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(200);
    await first.close();
    expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(403);
    await own(GrpcAuthz.start(undefined, `127.0.0.1:${first.port}`));
    expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(200);
  });
});

describe("many questions", () => {
  test("a hundred at once share connections, and each gets its own verdict", async () => {
    const service = await own(GrpcAuthz.start());
    service.answer = ({ attributes }) =>
      Number(attributes.request.http.path.slice(1)) % 2 === 0 ? okAnswer : deniedAnswer(403);
    const { origin, proxy } = await outboundWith(service, { max_concurrency: 16 });
    const all = await Promise.all(
      Array.from({ length: 100 }, (_, index) => get(proxy.forward, `${origin.url}/${index}`)),
    );
    expect(all.map(({ status }) => status)).toEqual(all.map((_, at) => (at % 2 === 0 ? 200 : 403)));
    expect(service.calls).toHaveLength(100);
    expect(
      await proxy.metric("authbridge_plugin_events_total", { plugin: "ext-authz", event: "asked" }),
    ).toBe(100);
  });

  test("beyond those that may wait are refused, also where failures pass", async () => {
    const service = await own(GrpcAuthz.start());
    const gate = Promise.withResolvers<void>();
    service.answer = async () => (await gate.promise, okAnswer);
    const origin = await own(HttpOrigin.launch());
    const entry = authz(service.url, { max_concurrency: 1, failure_mode_allow: true });
    const file = oneThread("each thread has its own queue", settings(outbound(entry)));
    const proxy = await own(ProxyProcess.start(file));
    const all = Array.from({ length: 18 }, () => get(proxy.forward, `${origin.url}/`));
    const first = await Promise.race(all);
    expect(first.status).toBe(503);
    expect(first.text).toContain("max_concurrency");
    gate.resolve();
    const statuses = (await Promise.all(all)).map(({ status }) => status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(17);
  });

  test("that are the same are asked once where the file keeps verdicts", async () => {
    const service = await own(GrpcAuthz.start());
    const { origin, client } = await outboundWith(service, { cache_ttl: "10m" });
    for (let count = 0; count < 3; count += 1)
      expect((await client.ask({ target: `${origin.url}/same` })).status).toBe(200);
    await client.ask({ target: `${origin.url}/other` });
    expect(service.calls.map(({ attributes }) => attributes.request.http.path)).toEqual([
      "/same",
      "/other",
    ]);
  });
});

describe("the service", () => {
  test("is reached over mutual TLS", async () => {
    const authority = await TestAuthority.create();
    const server = await authority.server();
    const client = clientCertificate("spiffe://test/proxy");
    const pairs = [{ private_key: Buffer.from(server.key), cert_chain: Buffer.from(server.cert) }];
    const credentials = ServerCredentials.createSsl(Buffer.from(client.ca), pairs, true);
    const service = await own(GrpcAuthz.start(credentials));
    const origin = await own(HttpOrigin.launch());
    const files = { "ca.pem": authority.caPem, "c.pem": client.cert, "k.pem": client.key };
    const fileFor = (tls: object) =>
      merge(settings(outbound(authz(service.url, tls))), {
        egress: { hosts: { localhost: ["127.0.0.1"] } },
        tls_bridge: { upstream_ca_bundle: "./ca.pem" },
      });
    const shown = {
      tls: { client_certificate_file: "./c.pem", client_certificate_key_file: "./k.pem" },
    };
    const proxy = await own(ProxyProcess.start(fileFor(shown), { files }));
    expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(200);
    const other = await authority.server(["proxy.test"]);
    const foreign = { ...files, "c.pem": other.cert, "k.pem": other.key };
    for (const [tls, with_] of [
      [{}, files],
      [shown, foreign],
    ] as const) {
      const bare = await own(ProxyProcess.start(fileFor(tls), { files: with_ }));
      expect((await get(bare.forward, `${origin.url}/`)).status).toBe(403);
    }
    expect(service.calls).toHaveLength(1);
  });

  test("is reached over a socket, and doctor finds it there", async () => {
    const folder = await mkdtemp(join(tmpdir(), "authbridge-authz-"));
    await own({ close: () => rm(folder, { recursive: true }) });
    const url = `unix://${folder}/authz.sock`;
    const service = await own(GrpcAuthz.start(undefined, url));
    const origin = await own(HttpOrigin.launch());
    const file = settings(outbound(authz(url)));
    const proxy = await own(ProxyProcess.start(file));
    expect((await get(proxy.forward, `${origin.url}/`)).status).toBe(200);
    expect(service.calls).toHaveLength(1);
    expect((await runWith("doctor", file)).stdout).toContain("answers over gRPC");
    const away = settings(outbound(authz(`http://127.0.0.1:${await freePort()}`)));
    expect((await runWith("doctor", away)).stdout).toContain("that it speaks gRPC there");
  });

  test("is asked by no rehearsal", async () => {
    const service = await own(GrpcAuthz.start());
    const { origin, proxy } = await outboundWith(service);
    const file = proxy.path("proxy.yaml");
    const args = ["explain", "--no-resolve", "--config", file, "--url", `${origin.url}/`];
    const { code, stdout } = await runProgram(args);
    expect(code).toBe(1);
    expect(stdout).toContain("grpc_service is not asked in a rehearsal");
    expect(service.calls).toHaveLength(0);
  });

  test("is another one after a reload", async () => {
    const [first, second] = [await own(GrpcAuthz.start()), await own(GrpcAuthz.start())];
    second.answer = () => deniedAnswer(403, "second");
    const { origin, proxy, client } = await outboundWith(first);
    expect((await client.ask({ target: `${origin.url}/` })).status).toBe(200);
    await proxy.reload(settings(outbound(authz(second.url))));
    expect((await client.ask({ target: `${origin.url}/` })).text).toBe("second");
  });

  test("decides for two threads", async () => {
    const service = await own(GrpcAuthz.start());
    service.answer = ({ attributes }) =>
      attributes.request.http.path === "/no" ? deniedAnswer(403) : okAnswer;
    const origin = await own(HttpOrigin.launch());
    const file = { ...settings(outbound(authz(service.url))), workers: 2 };
    const proxy = await own(ProxyProcess.start(merge(file, { session: { enabled: false } })));
    const all = await Promise.all(
      ["/a", "/no", "/b", "/no"].map((path) => get(proxy.forward, `${origin.url}${path}`)),
    );
    expect(all.map(({ status }) => status)).toEqual([200, 403, 200, 403]);
  });
});

describe("check", () => {
  const checked = async (config: object): Promise<string> => {
    const { code, stderr } = await runWith(
      "check",
      settings(outbound({ name: "ext-authz", config })),
    );
    expect(code).toBe(2);
    return stderr;
  };

  test("says what is wrong with the file", async () => {
    expect(await checked({})).toContain("needs one of grpc_service and http_service");
    const http = { server_uri: { uri: "http://127.0.0.1:1" } };
    expect(await checked({ http_service: http, connect: "check" })).toContain("CONNECT");
    const framing = { headers_to_add: [{ key: "Content-Length", value: "1" }] };
    const framed = await checked({ http_service: { ...http, authorization_request: framing } });
    expect(framed).toMatch(/:\d+:\d+ \S+headers_to_add\[0\]\.key: Content-Length cannot be set/);
    const grpc = { target_uri: "http://127.0.0.1:1" };
    expect(await checked({ grpc_service: grpc, tls: { svid: true } })).toContain("https://");
    expect(await checked({ grpc_service: grpc, transport_api_version: "V2" })).toContain("V3");
    expect(await checked({ grpc_service: { target_uri: "127.0.0.1:1" } })).toContain("http://");
  });
});
