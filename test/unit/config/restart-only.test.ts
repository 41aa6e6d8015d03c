import { expect, test } from "vitest";
import { buildJsonSchema } from "../../../src/config/json-schema.ts";
import { parseConfig } from "../../../src/config/load.ts";
import type { Config } from "../../../src/config/presets.ts";
import {
  isRestartOnly,
  restartOnlyChanges,
  restartOnlyPaths,
} from "../../../src/config/restart-only.ts";
import { referenceRows } from "../../../scripts/reference.ts";

function load(yaml: string): Config {
  const loaded = parseConfig(Buffer.from(`listener: {roles: [forward]}\n${yaml}`), "config.yaml");
  if (loaded.kind === "rejected") throw new Error(JSON.stringify(loaded.problems));
  return loaded.config;
}

test.each([
  ["stats: {address: ':1'}", ["stats.address"]],
  ["session: {max_events: 7, ttl: 1m}", ["session.ttl", "session.max_events"]],
  ["session: {enabled: false}", ["listener.session_api_addr", "session.enabled"]],
  ["limits: {max_connections: 7, max_body: 7}", ["limits.max_connections"]],
  ["reload: {debounce: 1s, recheck_tunnels: false}", ["reload.debounce"]],
  ["spiffe: {}", []],
  ["plugin_modules: [a.js]", ["plugin_modules"]],
  ["mtls: {mode: strict, allowed_spiffe_ids: ['spiffe://a']}\nspiffe: {}", ["mtls.mode"]],
  ["tls_bridge: {mode: enabled, ca: ephemeral}", []],
  ["mode: ''", []],
  ["session: {max_events: 0}", []],
  ["pipeline: {outbound: {default: deny}}", []],
  ["egress: {private_networks: deny}", []],
  ["log: {level: debug}", []],
  ["tls_bridge: {passthrough_hosts: [a]}", []],
])("C5 Z21 the change %s needs a restart for %j", (yaml, paths) => {
  expect(restartOnlyChanges(load(""), load(yaml))).toEqual(paths);
  expect(restartOnlyChanges(load(yaml), load(yaml))).toEqual([]);
});

test("C5 every key of the listener needs a restart", () => {
  const next = {
    ...load(""),
    listener: { ...load("").listener, forward_proxy_addr: ":1", skip_hosts: ["a"] },
  };
  expect(restartOnlyChanges(load(""), next)).toEqual([
    "listener.forward_proxy_addr",
    "listener.skip_hosts",
  ]);
});

test("every restart-only path is a key of the file", () => {
  const keys = referenceRows(buildJsonSchema()).map((row) => row.path);
  for (const path of restartOnlyPaths) {
    expect(
      keys.some((key) => key === path || key.startsWith(`${path}.`)),
      path,
    ).toBe(true);
  }
  expect(isRestartOnly("listener.roles")).toBe(true);
  expect(isRestartOnly("listeners")).toBe(false);
});
