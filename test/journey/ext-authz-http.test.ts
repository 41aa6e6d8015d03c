/** ext-authz over HTTP: the question, what is taken over of the answer, and failures. */
import { describe, expect, test } from "vitest";
import { HttpAuthz } from "../support/authz-server.ts";
import { get, RawClient } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();

async function served(service: HttpAuthz, http: object = {}, more: object = {}) {
  const origin = await own(HttpOrigin.launch());
  const server = { server_uri: { uri: service.url, timeout: "20s" }, ...http };
  const config = { http_service: server, ...more };
  const proxy = await own(ProxyProcess.start(settings(outbound({ name: "ext-authz", config }))));
  return { origin, proxy, client: await own(RawClient.connect(proxy.forward)) };
}

describe("a question", () => {
  test("has the method, the path below the prefix, the host and few fields", async () => {
    const service = await own(HttpAuthz.start());
    const { origin, client } = await served(
      service,
      {
        path_prefix: "/check",
        authorization_request: {
          allowed_headers: { patterns: [{ prefix: "x-tenant" }] },
          headers_to_add: [{ key: "x-proxy", value: "authbridge" }],
        },
      },
      { with_request_body: { max_request_bytes: 10 } },
    );
    const answer = await client.ask({
      method: "PUT",
      target: `${origin.url}/items?a=1`,
      headers: { "X-Tenant-Id": "7", "X-Other": "no", Authorization: "Bearer a" },
      body: "hello",
    });
    expect(answer.status).toBe(200);
    expect(origin.requestFor("/items").text).toBe("hello");
    const [asked] = service.calls;
    expect(asked).toMatchObject({ method: "PUT", url: "/check/items?a=1", body: "hello" });
    expect(asked?.headers).toMatchObject({
      host: origin.authority,
      authorization: "Bearer a",
      "x-tenant-id": "7",
      "x-proxy": "authbridge",
      "x-envoy-auth-partial-body": "false",
    });
    expect(asked?.headers).not.toHaveProperty("x-other");
  });
});

describe("what the proxy says itself", () => {
  test("stands in place of what the client says", async () => {
    const service = await own(HttpAuthz.start());
    const headers_to_add = [
      { key: "X-Proxy", value: "authbridge" },
      { key: "authorization", value: "Bearer of-the-proxy" },
    ];
    const { origin, client } = await served(
      service,
      { authorization_request: { headers_to_add } },
      {
        allowed_headers: { patterns: ["x-proxy", "x-twice", "x-secret"] },
        disallowed_headers: { patterns: [{ safe_regex: { regex: "X-Sec.*" } }] },
      },
    );
    await client.ask({
      target: `${origin.url}/`,
      headers: [
        ["X-Proxy", "forged"],
        ["Authorization", "Bearer of-the-agent"],
        ["X-Twice", "one"],
        ["X-Twice", "two"],
        ["X-Secret", "not for it"],
      ],
    });
    expect(service.calls[0]?.headers).toMatchObject({
      "x-proxy": "authbridge",
      authorization: "Bearer of-the-proxy",
      "x-twice": "one, two",
    });
    expect(service.calls[0]?.headers).not.toHaveProperty("x-secret");
    expect(origin.requestFor("/").header("authorization")).toBe("Bearer of-the-agent");
  });
});

describe("a body", () => {
  const sent = "\u00e9\u00e8\u00ea\u00eb";

  test.each([
    ["is shown as it is, whatever its bytes", { max_request_bytes: 4 }, sent, "false"],
    [
      "is cut between any bytes",
      { max_request_bytes: 3, allow_partial_message: true },
      sent.slice(0, 3),
      "true",
    ],
  ])("%s", async (_what, with_request_body, shown, isPartial) => {
    const service = await own(HttpAuthz.start());
    const { origin, client } = await served(service, {}, { with_request_body });
    const answer = await client.ask({
      method: "POST",
      target: `${origin.url}/`,
      body: Buffer.from(sent, "latin1"),
    });
    expect(answer.status).toBe(200);
    expect(service.calls[0]?.body).toBe(Buffer.from(shown, "latin1").toString("utf8"));
    expect(service.calls[0]?.headers).toMatchObject({
      "x-envoy-auth-partial-body": isPartial,
      "content-length": String(shown.length),
    });
  });
});

