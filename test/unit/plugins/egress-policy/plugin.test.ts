import { Cancellation } from "../../../../src/pipeline/cancellation.ts";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { HeaderList } from "../../../../src/http/headers.ts";
import { parseAuthority } from "../../../../src/net/destination.ts";
import type { PeerProcess } from "../../../../src/net/kernel/peer-process.ts";
import { RequestContext } from "../../../../src/pipeline/context.ts";
import type { Decision } from "../../../../src/pipeline/decision.ts";
import { makeFlow } from "../../../../src/pipeline/flow.ts";
import type { Plugin } from "../../../../src/pipeline/plugin.ts";
import { egressPolicy } from "../../../../src/plugins/egress-policy/plugin.ts";
import { PluginBench, problemsOf } from "../../../support/plugin-bench.ts";

let folder: string;
let bench: PluginBench;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "egress-"));
  bench = new PluginBench();
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

interface Shape {
  readonly upgrade?: string;
  readonly to?: string;
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly process?: PeerProcess;
}

function contextOf(stage: "connect" | "request", shape: Shape): RequestContext {
  const { to = "api.example.com:443", body } = shape;
  const context = new RequestContext({
    flow: makeFlow({
      direction: "outbound",
      transport: stage === "connect" ? "connect" : "bridge",
      client: {
        address: "127.0.0.1",
        port: 40_000,
        ...(shape.process === undefined ? {} : { process: shape.process }),
      },
      destination: parseAuthority(to, "https"),
    }),
    stage,
    method: stage === "connect" ? "CONNECT" : (shape.method ?? "GET"),
    path: stage === "connect" ? "" : (shape.path ?? "/"),
    host: to,
    headers: HeaderList.fromRecord({
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      ...shape.headers,
    }),
    hasBody: body !== undefined,
    cancellation: new Cancellation(),
    upgrade: shape.upgrade,
  });
  if (body !== undefined) {
    context.content.load(Buffer.from(typeof body === "string" ? body : JSON.stringify(body)));
  }
  return context;
}

async function ask(
  plugin: Plugin,
  stage: "connect" | "request",
  shape: Shape = {},
): Promise<Decision> {
  const decision = await plugin.onRequest?.(contextOf(stage, shape));
  if (decision === undefined) throw new Error("nobody answered");
  return decision;
}

/** What a file has where a key is not written. */
function withoutAbsent(value: object): object {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined));
}

const rest = { host: "api.example.com", port: 443, protocol: "rest", enforcement: "enforce" };
const curl: PeerProcess = {
  kind: "resolved",
  pid: 7,
  executable: "/usr/bin/curl",
  sha256: "",
  ancestors: ["/usr/bin/bash"],
  commandLine: [],
  aliases: ["/usr/local/bin/fetch"],
};
const unknown: PeerProcess = {
  kind: "unresolved",
  reason: "no-socket",
  message: "no socket",
  executable: "",
  pid: 0,
  ancestors: [],
};

