import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readAllowlist } from "../../src/policy/file/allowlist-reader.ts";
import { readPolicyDocument } from "../../src/policy/file/document.ts";
import { evaluateRequest } from "../../src/policy/evaluate.ts";
import { Glob, quoteGlob } from "../../src/pattern/glob.ts";
import { parseQuery, type RequestFacts } from "../../src/policy/request-facts.ts";
import { PolicyRules } from "../../src/policy/rules.ts";

const bounded = { interruptAfterTimeLimit: 1500, markInterruptAsFailure: false, numRuns: 500 };

const patternPiece = fc.constantFrom(
  "*",
  "**",
  "?",
  "/",
  "a",
  "b",
  ".",
  "[ab]",
  "[!a]",
  "{a,b*}",
  "\\*",
  "/**/",
);
const pattern = fc.array(patternPiece, { maxLength: 12 }).map((pieces) => pieces.join(""));
const path = fc
  .array(fc.constantFrom("/", "a", "b", ".", "c", "*"), { maxLength: 24 })
  .map((p) => p.join(""));

function tryGlob(text: string, delimiters: readonly string[]): Glob | undefined {
  try {
    return new Glob(text, delimiters);
  } catch {
    // Patterns that cannot be read are another test's concern.
    return undefined;
  }
}

/** The same dialect by backtracking, for short values only. */
function reference(text: string): RegExp | undefined {
  if (/[[\]{}\\]/.test(text)) return undefined;
  if (text === "**" || text === "**/") return /^[^]*$/;
  let source = "";
  let rest = text;
  const prefix = /^\*\*\/(?:\*\*\/)*/.exec(rest);
  if (prefix !== null && !rest.startsWith("***")) return undefined;
  while (rest !== "") {
    const middle = /^\/\*\*\//.exec(rest);
    if (middle !== null) return undefined;
    if (rest === "/**") [source, rest] = [`${source}/[^]*`, ""];
    else {
      const [char = ""] = rest;
      source +=
        char === "*" ? "[^/]*" : char === "?" ? "[^/]" : char.replace(/[.]/, String.raw`\.`);
      rest = rest.slice(1);
    }
  }
  return new RegExp(`^${source}$`, "u");
}

describe("globs", () => {
  test("agree with a backtracking reading of the same dialect", () => {
    fc.assert(
      fc.property(pattern, path, (text, value) => {
        const expected = reference(text);
        const glob = tryGlob(text, ["/"]);
        fc.pre(expected !== undefined && glob !== undefined);
        expect(glob?.matches(value)).toBe(expected?.test(value));
      }),
      bounded,
    );
  });

  test("quote any text", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 40 }), fc.string({ maxLength: 40 }), (text, other) => {
        fc.pre(!text.includes("\0"));
        const glob = new Glob(quoteGlob(text), ["/"]);
        expect(glob.matches(text)).toBe(true);
        expect(glob.matches(other)).toBe(other === text);
      }),
      bounded,
    );
  });

  test("come back from a long value, whatever the pattern", () => {
    const hostile = [
      "a*".repeat(60),
      "*a".repeat(60) + "b",
      "/**/a".repeat(40),
      "{a*,a**,*a}".repeat(20),
      "**/*a*".repeat(20),
    ];
    for (const text of hostile) {
      const glob = new Glob(text, ["/"]);
      const value = `${"/a".repeat(8000)}c`;
      // A matcher that tries a position twice would not come back.
      expect(typeof glob.matches(value), text).toBe("boolean");
    }
  });
});

