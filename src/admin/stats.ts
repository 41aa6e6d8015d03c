/** Counters and configuration of `:9093`. */
import type { GoStats, Metrics } from "../telemetry/metrics.ts";
import { redact } from "./redact.ts";
import { json, type AdminRoute } from "./server.ts";

/** Answer of `/reload/status`; clients of the Go program wait on these keys. */
export interface ReloadStatus {
  /** RFC 3339; `0001-01-01T00:00:00Z` before the first attempt, which is what Go's clients read as never. */
  readonly last_attempt: string;
  /** RFC 3339; the start of the process counts. */
  readonly last_success: string;
  /** Empty when the last attempt worked. */
  readonly last_error: string;
  readonly reloads_ok: number;
  readonly reloads_failed: number;
  /** Hex digest of the file that is in force. */
  readonly active_config_sha256: string;
}

/** What the statistics server shows. */
export interface StatsSources {
  /** The effective configuration; what looks like a secret is hidden once more on the way out. */
  config(): unknown;
  reloadStatus(): ReloadStatus;
  readonly metrics: Pick<Metrics, "render" | "contentType"> & { goStats(): GoStats };
}

const links = [
  ["/config", "effective configuration, secrets hidden"],
  ["/stats", "approvals and denials"],
  ["/reload/status", "last reload of the file"],
  ["/metrics", "Prometheus metrics"],
] as const;

const index = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="color-scheme" content="light dark">
<title>authbridge-proxy</title>
<style>body{font:16px/1.6 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}</style>
<h1>authbridge-proxy</h1>
<ul>
${links.map(([path, meaning]) => `<li><a href="${path}">${path}</a> ${meaning}</li>`).join("\n")}
</ul>
</html>
`;

/** Routes of the statistics server. */
export function statsRoutes(sources: StatsSources): readonly AdminRoute[] {
  const { metrics } = sources;
  return [
    {
      path: "/",
      handle: () => ({ status: 200, contentType: "text/html; charset=utf-8", body: index }),
    },
    { path: "/config", handle: () => json(redact(sources.config())) },
    { path: "/stats", handle: () => json(metrics.goStats()) },
    { path: "/reload/status", handle: () => json(sources.reloadStatus()) },
    {
      path: "/metrics",
      handle: async () => ({
        status: 200,
        contentType: metrics.contentType,
        body: await metrics.render(),
      }),
    },
  ];
}
