/**
 * The two histograms that every OpenTelemetry dashboard for HTTP looks for, by the stable semantic conventions.
 *
 * They are for the collector only: the conventions want the server's address, and no host is a label of /metrics.
 */
import {
  type Added,
  type Attribute,
  type Buckets,
  Distribution,
  type Observed,
} from "./instruments.ts";
import { type MetricObjectWithValues, type MetricValue, Registry } from "./prom-client.ts";
import { semanticBounds } from "./bounds.ts";

/** Attributes by name; one that does not apply is left out. */
export type HttpAttributes = Readonly<Record<string, Attribute | undefined>>;

/** As the SDKs limit it: what is more has the attribute otel.metric.overflow, so the number of hosts is bounded. */
const maxSeries = 2_000;
const serverLabels = [
  "http.request.method",
  "url.scheme",
  "http.response.status_code",
  "error.type",
  "network.protocol.version",
] as const;
const clientLabels = [
  "http.request.method",
  "server.address",
  "server.port",
  "http.response.status_code",
  "error.type",
] as const;

/** Of the server's histogram, and of the client's. */
export type DurationChanges = readonly [
  server: readonly Added<Observed>[],
  client: readonly Added<Observed>[],
];

/** Made where metrics are sent to a collector. */
export class HttpDurations {
  readonly #registry = new Registry();
  readonly #server = this.#histogram("server", "Duration of HTTP server requests.", serverLabels);
  readonly #client = this.#histogram("client", "Duration of HTTP client requests.", clientLabels);

  served(attributes: HttpAttributes, seconds: number): void {
    seriesOf(this.#server, serverLabels, attributes).observe(seconds);
  }

  asked(attributes: HttpAttributes, seconds: number): void {
    seriesOf(this.#client, clientLabels, attributes).observe(seconds);
  }

  /** What was observed since this was asked last, for those of another thread. */
  changes(): DurationChanges {
    return [this.#server.changes(), this.#client.changes()];
  }

  /** Adds what another thread has observed. */
  add([server, client]: DurationChanges): void {
    this.#server.add(server);
    this.#client.add(client);
  }

  values(): Promise<MetricObjectWithValues<MetricValue<string>>[]> {
    return this.#registry.getMetricsAsJSON();
  }

  #histogram(kind: "server" | "client", help: string, labels: readonly string[]): Distribution {
    const name = `http.${kind}.request.duration`;
    return new Distribution(this.#registry, {
      name,
      help,
      labels,
      bounds: semanticBounds,
      maxSeries,
    });
  }
}

function seriesOf(
  histogram: Distribution,
  labels: readonly string[],
  attributes: HttpAttributes,
): Buckets {
  return histogram.of(...labels.map((label) => attributes[label] ?? ""));
}
