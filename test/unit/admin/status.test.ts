import { expect, test } from "vitest";
import { consoleRoutes } from "../../../src/admin/console.ts";
import { statusRoutes } from "../../../src/admin/status.ts";
import { serve } from "./client.ts";

const status = {
  version: "1.2.3",
  ready: true,
  egressEnforcement: "enforce-redirect",
  startedAt: "2026-01-01T00:00:00.000Z",
  generation: 3,
  addresses: { forward: "127.0.0.1:8081" },
  stats: {
    inbound_approvals: {},
    inbound_denials: {},
    outbound_approvals: {},
    outbound_denials: {},
    outbound_replace_tokens: {},
  },
  services: [],
  figures: { authbridge_active_tunnels: 2 },
} as const;

const reload = {
  last_attempt: "",
  last_success: "",
  last_error: "",
  reloads_ok: 0,
  reloads_failed: 0,
  active_config_sha256: "00",
};

async function ask(path: string): Promise<unknown> {
  const server = await serve(
    statusRoutes({
      config: () => ({ callers: { clients: [{ name: "a", password: "sesame" }] } }),
      warnings: () => [{ keyPath: "pipeline.outbound.default", message: "is not set" }],
      reloadStatus: () => reload,
      status: () => status,
    }),
  );
  return JSON.parse((await server.get(path)).body);
}

test("/v1/status says what runs and how its agent is kept to it", async () => {
  expect(await ask("/v1/status")).toEqual(status);
});

test("/v1/config shows the file in force, its remarks and the last reload, and no secret", async () => {
  expect(await ask("/v1/config")).toEqual({
    config: { callers: { clients: [{ name: "a", password: "[REDACTED]" }] } },
    warnings: [{ keyPath: "pipeline.outbound.default", message: "is not set" }],
    reload,
  });
});

test("the console serves its own files and no others", async () => {
  const server = await serve(consoleRoutes());
  expect((await server.get("/")).body).toContain('<script type="module" src="console/main.js">');
  expect((await server.get("/console/main.js")).status).toBe(200);
  for (const path of [
    "/console/../console.ts",
    "/console/tsconfig.json",
    "/console/%2e%2e%2fserver.ts",
  ]) {
    expect((await server.get(path)).status).toBe(404);
  }
});
