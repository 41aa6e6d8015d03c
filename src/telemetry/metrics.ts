/** The instruments of one App, as the catalogue declares them, and what counts more than one of them at once. */
import {
  counters,
  type Direction,
  histograms,
  infos,
  processGauges,
  type Refusal,
} from "./catalogue.ts";
import { Evictions } from "./evictions.ts";
import { gauges } from "./gauges.ts";
import { FlowMetrics } from "./flow-metrics.ts";
import { type CountedInvocation, type GoChange, type GoStats, GoStatsCounter } from "./go-stats.ts";
import {
  type Added,
  Distribution,
  type Distributions,
  type Observed,
  type Tallies,
  Tally,
} from "./instruments.ts";
import { type ServiceCall, ServiceCalls } from "./service-calls.ts";
import { type SecretChange, SecretTimes } from "./secret-times.ts";
import { ProcessReaders } from "./process-metrics.ts";
import { Gauge, type MetricObjectWithValues, type MetricValue, Registry } from "./prom-client.ts";
import { TunnelMetrics } from "./tunnel-metrics.ts";

export type { CountedInvocation, GoStats } from "./go-stats.ts";

/** The gauges that their owners give a reader for. */
export type GaugeName = keyof typeof gauges;

/** The facts of the process. */
export interface MetricsOptions {
  readonly version: string;
  readonly egressEnforcement?: "enforce-redirect" | "none";
  generation(this: void): number;
}

/** What `/stats` shows of handshakes, by outcome; a map is absent where nothing was counted. */
export interface TlsStats {
  readonly tls_bridge?: Readonly<Record<string, number>>;
  readonly mtls?: Readonly<Record<string, number>>;
}

type Named<T> = readonly (readonly [name: string, more: readonly Added<T>[]])[];

/** What metrics have more than before. */
export interface MetricChanges {
  readonly counters: Named<number>;
  readonly histograms: Named<Observed>;
  readonly go: readonly GoChange[];
  readonly services: readonly ServiceCall[];
  readonly secrets: readonly SecretChange[];
}

function changesOf<T>(
  instruments: Readonly<Record<string, { changes(): readonly Added<T>[] }>>,
): Named<T> {
  return Object.entries(instruments)
    .map(([name, instrument]) => [name, instrument.changes()] as const)
    .filter(([, more]) => more.length > 0);
}

/** Label values of plugin events and address classes come from code, but a bound costs nothing. */
const maxOpenValues = 512;

/** The counters of one App: nothing is global, so two Apps in one process do not meet. */
export class Metrics {
  readonly contentType: string;
  readonly counters: Tallies<typeof counters>;
  readonly histograms: Distributions<typeof histograms>;
  readonly evictions: Evictions;
  readonly flows: FlowMetrics;
  readonly tunnels: TunnelMetrics;
  readonly services = new ServiceCalls();
  readonly secrets: SecretTimes;
  readonly #registry = new Registry();
  readonly #openValues = new Set<string>();
  readonly #goStats = new GoStatsCounter();
  readonly #readers = new Map<GaugeName, () => number>();
  readonly #stores = new Set<() => boolean>();
  readonly #process = new ProcessReaders();

