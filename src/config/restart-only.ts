/**
 * Keys that a reload cannot apply. A file that changes one is refused whole, so that nothing is ignored in silence.
 */
import { isDeepStrictEqual } from "node:util";
import type { Config } from "./presets.ts";
import { isMapping, valueAt } from "../yaml/value-path.ts";

/** Paths whose change needs a restart. A path stands for everything below it. */
export const restartOnlyPaths: readonly string[] = [
  "mode",
  "workers",
  "listener",
  "egress_enforcement",
  "acknowledge_cooperative_mode",
  // These shape the listening sockets and their HTTP parsers, or count over the whole process.
  "limits.max_connections",
  "limits.max_header_bytes",
  "limits.max_headers",
  "limits.header_timeout",
  "limits.body_timeout",
  "limits.max_buffered",
  "limits.max_buffered_heads",
  "limits.keep_alive_timeout",
  "limits.max_requests_per_connection",
  "limits.max_streams_per_connection",
  "limits.max_tunnels",
  // The store outlives a configuration: its events are kept over reloads.
  "session",
  "audit",
  "kill_switch",
  // What is asked outlives a configuration.
  "approval",
  // One connection, or one open file, for every generation.
  "state",
  // The reloader itself is made once.
  "reload.enabled",
  "reload.debounce",
  "stats",
  // One exporter per process, whose queue is kept over reloads.
  "telemetry",
  // What the reverse proxy listens with.
  "mtls.mode",
  // A module is loaded once by the runtime; its new text would not be seen.
  "plugin_modules",
];

/** Whether a change of the key at `path` needs a restart. */
export function isRestartOnly(path: string): boolean {
  return restartOnlyPaths.some((prefix) => path === prefix || path.startsWith(`${prefix}.`));
}

/** The restart-only keys that differ between two configurations, such as `listener.forward_proxy_addr`. */
export function restartOnlyChanges(current: Config, next: Config): string[] {
  return restartOnlyPaths.flatMap((path) => differences(at(current, path), at(next, path), path));
}

function differences(current: unknown, next: unknown, path: string): string[] {
  if (isDeepStrictEqual(current, next)) return [];
  if (!isMapping(current) || !isMapping(next)) return [path];
  const keys = new Set([...Object.keys(current), ...Object.keys(next)]);
  return [...keys].flatMap((key) => differences(current[key], next[key], `${path}.${key}`));
}

function at(config: Config, path: string): unknown {
  return valueAt(config, path.split("."));
}
