/** What is read of the process as a whole: gauges, and its status. */
import type { ProcessStatus } from "../admin/status.ts";
import type { Runtime } from "../proxy/flow/runtime.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { Activity } from "./data-plane.ts";
import type { BoundAddresses } from "./listen-options.ts";

/** Where they are read. */
interface GaugeSources {
  activity(): Activity;
  runtime(): Runtime;
  readiness(): string | undefined;
}

/** Gives each its reader. */
export function processGauges(metrics: Metrics, sources: GaugeSources): void {
  metrics.gauge("client_connections", () => sources.activity().connections);
  metrics.gauge("active_flows", () => sources.activity().flows);
  metrics.gauge("active_tunnels", () => sources.activity().tunnels);
  metrics.gauge("approvals_held", () => sources.activity().held);
  metrics.gauge("upstream_connections", () => sources.activity().upstreamConnections);
  metrics.gauge("bridge_ca_expiry_timestamp_seconds", () => {
    const notAfter = sources.runtime().bridge?.authorityNotAfter.getTime();
    return notAfter === undefined ? 0 : notAfter / 1_000;
  });
  metrics.gauge("spiffe_svid_expiry_timestamp_seconds", () => {
    return (sources.runtime().workload?.svidExpiresAt() ?? 0) / 1_000;
  });
  metrics.gauge("ready", () => (sources.readiness() === undefined ? 1 : 0));
}

/** What the status is made of. */
interface StatusFacts extends Pick<
  ProcessStatus,
  "version" | "reason" | "egressEnforcement" | "startedAt" | "generation"
> {
  readonly addresses: BoundAddresses;
  readonly metrics: Metrics;
}

/** The status of the process, for operators. */
export function statusOf({ addresses, metrics, ...facts }: StatusFacts): ProcessStatus {
  const bound = Object.entries(addresses);
  return {
    ...facts,
    ready: facts.reason === undefined,
    addresses: Object.fromEntries(bound.map(([name, { host, port }]) => [name, `${host}:${port}`])),
    stats: metrics.goStats(),
    services: metrics.services.view(),
    figures: metrics.figures(),
  };
}