  constructor(options: MetricsOptions) {
    const registry = this.#registry;
    this.contentType = registry.contentType;
    this.counters = Tally.all(registry, counters);
    this.histograms = Distribution.all(registry, histograms);
    this.evictions = new Evictions(this.counters.evicted_total);
    this.secrets = new SecretTimes(registry, this.counters.secret_fetches_total);
    this.flows = new FlowMetrics(this);
    this.tunnels = new TunnelMetrics(this);
    for (const [name, help] of Object.entries(gauges) as [GaugeName, string][]) {
      this.#declareGauge(`authbridge_${name}`, help, () => this.#readers.get(name)?.());
    }
    for (const [name, help] of Object.entries(processGauges)) {
      this.#declareGauge(name, help, this.#process[name as keyof typeof processGauges]);
    }
    this.#process.declareCpu(registry);
    const { version, egressEnforcement: mode = "enforce-redirect", generation } = options;
    this.#info("build_info", { version, node: process.version });
    this.#info("egress_enforcement_info", { mode });
    this.gauge("config_generation", generation);
    this.gauge("threads", () => 1);
    this.gauge("state_up", () => ([...this.#stores].every((isUp) => isUp()) ? 1 : 0));
    this.#applied();
    this.configInSync(true);
  }

  /** Counts one step's record; given to every Pipeline as `onInvocation`. */
  invocation(direction: Direction, invocation: CountedInvocation): void {
    const { plugin, action, reason, cause = reason } = invocation;
    const shadow = invocation.shadow === true ? "true" : "false";
    const { decisions_total: decisions, denials_total: denials } = this.counters;
    decisions.of(direction, plugin, action, shadow).value += 1;
    if (action === "deny") denials.of(direction, plugin, this.#bounded(cause), shadow).value += 1;
    this.#goStats.count(invocation);
  }

  bytes(direction: Direction, received: number, sent: number): void {
    const { bytes_total: bytes } = this.counters;
    if (received > 0) bytes.of(direction, "received").value += received;
    if (sent > 0) bytes.of(direction, "sent").value += sent;
  }

  refused(reason: Refusal): void {
    this.counters.refused_total.of(reason).value += 1;
  }

  addressRefused(addressClass: string): void {
    this.counters.addresses_refused_total.of(this.#bounded(addressClass)).value += 1;
  }

  reload(ok: boolean): void {
    this.counters.reloads_total.of(ok ? "ok" : "failed").value += 1;
    if (ok) this.#applied();
    this.configInSync(ok);
  }

  /** Adds a state store to those that `state_up` tells of; what is returned takes it out again. */
  stateUp(isUp: () => boolean): () => void {
    this.#stores.add(isUp);
    return () => void this.#stores.delete(isUp);
  }

  configInSync(isInSync: boolean): void {
    this.gauge("config_last_reload_successful", () => (isInSync ? 1 : 0));
  }

  pluginEvent(plugin: string, event: string): void {
    const { plugin_events_total: events } = this.counters;
    events.of(this.#bounded(plugin), this.#bounded(event)).value += 1;
  }

  /** Says where a gauge is read from at every scrape. A second reader replaces the first. */
  gauge(name: GaugeName, read: () => number): void {
    this.#readers.set(name, read);
  }

  /** What was counted and observed since this was asked last, for the metrics of another thread. */
  changes(): MetricChanges {
    return {
      counters: changesOf(this.counters),
      histograms: changesOf(this.histograms),
      go: this.#goStats.changes(),
      services: this.services.changes(),
      secrets: this.secrets.changes(),
    };
  }

  /** Adds what another thread has counted and observed. */
  add(changes: MetricChanges): void {
    for (const [name, more] of changes.counters)
      (this.counters[name as keyof typeof counters] as Tally).add(more);
    for (const [name, more] of changes.histograms)
      (this.histograms[name as keyof typeof histograms] as Distribution).add(more);
    this.#goStats.addAll(changes.go);
    this.services.add(changes.services);
    this.secrets.add(changes.secrets);
  }

  /** All of them as of now, for reports in other forms. */
  values(): Promise<MetricObjectWithValues<MetricValue<string>>[]> {
    return this.#registry.getMetricsAsJSON();
  }

  /** The gauges and what the process uses, by name; the readings that begin anew with each scrape are left to scrapers. */
  figures(): Readonly<Record<string, number>> {
    const own = [...this.#readers].map(([name, read]) => [`authbridge_${name}`, read()] as const);
    const { process_resident_memory_bytes: resident, nodejs_heap_size_used_bytes: heap } =
      this.#process;
    return {
      ...Object.fromEntries(own),
      process_resident_memory_bytes: resident(),
      nodejs_heap_size_used_bytes: heap(),
    };
  }

  /** The text of `/metrics`. */
  render(): Promise<string> {
    return this.#registry.metrics();
  }

  /** The Go program's maps, and ours of handshakes where there were any. */
  goStats(): GoStats & TlsStats {
    const bridge = this.counters.bridge_handshakes_total.totals();
    const client = this.counters.client_handshakes_total.totals();
    return {
      ...this.#goStats.snapshot(),
      ...(bridge === undefined ? {} : { tls_bridge: bridge }),
      ...(client === undefined ? {} : { mtls: client }),
    };
  }

  /** Stops what runs by itself; counting and rendering still work. */
  close(): void {
    this.#process.close();
    this.#readers.clear();
  }

  #applied(): void {
    const seconds = Date.now() / 1_000;
    this.gauge("reload_last_success_timestamp_seconds", () => seconds);
  }

  #declareGauge(
    name: string,
    help: string,
    read: () => number | undefined | Promise<number | undefined>,
  ): void {
    const gauge: Gauge = new Gauge({
      name,
      help,
      registers: [this.#registry],
      async collect(): Promise<void> {
        gauge.set((await read()) ?? 0);
      },
    });
  }

  #info(name: keyof typeof infos, labels: Readonly<Record<string, string>>): void {
    const { help, labels: labelNames } = infos[name];
    const registers = [this.#registry];
    new Gauge({ name: `authbridge_${name}`, help, labelNames, registers }).set(labels, 1);
  }

  #bounded(value: string): string {
    if (this.#openValues.has(value)) return value;
    if (this.#openValues.size >= maxOpenValues) return "other";
    this.#openValues.add(value);
    return value;
  }
}