describe("inline policies", () => {
  const config = {
    network_policies: {
      api: {
        endpoints: [
          {
            ...rest,
            rules: [
              { allow: { method: "GET", path: "/v1/**", query: { tag: "a*" } } },
              { allow: { method: "GET", path: "/open/**" } },
            ],
          },
        ],
        binaries: [{ path: "/usr/bin/curl" }],
      },
      gate: { endpoints: [{ host: "gate.example.com", port: 443 }] },
    },
  };

  test("judge the host at the connect stage and say that requests must be seen", async () => {
    const plugin = bench.create(egressPolicy, config);
    const context = contextOf("connect", { process: curl });
    const decision = await plugin.onRequest?.(context);
    expect(decision).toMatchObject({
      action: "allow",
      details: { policy: "api", binary: "/usr/bin/curl" },
    });
    expect(context.tunnelTerms).toEqual({ mustInspect: "policy 'api'", keepTls: false });
    expect(await ask(plugin, "connect", { to: "evil.test:443", process: curl })).toMatchObject({
      action: "deny",
      reason: "endpoint_not_allowed",
      denial: {
        code: "policy.forbidden",
        message: "endpoint evil.test:443 is not allowed by any policy",
      },
    });
  });

  test("judge method, canonical path and query at the request stage", async () => {
    const plugin = bench.create(egressPolicy, config);
    const action = async (path: string, method = "GET"): Promise<string> =>
      (await ask(plugin, "request", { path, method, process: curl })).action;
    expect(await action("/v1/x?tag=abc")).toBe("allow");
    expect(await action("/v1/x?tag=b")).toBe("deny");
    expect(await action("/v1/x")).toBe("deny");
    expect(await action("/open/x", "HEAD")).toBe("allow");
    expect(await action("/open/x", "POST")).toBe("deny");
    expect(await action("/%6fpen/x")).toBe("allow");
    expect(await action("/open/../secret")).toBe("deny");
  });

  test.each(["/open/x;v=1/y;w", "/%6fpen//x/y?q=%2e%2e/", "/open/a%3Bb%2Bc"])(
    "judge every reading and send the spelling: %s",
    async (path) => {
      const plugin = bench.create(egressPolicy, config);
      const context = contextOf("request", { path, process: curl });
      expect((await plugin.onRequest?.(context))?.action).toBe("allow");
      expect(context.path).toBe(path);
    },
  );

  test("send what they do not judge as it came", async () => {
    const plugin = bench.create(egressPolicy, config);
    const context = contextOf("request", { to: "gate.example.com:443", path: "/a%2F..//b;c" });
    expect((await plugin.onRequest?.(context))?.action).toBe("allow");
    expect(context.path).toBe("/a%2F..//b;c");
  });

  test.each([
    "/open/%2e%2e/secret",
    "/open/..",
    "/..",
    "/open/%2fx",
    "/open/%252e%252e/x",
    "/open\\..\\x",
    "/open/%zz",
    "/open/./x",
    "/secret/..;/open/x",
    "/open//../x",
    "//open/x",
    "/open;v=1/y",
  ])("refuse the ambiguous path %s", async (path) => {
    const plugin = bench.create(egressPolicy, config);
    expect((await ask(plugin, "request", { path, process: curl })).action).toBe("deny");
  });

  test("judge the path with and without parameters", async () => {
    const guarded = { ...rest, access: "full", deny_rules: [{ method: "*", path: "/admin" }] };
    const policies = { api: { endpoints: [guarded] } };
    const plugin = bench.create(egressPolicy, { network_policies: policies });
    expect((await ask(plugin, "request", { path: "/admin;x=1" })).action).toBe("deny");
    expect((await ask(plugin, "request", { path: "/public;x=1" })).action).toBe("allow");
  });

  test("let a caller that is not known use entries without binaries only, counted once for its connection", async () => {
    const plugin = bench.create(egressPolicy, config);
    for (let round = 0; round < 2; round += 1) {
      expect(
        (await ask(plugin, "connect", { to: "gate.example.com:443", process: unknown })).action,
      ).toBe("allow");
      expect(await ask(plugin, "connect", { process: unknown })).toMatchObject({
        action: "deny",
        reason: "binary_not_allowed",
      });
    }
    expect(bench.counted.filter((event) => event === "caller_unresolved")).toHaveLength(1);
  });

  test.each([
    ["entries", { network_policies: { gate: config.network_policies.gate } }],
    ["a list", { allow: ["gate.example.com"] }],
    ["a list of requests", { allow: [{ host: "gate.example.com", methods: ["GET"] }] }],
  ])("with unresolved_identity: deny refuse a caller that is not known: %s", async (_of, open) => {
    const strict = bench.create(egressPolicy, { ...open, unresolved_identity: "deny" });
    const plain = bench.create(egressPolicy, open);
    expect(strict.callerLinks?.()).toBeDefined();
    for (const stage of ["connect", "request"] as const) {
      const from = (peer: PeerProcess) => ({ to: "gate.example.com:443", process: peer });
      expect((await ask(plain, stage, from(unknown))).action).toBe("allow");
      expect((await ask(strict, stage, from(curl))).action).toBe("allow");
      expect(await ask(strict, stage, from(unknown))).toMatchObject({
        action: "deny",
        reason: "identity_unresolved",
      });
    }
  });

  test("refuse a caller that must not be believed, whatever the entry", async () => {
    const plugin = bench.create(egressPolicy, config);
    const changed: PeerProcess = {
      ...unknown,
      kind: "violation",
      reason: "integrity",
      message: "Binary integrity violation",
    };
    expect(
      await ask(plugin, "connect", { to: "gate.example.com:443", process: changed }),
    ).toMatchObject({
      action: "deny",
      reason: "caller_violation",
    });
  });

  test("ask who the caller is only when some entry has binaries", () => {
    expect(bench.create(egressPolicy, config).callerLinks?.()).toEqual(["/usr/bin/curl"]);
    expect(
      bench
        .create(egressPolicy, { network_policies: { gate: config.network_policies.gate } })
        .callerLinks?.(),
    ).toBeUndefined();
  });

  test("under audit let a violation through, count it and record it", async () => {
    const audit = { endpoints: [{ ...rest, enforcement: "audit", access: "read-only" }] };
    const plugin = bench.create(egressPolicy, { network_policies: { api: audit } });
    expect(await ask(plugin, "request", { method: "DELETE" })).toMatchObject({
      action: "allow",
      reason: "policy_audited",
    });
    expect(bench.counted).toContain("audited");
  });

  test("allow an encoded slash only where the endpoint says so, and never with dots", async () => {
    const open = { endpoints: [{ ...rest, access: "full", allow_encoded_slash: true }] };
    const plugin = bench.create(egressPolicy, { network_policies: { api: open } });
    expect((await ask(plugin, "request", { path: "/a%2Fb" })).action).toBe("allow");
    expect((await ask(plugin, "request", { path: "/a%2F..%2Fb" })).action).toBe("deny");
    const closed = bench.create(egressPolicy, {
      network_policies: { api: { endpoints: [{ ...rest, access: "full" }] } },
    });
    expect((await ask(closed, "request", { path: "/a%2Fb" })).action).toBe("deny");
  });

  test("leave TLS alone where the endpoint says so", async () => {
    const plugin = bench.create(egressPolicy, {
      network_policies: {
        api: { endpoints: [{ host: "api.example.com", port: 443, tls: "skip" }] },
      },
    });
    const context = contextOf("connect", {});
    await plugin.onRequest?.(context);
    expect(context.tunnelTerms).toEqual({ mustInspect: undefined, keepTls: true });
  });
});

