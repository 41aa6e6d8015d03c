import { describe, expect, test } from "vitest";
import { readPolicyDocument, type ReadOptions } from "../../../../src/policy/file/document.ts";
import { type Problem, problemText } from "../../../../src/policy/file/problem.ts";

const binaries = [{ path: "/usr/bin/curl" }];

function read(endpoint: unknown, options: ReadOptions = {}): readonly Problem[] {
  const value = { api: { endpoints: [endpoint], binaries } };
  return readPolicyDocument({ value }, { bare: true, ...options }).problems;
}

function errorsOf(problems: readonly Problem[]): readonly string[] {
  return problems.filter(({ severity }) => severity === "error").map((p) => problemText(p));
}

const rest = { host: "api.test.example", port: 443, protocol: "rest", enforcement: "enforce" };

/** An endpoint of WebSockets whose messages are no operations, unless `more` says so. */
function socket(more: Readonly<Record<string, unknown>>): unknown {
  const preset = more["rules"] === undefined ? { access: "full" } : {};
  return { ...rest, protocol: "websocket", ...preset, ...more };
}

describe("a document", () => {
  test("of the full format is read, and says which parts another component enforces", () => {
    const value = {
      version: 1,
      filesystem_policy: { read_only: ["/usr"] },
      process: { run_as_user: "sandbox" },
      network_policies: { api: { endpoints: [{ ...rest, access: "full" }], binaries } },
    };
    const { document, problems } = readPolicyDocument({ value });
    expect(document?.entries[0]?.endpoints[0]?.host).toBe("api.test.example");
    expect(problems.map(({ severity, path }) => [severity, path])).toEqual([
      ["warning", "filesystem_policy"],
      ["warning", "process"],
    ]);
  });

  test("without policies denies everything and is no error", () => {
    expect(readPolicyDocument({ value: { version: 1 } }).document?.entries).toEqual([]);
    expect(readPolicyDocument({ value: { network_policies: {} } }).problems).toEqual([]);
  });

  test("says all its problems at once, each with key path, place and nearest key", () => {
    const value = {
      network_policies: {
        api: {
          endpoints: [
            { hots: "a.example.com", port: 70_000 },
            { host: "*.com", port: "443" },
          ],
          binary: [],
        },
      },
    };
    const { document, problems } = readPolicyDocument({
      value,
      locate: (path) => ({ line: path.length, column: 1 }),
    });
    expect(document).toBeUndefined();
    const texts = errorsOf(problems).join("\n");
    expect(texts).toContain("unknown key 'hots'; did you mean 'host'?");
    expect(texts).toContain("4:1: network_policies.api.endpoints[0]: an endpoint needs a host");
    expect(texts).toContain("endpoints[0].port: must be between 1 and 65535");
    expect(texts).toContain("endpoints[1].host: host '*.com' TLD wildcard");
    expect(texts).toContain("endpoints[1].port: is a string, but must be a whole number");
    expect(texts).toContain("unknown key 'binary'; did you mean 'binaries'?");
  });

  test("tells what is missing beside what has a wrong type, and nothing that follows from it", () => {
    const rule = { allow: { method: 1, path: "/a" } };
    const value = {
      network_policies: {
        ["__proto__"]: [],
        a: { endpoints: [{ host: 5, ports: [443, "x"], protocol: "rst", rules: [rule] }, 7] },
        b: { endpoints: [{ host: "b.example.com", port: 443, protocol: "rest" }], binaries: [{}] },
      },
    };
    Object.defineProperty(value.network_policies, "__proto__", { value: [], enumerable: true });
    expect(errorsOf(readPolicyDocument({ value }).problems)).toEqual([
      "network_policies: '__proto__' cannot be a key",
      "network_policies.a.endpoints[0].host: is a number, but must be a text",
      "network_policies.a.endpoints[0].ports[1]: is a string, but must be a whole number",
      expect.stringMatching(
        /^network_policies\.a\.endpoints\[0\]\.protocol: .*did you mean 'rest'/,
      ),
      "network_policies.a.endpoints[0].rules[0].allow.method: is a number, but must be a text",
      "network_policies.a.endpoints[1]: is a number, but must be a mapping",
      expect.stringMatching(/^network_policies\.b\.endpoints\[0\]: protocol requires rules/),
      "network_policies.b.binaries[0].path: a binary needs path",
    ]);
  });

  test("with thousands of problems lists the first and counts the others", () => {
    const value = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`e${i}`, 7]));
    const { problems } = readPolicyDocument({ value }, { bare: true });
    expect(problems.length).toBeLessThan(300);
    expect(problems.at(-1)?.message).toMatch(/more problems/);
  });
});

