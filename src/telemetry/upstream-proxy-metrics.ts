/** What is counted of the site's own proxies. */
import { Gauge, type Registry } from "./prom-client.ts";
import { Tally } from "./instruments.ts";

/** The hops of upstream/hop-fault.ts, which stands above this folder. */
const hops = ["dns", "tcp", "tls", "auth", "connect", "http"] as const;

/** Labels are hops and the word ok, which come from code (upstream/hop-fault.ts). */
export class UpstreamProxyMetrics {
  readonly #probes: Tally;
  readonly #failures: Tally;
  readonly #accepted: Gauge;

  constructor(registry: Registry) {
    this.#probes = new Tally(registry, {
      name: "authbridge_upstream_proxy_probes_total",
      help: "Readiness endpoints that were asked, by result: ok or the hop that failed.",
      labels: ["result"],
    });
    this.#failures = new Tally(registry, {
      name: "authbridge_upstream_proxy_failures_total",
      help: "Connections through an upstream proxy that failed, by hop.",
      labels: ["hop"],
    });
    this.#accepted = new Gauge({
      name: "authbridge_upstream_proxy_accepted",
      help: "1 while the file's upstream_proxy serves, 0 while it is refused or not set.",
      registers: [registry],
    });
    // A rate over a counter that appears with its first event misses that event.
    for (const hop of hops) this.#failures.of(hop);
    this.#probes.of("ok");
  }

  /** `result` is ok or a hop. */
  probed(result: string): void {
    this.#probes.of(result).value += 1;
  }

  failed(hop: string): void {
    this.#failures.of(hop).value += 1;
  }

  accepted(isAccepted: boolean): void {
    this.#accepted.set(isAccepted ? 1 : 0);
  }
}
