import { describe, expect, test } from "vitest";
import { rangeObjection } from "../../../src/policy/file/endpoint-reader.ts";
import { readPolicyDocument } from "../../../src/policy/file/document.ts";
import { evaluateConnect, evaluateRequest } from "../../../src/policy/evaluate.ts";
import { Glob } from "../../../src/pattern/glob.ts";
import type { RequestFacts } from "../../../src/policy/request-facts.ts";
import { PolicyRules } from "../../../src/policy/rules.ts";
import vectors from "../../golden/policy/vectors.json" with { type: "json" };

/** Areas of the shared vectors that are judged elsewhere, or otherwise on purpose. */
const elsewhere: Readonly<Record<string, string>> = {
  "path-canon": "canonical paths are made by http/path.ts before policy is asked",
  "ssrf-ip": "address classes are those of net/address.ts",
  "ssrf-destination": "resolved addresses are judged by upstream/address-guard.ts",
  "connect-parse": "authorities are parsed by net/destination.ts",
  "forward-parse": "targets are parsed by net/destination.ts",
  "http-ingress": "requests are parsed by listener/ and http/framing.ts",
  smuggling: "framing is judged by http/framing.ts",
  authority: "names are compared by proxy/",
  "tunnel-protocol": "first bytes are judged by net/sniff.ts",
  "deny-body": "refusals are written by proxy/flow/reply.ts in the form of the AuthBridge contract",
  "identity-relaxed": "there is no switch that ignores the binaries of a file",
  "identity-pr10-030":
    "patterns never match the sentinel here: binaries ['**'] refuse an unknown caller",
  procfs: "test/unit/net/kernel/peer-process.test.ts",
  tofu: "test/unit/net/kernel/peer-process.test.ts",
};

interface Case {
  readonly id: string;
  readonly ask: string;
  readonly policy?: string;
  readonly emptyBinaries?: "any";
  readonly facts: Readonly<Record<string, unknown>>;
  readonly expect: Readonly<Record<string, unknown>>;
}

const cases = vectors.cases as unknown as readonly Case[];
const policies = vectors.policies as unknown as Readonly<Record<string, unknown>>;

function rulesOf(one: Case): PolicyRules {
  const value = policies[one.policy ?? ""];
  const emptyBinaries = one.emptyBinaries ?? "deny";
  const dialect = { emptyBinaries } as const;
  const { document, problems } = readPolicyDocument(
    { value },
    { bare: true, dialect, ambiguity: "first" },
  );
  if (document === undefined) throw new Error(JSON.stringify(problems));
  return new PolicyRules(document, dialect);
}

/** The facts of a case in the shape in which policy is asked. */
function requestFacts(facts: Readonly<Record<string, unknown>>): RequestFacts {
  const given = facts as unknown as Omit<RequestFacts, "query" | "graphql"> & {
    readonly query?: Readonly<Record<string, readonly string[]>>;
    readonly graphql?: {
      readonly operations: readonly {
        type: string;
        name?: string;
        fields: readonly string[];
        persisted?: string;
      }[];
      readonly error?: string;
    };
  };
  const { graphql, query, ...rest } = given;
  return {
    ...rest,
    query: new Map(Object.entries(query ?? {})),
    ...(graphql === undefined
      ? {}
      : {
          graphql: {
            ...(graphql.error === undefined ? {} : { error: graphql.error }),
            operations: graphql.operations.map(({ type, name, ...operation }) => ({
              ...operation,
              operationType: type,
              ...(name === undefined ? {} : { operationName: name }),
            })),
          },
        }),
  };
}

describe("shared policy vectors", () => {
  test.each(cases.filter(({ ask }) => ask === "connect" || ask === "request"))(
    "$id: $policy decides as the format says",
    (one) => {
      const rules = rulesOf(one);
      const facts = requestFacts(one.facts);
      const decision =
        one.ask === "connect" ? evaluateConnect(rules, facts) : evaluateRequest(rules, facts);
      const { effect, code, entry, allowedIps, isExactHost, tls } = one.expect;
      expect(decision.effect === "allow" ? "allow" : "refuse", decision.reason).toBe(effect);
      if (code !== undefined) expect(decision.code).toBe(code);
      if (entry !== undefined) expect(decision.entry).toBe(entry);
      if (isExactHost !== undefined) expect(decision.grant?.isExactHost).toBe(isExactHost);
      if (tls !== undefined) expect(decision.grant?.tls).toBe(tls);
      if (allowedIps !== undefined) {
        const written = allowedIps as readonly string[];
        const ranges = decision.grant?.allowedIps?.ranges.map(String);
        expect(ranges).toEqual(written.map((text) => (text.includes("/") ? text : `${text}/32`)));
      }
    },
  );

  test.each(cases.filter(({ ask }) => ask === "glob"))("$id: $facts.pattern", (one) => {
    const { pattern, delimiters, value } = one.facts as {
      pattern: string;
      delimiters: readonly string[] | null;
      value: string;
    };
    expect(new Glob(pattern, delimiters).matches(value)).toBe(one.expect["match"]);
  });

  test.each(cases.filter(({ ask }) => ask === "range"))("$id: $facts.range", (one) => {
    const isRefused = rangeObjection(String(one.facts["range"])) !== undefined;
    expect(isRefused).toBe(one.expect["refused"]);
  });

  test.each(cases.filter(({ ask }) => ask.startsWith("read")))(
    "$id: is read as expected",
    (one) => {
      const value = one.facts["entries"] ?? {
        entry: { endpoints: [one.facts["endpoint"]], binaries: [{ path: "/usr/bin/curl" }] },
      };
      const { document, problems } = readPolicyDocument({ value }, { bare: true });
      const { error, warning } = one.expect;
      const texts = (severity: string): string =>
        problems.flatMap((p) => (p.severity === severity ? [p.message] : [])).join("\n");
      if (typeof error === "string") expect(texts("error")).toContain(error);
      else expect(document, texts("error")).toBeDefined();
      if (typeof warning === "string") expect(texts("warning")).toContain(warning);
    },
  );

  test("every area that is not here says where it is", () => {
    for (const reason of Object.values(elsewhere)) expect(reason).not.toBe("");
    expect(cases.length).toBeGreaterThan(100);
  });
});