describe("addresses", () => {
  const at = (host: string, extra: object): unknown => ({
    network_policies: { a: { endpoints: [{ host, port: 443, ...extra }] } },
  });

  test.each([
    [
      "allowed_ips",
      at("db.example.com", { allowed_ips: ["10.1.0.0/16"] }),
      "db.example.com",
      ["10.1.0.0/16"],
    ],
    ["a literal host", at("10.2.3.4", {}), "10.2.3.4", ["10.2.3.4/32"]],
    ["a listed literal", { allow: ["10.2.3.4:443"] }, "10.2.3.4", ["10.2.3.4/32"]],
    ["a name alone", at("db.example.com", {}), "db.example.com", []],
  ])("%s limits what is dialled", async (_what, config, host, limits) => {
    for (const stage of ["connect", "request"] as const) {
      const context = contextOf(stage, { to: `${host}:443` });
      const plugin = bench.create(egressPolicy, config);
      expect((await plugin.onRequest?.(context))?.action).toBe("allow");
      expect(context.addressLimits.map(String)).toEqual(limits);
    }
  });
});

describe("bodies", () => {
  const mcp = {
    network_policies: {
      api: {
        endpoints: [
          {
            ...rest,
            protocol: "mcp",
            mcp: { max_body_bytes: 400 },
            rules: [
              { allow: { method: "tools/call", tool: "read_*" } },
              { allow: { method: "initialize" } },
            ],
            deny_rules: [{ method: "tools/call", tool: "read_secret" }],
          },
        ],
      },
    },
  };
  const call = (name: unknown): unknown => ({
    jsonrpc: "2.0",
    id: 1,
    method: "tools/call",
    params: { name },
  });

  test.each<[string, unknown, string]>([
    ["an allowed tool", call("read_a"), "allow"],
    ["an unlisted tool", call("write"), "deny"],
    ["a denied tool", call("read_secret"), "deny"],
    [
      "a notification that calls a tool",
      { jsonrpc: "2.0", method: "tools/call", params: { name: "write" } },
      "deny",
    ],
    ["a batch with one denied call", [call("read_a"), call("read_secret")], "deny"],
    [
      "another spelling of the name",
      { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "read_a", Name: "write" } },
      "deny",
    ],
    [
      "a key twice",
      '{"jsonrpc":"2.0","id":1,"method":"initialize","method":"tools/call","params":{"name":"write"}}',
      "deny",
    ],
    ["a name that is no text", call(7), "deny"],
    ["an answer of the client", { jsonrpc: "2.0", id: 1, result: {} }, "allow"],
    ["no JSON", "{", "deny"],
    ["a body that is too long", call("read_" + "a".repeat(400)), "deny"],
  ])("of MCP: %s", async (_what, body, action) => {
    const plugin = bench.create(egressPolicy, mcp);
    expect((await ask(plugin, "request", { method: "POST", body })).action).toBe(action);
  });

  test("of MCP: a name with NUL, which every pattern would miss, is refused", async () => {
    const endpoint = {
      ...rest,
      protocol: "mcp",
      mcp: { strict_tool_names: false, allow_all_known_mcp_methods: true },
      deny_rules: [{ tool: "drop_*" }, { method: "tools/drop_*" }],
    };
    const plugin = bench.create(egressPolicy, {
      network_policies: { api: { endpoints: [endpoint] } },
    });
    const action = async (body: unknown): Promise<string> =>
      (await ask(plugin, "request", { method: "POST", body })).action;
    const method = (name: string) => ({ jsonrpc: "2.0", id: 1, method: name });
    for (const name of ["drop_a", "drop_a\0"]) {
      expect(await action(call(name))).toBe("deny");
      expect(await action(method(`tools/${name}`))).toBe("deny");
    }
    expect(await action(call("some tool"))).toBe("allow");
  });

  test("of MCP: the stream of server messages, and a body that nobody read", async () => {
    const plugin = bench.create(egressPolicy, mcp);
    expect(
      (await ask(plugin, "request", { headers: { Accept: "text/event-stream" } })).action,
    ).toBe("allow");
    expect((await ask(plugin, "request", {})).action).toBe("deny");
    const unread = contextOf("request", { method: "POST", body: call("read_a") });
    const facts = {
      flow: unread.flow,
      stage: "request" as const,
      method: "POST",
      path: "/",
      host: unread.host,
      headers: unread.headers,
      hasBody: true,
      cancellation: unread.cancellation,
    };
    expect(await plugin.onRequest?.(new RequestContext(facts))).toMatchObject({
      action: "deny",
      reason: "uninspected",
    });
  });

  test.each(["text/plain", "application/json; charset=utf-16", "multipart/form-data"])(
    "with content type %s are refused",
    async (type) => {
      const plugin = bench.create(egressPolicy, mcp);
      const shape = { method: "POST", body: call("read_a"), headers: { "Content-Type": type } };
      expect((await ask(plugin, "request", shape)).action).toBe("deny");
    },
  );

  const graphql = {
    network_policies: {
      api: {
        endpoints: [
          {
            ...rest,
            protocol: "graphql",
            persisted_queries: "allow_registered",
            graphql_persisted_queries: { abc: { operation_type: "query", fields: ["viewer"] } },
            rules: [{ allow: { operation_type: "query", fields: ["viewer"] } }],
          },
        ],
      },
    },
  };

  test.each<[string, Shape, string]>([
    ["an allowed query", { method: "POST", body: { query: "{ viewer { id } }" } }, "allow"],
    ["a mutation", { method: "POST", body: { query: "mutation { viewer }" } }, "deny"],
    [
      "an alias for another field",
      { method: "POST", body: { query: "{ viewer: secret }" } },
      "deny",
    ],
    [
      "a batch with one mutation",
      { method: "POST", body: [{ query: "{ viewer }" }, { query: "mutation { x }" }] },
      "deny",
    ],
    ["a registered query", { method: "POST", body: { id: "abc" } }, "allow"],
    ["an unregistered query", { method: "POST", body: { id: "def" } }, "deny"],
    ["two ids", { method: "POST", body: { id: "abc", queryId: "abc" } }, "deny"],
    [
      "a query and the id of another",
      { method: "POST", body: { query: "{ viewer }", id: "abc" } },
      "deny",
    ],
    [
      "a key in another case",
      { method: "POST", body: { query: "{ viewer }", Query: "mutation { x }" } },
      "deny",
    ],
    ["a query by GET", { path: "/graphql?query=%7Bviewer%7D" }, "allow"],
    ["a mutation by GET", { path: "/graphql?query=mutation%7Bx%7D" }, "deny"],
    ["a query twice", { path: "/graphql?query=%7Bviewer%7D&query=mutation%7Bx%7D" }, "deny"],
    [
      "operations in both places",
      { method: "POST", path: "/?query=mutation%7Bx%7D", body: { query: "{ viewer }" } },
      "deny",
    ],
    [
      "a registered query by GET, and another one in its body",
      { path: "/graphql?id=abc", body: { query: "mutation { x }" } },
      "deny",
    ],
    ["extensions that are no JSON", { path: "/graphql?query=%7Bviewer%7D&extensions=%7B" }, "deny"],
  ])("of GraphQL: %s", async (_what, shape, action) => {
    const plugin = bench.create(egressPolicy, graphql);
    expect((await ask(plugin, "request", shape)).action).toBe(action);
  });

  /** A GraphQL or JSON-RPC request that has this many bytes. */
  function requestOf(protocol: string, bytes: number): string {
    const isGraphql = protocol === "graphql";
    const bare = isGraphql ? { query: "{ a }" } : { jsonrpc: "2.0", id: 1, method: "ping" };
    const json = JSON.stringify(bare);
    return `${json.slice(0, -1)}${" ".repeat(bytes - json.length)}}`;
  }

  test.each<[string, number, string, object]>([
    ["graphql", 65_536, "by default", {}],
    ["graphql", 100, "graphql_max_body_bytes", { graphql_max_body_bytes: 100 }],
    ["json-rpc", 65_536, "by default", {}],
    ["json-rpc", 65_536, "of a block that says nothing", { json_rpc: {} }],
    ["json-rpc", 70_000, "json_rpc.max_body_bytes", { json_rpc: { max_body_bytes: 70_000 } }],
    ["mcp", 65_536, "by default", {}],
    ["mcp", 100, "mcp.max_body_bytes", { mcp: { max_body_bytes: 100 } }],
  ])("of %s are read up to %i bytes (%s)", async (protocol, most, _key, more) => {
    const allow = protocol === "graphql" ? { operation_type: "query" } : { method: "ping" };
    const rules = [{ allow }];
    const endpoints = [{ ...rest, protocol, rules, ...more }];
    const plugin = bench.create(egressPolicy, { network_policies: { api: { endpoints } } });
    const post = (bytes: number) =>
      ask(plugin, "request", { method: "POST", body: requestOf(protocol, bytes) });
    expect((await post(most)).action).toBe("allow");
    const refused = await post(most + 1);
    const message = expect.stringContaining(`longer than ${most} bytes`) as unknown;
    expect(refused).toMatchObject({ reason: "body_too_large", denial: { message } });
  });

  test.each<[string, boolean, boolean | undefined, string]>([
    ["a name of other letters", false, undefined, "read file"],
    ["a name that is too long", false, undefined, "r".repeat(129)],
    ["the longest name", true, undefined, "r".repeat(128)],
    ["a name of other letters", true, false, "read file"],
    ["a name that is too long", true, false, "r".repeat(129)],
  ])("of MCP: %s passes: %s with strict_tool_names: %s", async (_name, passes, strict, tool) => {
    const mcp = { strict_tool_names: strict, allow_all_known_mcp_methods: true };
    const endpoints = [{ ...rest, protocol: "mcp", mcp: withoutAbsent(mcp) }];
    const plugin = bench.create(egressPolicy, { network_policies: { api: { endpoints } } });
    const { action } = await ask(plugin, "request", { method: "POST", body: call(tool) });
    expect(action).toBe(passes ? "allow" : "deny");
  });

  test("are asked for where an endpoint judges them, and nowhere else", () => {
    const judging = bench.create(egressPolicy, mcp);
    expect(judging.wantsBody?.(contextOf("request", {}))).toBe(true);
    expect(judging.wantsBody?.(contextOf("request", { to: "other.test:443" }))).toBe(false);
    const plugin = bench.create(egressPolicy, {
      network_policies: { api: { endpoints: [{ ...rest, access: "full" }] } },
    });
    expect(plugin.wantsBody?.(contextOf("request", {}))).toBe(false);
  });
});

