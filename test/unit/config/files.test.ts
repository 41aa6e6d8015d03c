/** The files that ship in config/, and one that was written for the Go program. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { buildJsonSchema } from "../../../src/config/json-schema.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { referenceRows } from "../../../scripts/reference.ts";

const root = new URL("../../../", import.meta.url);
const shipped = readdirSync(new URL("config/", root)).filter((name) => name.endsWith(".yaml"));

/** What config/demo.yaml takes from the environment. */
const demoEnvironment = {
  DEMO_AGENT_PORT: "1",
  DEMO_CLIENT_SECRET: "s",
  DEMO_FORWARD_PORT: "2",
  DEMO_HEALTH_PORT: "3",
  DEMO_ISSUER: "http://127.0.0.1:4",
  DEMO_REVERSE_PORT: "5",
  DEMO_SESSION_PORT: "6",
  DEMO_STATS_PORT: "7",
};

test.each(shipped)(
  "config/%s loads, names the schema and denies what leaves undecided",
  async (name) => {
    const path = new URL(`config/${name}`, root).pathname;
    const loaded = await loadConfig(path, { env: demoEnvironment });
    expect(loaded).toMatchObject({
      kind: "loaded",
      config: { pipeline: { outbound: { default: "deny" } } },
    });
    const [first] = readFileSync(path, "utf8").split("\n");
    expect(first).toBe("# yaml-language-server: $schema=./schema.json");
  },
);

test("all five files are there", () => {
  const names = ["demo.yaml", "egress.yaml", "full.yaml", "inbound.yaml", "minimal.yaml"];
  expect(shipped.sort()).toEqual(names);
});

test("full.yaml shows every key", () => {
  const text = readFileSync(new URL("config/full.yaml", root), "utf8");
  const missing = referenceRows(buildJsonSchema())
    .filter((row) => row.type !== '`""`') // keys of other modes, which are refused
    .map((row) => row.path.split(".").at(-1) ?? "")
    .filter((key) => !new RegExp(`^[ #-]*${key}:`, "m").test(text));
  expect(missing).toEqual([]);
});

test("a file written for the Go program loads unchanged", async () => {
  const path = new URL("test/golden/config/go-sidecar.yaml", root).pathname;
  const env = {
    ISSUER: "https://idp.example.com/realms/agents",
    KEYCLOAK_URL: "http://keycloak.idp.svc:8080",
    KEYCLOAK_REALM: "agents",
    API_KEY: "placeholder",
  };
  const loaded = await loadConfig(path, { env });
  if (loaded.kind === "rejected") throw new Error(JSON.stringify(loaded.problems));
  // Such a file lets out what no plugin decides, and shows what agents send to whoever reaches the session API.
  expect(loaded.warnings.map((warning) => warning.keyPath).toSorted()).toEqual([
    "listener.session_api_addr",
    "pipeline.outbound.default",
  ]);
  const { inbound, outbound } = loaded.config.pipeline;
  expect(inbound.plugins.map(({ name, on_error }) => [name, on_error])).toEqual([
    ["jwt-validation", "enforce"],
    ["a2a-parser", "enforce"],
  ]);
  expect(outbound.plugins.map(({ name, on_error }) => [name, on_error])).toEqual([
    ["inference-parser", "enforce"],
    ["mcp-parser", "enforce"],
    ["token-exchange", "enforce"],
    ["static-inject", "off"],
    ["opa", "off"],
  ]);
  expect(inbound.plugins[0]?.config).toMatchObject({ issuer: env.ISSUER });
  expect(loaded.config.listener.session_api_addr).toBe(":9094");
});

test("config/schema.json and docs/configuration.md are what npm run docs writes", () => {
  const script = new URL("scripts/docs.ts", root).pathname;
  const { status, stderr } = spawnSync(process.execPath, [script, "--check"], { encoding: "utf8" });
  expect(stderr).not.toContain("is stale");
  expect(status).toBe(0);
});
