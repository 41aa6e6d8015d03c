import { describe, expect, test } from "vitest";
import { unresolvedBinary } from "../../../src/policy/binary-matcher.ts";
import type { PolicyDecision } from "../../../src/policy/decision.ts";
import { readPolicyDocument } from "../../../src/policy/file/document.ts";
import type { Dialect } from "../../../src/policy/endpoint.ts";
import { evaluateConnect, evaluateRequest } from "../../../src/policy/evaluate.ts";
import { parseQuery, type RequestFacts, type RpcCall } from "../../../src/policy/request-facts.ts";
import { PolicyRules } from "../../../src/policy/rules.ts";

const curl = "/usr/bin/curl";
const binaries = [{ path: curl }];
const rest = { host: "api.example.com", port: 443, protocol: "rest", enforcement: "enforce" };

function compile(policies: unknown, dialect: Partial<Dialect> = {}): PolicyRules {
  const { document, problems } = readPolicyDocument({ value: policies }, { bare: true, dialect });
  if (document === undefined) throw new Error(JSON.stringify(problems));
  return new PolicyRules(document, dialect);
}

function ask(rules: PolicyRules, facts: Partial<RequestFacts>): PolicyDecision {
  return evaluateRequest(rules, {
    host: "api.example.com",
    port: 443,
    binary: curl,
    method: "GET",
    path: "/",
    query: new Map(),
    ...facts,
  });
}

describe("a connection", () => {
  const rules = compile({
    b_open: { endpoints: [{ host: "open.example.com", port: 443 }] },
    a_bound: { endpoints: [{ host: "*.example.com", port: 443 }], binaries },
    every: { endpoints: [{ host: "all.example.com", port: 443 }], binaries: [{ path: "/**" }] },
    named: {
      endpoints: [{ host: "all.example.com", port: 443 }],
      binaries: [{ path: unresolvedBinary }],
    },
    star: { endpoints: [{ host: "all.example.com", port: 443 }], binaries: [{ path: "**" }] },
  });

  test("names the first entry that admits it, in byte order", () => {
    const decision = evaluateConnect(rules, { host: "open.example.com", port: 443, binary: curl });
    expect(decision).toMatchObject({ effect: "allow", entry: "a_bound" });
    expect(decision.grant?.entries).toEqual(["a_bound", "b_open"]);
    expect(decision.grant).toMatchObject({ inspect: false, tls: "auto", isExactHost: true });
  });

  test.each([unresolvedBinary, "", undefined])(
    "of an unknown caller (%j) needs an entry without binaries",
    (binary) => {
      const caller = binary === undefined ? {} : { binary };
      expect(
        evaluateConnect(rules, { host: "open.example.com", port: 443, ...caller }).effect,
      ).toBe("allow");
      const bound = evaluateConnect(rules, { host: "x.example.com", port: 443, ...caller });
      expect(bound).toMatchObject({ effect: "deny", code: "binary-not-allowed" });
      // Patterns that would match any text do not match the sentinel.
      expect(evaluateConnect(rules, { host: "all.example.com", port: 443, ...caller }).effect).toBe(
        "deny",
      );
    },
  );

  test("of an unknown caller is refused where the dialect says so", () => {
    const strict = compile(
      { open: { endpoints: [{ host: "open.example.com", port: 443 }] } },
      { unresolvedIdentity: "deny" },
    );
    const place = { host: "open.example.com", port: 443 };
    expect(evaluateConnect(strict, place).code).toBe("identity-unresolved");
    expect(evaluateConnect(strict, { ...place, binary: curl }).effect).toBe("allow");
    expect(strict.needsCaller).toBe(true);
  });

  test("is granted by an ancestor or by an alias, never by an argument", () => {
    const place = { host: "x.example.com", port: 443, binary: "/usr/bin/python3.12" };
    expect(evaluateConnect(rules, { ...place, ancestors: [curl] }).effect).toBe("allow");
    expect(evaluateConnect(rules, { ...place, aliases: [curl] }).effect).toBe("allow");
    expect(evaluateConnect(rules, { ...place, cmdline: [curl] }).effect).toBe("deny");
  });

  test("tells whether its requests must be judged", () => {
    const judged = compile({ api: { endpoints: [{ ...rest, access: "full" }], binaries } });
    const decision = evaluateConnect(judged, { host: "api.example.com", port: 443, binary: curl });
    expect(decision.grant?.inspect).toBe(true);
  });
});

