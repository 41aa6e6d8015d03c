import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { statsRoutes, type ReloadStatus } from "../../../src/admin/stats.ts";
import { Metrics } from "../../../src/telemetry/metrics.ts";
import { serve, type Served } from "./client.ts";

const reloadStatus: ReloadStatus = {
  last_attempt: "0001-01-01T00:00:00Z",
  last_success: "2026-01-01T00:00:00Z",
  last_error: "",
  reloads_ok: 0,
  reloads_failed: 0,
  active_config_sha256: "ab",
};

let metrics: Metrics;

beforeEach(() => {
  metrics = new Metrics({ version: "0", generation: () => 1 });
});
afterEach(() => metrics.close());

function served(config: unknown = {}): Promise<Served> {
  return serve(statsRoutes({ config: () => config, reloadStatus: () => reloadStatus, metrics }));
}

describe("M16: the statistics server", () => {
  test("GET / is HTML that links everything else, and every link works", async () => {
    const { get } = await served();
    const index = await get("/");
    expect(index.status).toBe(200);
    expect(index.headers["content-type"]).toMatch(/^text\/html/);
    const links = [...index.body.matchAll(/href="([^"]+)"/g)].map((match) => match[1] ?? "");
    expect(links).toEqual(["/config", "/stats", "/reload/status", "/metrics"]);
    for (const link of links) expect((await get(link)).status).toBe(200);
  });

  test("/config is JSON with secrets hidden once more", async () => {
    const { get } = await served({ listener: { roles: [] }, identity: { client_secret: "s3" } });
    const answer = await get("/config");
    expect(answer.headers["content-type"]).toBe("application/json");
    expect(JSON.parse(answer.body)).toEqual({
      listener: { roles: [] },
      identity: { client_secret: "[REDACTED]" },
    });
  });

  test("/stats has the five maps, with only the counters that are not zero", async () => {
    metrics.invocation("inbound", {
      plugin: "jwt-validation",
      action: "deny",
      reason: "jwt_failed",
    });
    const { get } = await served();
    expect(JSON.parse((await get("/stats")).body)).toEqual({
      inbound_approvals: {},
      inbound_denials: { jwt_failed: 1 },
      outbound_approvals: {},
      outbound_denials: {},
      outbound_replace_tokens: {},
    });
  });

  test("/reload/status has the Go program's keys", async () => {
    const { get } = await served();
    expect(JSON.parse((await get("/reload/status")).body)).toEqual(reloadStatus);
  });

  test("/metrics is Prometheus text", async () => {
    const { get } = await served();
    const answer = await get("/metrics");
    expect(answer.headers["content-type"]).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(answer.body).toContain("# TYPE authbridge_flows_total counter");
  });
});
