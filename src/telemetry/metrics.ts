/** Every instrument of the proxy, declared once with its help text and its closed set of label values. */
import { Gauge, type MetricObjectWithValues, type MetricValue, Registry } from "./prom-client.ts";
import { DecisionMetrics } from "./decision-metrics.ts";
import { Evictions } from "./evictions.ts";
import { FileMetrics } from "./file-metrics.ts";
import { type Direction, FlowMetrics } from "./flow-metrics.ts";
import { declareGauges, type GaugeName, type GaugeSources } from "./gauges.ts";
import type { CountedInvocation, GoStats } from "./go-stats.ts";
import { Distribution, type MakeDistribution, type MakeTally, Tally } from "./instruments.ts";
import { PlaceMetrics } from "./place-metrics.ts";
import { registerProcessMetrics, type ProcessMetrics } from "./process-metrics.ts";
import { TlsMetrics, type TlsStats } from "./tls-metrics.ts";
import { TunnelMetrics } from "./tunnel-metrics.ts";
import { UpstreamProxyMetrics } from "./upstream-proxy-metrics.ts";

export type { GaugeName } from "./gauges.ts";
export type { CountedInvocation, GoStats } from "./go-stats.ts";

const refusals = [
  "connections",
  "tunnels",
  "buffer",
  "draining",
  "malformed",
  "timeout",
  "caller",
] as const;

/** Why a client was refused before there was a flow. */
export type Refusal = (typeof refusals)[number];

/** Label values of plugin events and address classes come from code, but a bound costs nothing. */
const maxOpenValues = 512;

/** The counters of one App: nothing is global, so two Apps in one process do not meet. */
export class Metrics {
  readonly contentType: string;
  readonly evictions: Evictions;
  readonly files: FileMetrics;
  readonly flows: FlowMetrics;
  readonly places: PlaceMetrics;
  readonly tls: TlsMetrics;
  readonly tunnels: TunnelMetrics;
  readonly upstreamProxy: UpstreamProxyMetrics;
  readonly #registry = new Registry();
  readonly #decisions: DecisionMetrics;
  readonly #bytes: Tally;
  readonly #refused: Tally;
  readonly #addresses: Tally;
  readonly #reloads: Tally;
  readonly #reloadedAt: Gauge;
  readonly #pluginEvents: Tally;
  readonly #otlpReports: Tally;
  readonly #openValues = new Set<string>();
  readonly #readers = new Map<GaugeName, () => number>();
  readonly #process: ProcessMetrics;
  constructor(options: GaugeSources) {
    const registry = this.#registry;
    this.contentType = registry.contentType;
    const tally: MakeTally = (name, help, ...labels) =>
      new Tally(registry, { name: `authbridge_${name}`, help, labels });
    const distribution: MakeDistribution = (name, help, bounds, ...labels) =>
      new Distribution(registry, { name: `authbridge_${name}`, help, labels, bounds });

    this.flows = new FlowMetrics(tally, distribution);
    this.#decisions = new DecisionMetrics(tally, (value) => this.#bounded(value));
    this.tls = new TlsMetrics(tally);
    this.tunnels = new TunnelMetrics(tally, distribution);
    this.#bytes = tally(
      "bytes_total",
      "Body bytes of HTTP flows: received from the client, sent to the client.",
      "direction",
      "way",
    );
    this.#refused = tally(
      "refused_total",
      "Clients refused before there was a flow, by why.",
      "reason",
    );
    this.evictions = new Evictions(tally);
    this.#addresses = tally(
      "addresses_refused_total",
      "Addresses that the address guard refused to dial, by class of address.",
      "class",
    );
    this.#reloads = tally("reloads_total", "Reloads of the file, by result.", "result");
    this.places = new PlaceMetrics(tally);
    this.upstreamProxy = new UpstreamProxyMetrics(registry);
    this.#reloadedAt = new Gauge({
      name: "authbridge_reload_last_success_timestamp_seconds",
      help: "When a configuration was last applied, the start included.",
      registers: [registry],
    });
    this.#pluginEvents = tally(
      "plugin_events_total",
      "What plugins count for themselves: cache hits, exchanges, key fetches.",
      "plugin",
      "event",
    );
    this.#otlpReports = tally(
      "otlp_reports_total",
      "Reports to the OpenTelemetry collector, by signal and result.",
      "signal",
      "result",
    );
    this.files = new FileMetrics(tally);
    declareGauges(registry, this.#readers, options);
    this.#reloadedAt.setToCurrentTime();
    this.#process = registerProcessMetrics(registry);
    this.#showZeros();
  }

  /** Counts one step's record; given to every Pipeline as `onInvocation`. */
  invocation(direction: Direction, invocation: CountedInvocation): void {
    this.#decisions.count(direction, invocation);
  }

  bytes(direction: Direction, received: number, sent: number): void {
    if (received > 0) this.#bytes.of(direction, "received").value += received;
    if (sent > 0) this.#bytes.of(direction, "sent").value += sent;
  }

  refused(reason: Refusal): void {
    this.#refused.of(reason).value += 1;
  }

  addressRefused(addressClass: string): void {
    this.#addresses.of(this.#bounded(addressClass)).value += 1;
  }

  reload(ok: boolean): void {
    this.#reloads.of(ok ? "ok" : "failed").value += 1;
    if (ok) this.#reloadedAt.setToCurrentTime();
  }

  pluginEvent(plugin: string, event: string): void {
    this.#pluginEvents.of(this.#bounded(plugin), this.#bounded(event)).value += 1;
  }

  /** Says where a gauge is read from at every scrape. A second reader replaces the first. */
  gauge(name: GaugeName, read: () => number): void {
    this.#readers.set(name, read);
  }

  otlpReport(signal: "traces" | "metrics", isSent: boolean): void {
    this.#otlpReports.of(signal, isSent ? "ok" : "failed").value += 1;
  }

  /** All of them as of now, for reports in other forms. */
  values(): Promise<MetricObjectWithValues<MetricValue<string>>[]> {
    return this.#registry.getMetricsAsJSON();
  }

  /** The text of `/metrics`. */
  render(): Promise<string> {
    return this.#registry.metrics();
  }

  /** The Go program's maps, and ours of handshakes where there were any. */
  goStats(): GoStats & TlsStats {
    return { ...this.#decisions.snapshot(), ...this.tls.snapshot() };
  }

  /** Stops what runs by itself; counting and rendering still work. */
  close(): void {
    this.#process.close();
    this.#readers.clear();
  }

  /** A rate over a counter that appears with its first event misses that event. */
  #showZeros(): void {
    for (const reason of refusals) this.#refused.of(reason);
    for (const result of ["ok", "failed"]) {
      this.#reloads.of(result);
      for (const signal of ["traces", "metrics"]) this.#otlpReports.of(signal, result);
    }
    for (const direction of ["inbound", "outbound"]) {
      for (const way of ["received", "sent"]) this.#bytes.of(direction, way);
    }
  }

  #bounded(value: string): string {
    if (this.#openValues.has(value)) return value;
    if (this.#openValues.size >= maxOpenValues) return "other";
    this.#openValues.add(value);
    return value;
  }
}
