/** Every instrument of the proxy, declared once with its help text and its closed set of label values. */
import { Gauge, type MetricObjectWithValues, type MetricValue, Registry } from "prom-client";
import { phaseBounds, requestBounds, tunnelBounds } from "./bounds.ts";
import { FileMetrics } from "./file-metrics.ts";
import { declareGauges, type GaugeName, type GaugeSources } from "./gauges.ts";
import { GoStatsCounter, type CountedInvocation, type GoStats } from "./go-stats.ts";
import { Distribution, Tally, type Cell, type Buckets } from "./instruments.ts";
import { registerProcessMetrics, type ProcessMetrics } from "./process-metrics.ts";
import { TlsMetrics, type TlsStats } from "./tls-metrics.ts";
import { UpstreamProxyMetrics } from "./upstream-proxy-metrics.ts";

export type { GaugeName } from "./gauges.ts";
export type { CountedInvocation, GoStats } from "./go-stats.ts";

// The same words as in pipeline/flow.ts, which stands above this folder.
type Direction = "inbound" | "outbound";
type Transport = "http" | "connect" | "bridge" | "transparent";

/** How a flow ended. */
export type FlowOutcome = "ok" | "denied" | "error" | "cancelled";

/** The parts of a flow whose duration is measured. */
export type FlowPhase = "pipeline" | "connect" | "tls" | "first_byte" | "response";

const tunnelEnds = ["closed", "idle", "aborted", "error", "revoked", "refused"] as const;
const refusals = [
  "connections",
  "tunnels",
  "buffer",
  "draining",
  "malformed",
  "timeout",
  "caller",
] as const;

/** Why a tunnel ended. */
export type TunnelEnd = (typeof tunnelEnds)[number];

/** Why a client was refused before there was a flow. */
export type Refusal = (typeof refusals)[number];

const statusClasses = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"] as const;

/** Label values of plugin events and address classes come from code, but a bound costs nothing. */
const maxOpenValues = 512;

/** The counters of one App: nothing is global, so two Apps in one process do not meet. */
export class Metrics {
  readonly contentType: string;
  readonly files: FileMetrics;
  readonly tls: TlsMetrics;
  readonly #registry = new Registry();
  readonly #flows: Tally;
  readonly #flowSeconds: Distribution;
  readonly #phaseSeconds: Distribution;
  readonly #decisions: Tally;
  readonly #tunnelsOpened: Cell;
  readonly #tunnelsClosed: Tally;
  readonly #tunnelSeconds: Distribution;
  readonly #tunnelBytesUp: Cell;
  readonly #tunnelBytesDown: Cell;
  readonly #bytes: Tally;
  readonly #refused: Tally;
  readonly #addresses: Tally;
  readonly #reloads: Tally;
  readonly upstreamProxy: UpstreamProxyMetrics;
  readonly #reloadedAt: Gauge;
  readonly #pluginEvents: Tally;
  readonly #otlpReports: Tally;
  readonly #openValues = new Set<string>();
  readonly #goStats = new GoStatsCounter();
  readonly #readers = new Map<GaugeName, () => number>();
  readonly #process: ProcessMetrics;
  #lastFlow:
    | {
        readonly direction: Direction;
        readonly transport: Transport;
        readonly outcome: FlowOutcome;
        readonly statusClass: string;
        readonly cell: Cell;
        readonly seconds: Buckets;
      }
    | undefined;