describe("lists", () => {
  test("allow hosts, refuse one path on them, and an empty list allows nothing", async () => {
    const plugin = bench.create(egressPolicy, {
      allow: ["api.example.com", "*.github.com:443"],
      deny: [{ host: "api.example.com", paths: ["/admin", "/admin/**"] }],
    });
    const context = contextOf("connect", {});
    expect((await plugin.onRequest?.(context))?.action).toBe("allow");
    expect(context.tunnelTerms.mustInspect).toBeDefined();
    expect((await ask(plugin, "request", { path: "/x" })).action).toBe("allow");
    expect(await ask(plugin, "request", { path: "/admin/x" })).toMatchObject({
      action: "deny",
      details: { rule: "deny[0]" },
    });
    expect((await ask(plugin, "request", { path: "/admin%2Fx" })).action).toBe("deny");
    expect((await ask(plugin, "connect", { to: "169.254.169.254:80" })).action).toBe("deny");
    const empty = bench.create(egressPolicy, { allow: [] });
    expect((await ask(empty, "connect")).action).toBe("deny");
  });

  test("speak for hosts that no entry names, and deny speaks first", async () => {
    const plugin = bench.create(egressPolicy, {
      allow: ["api.example.com", "other.example.com"],
      deny: ["closed.example.com"],
      network_policies: {
        api: { endpoints: [{ ...rest, access: "read-only" }] },
        closed: { endpoints: [{ host: "closed.example.com", port: 443 }] },
      },
    });
    expect((await ask(plugin, "request", { method: "POST" })).action).toBe("deny");
    expect(
      (await ask(plugin, "request", { to: "other.example.com:443", method: "POST" })).action,
    ).toBe("allow");
    expect((await ask(plugin, "connect", { to: "closed.example.com:443" })).action).toBe("deny");
  });
});