const endpoint = fc.record({
  host: fc.constantFrom("a.example.com", "*.example.com", "**.example.com"),
  port: fc.constant(443),
  protocol: fc.constant("rest"),
  enforcement: fc.constant("enforce"),
  path: fc.constantFrom("", "/v1/**", "/**"),
  rules: fc.array(
    fc.record({
      allow: fc.record({
        method: fc.constantFrom("GET", "POST", "*"),
        path: fc.constantFrom("/**", "/v1/*", "**", "/x"),
      }),
    }),
    { minLength: 1, maxLength: 3 },
  ),
});
const denyRule = fc.record({
  method: fc.constantFrom("GET", "POST", "*"),
  path: fc.constantFrom("/**", "/v1/*", "/x", "**"),
});
const request = fc.record({
  host: fc.constantFrom("a.example.com", "b.a.example.com", "example.com"),
  port: fc.constantFrom(443, 80),
  binary: fc.constantFrom("/usr/bin/curl", "/usr/bin/node", "<unresolved>"),
  method: fc.constantFrom("GET", "POST", "HEAD"),
  path: fc.constantFrom("/", "/x", "/v1/a", "/v1/a/b"),
  query: fc.constant(new Map<string, readonly string[]>()),
});

function decide(entries: readonly unknown[], facts: RequestFacts): string {
  const value = Object.fromEntries(entries.map((entry, index) => [`e${index}`, entry]));
  const { document, problems } = readPolicyDocument({ value }, { bare: true, ambiguity: "first" });
  if (document === undefined) throw new Error(JSON.stringify(problems));
  return evaluateRequest(new PolicyRules(document), facts).effect;
}

const entries = fc.array(
  fc.record({
    endpoints: fc.array(endpoint, { minLength: 1, maxLength: 3 }),
    binaries: fc.constantFrom(
      [],
      [{ path: "/usr/bin/curl" }],
      [{ path: "/usr/bin/*" }],
      [{ path: "**" }],
    ),
  }),
  { minLength: 1, maxLength: 3 },
);

describe("policies", () => {
  test("allow no more with a deny rule than without it", () => {
    fc.assert(
      fc.property(entries, denyRule, fc.nat(), request, (policies, rule, at, facts) => {
        const changed = policies.map((policy, index) =>
          index === at % policies.length
            ? {
                ...policy,
                endpoints: policy.endpoints.map((one) => ({ ...one, deny_rules: [rule] })),
              }
            : policy,
        );
        if (decide(policies, facts) === "deny") expect(decide(changed, facts)).toBe("deny");
      }),
      bounded,
    );
  });

  test("let an unknown caller through only where an entry has no binaries", () => {
    fc.assert(
      fc.property(entries, request, (policies, facts) => {
        const unknown = { ...facts, binary: "<unresolved>" };
        const bound = policies.filter(({ binaries }) => binaries.length > 0);
        fc.pre(bound.length > 0);
        expect(decide(bound, unknown)).toBe("deny");
      }),
      bounded,
    );
  });

  test("are never read with an exception, whatever the value", () => {
    const keys = fc.constantFrom(
      "network_policies",
      "endpoints",
      "host",
      "port",
      "ports",
      "rules",
      "allow",
      "deny_rules",
      "protocol",
      "mcp",
      "path",
      "query",
      "any",
      "tool",
      "binaries",
      "allowed_ips",
      "__proto__",
    );
    const leaf = fc.oneof(
      fc.anything(),
      fc.constantFrom(
        "rest",
        "mcp",
        "*",
        "**",
        "[",
        "*.a.b",
        "10.0.0.0/8",
        443,
        null,
        "tools/call",
      ),
    );
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { maxDepth: 7 },
        leaf,
        fc.dictionary(keys, tie("tree"), { maxKeys: 4 }),
        fc.array(tie("tree"), { maxLength: 3 }),
      ),
    }));
    fc.assert(
      fc.property(tree, (value) => {
        for (const bare of [true, false]) {
          const { document, problems } = readPolicyDocument({ value }, { bare });
          expect(document === undefined).toBe(
            problems.some(({ severity }) => severity === "error"),
          );
        }
        readAllowlist({ allow: value, deny: value });
      }),
      bounded,
    );
  });

  test("read any query without an exception", () => {
    fc.assert(
      fc.property(fc.string(), (text) => void parseQuery(text)),
      bounded,
    );
  });
});
