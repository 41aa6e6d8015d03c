/** How refusals look on the wire (contract 3.3, cases K1–K7). */
import { denialCodes } from "../../../support/denial-codes.ts";
import { describe, expect, test } from "vitest";
import type { Denial } from "../../../../src/pipeline/decision.ts";
import {
  denialOf,
  grpcFields,
  jsonRpcError,
  rawReply,
  renderDenial,
  renderRefusal,
  statusOf,
} from "../../../../src/proxy/flow/reply.ts";
import { ProxyError } from "../../../../src/errors.ts";
import { message } from "../../../support/plugin-bench.ts";

const blocked: Denial = {
  code: "ibac.blocked",
  message: "not what the user asked for",
  status: 403,
  plugin: "ibac",
  details: { tool: "fetch_url" },
};

function refused(fact: object | undefined, denial: Denial = blocked) {
  const context = message({});
  if (fact !== undefined) context.facts.set("mcp", fact);
  const reply = renderRefusal(denial, context);
  return {
    status: reply.status,
    type: reply.headers["Content-Type"],
    json: JSON.parse(reply.body.toString()) as unknown,
  };
}

describe("a refused MCP request", () => {
  test.each([
    ["K1", 42],
    ["K2", "call-abc"],
  ])("%s: with the id %s is a JSON-RPC error with that id, as HTTP 200", (_case, id) => {
    expect(refused({ method: "tools/call", rpcId: id })).toEqual({
      status: 200,
      type: "application/json",
      json: {
        jsonrpc: "2.0",
        id,
        error: {
          code: -32_000,
          message: "not what the user asked for",
          data: { error: "ibac.blocked", details: { tool: "fetch_url" }, plugin: "ibac" },
        },
      },
    });
  });

  test("K3: that is a notification gets the plain form", () => {
    expect(refused({ method: "notifications/initialized" })).toMatchObject({
      status: 403,
      json: { error: "ibac.blocked", message: "not what the user asked for" },
    });
  });

  test.each(["application/json", "text/event-stream"])(
    "has no challenge in a 200, as %s",
    (accept) => {
      const context = message({ headers: { Accept: accept } });
      context.facts.set("mcp", { method: "tools/call", rpcId: 1 });
      const headers = { "WWW-Authenticate": 'Bearer realm="a"', "X-Kept": "1" };
      const reply = renderRefusal({ ...blocked, status: 401, headers }, context);
      expect(reply.status).toBe(200);
      expect(reply.headers).not.toHaveProperty("WWW-Authenticate");
      expect(reply.headers).toMatchObject({ "X-Kept": "1" });
    },
  );

  test("K5: keeps the JSON-RPC form for a 503", () => {
    const denial: Denial = { code: "ibac.judge_unavailable", message: "no judge", status: 503 };
    expect(refused({ method: "tools/call", rpcId: 1 }, denial)).toMatchObject({
      status: 200,
      json: { error: { message: "no judge", data: { error: "ibac.judge_unavailable" } } },
    });
  });

  test("K6: with details that cannot be serialised is a frame without data, and a bad id is the plain form", () => {
    const loop: Record<string, unknown> = {};
    loop["self"] = loop;
    const frame = JSON.parse(jsonRpcError(1, { ...blocked, details: loop })) as { error: object };
    expect(frame.error).toEqual({ code: -32_000, message: "not what the user asked for" });
    expect(JSON.parse(jsonRpcError(null, blocked))).toMatchObject({ id: null });
    expect(refused({ method: "tools/call", rpcId: { odd: true } })).toMatchObject({ status: 403 });
  });
});

describe("the plain form", () => {
  test("K4: has code, message, details and plugin, and no jsonrpc", () => {
    expect(refused(undefined)).toEqual({
      status: 403,
      type: "application/json",
      json: {
        error: "ibac.blocked",
        message: "not what the user asked for",
        details: { tool: "fetch_url" },
        plugin: "ibac",
      },
    });
  });

  test.each<readonly [code: string, status: number]>([
    ...denialCodes,
    ["somebody.elses-code", 500],
  ])("K7: %s is %i unless the denial has its own status", (code, status) => {
    expect(statusOf({ code, message: "m" })).toBe(status);
    expect(statusOf({ code, message: "m", status: 418 })).toBe(418);
  });

  test("falls back to code and message when its details cannot be serialised", () => {
    const loop: Record<string, unknown> = {};
    loop["self"] = loop;
    const reply = renderDenial({ ...blocked, details: loop });
    expect(JSON.parse(reply.body.toString())).toEqual({
      error: "ibac.blocked",
      message: "not what the user asked for",
    });
  });
});

test("a fault that nobody declared says nothing about itself", () => {
  expect(denialOf(new Error("secret path"))).toEqual({
    code: "internal.fault",
    message: "internal error",
  });
  expect(denialOf(new ProxyError("internal.fault", "secret path"))).toEqual({
    code: "internal.fault",
    message: "internal error",
  });
});

test("a reason phrase is one short line, whatever the message says", () => {
  const message = `GET /a\r\nX: \u00fc\u4e2d ${"x".repeat(500)}`;
  const { reason } = renderDenial({ code: "policy.forbidden", message });
  expect(reason).toBe(`Forbidden: GET /a??X: ?? ${"x".repeat(500)}`.slice(0, 211));
});

test("a raw reply is a whole message that ends its connection", () => {
  const text = rawReply(renderDenial({ code: "policy.forbidden", message: "no" })).toString();
  expect(text).toMatch(/^HTTP\/1\.1 403 Forbidden: no\r\n/);
  expect(text).toContain("Connection: close\r\n");
  expect(text).toContain(
    `Content-Length: ${'{"error":"policy.forbidden","message":"no"}'.length}\r\n`,
  );
});

test("nothing in a plugin's reply begins another line of it", () => {
  const body = Buffer.from("no");
  const headers = { "X-Good": "1", "X-Bad": "1\r\nX-Injected: 1", "X Bad": "1" };
  const text = rawReply({ status: 403, reason: "No\r\nX-Injected: 1", headers, body }).toString();
  expect(text).toBe(
    "HTTP/1.1 403 Forbidden\r\nX-Good: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
  );
});

test.each([
  ["policy.forbidden", "7"],
  ["auth.unauthorized", "16"],
  ["upstream.timeout", "14"],
  ["request.body-too-large", "2"],
])("to a client of gRPC, %s is the status %s with the reason", (code, status) => {
  const reply = renderDenial({ code, message: "100%", headers: { "Retry-After": "3" } });
  const fields = [
    ["Content-Type", "application/grpc"],
    ["Grpc-Status", status],
    ["Grpc-Message", reply.reason?.replace("%", "%25")],
    ["Retry-After", "3"],
  ];
  expect(grpcFields(reply)).toEqual(fields.flat());
});
