/** What is read when somebody looks, and what never changes: gauges and info metrics. */
import { Gauge, type Registry } from "./prom-client.ts";

const gauges = {
  active_flows: "Flows that are in progress.",
  active_tunnels: "Tunnels that are open.",
  bridge_ca_expiry_timestamp_seconds:
    "When the certificate authority of the bridge runs out; 0 without a bridge.",
  client_connections: "Connections that clients hold open.",
  transparent_listener_up: "1 while the listener for redirected connections is open, else 0.",
  upstream_connections: "Connections to upstreams that are open.",
  ready: "1 while /readyz answers 200, else 0.",
} as const;

/** The gauges that their owners give a reader for. */
export type GaugeName = keyof typeof gauges;

/** What the gauges tell of the process. */
export interface GaugeSources {
  readonly version: string;
  readonly egressEnforcement?: "enforce-redirect" | "none";
  generation(): number;
}

/** Registers all of them; a gauge without a reader is 0. */
export function declareGauges(
  registry: Registry,
  readers: ReadonlyMap<GaugeName, () => number>,
  options: GaugeSources,
): void {
  const registers = [registry];
  for (const [name, help] of Object.entries(gauges) as [GaugeName, string][]) {
    const gauge: Gauge = new Gauge({
      name: `authbridge_${name}`,
      help,
      registers,
      collect: () => gauge.set(readers.get(name)?.() ?? 0),
    });
  }
  const generation: Gauge = new Gauge({
    name: "authbridge_config_generation",
    help: "Number of the configuration that new flows get; it grows with every applied reload.",
    registers,
    collect: () => generation.set(options.generation()),
  });
  const build = new Gauge({
    name: "authbridge_build_info",
    help: "Always 1; the labels say what runs.",
    labelNames: ["version", "node"],
    registers,
  });
  build.set({ version: options.version, node: process.version }, 1);
  const enforcement = new Gauge({
    name: "authbridge_egress_enforcement_info",
    help: "Always 1; the label says how the agent is kept to the proxy.",
    labelNames: ["mode"],
    registers,
  });
  enforcement.set({ mode: options.egressEnforcement ?? "enforce-redirect" }, 1);
}