describe("an answer", () => {
  test("of 200 gives the fields that the file takes over", async () => {
    const service = await own(HttpAuthz.start());
    service.answer = () => ({
      status: 200,
      headers: {
        "x-user": "alice",
        "x-role": "admin",
        "x-more": "two",
        "x-client": "hello",
        "x-envoy-auth-headers-to-remove": "x-remove, x-gone",
      },
    });
    const { origin, client } = await served(service, {
      authorization_response: {
        allowed_upstream_headers: { patterns: ["x-user"] },
        allowed_upstream_headers_to_append: { patterns: ["x-more"] },
        allowed_client_headers_on_success: { patterns: ["x-client"] },
      },
    });
    const answer = await client.ask({
      target: `${origin.url}/`,
      headers: { "X-User": "mallory", "X-More": "one", "X-Remove": "a" },
    });
    const seen = origin.requestFor("/");
    expect(seen.head.all("x-user")).toEqual(["alice"]);
    expect(seen.head.all("x-more")).toEqual(["one", "two"]);
    expect(seen.header("x-role")).toBeUndefined();
    expect(seen.header("x-remove")).toBeUndefined();
    expect(answer.header("x-client")).toBe("hello");
    expect(answer.header("x-user")).toBeUndefined();
  });

  test("of another status is passed on", async () => {
    const service = await own(HttpAuthz.start());
    service.answer = () => ({
      status: 302,
      headers: { location: "https://login.test/", "set-cookie": ["a=1", "b=2"], "x-why": "login" },
      body: "go there",
    });
    const { origin, client } = await served(service);
    const answer = await client.ask({ target: `${origin.url}/` });
    expect(answer.status).toBe(302);
    expect(answer.header("location")).toBe("https://login.test/");
    expect(answer.head.all("set-cookie")).toEqual(["a=1", "b=2"]);
    expect(answer.header("x-why")).toBe("login");
    expect(answer.text).toBe("go there");
    expect(origin.requests).toHaveLength(0);
  });

  test("of another status is passed on with the fields that the file allows", async () => {
    const service = await own(HttpAuthz.start());
    service.answer = () => ({
      status: 401,
      headers: { "www-authenticate": "Basic", "x-shown": "a", "x-hidden": "b" },
    });
    const { origin, client } = await served(service, {
      authorization_response: { allowed_client_headers: { patterns: ["x-shown"] } },
    });
    const answer = await client.ask({ target: `${origin.url}/` });
    expect(answer.status).toBe(401);
    expect(answer.header("www-authenticate")).toBe("Basic");
    expect(answer.header("x-shown")).toBe("a");
    expect(answer.header("x-hidden")).toBeUndefined();
  });

  test.each(["hang", "reset", 500, "long"] as const)(
    "that is none (%s) is a refusal",
    async (how) => {
      const service = await own(HttpAuthz.start());
      service.answer = () =>
        typeof how === "number"
          ? { status: how }
          : how === "long"
            ? { status: 403, body: "x".repeat(2 * 1024 * 1024) }
            : how;
      const { origin, client } = await served(
        service,
        { server_uri: { uri: service.url, timeout: how === "hang" ? "300ms" : "20s" } },
        { status_on_error: 503 },
      );
      const answer = await client.ask({ target: `${origin.url}/` });
      expect(answer.status).toBe(503);
      expect(answer.text).toContain("failure_mode_allow");
      expect(origin.requests).toHaveLength(0);
    },
  );

  test("comes a hundred times at once", async () => {
    const service = await own(HttpAuthz.start());
    service.answer = ({ url }) => ({ status: Number(url.slice(1)) % 2 === 0 ? 200 : 403 });
    const { origin, proxy } = await served(service);
    const all = await Promise.all(
      Array.from({ length: 100 }, (_, at) => get(proxy.forward, `${origin.url}/${at}`)),
    );
    expect(all.map(({ status }) => status)).toEqual(all.map((_, at) => (at % 2 === 0 ? 200 : 403)));
  });
});

test("an opaque tunnel is refused: its requests cannot be asked about", async () => {
  const service = await own(HttpAuthz.start());
  const { origin, client } = await served(service);
  const answer = await client.ask({ method: "CONNECT", target: origin.authority });
  // What comes in the tunnel is read: HTTP without TLS is asked about.
  expect(answer.status).toBe(200);
  client.send(`GET /in HTTP/1.1\r\nHost: ${origin.authority}\r\n\r\n`);
  expect((await client.response()).status).toBe(200);
  expect(service.calls.map(({ url }) => url)).toEqual(["/in"]);
});
