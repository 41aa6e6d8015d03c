import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { DenialAggregate, type Denial } from "../../../src/policy/aggregate.ts";
import { readAllowlist } from "../../../src/policy/file/allowlist-reader.ts";
import { readPolicyDocument } from "../../../src/policy/file/document.ts";
import { evaluateConnect, evaluateRequest } from "../../../src/policy/evaluate.ts";
import { PolicyRules } from "../../../src/policy/rules.ts";
import { suggest, type Suggestion } from "../../../src/policy/suggest.ts";
import { suggestionText } from "../../../src/policy/suggestion-text.ts";

const curl = "/usr/bin/curl";

function after(denials: readonly Denial[], keys: readonly string[] = []): Suggestion {
  const aggregate = new DenialAggregate();
  for (const denial of denials) aggregate.record(denial, 1);
  return suggest(aggregate.summaries(), keys);
}

function rulesOf(text: string): PolicyRules {
  const { document, problems } = readPolicyDocument({ value: parse(text) as unknown });
  if (document === undefined) throw new Error(JSON.stringify(problems));
  return new PolicyRules(document);
}

describe("an aggregate", () => {
  test("counts by host, port and executable and keeps a few requests", () => {
    const aggregate = new DenialAggregate({ maxSamples: 2 });
    for (let index = 0; index < 5; index += 1) {
      aggregate.record(
        {
          host: "a.example.com",
          port: 443,
          binary: curl,
          code: "endpoint-not-allowed",
          method: "GET",
          path: `/${index}`,
        },
        index,
      );
    }
    expect(aggregate.summaries()).toMatchObject([
      { count: 5, firstSeen: 0, lastSeen: 4, samples: [{ path: "/0" }, { path: "/1" }] },
    ]);
  });

  test("lets the quietest go when it is full", () => {
    const aggregate = new DenialAggregate({ maxSummaries: 2 });
    for (const host of ["a.example.com", "b.example.com", "a.example.com", "c.example.com"]) {
      aggregate.record({ host, port: 443, code: "endpoint-not-allowed" }, 1);
    }
    expect(aggregate.summaries().map(({ host }) => host)).toEqual([
      "a.example.com",
      "c.example.com",
    ]);
    expect(aggregate.dropped).toBe(1);
  });
});

