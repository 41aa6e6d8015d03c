import { describe, expect, test } from "vitest";
import { HeaderList } from "../../../src/http/headers.ts";
import { parseAuthority } from "../../../src/net/destination.ts";
import type { PeerProcess } from "../../../src/net/kernel/peer-process.ts";
import { Cancellation } from "../../../src/pipeline/cancellation.ts";
import { RequestContext, ResponseHalf } from "../../../src/pipeline/context.ts";
import type { Invocation } from "../../../src/pipeline/decision.ts";
import { makeFlow } from "../../../src/pipeline/flow.ts";
import { eventOf } from "../../../src/session/event.ts";

const at = Date.UTC(2026, 0, 1);

interface Fields {
  readonly stage?: "connect" | "request";
  readonly path?: string;
  readonly process?: PeerProcess;
}

function contextOf(fields: Fields = {}): RequestContext {
  const { stage = "request", path = "/v1/pay?card=4111" } = fields;
  const { process: holder } = fields;
  const flow = makeFlow({
    direction: "outbound",
    transport: "http",
    client: { address: "127.0.0.1", port: 1, ...(holder && { process: holder }) },
    destination: parseAuthority("api.example:443", "https"),
  });
  return new RequestContext({
    flow,
    stage,
    method: stage === "connect" ? "CONNECT" : "POST",
    path,
    host: "api.example",
    headers: new HeaderList([]),
    hasBody: false,
    cancellation: new Cancellation(),
  });
}

const step = (phase: "request" | "response", reason: string): Invocation => ({
  plugin: "p",
  action: "allow",
  phase,
  reason,
});

describe("a session event", () => {
  test("of a message that nothing touched names only what is known, in the default session", () => {
    const context = contextOf();
    expect(eventOf(context, { phase: "request", at })).toEqual({
      sessionId: "default",
      at: "2026-01-01T00:00:00.000Z",
      direction: "outbound",
      phase: "request",
      requestId: context.flow.id,
      host: "api.example",
      httpMethod: "POST",
      httpPath: "/v1/pay",
    });
  });

  test("of a tunnel is marked and has no path", () => {
    const event = eventOf(contextOf({ stage: "connect", path: "" }), { phase: "request", at });
    expect(event).toMatchObject({ tunnel: true, httpMethod: "CONNECT" });
    expect(event).not.toHaveProperty("httpPath");
  });

  test("says which executable asked, where that is known, and whether TLS was opened", () => {
    const process = { kind: "resolved", executable: "/usr/bin/curl" } as PeerProcess;
    const event = eventOf(contextOf({ process }), {
      phase: "response",
      bridged: true,
      at,
    });
    expect(event).toMatchObject({ executable: "/usr/bin/curl", bridged: true });
    const unknown = { kind: "unresolved", executable: "/usr/bin/curl" } as PeerProcess;
    const other = eventOf(contextOf({ process: unknown }), { phase: "response", at });
    for (const key of ["executable", "bridged"]) expect(other).not.toHaveProperty(key);
  });

  test("carries the steps of its own half", () => {
    const context = contextOf();
    context.invocations.push(step("request", "before"), step("response", "after"));
    const reasons = (phase: "request" | "response" | "denied"): (string | undefined)[] =>
      eventOf(context, { phase, at }).invocations?.outbound?.map((one) => one.reason) ?? [];
    expect(reasons("request")).toEqual(["before"]);
    expect(reasons("response")).toEqual(["after"]);
    expect(reasons("denied")).toEqual(["before"]);
    context.response = new ResponseHalf(200, new HeaderList([]));
    expect(reasons("denied")).toEqual(["after"]);
  });

  test("G11: of a refusal keeps status, code and host", () => {
    const context = contextOf();
    const error = { kind: "blocked", code: "ibac.blocked", message: "no" } as const;
    const event = eventOf(context, { phase: "denied", at, statusCode: 403, error });
    expect(event).toMatchObject({ phase: "denied", statusCode: 403, error, host: "api.example" });
  });

  test("cuts long session ids and rounds the duration, which Go clients decode as an integer", () => {
    const context = contextOf();
    context.sessionId = "x".repeat(300);
    const event = eventOf(context, { phase: "response", at, durationMs: 12.6 });
    expect(event.sessionId).toHaveLength(256);
    expect(event.durationMs).toBe(13);
  });

  test("has the caller's identity without its claims, and what parsers saw", () => {
    const context = contextOf();
    context.setIdentity({ subject: "alice", scopes: [], clientId: "app", claims: { secret: 1 } });
    context.facts.set("mcp", { method: "tools/call" });
    context.facts.set("private", { secret: 1 });
    const event = eventOf(context, { phase: "request", at });
    expect(event.identity).toEqual({ subject: "alice", clientId: "app" });
    expect(event.mcp).toEqual({ method: "tools/call" });
    expect(JSON.stringify(event)).not.toContain("secret");
  });
});
