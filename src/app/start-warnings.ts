/** What an operator should read when a file begins to serve. */
import type { LoadedConfig } from "../config/load.ts";
import { formatProblem } from "../yaml/problem.ts";
import type { Logger } from "../telemetry/log.ts";

/** Everything that was found in the file at the start. */
export function warnOf(loaded: LoadedConfig, log: Logger): void {
  warnOfOpenPipelines(loaded, log);
  for (const warning of loaded.warnings)
    log.warn({ problem: formatProblem(warning) }, "configuration warning");
}

/** A direction that nothing judges. */
export function warnOfOpenPipelines({ config }: LoadedConfig, log: Logger): void {
  for (const direction of ["inbound", "outbound"] as const) {
    const { plugins, default: otherwise } = config.pipeline[direction];
    if (plugins.length > 0 || otherwise === "deny") continue;
    log.warn({ pipeline: direction }, `pipeline.${direction} has no plugins: everything passes`);
  }
}
