/**
 * `node bench/policy.ts`: what a policy decision costs, how long a large policy takes to load, and that hostile input
 * costs no more than its length.
 */
import { CombinedPolicy } from "../src/policy/combined-policy.ts";
import { readPolicyDocument } from "../src/policy/file/document.ts";
import { Glob } from "../src/pattern/glob.ts";
import type { RequestFacts } from "../src/policy/request-facts.ts";
import { PolicyRules } from "../src/policy/rules.ts";
import { stringify } from "yaml";
import { parsePolicyText } from "../src/plugins/egress-policy/source.ts";

const samples = 4_000;
const rounds = 5;

/** `entries` entries of `each` endpoints: names, patterns, two rules and two binaries. */
function policyOf(entries: number, each: number): Record<string, unknown> {
  return Object.fromEntries(
    Array.from({ length: entries }, (_, entry) => [
      `entry${entry}`,
      {
        endpoints: Array.from({ length: each }, (_unused, endpoint) => ({
          host:
            endpoint % 4 === 0 ? `*.d${endpoint}.e${entry}.test` : `h${endpoint}.e${entry}.test`,
          port: 443,
          protocol: "rest",
          enforcement: "enforce",
          rules: [
            { allow: { method: "GET", path: "/v1/**" } },
            { allow: { method: "POST", path: "/v1/items/*/notes", query: { kind: "n*" } } },
          ],
          deny_rules: [{ method: "*", path: "/v1/admin/**" }],
        })),
        binaries: [{ path: `/opt/tool${entry}` }, { path: "/usr/lib/**/agent*" }],
      },
    ]),
  );
}

function compile(value: unknown, bare: boolean): CombinedPolicy {
  const { document, problems } = readPolicyDocument({ value }, { bare });
  if (document === undefined) throw new Error(JSON.stringify(problems.slice(0, 3)));
  return new CombinedPolicy({ rules: new PolicyRules(document), allowlist: undefined });
}

function median(values: readonly number[]): number {
  return [...values].sort((one, other) => one - other)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function percentile(values: readonly number[], part: number): number {
  return (
    [...values].sort((one, other) => one - other)[Math.floor(values.length * part)] ?? Number.NaN
  );
}

/** Different hosts, callers, methods and paths, so that nothing is answered from the last question. */
function questions(): RequestFacts[] {
  return Array.from({ length: samples }, (_, index) => {
    const entry = index % 100;
    const endpoint = index % 10;
    return {
      host:
        endpoint % 4 === 0
          ? `x${index % 50}.d${endpoint}.e${entry}.test`
          : `h${endpoint}.e${entry}.test`,
      port: 443,
      method: index % 3 === 0 ? "POST" : "GET",
      path: index % 5 === 0 ? `/v1/admin/${index}` : `/v1/items/${index}/notes`,
      query: new Map([["kind", ["note"]]]),
      binary: index % 2 === 0 ? `/opt/tool${entry}` : `/usr/lib/x${index % 90}/agent-${index % 7}`,
      ancestors: ["/usr/bin/bash", "/usr/bin/tmux"],
    };
  });
}

function decisions(): void {
  const policy = compile(policyOf(100, 10), true);
  const asked = questions();
  const times: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    for (const facts of asked) {
      const start = process.hrtime.bigint();
      policy.evaluateRequest(facts);
      times.push(Number(process.hrtime.bigint() - start) / 1_000);
    }
  }
  const kept = times.slice(samples);
  const denied = asked.filter((facts) => policy.evaluateRequest(facts).effect !== "allow").length;
  process.stdout.write(
    `decision, 1,000 endpoints in 100 entries (${denied} of ${samples} refused): ` +
      `median ${median(kept).toFixed(2)} us, p99 ${percentile(kept, 0.99).toFixed(2)} us\n`,
  );
}

/** Endpoints of a host and a port, which is what long lists are made of. */
function plainPolicy(): Record<string, unknown> {
  return Object.fromEntries(
    Array.from({ length: 100 }, (_, entry) => [
      `entry${entry}`,
      {
        endpoints: Array.from({ length: 100 }, (_unused, endpoint) => ({
          host: `h${endpoint}.e${entry}.test`,
          port: 443,
        })),
        binaries: [{ path: `/opt/tool${entry}` }],
      },
    ]),
  );
}

function loading(title: string, policy: Record<string, unknown>): void {
  const text = stringify({ version: 1, network_policies: policy });
  const parsing: number[] = [];
  const reading: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const start = performance.now();
    const { value } = parsePolicyText(text, "policy.yaml");
    const parsed = performance.now();
    compile(value, false);
    parsing.push(parsed - start);
    reading.push(performance.now() - parsed);
  }
  const mebibytes = (text.length / 1024 / 1024).toFixed(1);
  process.stdout.write(
    `load of 10,000 endpoints, ${title} (${mebibytes} MiB): YAML ${median(parsing).toFixed(0)} ms + policy ${median(reading).toFixed(0)} ms\n`,
  );
}

/** Patterns that backtracking matchers take exponential or quadratic time for. */
function hostile(): void {
  const patterns = [
    "*a*a*a*a*a*a*a*a*b",
    "/**/a/**/a/**/a/**/b",
    "{a,aa,aaa}*{a,aa,aaa}*{a,aa}*b",
    "?*?*?*?*?*?*b",
  ];
  for (const pattern of patterns) {
    const glob = new Glob(pattern, ["/"]);
    const cost = (length: number): number => {
      const value = pattern.startsWith("/") ? "/a".repeat(length / 2) : "a".repeat(length);
      const times: number[] = [];
      for (let round = 0; round < 15; round += 1) {
        const start = performance.now();
        glob.matches(value);
        times.push(performance.now() - start);
      }
      return Math.min(...times);
    };
    const [short, long] = [cost(2_000), cost(16_000)];
    process.stdout.write(
      `${pattern}: 2,000 characters ${short.toFixed(2)} ms, 16,000 ${long.toFixed(2)} ms (linear is 8 times; ${(long / short).toFixed(1)})\n`,
    );
  }
}

decisions();
loading("host and port", plainPolicy());
loading("two rules and a deny rule each", policyOf(100, 100));
hostile();