describe("a request", () => {
  test("under audit is let through with the violation named", () => {
    const audit = {
      ...rest,
      enforcement: "audit",
      access: "read-only",
      deny_rules: [{ method: "GET", path: "/x" }],
    };
    const rules = compile({ api: { endpoints: [audit], binaries } });
    expect(ask(rules, { method: "DELETE" })).toMatchObject({
      effect: "audit",
      code: "not-permitted",
    });
    expect(ask(rules, { path: "/x" })).toMatchObject({
      effect: "audit",
      code: "deny-rule",
      rule: "endpoints[0].deny_rules[0]",
    });
  });

  test("is denied by any entry's deny rule, whoever allows it", () => {
    const rules = compile({
      a: { endpoints: [{ ...rest, access: "full" }], binaries },
      b: {
        endpoints: [{ ...rest, access: "full", deny_rules: [{ method: "*", path: "/secret/**" }] }],
        binaries,
      },
    });
    expect(ask(rules, { path: "/secret/x" })).toMatchObject({ effect: "deny", entry: "b" });
    expect(ask(rules, { path: "/public" })).toMatchObject({
      effect: "allow",
      entry: "a",
      rule: "endpoints[0].access full",
    });
  });

  test("outside the paths of all endpoints is denied even under audit", () => {
    const rules = compile({
      api: {
        endpoints: [{ ...rest, path: "/v1/**", enforcement: "audit", access: "full" }],
        binaries,
      },
    });
    expect(ask(rules, { path: "/v2" })).toMatchObject({
      effect: "deny",
      code: "path-outside-endpoints",
    });
  });

  test("with an encoded slash needs an endpoint that allows it", () => {
    const open = { ...rest, allow_encoded_slash: true, access: "full" };
    const path = "/a%2Fb";
    expect(
      ask(compile({ api: { endpoints: [{ ...rest, access: "full" }], binaries } }), { path }).code,
    ).toBe("encoded-slash");
    expect(ask(compile({ api: { endpoints: [open], binaries } }), { path }).effect).toBe("allow");
  });

  test("for HEAD follows GET where the dialect says so", () => {
    const policies = {
      api: {
        endpoints: [{ ...rest, rules: [{ allow: { method: "GET", path: "/**" } }] }],
        binaries,
      },
    };
    expect(ask(compile(policies), { method: "HEAD" }).effect).toBe("allow");
    expect(ask(compile(policies, { headMatchesGet: false }), { method: "HEAD" }).effect).toBe(
      "deny",
    );
  });

  test("whose query cannot be read fails allow rules about it and meets deny rules about it", () => {
    const query = { tag: "a*" };
    const allowing = { ...rest, rules: [{ allow: { method: "GET", path: "/**", query } }] };
    const denying = {
      ...rest,
      access: "full",
      deny_rules: [{ method: "GET", path: "/**", query }],
    };
    const unreadable = parseQuery("?tag=%ff");
    expect(unreadable).toBe("unreadable");
    expect(
      ask(compile({ api: { endpoints: [allowing], binaries } }), { query: unreadable }).effect,
    ).toBe("deny");
    expect(
      ask(compile({ api: { endpoints: [denying], binaries } }), { query: unreadable }).code,
    ).toBe("deny-rule");
  });

  test("of GraphQL is judged by its endpoint even where a broader rule allows the path", () => {
    const rules = compile({
      api: {
        endpoints: [
          { ...rest, access: "full" },
          { ...rest, protocol: "graphql", path: "/graphql", access: "read-only" },
        ],
        binaries,
      },
    });
    const operation = (operationType: string): Partial<RequestFacts> => ({
      method: "POST",
      path: "/graphql",
      graphql: { operations: [{ operationType, fields: ["x"] }] },
    });
    expect(ask(rules, operation("query")).effect).toBe("allow");
    expect(ask(rules, operation("mutation"))).toMatchObject({ effect: "deny", code: "deny-rule" });
    expect(ask(rules, { method: "POST", path: "/graphql" }).code).toBe("uninspected");
  });

  test("of a batch is allowed only when every call is", () => {
    const mcp = {
      ...rest,
      protocol: "mcp",
      rules: [{ allow: { method: "tools/call", tool: "read_*" } }],
      deny_rules: [{ method: "tools/call", tool: "read_secret" }],
    };
    const rules = compile({ api: { endpoints: [mcp], binaries } });
    const call = (...tools: readonly string[]): PolicyDecision =>
      ask(rules, {
        method: "POST",
        rpc: { calls: tools.map((tool) => ({ method: "tools/call", tool })) },
      });
    expect(call("read_a", "read_b").effect).toBe("allow");
    expect(call("read_a", "write").code).toBe("not-permitted");
    expect(call("read_a", "read_secret").code).toBe("deny-rule");
    expect(call("read_a ").code).toBe("protocol-error");
    expect(call().code).toBe("not-permitted");
  });

  test.each(["audit", "enforce"])("of a batch is not asked about under %s, but refused", (mode) => {
    const mcp = { ...rest, protocol: "mcp", mcp: { allow_all_known_mcp_methods: true } };
    const asking = {
      ...mcp,
      enforcement: mode,
      rules: [{ ask: { method: "tools/call", tool: "pay" } }],
    };
    const rules = compile({ api: { endpoints: [asking], binaries } });
    const pay = { method: "tools/call", tool: "pay" };
    const post = (calls: readonly RpcCall[]): PolicyDecision =>
      ask(rules, { method: "POST", rpc: { calls } });
    expect(post([pay])).toMatchObject({ effect: "ask", code: "approval-of-request" });
    expect(post([pay, { method: "ping" }])).toMatchObject({ effect: "deny", code: "deny-rule" });
  });

  test("on a host that a person decides on is asked about, also where a rule would only record it", () => {
    const rules = compile({
      a: { endpoints: [{ host: "api.example.com", port: 443, enforcement: "ask" }], binaries },
      b: { endpoints: [{ ...rest, enforcement: "audit", access: "read-only" }], binaries },
    });
    const asked = { effect: "ask", code: "approval-of-host" };
    expect(ask(rules, {})).toMatchObject(asked);
    const violation = ask(rules, { method: "DELETE" });
    expect(violation).toMatchObject({ ...asked, audited: { code: "not-permitted", entry: "b" } });
  });

  test.each<[string, object, RequestFacts["rpc"], RequestFacts["graphql"]]>([
    ["mcp", { deny_rules: [{ tool: "x" }] }, { calls: [], error: "no JSON" }, undefined],
    ["mcp", { deny_rules: [{ tool: "x" }] }, undefined, undefined],
    ["mcp", { rules: [{ ask: { tool: "x" } }] }, undefined, undefined],
    ["graphql", { access: "read-only" }, undefined, { operations: [], error: "no JSON" }],
    ["graphql", { access: "read-only" }, undefined, undefined],
  ])(
    "that %s rules %j cannot read is not let through by another endpoint",
    (protocol, own, rpc, graphql) => {
      const judging = {
        ...rest,
        protocol,
        ...own,
        ...(protocol === "mcp" ? { mcp: { allow_all_known_mcp_methods: true } } : {}),
      };
      const open = { ...rest, path: "/v1/**", access: "full" };
      const rules = compile({ api: { endpoints: [judging, open], binaries } });
      const read = { ...(rpc && { rpc }), ...(graphql && { graphql }) };
      expect(ask(rules, { method: "POST", path: "/v1/x", ...read }).effect).not.toBe("allow");
    },
  );

  test("to an MCP endpoint that allows all methods is narrowed once a rule names tools", () => {
    const mcp = {
      ...rest,
      protocol: "mcp",
      mcp: { allow_all_known_mcp_methods: true },
      rules: [{ allow: { tool: "safe" } }],
    };
    const rules = compile({ api: { endpoints: [mcp], binaries } });
    const call = (method: string, tool?: string): string =>
      ask(rules, {
        method: "POST",
        rpc: { calls: [{ method, ...(tool === undefined ? {} : { tool }) }] },
      }).effect;
    expect([call("tools/list"), call("tools/call", "safe"), call("tools/call", "other")]).toEqual([
      "allow",
      "allow",
      "deny",
    ]);
  });

  test("to a JSON-RPC endpoint may not carry answers, and errors are refused under audit too", () => {
    const rpc = {
      ...rest,
      protocol: "json-rpc",
      enforcement: "audit",
      rules: [{ allow: { method: "*" } }],
    };
    const rules = compile({ api: { endpoints: [rpc], binaries } });
    const post = (facts: RequestFacts["rpc"]): PolicyDecision =>
      ask(rules, { method: "POST", ...(facts === undefined ? {} : { rpc: facts }) });
    expect(post({ calls: [], hasResponse: true })).toMatchObject({
      effect: "deny",
      code: "protocol-error",
    });
    expect(post({ calls: [], error: "no JSON" })).toMatchObject({ effect: "deny" });
    expect(post(undefined)).toMatchObject({ effect: "deny", code: "uninspected" });
    expect(post({ calls: [{ method: "x" }] }).effect).toBe("allow");
  });

  test("on a WebSocket is the upgrade as GET, and then each message", () => {
    const ws = { ...rest, protocol: "websocket", access: "read-only" };
    const rules = compile({ api: { endpoints: [ws], binaries } });
    expect(ask(rules, {}).effect).toBe("allow");
    expect(ask(rules, { method: "WEBSOCKET_TEXT" }).effect).toBe("deny");
  });
});