describe("a policy file", () => {
  const path = (): string => join(folder, "policy.yaml");
  const fileOf = (host: string): string =>
    `version: 1\nnetwork_policies:\n  api:\n    endpoints:\n      - { host: ${host}, port: 443 }\n`;

  test("is read again when it changes, and a bad one changes nothing", async () => {
    writeFileSync(path(), fileOf("a.example.com"));
    const plugin = bench.create(egressPolicy, { policy_file: path() });
    const action = async (host: string): Promise<string> =>
      (await ask(plugin, "connect", { to: `${host}:443` })).action;
    expect(await action("a.example.com")).toBe("allow");
    writeFileSync(path(), fileOf("b.example.com"));
    bench.clock.advance(1500);
    expect([await action("a.example.com"), await action("b.example.com")]).toEqual([
      "deny",
      "allow",
    ]);
    writeFileSync(path(), fileOf("'*'"));
    bench.clock.advance(1500);
    expect(await action("b.example.com")).toBe("allow");
    expect(bench.counted).toContain("policy_rejected");
    const line = bench.logged.find((text) => text.includes("not used"));
    expect(line).toContain("policy.yaml:5:11: network_policies.api.endpoints[0].host: host '*'");
  });

  test("that vanishes keeps the last good policy and makes the proxy not ready after a time", async () => {
    const mounted = join(folder, "mounted");
    writeFileSync(mounted, fileOf("a.example.com"));
    symlinkSync(mounted, path());
    const plugin = bench.create(egressPolicy, { policy_file: path(), missing_after: "10s" });
    rmSync(path());
    bench.clock.advance(2000);
    expect(plugin.ready?.()).toBe(true);
    expect((await ask(plugin, "connect", { to: "a.example.com:443" })).action).toBe("allow");
    bench.clock.advance(10_000);
    expect(plugin.ready?.()).toContain("missing for 10 s");
    // The very same file, by another link.
    symlinkSync(mounted, path());
    bench.clock.advance(2000);
    expect(plugin.ready?.()).toBe(true);
    rmSync(path());
    bench.clock.advance(2000);
    expect(plugin.ready?.()).toBe(true);
    writeFileSync(path(), "no policy");
    bench.clock.advance(20_000);
    expect(plugin.ready?.(), "it is there, and the last good one stays").toBe(true);
  });

  test("that cannot be read refuses the start, with every problem and its place", () => {
    expect(() => bench.create(egressPolicy, { policy_file: path() })).toThrow("does not exist");
    writeFileSync(
      path(),
      "network_policies:\n  a: {endpoints: [{hots: x}]}\n  b: {endpoint: []}\n",
    );
    expect(() => bench.create(egressPolicy, { policy_file: path() })).toThrow(
      /:2:\d+: .*hots[^]*:3:\d+: .*did you mean 'endpoints'/,
    );
    // A byte order mark at the start is no part of the first key, and moves no place.
    writeFileSync(path(), "\uFEFFnetwork_polices: {}\nversion: 1\nversion: 2\n");
    expect(() => bench.create(egressPolicy, { policy_file: path() })).toThrow(
      "policy.yaml:3:1: is a key that stands here twice",
    );
    writeFileSync(path(), "\uFEFFnetwork_polices: {}\n");
    expect(() => bench.create(egressPolicy, { policy_file: path() })).toThrow(
      /policy\.yaml:1:1: network_polices: .*did you mean 'network_policies'/,
    );
    writeFileSync(path(), "a: [\n");
    expect(() => bench.create(egressPolicy, { policy_file: path() })).toThrow(
      /policy\.yaml:\d+:\d+: /,
    );
  });

  test("may come with entries in the configuration, each key once", async () => {
    writeFileSync(path(), fileOf("a.example.com"));
    const inline = { endpoints: [{ host: "b.example.com", port: 443 }] };
    const plugin = bench.create(egressPolicy, {
      policy_file: path(),
      network_policies: { more: inline },
    });
    for (const host of ["a.example.com:443", "b.example.com:443"]) {
      expect((await ask(plugin, "connect", { to: host })).action).toBe("allow");
    }
    expect(() =>
      bench.create(egressPolicy, { policy_file: path(), network_policies: { api: inline } }),
    ).toThrow("is in the policy file");
  });

  test("may begin to need bodies, and says that it allows something else", async () => {
    writeFileSync(path(), fileOf("a.example.com"));
    const plugin = bench.create(egressPolicy, { policy_file: path() });
    writeFileSync(
      path(),
      `${fileOf("a.example.com")}  m:\n    endpoints:\n      - { host: m.example.com, port: 443, protocol: mcp, enforcement: enforce, rules: [{ allow: { method: ping } }] }\n`,
    );
    bench.clock.advance(1500);
    const message = contextOf("request", {
      to: "m.example.com:443",
      method: "POST",
      body: { jsonrpc: "2.0", id: 1, method: "ping" },
    });
    expect(plugin.wantsBody?.(message)).toBe(true);
    expect((await plugin.onRequest?.(message))?.action).toBe("allow");
    await Promise.resolve();
    expect(bench.counted).toContain("changed");
  });
});

