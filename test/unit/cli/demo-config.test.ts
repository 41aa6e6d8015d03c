import { expect, test } from "vitest";
import { buildRuntime } from "../../../src/app/build.ts";
import { CarriedState } from "../../../src/app/carried-state.ts";
import { demoConfig } from "../../../src/cli/demo-config.ts";
import { parseConfig } from "../../../src/config/load.ts";
import type { Config } from "../../../src/config/presets.ts";
import type { AnyPluginDefinition } from "../../../src/pipeline/plugin.ts";
import { builtinPlugins } from "../../../src/plugins/index.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { Metrics } from "../../../src/telemetry/metrics.ts";
import { OwnListeners } from "../../../src/upstream/own-listeners.ts";

function load(text: string): Config {
  const loaded = parseConfig(Buffer.from(text), "demo.yaml", { env: { HOME: "expanded" } });
  if (loaded.kind === "rejected")
    throw new Error(loaded.problems.map(({ message }) => message).join("\n"));
  return loaded.config;
}

test("A24: the demo configuration loads and validates, with the forward role only", async () => {
  const config = load(demoConfig("/tmp/demo-ca", builtinPlugins).text);
  expect(config.listener).toMatchObject({
    roles: ["forward"],
    forward_proxy_addr: "127.0.0.1:47600",
    session_api_addr: "127.0.0.1:47601",
    health_addr: "127.0.0.1:47603",
  });
  expect(config.stats.address).toBe("127.0.0.1:47602");
  expect(config.listener).not.toHaveProperty("reverse_proxy_addr");
  expect(config.tls_bridge).toMatchObject({
    mode: "enabled",
    ca_dir: "/tmp/demo-ca",
    generate_ca: true,
  });
  const metrics = new Metrics({ version: "test", generation: () => 0 });
  const services = {
    log: createLogger("silent"),
    metrics,
    ownListeners: new OwnListeners(),
    env: process.env,
    carried: new CarriedState(),
    definitions: builtinPlugins,
  };
  // The CA is made at the start; the pipelines are what the demo's text decides.
  const withoutBridge: Config = {
    ...config,
    tls_bridge: { ...config.tls_bridge, mode: "disabled" },
  };
  const built = await buildRuntime(withoutBridge, 0, services, { start: false });
  expect(built).toHaveProperty("kind", "built");
  if (built.kind === "built") await built.runtime.close();
  metrics.close();
});

test("parsers come in by themselves once the build has them, in the order of the contract", () => {
  const parser = (name: string): AnyPluginDefinition => ({
    name,
    description: name,
    create: () => ({}),
  });
  const { text, missing } = demoConfig("/x", [parser("mcp-parser"), parser("inference-parser")]);
  const { plugins } = load(text).pipeline.outbound;
  expect(plugins.map(({ name }) => name)).toEqual(["inference-parser", "mcp-parser"]);
  expect(missing).toEqual(["a2a-parser"]);
});

test("parsers that a build declares unavailable are left out and named", () => {
  const unavailable: AnyPluginDefinition = {
    name: "mcp-parser",
    description: "",
    unavailable: "remove it",
    create: () => ({}),
  };
  const { text, missing } = demoConfig("/x", [unavailable]);
  expect(load(text).pipeline.outbound.plugins).toEqual([]);
  expect(missing).toEqual(["inference-parser", "mcp-parser", "a2a-parser"]);
});

test.each(["/with space/ca", "/it's/$HOME/${HOME}", '/a"b\\c', "/a: b #c"])(
  "the directory %j is the one that is loaded",
  (directory) => {
    expect(load(demoConfig(directory, []).text).tls_bridge.ca_dir).toBe(directory);
  },
);
