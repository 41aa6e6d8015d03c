/** The part of a file's limits that one thread of several has. */
import type { Config } from "../config/presets.ts";
import { sizeBytes } from "../config/size.ts";

/**
 * The configuration of one thread. Tunnels, connections of clients and buffered bytes are counted for all threads together;
 * what is waited for in a queue is divided.
 */
export function shareOf(config: Config, threads: number): Config {
  const { limits, spiffe } = config;
  const part = (all: number): number => Math.max(1, Math.floor(all / threads));
  return {
    ...config,
    limits: {
      ...limits,
      max_buffered_heads: part(sizeBytes(limits.max_buffered_heads)),
      max_upstream_connections: part(limits.max_upstream_connections),
      max_upstream_connections_per_destination: part(
        limits.max_upstream_connections_per_destination,
      ),
      max_upstream_connections_per_caller: part(limits.max_upstream_connections_per_caller),
      max_name_lookups: part(limits.max_name_lookups),
      max_name_lookups_per_caller: part(limits.max_name_lookups_per_caller),
    },
    // The thread in control mirrors what comes from the Workload API.
    ...(spiffe === undefined ? {} : { spiffe: { ...spiffe, mirror_files: false } }),
  };
}