test.each([
  [{ access: "full" }, false],
  [{ access: "read-write" }, false],
  [{ rules: [{ allow: { method: "*", path: "/chat" } }] }, false],
  [{ access: "read-only" }, true],
  [{ rules: [{ allow: { method: "GET", path: "/chat" } }] }, true],
  [{ rules: [{ allow: { method: "WEBSOCKET_TEXT", path: "/chat" } }] }, true],
  [{ access: "full", deny_rules: [{ method: "WEBSOCKET_TEXT", path: "/chat" }] }, true],
  [{ rules: [{ allow: { operation_type: "query" } }] }, true],
])("messages are read only where a rule is about them: %j", (rules, isRead) => {
  const socket = {
    host: "ws.example.com",
    port: 443,
    protocol: "websocket",
    enforcement: "enforce",
  };
  const policies = { network_policies: { a: { endpoints: [{ ...socket, ...rules }] } } };
  const plugin = bench.create(egressPolicy, policies);
  const shape = { to: "ws.example.com:443", path: "/chat" };
  const upgrade = contextOf("request", { ...shape, upgrade: "websocket" });
  expect(plugin.needsMessages?.(upgrade)).toBe(isRead);
  expect(plugin.needsMessages?.(contextOf("request", shape))).toBe(false);
});