describe("what this proxy does not enforce is refused with a reason", () => {
  test.each([
    [{ ...rest, access: "full", credential_signing: "sigv4" }, "not re-signed"],
    [{ ...rest, access: "full", credential_binding: { provider: "x" } }, "bound by the plugin"],
    [{ ...rest, access: "full", websocket_credential_rewrite: true }, "not rewritten"],
    [{ ...rest, access: "full", request_body_credential_rewrite: true }, "rewritten by the plugin"],
    [{ ...rest, access: "full", allow_uninspected_credentials: true }, "no such guard"],
    [{ ...rest, access: "full", signing_service: "s3" }, "not re-signed"],
    [{ ...rest, access: "full", signing_region: "eu-west-1" }, "not re-signed"],
    [{ ...rest, access: "full", advisor_proposed: true }, "not a key of policy files"],
    [{ ...rest, access: "full", provider_credentialed: true }, "not a key of policy files"],
    [{ ...rest, access: "full", json_rpc: { max_body_bytes: 1 } }, "no meaning with protocol rest"],
    [{ ...rest, protocol: "mcp", access: "full", graphql_max_body_bytes: 1 }, "no meaning with"],
    [{ ...rest, protocol: "sql", access: "full" }, "SQL is not inspected"],
    [{ ...rest, rules: [{ allow: { command: "SELECT" } }] }, "SQL is not inspected"],
    [
      { ...rest, rules: [{ allow: { operation_type: "query" } }] },
      "selects by method, path, query",
    ],
    [
      {
        ...rest,
        protocol: "mcp",
        rules: [{ allow: { method: "ping", params: { arguments: {} } } }],
      },
      "not matched",
    ],
    [{ host: "a.example.com", port: 443, access: "read-only" }, "requires protocol"],
    [{ host: "a.example.com", port: 443, rules: [] }, "requires protocol"],
    [{ ...rest, access: "full", mcp: {} }, "no meaning with protocol rest"],
  ])("%j", (endpoint, words) => {
    expect(errorsOf(read(endpoint)).join("\n")).toContain(words);
  });

  test("and so are features that nobody around it supports", () => {
    const support = { allowedIps: false, tlsSkip: false };
    const plain = { host: "a.example.com", port: 443 };
    expect(errorsOf(read({ ...plain, allowed_ips: ["10.0.0.0/8"] }, { support }))).toHaveLength(1);
    expect(errorsOf(read({ ...plain, tls: "skip" }, { support }))).toHaveLength(1);
  });

  test("but a switch that is off says what is so anyway", () => {
    const off = { request_body_credential_rewrite: false, allow_uninspected_credentials: false };
    expect(read({ ...rest, access: "full", ...off })).toEqual([]);
  });

  test.each([
    ["harness", { host: "a.example.com", port: 443 }, [{ path: "/usr/bin/curl", harness: "x" }]],
    ["graphql_max_body_bytes", socket({ graphql_max_body_bytes: 1_000 }), binaries],
    ["persisted_queries", socket({ persisted_queries: "deny" }), binaries],
  ])("or, where other readers of the format have it, warned of: %s", (key, endpoint, callers) => {
    const value = { api: { endpoints: [endpoint], binaries: callers } };
    const { document, problems } = readPolicyDocument({ value }, { bare: true });
    expect(document).toBeDefined();
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatchObject({ severity: "warning" });
    expect(problems[0]?.path).toContain(key);
    expect(problems[0]?.message).toContain("no effect");
  });

  test("and options of GraphQL have one on messages that are operations", () => {
    const rules = [{ allow: { operation_type: "query" } }];
    expect(read(socket({ rules, graphql_max_body_bytes: 1_000 }))).toEqual([]);
  });
});