test.each([
  ["a=1&b=x%20y&a=+", { a: ["1", " "], b: ["x y"] }],
  ["?c", { c: [""] }],
  ["&&", {}],
])("the query %s is read as form data", (query, expected) => {
  const found = parseQuery(query);
  expect(found === "unreadable" ? found : Object.fromEntries(found)).toEqual(expected);
});

test("a decision over 1,000 endpoints in 100 entries takes less than 20 µs (median)", () => {
  const policies = Object.fromEntries(
    Array.from({ length: 100 }, (_, entry) => [
      `e${entry}`,
      {
        endpoints: Array.from({ length: 10 }, (__, index) => ({
          ...rest,
          host: index === 0 ? `*.e${entry}.example.com` : `h${index}.e${entry}.example.com`,
          rules: [{ allow: { method: "GET", path: "/repos/**/x" } }],
        })),
        binaries: [...binaries, { path: `/opt/*/tool${entry}` }],
      },
    ]),
  );
  const rules = compile(policies);
  const times: number[] = [];
  for (let round = 0; round < 5000; round += 1) {
    const host = `h${round % 10}.e${round % 100}.example.com`;
    const start = process.hrtime.bigint();
    ask(rules, { host, path: "/repos/a/b/c/x", binary: "/bin/a", ancestors: ["/bin/b", curl] });
    times.push(Number(process.hrtime.bigint() - start));
  }
  times.sort((one, other) => one - other);
  expect(times[times.length >> 1]).toBeLessThan(20_000);
});
