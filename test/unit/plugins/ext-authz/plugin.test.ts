/** ext-authz by itself: what becomes of a service's words. How it is asked is in test/journey/ext-authz.test.ts. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  fieldOf,
  numberField,
  readFields,
  repeatedOf,
  textOf,
} from "../../../../src/grpc/protobuf.ts";
import type { RequestContext } from "../../../../src/pipeline/context.ts";
import type { Answer, OperatorFetch, OperatorRequest } from "../../../../src/pipeline/plugin.ts";
import { extAuthz } from "../../../../src/plugins/ext-authz/plugin.ts";
import { mcpParser } from "../../../../src/plugins/parsers/mcp.ts";
import { TestAuthority } from "../../../support/certs.ts";
import { message, PluginBench } from "../../../support/plugin-bench.ts";

/** `google.rpc.Status`, and one of the two responses. */
const allowing = (...changes: Buffer[]): Buffer =>
  Buffer.concat([fieldOf(1, numberField(1, 0)), fieldOf(3, Buffer.concat(changes))]);
const denying = (...parts: Buffer[]): Buffer =>
  Buffer.concat([fieldOf(1, numberField(1, 7)), fieldOf(2, Buffer.concat(parts))]);
/** A HeaderValueOption with an action: 0 appends, 2 overwrites. */
const option = (name: string, value: string, action = 2): Buffer =>
  fieldOf(
    2,
    Buffer.concat([
      fieldOf(1, Buffer.concat([fieldOf(1, name), fieldOf(2, value)])),
      numberField(3, action),
    ]),
  );

/** The path that a question is about. */
function pathIn(question: unknown): string {
  const inside = (bytes: Buffer, number: number): Buffer =>
    repeatedOf(readFields(bytes), number)[0] ?? Buffer.alloc(0);
  return textOf(readFields(inside(inside(inside(question as Buffer, 1), 4), 2)), 4);
}

async function judged(
  context: RequestContext,
  answer: (path: string) => Buffer,
  more: object = {},
): Promise<Answer> {
  const fetch: OperatorFetch = (_url, request) =>
    Promise.resolve({ status: 200, headers: {}, body: answer(pathIn(request?.body)) });
  const grpc_service = { target_uri: "http://authz.example:9000" };
  return new PluginBench(fetch).create(extAuthz, { grpc_service, ...more }).onRequest?.(context);
}

describe("a refusal", () => {
  test.each([
    ["an unknown status", denying(fieldOf(1, numberField(1, 99)))],
    ["a field that is none", denying(option("no field", "x"))],
    ["more fields than are read", denying(...Array.from({ length: 300 }, () => option("a", "b")))],
    ["an unknown action", denying(option("a", "b", 9))],
  ])("with %s stays one, whatever failures do", async (_what, answer) => {
    const decision = await judged(message(), () => answer, { failure_mode_allow: true });
    expect(decision).toMatchObject({ action: "deny", reason: "denied", denial: { status: 403 } });
  });
});

test("what a service changes of a batch is changed once, and each message is asked about as it came", async () => {
  const call = (id: number) => ({
    jsonrpc: "2.0",
    id,
    method: "tools/call",
    params: { name: "t" },
  });
  const context = message({
    path: "/mcp",
    body: [call(1), call(2)],
    headers: { "content-type": "application/json" },
  });
  await new PluginBench().create(mcpParser, {}).onRequest?.(context);
  const asked: string[] = [];
  const answer = (path: string): Buffer => {
    asked.push(path);
    return allowing(option(":path", `/behind${path}`), option("x-team", "blue", 0));
  };
  const decision = await judged(context, answer, { allow_headers: [":path"] });
  expect(decision).toMatchObject({ action: "modify" });
  expect(asked).toEqual(["/mcp", "/mcp"]);
  expect(context.path).toBe("/behind/mcp");
  expect(context.headers.getAll("x-team")).toEqual(["blue"]);
});

test("a service over HTTP is told fields of every name", async () => {
  let told: OperatorRequest | undefined;
  const fetch: OperatorFetch = (_url, request) => {
    told = request;
    return Promise.resolve({ status: 200, headers: {}, body: Buffer.alloc(0) });
  };
  const http_service = {
    server_uri: { uri: "http://authz.example" },
    authorization_request: { allowed_headers: { patterns: ["constructor"] } },
  };
  const plugin = new PluginBench(fetch).create(extAuthz, { http_service });
  await plugin.onRequest?.(message({ headers: { constructor: ["a", "b"] } }));
  expect(told?.headers).toMatchObject({ constructor: "a, b" });
});

test("is ready as soon as its client certificate is there, without a request", async () => {
  const folder = mkdtempSync(join(tmpdir(), "authz-"));
  try {
    const [file, key] = [join(folder, "tls.crt"), join(folder, "tls.key")];
    const bench = new PluginBench();
    const plugin = bench.create(extAuthz, {
      grpc_service: { target_uri: "https://authz.example:9000" },
      tls: { client_certificate_file: file, client_certificate_key_file: key },
    });
    expect(plugin.ready?.()).toContain("does not exist");
    await (await TestAuthority.create()).write(folder);
    bench.clock.advance(2_000);
    expect(plugin.ready?.()).toBe(true);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