  constructor(options: GaugeSources) {
    const registry = this.#registry;
    this.contentType = registry.contentType;
    const tally = (name: string, help: string, ...labels: string[]): Tally =>
      new Tally(registry, { name: `authbridge_${name}`, help, labels });
    const seconds = (
      name: string,
      help: string,
      bounds: readonly number[],
      ...labels: string[]
    ): Distribution =>
      new Distribution(registry, { name: `authbridge_${name}`, help, labels, bounds });

    this.#flows = tally(
      "flows_total",
      "Flows that ended, by how they ended and by class of status.",
      "direction",
      "transport",
      "outcome",
      "status",
    );
    this.#flowSeconds = seconds(
      "flow_duration_seconds",
      "From the first byte of a flow to its end. Tunnels have their own histogram.",
      requestBounds,
      "direction",
      "transport",
    );
    this.#phaseSeconds = seconds(
      "phase_duration_seconds",
      "Time that a flow spent in one of its phases.",
      phaseBounds,
      "direction",
      "phase",
    );
    this.#decisions = tally(
      "decisions_total",
      "What plugins decided; shadow is true where on_error: observe muted a refusal.",
      "direction",
      "plugin",
      "action",
      "shadow",
    );
    this.tls = new TlsMetrics(tally);
    this.#tunnelsOpened = tally("tunnels_opened_total", "Tunnels that were opened.").of();
    this.#tunnelsClosed = tally("tunnels_closed_total", "Tunnels that ended, by why.", "reason");
    this.#tunnelSeconds = seconds(
      "tunnel_duration_seconds",
      "From the opening of a tunnel to its end.",
      tunnelBounds,
    );
    const tunnelBytes = tally(
      "tunnel_bytes_total",
      "Bytes through tunnels; up is from the client to the upstream.",
      "way",
    );
    this.#tunnelBytesUp = tunnelBytes.of("up");
    this.#tunnelBytesDown = tunnelBytes.of("down");
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
    this.#addresses = tally(
      "addresses_refused_total",
      "Addresses that the address guard refused to dial, by class of address.",
      "class",
    );
    this.#reloads = tally("reloads_total", "Reloads of the file, by result.", "result");
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

  /** Counts the end of one HTTP flow, or of a refused or failed attempt at a tunnel. */
  flowFinished(
    direction: Direction,
    transport: Transport,
    outcome: FlowOutcome,
    status: number,
    seconds: number,
  ): void {
    const last = this.#lastFlow;
    const statusClass = statusClasses[Math.trunc(status / 100)] ?? "none";
    // Most flows are like the one before them.
    if (
      last !== undefined &&
      last.direction === direction &&
      last.transport === transport &&
      last.outcome === outcome &&
      last.statusClass === statusClass
    ) {
      last.cell.value += 1;
      last.seconds.observe(seconds);
      return;
    }
    const cell = this.#flows.of(direction, transport, outcome, statusClass);
    const distribution = this.#flowSeconds.of(direction, transport);
    this.#lastFlow = { direction, transport, outcome, statusClass, cell, seconds: distribution };
    cell.value += 1;
    distribution.observe(seconds);
  }

  phase(direction: Direction, phase: FlowPhase, seconds: number): void {
    this.#phaseSeconds.of(direction, phase).observe(seconds);
  }

  /** Counts one step's record; given to every Pipeline as `onInvocation`. */
  invocation(direction: Direction, invocation: CountedInvocation): void {
    const shadow = invocation.shadow === true ? "true" : "false";
    this.#decisions.of(direction, invocation.plugin, invocation.action, shadow).value += 1;
    this.#goStats.count(invocation);
  }

  tunnelOpened(): void {
    this.#tunnelsOpened.value += 1;
  }

  tunnelClosed(bytesUp: number, bytesDown: number, seconds: number, reason: TunnelEnd): void {
    this.#tunnelsClosed.of(reason).value += 1;
    this.#tunnelBytesUp.value += bytesUp;
    this.#tunnelBytesDown.value += bytesDown;
    this.#tunnelSeconds.of().observe(seconds);
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
    return { ...this.#goStats.snapshot(), ...this.tls.snapshot() };
  }

  /** Stops what runs by itself; counting and rendering still work. */
  close(): void {
    this.#process.close();
    this.#readers.clear();
  }

  /** A rate over a counter that appears with its first event misses that event. */
  #showZeros(): void {
    for (const reason of tunnelEnds) this.#tunnelsClosed.of(reason);
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