describe("hosts", () => {
  test.each([
    ["API.Example.COM.", "api.example.com"],
    ["[2001:DB8::1]", "2001:db8::1"],
    ["::ffff:10.0.0.1", "10.0.0.1"],
    ["*.S3.*.amazonaws.com", "*.s3.*.amazonaws.com"],
  ])("%s is compared as %s", (host, canonical) => {
    const value = { api: { endpoints: [{ host, port: 443 }], binaries } };
    const { document, problems } = readPolicyDocument({ value }, { bare: true });
    expect(document?.entries[0]?.endpoints[0]?.host, JSON.stringify(problems)).toBe(canonical);
  });

  test.each([
    "münchen.example",
    "a b.example",
    "a..b",
    "a.example:443",
    "http://a.example",
    "a?.b.c",
    "**x.a.b",
    "a.**.b.c",
  ])("%s is refused", (host) => {
    expect(errorsOf(read({ host, port: 443 }))).toHaveLength(1);
  });
});

describe("enforcement", () => {
  const { enforcement: _, ...silent } = { ...rest, access: "full" };

  test("that is not written is audit, with one warning for the endpoint", () => {
    const problems = read(silent);
    expect(problems).toHaveLength(1);
    expect(problems[0]?.message).toContain("audit");
  });

  test("follows the dialect", () => {
    expect(read(silent, { dialect: { enforcementDefault: "enforce" } })).toEqual([]);
  });
});

describe("overlapping endpoints", () => {
  function ambiguities(...endpoints: readonly unknown[]): readonly string[] {
    const value = Object.fromEntries(
      endpoints.map((endpoint, index) => [`e${index}`, { endpoints: [endpoint], binaries }]),
    );
    return errorsOf(readPolicyDocument({ value }, { bare: true }).problems);
  }
  const full = { ...rest, access: "full" };

  test.each([
    ["tls", full, { ...full, tls: "skip" }],
    ["allowed_ips", full, { ...full, allowed_ips: ["10.0.0.0/8"] }],
    ["enforcement", full, { ...full, enforcement: "audit" }],
    ["protocol", full, { ...full, protocol: "graphql" }],
    ["tls", { ...full, host: "*.test.example" }, { ...full, tls: "skip" }],
    ["tls", { ...full, host: "**.example.com" }, { ...full, host: "*.a.example.com", tls: "skip" }],
    ["tls", { ...full, host: "a.b.*" }, { ...full, host: "a.b.c", tls: "skip" }],
    ["tls", { ...full, host: "a*.b.c" }, { ...full, host: "*a.b.c", tls: "skip" }],
  ])("that disagree on %s are refused", (what, one, other) => {
    const found = ambiguities(one, other);
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(what);
    expect(ambiguities(other, one)).toHaveLength(1);
  });

  test.each([
    ["another port", full, { ...full, port: 8443, tls: "skip" }],
    ["another host", full, { ...full, host: "b.test.example", tls: "skip" }],
    [
      "the apex",
      { ...full, host: "*.test.example" },
      { ...full, host: "test.example", tls: "skip" },
    ],
    ["a more specific path", full, { ...full, protocol: "graphql", path: "/graphql" }],
    [
      "paths that never meet",
      { ...full, path: "/aaaa" },
      { ...full, protocol: "graphql", path: "/bbbb" },
    ],
    ["no protocol", full, { host: rest.host, port: 443 }],
  ])("are fine with %s", (_what, one, other) => {
    expect(ambiguities(one, other)).toEqual([]);
  });

  test("can be left to the order of the file", () => {
    const value = {
      a: { endpoints: [full], binaries },
      b: { endpoints: [{ ...full, enforcement: "audit" }], binaries },
    };
    const options = { bare: true, ambiguity: "first" } as const;
    expect(readPolicyDocument({ value }, options).document).toBeDefined();
  });
});

test("a document of 10,000 endpoints is read", () => {
  const value = Object.fromEntries(
    Array.from({ length: 1000 }, (_, entry) => [
      `e${entry}`,
      {
        endpoints: Array.from({ length: 10 }, (__, index) => ({
          ...rest,
          host: index === 0 ? `*.e${entry}.example.com` : `h${index}.e${entry}.example.com`,
          enforcement: index % 2 === 0 ? "audit" : "enforce",
          rules: [{ allow: { method: "GET", path: `/r${index}/**` } }],
        })),
        binaries,
      },
    ]),
  );
  const { document } = readPolicyDocument({ value }, { bare: true, ambiguity: "first" });
  expect(document?.entries).toHaveLength(1000);
});
