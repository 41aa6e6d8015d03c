/** How a refusal reads on the wire, by code, and what else it may carry. */
import { denialCodes } from "../support/denial-codes.ts";
import { beforeAll, describe, expect, test } from "vitest";
import { get, RawClient, request } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let origin: HttpOrigin;
let proxy: ProxyProcess;

const codes = [...denialCodes, ["plugin.own-word", 500]] as const;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  const denier = (path: string, config: Readonly<Record<string, unknown>>) => ({
    name: "denier",
    id: path,
    config: { path, ...config },
  });
  const plugins = [
    ...codes.map(([code]) => denier(`/${code}`, { code, message: `because of ${code}` })),
    denier("/ibac", { code: "ibac.blocked", status: 403, message: "not aligned" }),
    denier("/full", {
      code: "policy.forbidden",
      message: "rule 7",
      description: "what to do about it",
      details: { rule: 7, names: ["a"] },
      headers: { "X-Reason": "seven", "Retry-After": "3" },
    }),
    denier("/answer", { code: "policy.content-blocked", phase: "response" }),
    { name: "responder", config: { path: "/own", status: 418, body: "short and stout" } },
    { name: "faulty", id: "request", config: { hook: "request", path: "/fault" } },
    { name: "faulty", id: "response", config: { hook: "response", path: "/response-fault" } },
  ];
  proxy = await own(
    ProxyProcess.start(
      settings({
        listener: { reverse_proxy_backend: origin.url },
        pipeline: { inbound: { plugins }, outbound: { plugins } },
      }),
    ),
  );
});

const surfaces = [
  ["forward", (path: string) => get(proxy.forward, `${origin.url}${path}`)],
  ["reverse", (path: string) => get(proxy.reverse, path)],
] as const;

describe.each(surfaces)("through the %s proxy", (_name, fetchPath) => {
  test.each(codes)("the code %s is the status %i", async (code, status) => {
    const answer = await fetchPath(`/${code}`);
    expect(answer.status).toBe(status);
    expect(answer.header("content-type")).toMatch(/^application\/json/);
    expect(answer.json()).toEqual({
      error: code,
      message: `because of ${code}`,
      plugin: "denier",
    });
    expect(origin.requestsFor(`/${code}`)).toEqual([]);
  });

  test("K4: a plain request gets plain JSON with the explicit status", async () => {
    const answer = await fetchPath("/ibac");
    expect(answer.head.startLine).toBe("HTTP/1.1 403 Forbidden: not aligned");
    expect(answer.json()).toEqual({
      error: "ibac.blocked",
      message: "not aligned",
      plugin: "denier",
    });
    expect(answer.text).not.toContain("jsonrpc");
  });

  test("description, details and headers of a denial are on the wire", async () => {
    const answer = await fetchPath("/full");
    expect(answer.json()).toEqual({
      error: "policy.forbidden",
      message: "rule 7",
      description: "what to do about it",
      details: { rule: 7, names: ["a"] },
      plugin: "denier",
    });
    expect(answer.header("x-reason")).toBe("seven");
    expect(answer.header("retry-after")).toBe("3");
  });

  test("a denial of the answer hides the answer", async () => {
    const answer = await fetchPath("/answer");
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({ error: "policy.content-blocked" });
    expect(answer.text).not.toContain("hello");
  });

  test("a plugin's own answer goes out as it is, and the origin is not reached", async () => {
    const answer = await fetchPath("/own");
    expect(answer.status).toBe(418);
    expect(answer.text).toBe("short and stout");
    expect(answer.header("x-made-by")).toBe("responder");
    expect(origin.requestsFor("/own")).toEqual([]);
  });

  test.each(["/fault", "/response-fault"])(
    "a plugin that throws (%s) is a refusal that shows nothing of the fault",
    async (path) => {
      const answer = await fetchPath(path);
      expect(answer.status).toBe(500);
      expect(answer.text).not.toContain("secret-detail");
      expect(answer.text).not.toContain("hello");
      expect(answer.json()).toMatchObject({ error: "plugin.fault" });
    },
  );
});

describe("around a refusal", () => {
  test("HEAD gets the status and no body, and the connection stays in step", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    const answer = await client.ask({
      method: "HEAD",
      target: `${origin.url}/policy.forbidden`,
    });
    expect(answer.status).toBe(403);
    expect((await client.ask({ target: `${origin.url}/fine` })).text).toMatch(/^hello/);
  });

  test("a refused upload is answered at once, and nothing of it is taken for a request", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    client.send(
      `POST ${origin.url}/policy.forbidden HTTP/1.1\r\nHost: ${origin.authority}\r\nContent-Length: 200\r\n\r\n`,
    );
    expect((await client.response()).status).toBe(403);
    client.send(`GET ${origin.url}/smuggled HTTP/1.1\r\nHost: ${origin.authority}\r\n\r\n`);
    client.end();
    await client.reader.toEnd().catch(() => undefined);
    expect(origin.requestsFor("/smuggled")).toEqual([]);
  });

  test("K3: a JSON-RPC notification is refused in plain JSON", async () => {
    const answer = await request(proxy.forward, {
      method: "POST",
      target: `${origin.url}/ibac`,
      headers: { "Content-Type": "application/json" },
      body: '{"jsonrpc":"2.0","method":"notifications/x"}',
    });
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({ error: "ibac.blocked" });
  });

  test("a fault is in the log with its cause", async () => {
    await get(proxy.forward, `${origin.url}/fault`);
    const line = await proxy.log((log) => JSON.stringify(log).includes("secret-detail-of-a-fault"));
    expect(["warn", "error"]).toContain(line["level"]);
  });
});