describe("a suggestion", () => {
  test("for connections opens these hosts to these executables, in one entry, and would allow them", () => {
    const suggestion = after([
      { host: "a.example.com", port: 443, binary: curl, code: "endpoint-not-allowed" },
      { host: "b.example.com", port: 5432, binary: curl, code: "endpoint-not-allowed" },
    ]);
    expect(suggestion.entries).toHaveLength(1);
    const text = suggestionText(suggestion);
    const rules = rulesOf(text);
    for (const [host, port] of [
      ["a.example.com", 443],
      ["b.example.com", 5432],
    ] as const) {
      expect(evaluateConnect(rules, { host, port, binary: curl }).effect).toBe("allow");
      expect(evaluateConnect(rules, { host, port, binary: "/usr/bin/wget" }).effect).toBe("deny");
    }
    expect(text).toContain("# risk: port 5432 is unusual");
    expect(text).toContain("# risk: every process that it starts");
  });

  test("for requests allows their methods and paths, identifiers generalised, and no more", () => {
    const denial = {
      host: "a.example.com",
      port: 80,
      binary: curl,
      code: "endpoint-not-allowed",
    } as const;
    const text = suggestionText(
      after([
        { ...denial, method: "GET", path: "/users/123" },
        { ...denial, method: "GET", path: "/users/456" },
        { ...denial, method: "POST", path: "/odd/[x]*" },
      ]),
    );
    const rules = rulesOf(text);
    const ask = (method: string, path: string): string =>
      evaluateRequest(rules, {
        host: "a.example.com",
        port: 80,
        binary: curl,
        method,
        path,
        query: new Map(),
      }).effect;
    expect([ask("GET", "/users/789"), ask("POST", "/odd/[x]*")]).toEqual(["allow", "allow"]);
    expect([ask("DELETE", "/users/789"), ask("GET", "/admin"), ask("POST", "/odd/xy")]).toEqual([
      "deny",
      "deny",
      "deny",
    ]);
    expect(text.match(/allow:/g)).toHaveLength(2);
    expect(text).toContain("clear text");
    expect(text).toContain("POST sends data out");
  });

  test("adds an executable to the entry that has the endpoint, or a rule to the endpoint that has the host", () => {
    const suggestion = after(
      [
        {
          host: "a.example.com",
          port: 443,
          binary: "/usr/bin/python3.12",
          code: "binary-not-allowed",
          entry: "api",
        },
        {
          host: "b.example.com",
          port: 443,
          binary: curl,
          code: "not-permitted",
          entry: "web",
          rule: "endpoints[1]",
          method: "PUT",
          path: "/x",
        },
      ],
      ["api", "web"],
    );
    expect(suggestion.entries).toMatchObject([
      { key: "api", isNew: false, endpoints: [], binaries: [{ path: "/usr/bin/python3.12" }] },
    ]);
    expect(suggestion.rules).toMatchObject([
      { entry: "web", endpoint: "endpoints[1]", rules: [{ method: "PUT", path: "/x" }] },
    ]);
    expect(suggestionText(suggestion)).toContain("runs whatever program it is given");
  });

  test("for requests to hosts that no list names allows their methods and paths", () => {
    const denial = { host: "a.example.com", port: 443, binary: curl } as const;
    const suggestion = after([
      { ...denial, code: "endpoint-not-allowed" },
      { ...denial, code: "not-permitted", method: "GET", path: "/v1/items/42" },
      {
        ...denial,
        code: "deny-rule",
        entry: "deny[0]",
        rule: "deny[0]",
        method: "GET",
        path: "/x",
      },
      { ...denial, code: "not-permitted", method: "POST", path: "/v1/items" },
    ]);
    expect(suggestion.entries).toMatchObject([
      {
        isNew: true,
        endpoints: [
          {
            host: "a.example.com",
            port: 443,
            rules: [
              { method: "POST", path: "/v1/items" },
              { method: "GET", path: "/v1/items/*" },
            ],
          },
        ],
      },
    ]);
    expect(suggestion.refused).toHaveLength(1);
    expect(suggestion.refused[0]?.reason).toContain("no addition beats a deny rule");
  });

  test("for a host that the list has with other requests is an item of the list", () => {
    const allow = [{ host: "a.example.com", methods: ["GET"], paths: ["/pub/**"] }];
    const list = readAllowlist({ allow }).allowlist;
    const facts = { host: "a.example.com", port: 443, query: new Map() } as const;
    const asked = [
      { ...facts, method: "POST", path: "/v1/chat" },
      { ...facts, method: "GET", path: "/v1/items/42" },
    ];
    const text = suggestionText(
      after(
        asked.map((request) => {
          const { code, rule } = list?.evaluateRequest(request) ?? {};
          expect([code, rule]).toEqual(["not-permitted", "allow[0]"]);
          return { ...request, code: code ?? "allowed", ...(rule === undefined ? {} : { rule }) };
        }),
      ),
    );
    expect(text).toMatch(/^allow:\n/);
    const { allow: added } = parse(text) as { allow: object[] };
    const next = readAllowlist({ allow: [...allow, ...added] }).allowlist;
    const effectOf = (method: string, path: string) =>
      next?.evaluateRequest({ ...facts, method, path }).effect;
    for (const { method, path } of asked) expect(effectOf(method, path)).toBe("allow");
    expect(effectOf("POST", "/v1/items/42")).toBe("deny");
    expect(effectOf("GET", "/pub/a")).toBe("allow");
  });

  test("names an entry that lacks both an executable and a rule once, as YAML that can be read", () => {
    const denial = { host: "a.example.com", port: 443, entry: "api" } as const;
    const text = suggestionText(
      after(
        [
          { ...denial, binary: "/usr/bin/wget", code: "binary-not-allowed" },
          {
            ...denial,
            binary: curl,
            code: "not-permitted",
            rule: "endpoints[0]",
            method: "PUT",
            path: "/x",
          },
        ],
        ["api"],
      ),
    );
    expect(text).toContain("# endpoints[0]: add to its rules");
    expect(parse(text)).toEqual({
      network_policies: {
        api: {
          endpoints: [{ rules: [{ allow: { method: "PUT", path: "/x" } }] }],
          binaries: [{ path: "/usr/bin/wget" }],
        },
      },
    });
  });

  test.each([
    { host: "169.254.169.254", port: 80, code: "endpoint-not-allowed" },
    { host: "127.0.0.1", port: 80, code: "endpoint-not-allowed" },
    { host: "localhost", port: 80, code: "endpoint-not-allowed" },
    { host: "metadata.google.internal", port: 80, code: "endpoint-not-allowed" },
    { host: "a.example.com", port: 80, code: "binary-not-allowed", entry: "x" },
    {
      host: "a.example.com",
      port: 80,
      code: "deny-rule",
      entry: "x",
      rule: "r",
      method: "GET",
      path: "/",
    },
    {
      host: "a.example.com",
      port: 80,
      code: "not-permitted",
      entry: "x",
      rule: "r",
      protocol: "mcp",
      method: "POST",
      path: "/mcp",
    },
  ] as const)("is not made for $host with $code, and says why", (denial) => {
    const suggestion = after([denial]);
    expect(suggestion).toMatchObject({ entries: [], rules: [] });
    expect(suggestion.refused).toHaveLength(1);
    expect(suggestionText(suggestion)).toMatch(/^# nothing to add\n# not suggested: /);
  });

  test("is text that no name can break out of", () => {
    const text = suggestionText(
      after([
        {
          host: 'a"\n  evil: 1.example.com',
          port: 443,
          binary: '/x"\nend',
          code: "endpoint-not-allowed",
        },
      ]),
    );
    const value = parse(text) as { network_policies: Record<string, { binaries: unknown }> };
    expect(Object.keys(value.network_policies)).toHaveLength(1);
    expect(Object.values(value.network_policies)[0]?.binaries).toEqual([{ path: '/x"\nend' }]);
  });

  test("for a caller that nobody knows lets everybody in, and says so", () => {
    const suggestion = after(
      [{ host: "a.example.com", port: 443, code: "endpoint-not-allowed" }],
      ["allow_a_example_com_443"],
    );
    expect(suggestion.entries).toMatchObject([{ key: "allow_a_example_com_443_2", binaries: [] }]);
    expect(suggestion.entries[0]?.endpoints[0]?.risks.join()).toContain("every process");
  });
});