test("messages that are let through and recorded leave the addresses as the upgrade limited them", async () => {
  const socket = { host: "ws.example.com", port: 443, protocol: "websocket", access: "read-only" };
  const endpoint = { ...socket, enforcement: "audit", allowed_ips: ["10.0.0.0/8"] };
  const policies = { network_policies: { a: { endpoints: [endpoint] } } };
  const plugin = bench.create(egressPolicy, policies);
  const upgrade = contextOf("request", { to: "ws.example.com:443", upgrade: "websocket" });
  await plugin.onRequest?.(upgrade);
  for (let at = 0; at < 3; at += 1) {
    const data = Buffer.from("hello");
    const decision = await plugin.onMessage?.(upgrade, { kind: "text", data });
    expect(decision).toMatchObject({ reason: "policy_audited" });
  }
  expect(upgrade.addressLimits).toHaveLength(1);
});

test("a configuration without any policy, or with one that is wrong, is refused", () => {
  expect(problemsOf(egressPolicy, {})).toEqual([
    ": needs one of policy_file, network_policies, allow, deny",
  ]);
  expect(problemsOf(egressPolicy, { allow: [], empty_binaries: "all" })).toHaveLength(1);
  expect(problemsOf(egressPolicy, { allow: [], empty_binaries: "deny" }).join()).toContain(
    "only entries have binaries",
  );
  expect(problemsOf(egressPolicy, { allow: [], missing_after: "5s" }).join()).toContain(
    "no effect without policy_file",
  );
  expect(() =>
    bench.create(egressPolicy, {
      allow: ["*.com"],
      network_policies: { a: { endpoints: [{ host: "x" }] } },
    }),
  ).toThrow(/needs port[^]*TLD wildcard/);
});
