/** What the console shows beside events: the configuration in force and the state of the process. */
import type { GoStats } from "../telemetry/metrics.ts";
import type { ServiceView } from "../telemetry/service-calls.ts";
import { redact } from "./redact.ts";
import { json, type AdminRoute } from "./server.ts";
import type { ReloadStatus } from "./stats.ts";

/** A remark about the file that is in force. */
export interface ConfigWarning {
  readonly keyPath: string;
  readonly message: string;
}

/** Answer of `/v1/status`. */
export interface ProcessStatus {
  readonly version: string;
  /** RFC 3339. */
  readonly startedAt: string;
  /** Counts the configurations that served, from 1. */
  readonly generation: number;
  readonly ready: boolean;
  /** Why it is not ready, in the words of `/readyz`. */
  readonly reason?: string | undefined;
  /** How the agent is kept to the proxy. */
  readonly egressEnforcement: "enforce-redirect" | "none";
  /** Surfaces that are bound, `host:port`. */
  readonly addresses: Readonly<Record<string, string>>;
  readonly stats: GoStats;
  /** The services that the file names, as far as they were asked. */
  readonly services: readonly ServiceView[];
  /** Gauges of the metrics without labels, by name. */
  readonly figures: Readonly<Record<string, number>>;
}

/** What the responses are made of. */
export interface StatusSources {
  config(): unknown;
  warnings(): readonly ConfigWarning[];
  reloadStatus(): ReloadStatus;
  status(): ProcessStatus;
}

/** `/v1/config` and `/v1/status` of the session API. */
export function statusRoutes(sources: StatusSources): readonly AdminRoute[] {
  return [
    {
      path: "/v1/config",
      handle: () =>
        json({
          config: redact(sources.config()),
          warnings: sources.warnings(),
          reload: sources.reloadStatus(),
        }),
    },
    { path: "/v1/status", handle: () => json(sources.status()) },
  ];
}
