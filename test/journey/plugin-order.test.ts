/** An order of plugins in which one judges by what another has not found yet is no order that works in silence. */
import { expect, test } from "vitest";
import { owner } from "../support/owner.ts";
import { runWith, type Settings } from "../support/program.ts";
import { inbound, merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const jwt = { name: "jwt-validation", config: { issuer: "http://127.0.0.1:9", audience: "a" } };
const limit = { name: "one", unit: "requests", limit: 1, window: "day", unknown: "skip" };
const budget = (by: string): object => ({
  name: "budgets",
  config: { limits: [{ ...limit, by: [by] }] },
});
const tools = (callers: object): object => ({
  name: "tool-policy",
  config: {
    servers: [{ name: "s", rules: [{ name: "r", effect: "deny", tools: ["t"], callers }] }],
  },
});
const opa = (...include: string[]): object => ({
  name: "opa",
  config: { server_url: "http://127.0.0.1:9", include },
});
const authz = (...include: string[]): object => ({
  name: "ext-authz",
  config: { grpc_service: { target_uri: "http://127.0.0.1:9" }, include },
});

const fileOf = (...plugins: unknown[]): Settings =>
  settings(
    merge({ listener: { reverse_proxy_backend: "http://127.0.0.1:9" } }, inbound(...plugins)),
  );

test.each<[string, readonly unknown[], RegExp]>([
  ["budgets of subjects", [budget("subject"), jwt], /judges by what "jwt-validation" finds/],
  [
    "rules over subjects",
    ["mcp-parser", tools({ subjects: ["mallory"] }), jwt],
    /judges by what "jwt-validation" finds/,
  ],
  [
    "rules over scopes",
    ["mcp-parser", tools({ scopes: ["w"] }), jwt],
    /judges by what "jwt-validation" finds/,
  ],
  [
    "opa, of parameters",
    [opa("mcp.params.name"), "mcp-parser"],
    /judges by what "mcp-parser" finds/,
  ],
  [
    "ext-authz, of tasks",
    [authz("a2a.content"), "a2a-parser"],
    /judges by what "a2a-parser" finds/,
  ],
])("refused: %s", async (_name, plugins, words) => {
  const { code, stderr } = await runWith("check", fileOf(...plugins));
  expect(code).not.toBe(0);
  expect(stderr).toMatch(words);
});

test.each<[string, readonly unknown[]]>([
  ["budgets of subjects", [jwt, budget("subject")]],
  ["budgets of callers", [budget("caller"), jwt]],
  ["rules over agents", ["mcp-parser", tools({ agents: ["a"] }), jwt]],
  ["budgets where nobody validates", [budget("subject")]],
  ["opa", [jwt, "mcp-parser", "a2a-parser", opa("mcp.params", "a2a.content")]],
])("taken: %s", async (_name, plugins) => {
  const { code, stderr } = await runWith("check", fileOf(...plugins));
  expect(code, stderr).toBe(0);
});

test("a policy that is shown less than it could be is told of at the start", async () => {
  const proxy = await own(
    ProxyProcess.start(fileOf(authz("inference.messages"), "mcp-parser", jwt)),
  );
  const told = proxy.logs.filter(({ msg }) => msg.startsWith("ext-authz is ")).map((l) => l.msg);
  expect(told).toEqual([
    "ext-authz is not shown what jwt-validation finds, which stands behind it",
    "ext-authz is not shown what mcp-parser finds, which stands behind it",
  ]);
});
