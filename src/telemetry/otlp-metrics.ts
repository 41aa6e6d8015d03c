/** The metrics of `/metrics` in the model of OTLP: the same names, labels and buckets. */
import { ValueType } from "@opentelemetry/api";
import type { Resource } from "@opentelemetry/resources";
import type { DataPoint, Histogram, MetricData, ResourceMetrics } from "@opentelemetry/sdk-metrics";
import type { MetricObjectWithValues, MetricValue } from "./prom-client.ts";

type PromMetric = MetricObjectWithValues<MetricValue<string>>;
type Sample = PromMetric["values"][number] & { readonly metricName?: string };

/** What a report is made with; times in milliseconds since the epoch. */
export interface ReportFrame {
  readonly resource: Resource;
  readonly scope: { readonly name: string; readonly version: string };
  readonly startedAt: number;
  readonly now: number;
}

// Members of enums of sdk-metrics, which is not loaded for two numbers.
const cumulative = 1;
const pointType = { histogram: 0, gauge: 2, sum: 3 } as const;

/** A report of all of them. */
export function resourceMetricsOf(
  metrics: readonly PromMetric[],
  frame: ReportFrame,
): ResourceMetrics {
  const { resource, scope } = frame;
  return {
    resource,
    scopeMetrics: [{ scope, metrics: metrics.flatMap((metric) => metricOf(metric, frame) ?? []) }],
  };
}

function metricOf(metric: PromMetric, frame: ReportFrame): MetricData | undefined {
  const { name, help, type } = metric;
  const descriptor = { name, description: help, unit: unitOf(name), valueType: ValueType.DOUBLE };
  const shared = { descriptor, aggregationTemporality: cumulative };
  // prom-client declares `type` as an enum of numbers and fills it with words.
  const samples = metric.values as readonly Sample[];
  switch (String(type)) {
    case "counter":
      return {
        ...shared,
        dataPointType: pointType.sum,
        isMonotonic: true,
        dataPoints: samples.map((sample) => pointOf(sample.labels, sample.value, frame)),
      };
    case "gauge":
      return {
        ...shared,
        dataPointType: pointType.gauge,
        dataPoints: samples.map((sample) => pointOf(sample.labels, sample.value, frame)),
      };
    case "histogram":
      return {
        ...shared,
        dataPointType: pointType.histogram,
        dataPoints: histogramsOf(samples, frame),
      };
    default:
      // Summaries: this process has none.
      return undefined;
  }
}

/** None where the name says no unit: exporters for Prometheus append `_ratio` to a gauge whose unit is 1. */
function unitOf(name: string): string {
  if (/_seconds(?:_total)?$|\.duration$/.test(name)) return "s";
  return /_bytes(?:_total)?$/.test(name) ? "By" : "";
}

function pointOf<T>(
  labels: Sample["labels"],
  value: T,
  { startedAt, now }: ReportFrame,
): DataPoint<T> {
  return {
    startTime: hrTime(startedAt),
    endTime: hrTime(now),
    // In Prometheus an empty label is none; here it would be an attribute.
    attributes: Object.fromEntries(Object.entries(labels).filter(([, text]) => text !== "")),
    value,
  };
}

/** Buckets of Prometheus count everything below their bound; those of OTLP count what is between two bounds. */
function histogramsOf(samples: readonly Sample[], frame: ReportFrame): DataPoint<Histogram>[] {
  const series = new Map<
    string,
    { labels: Sample["labels"]; bounds: [number, number][]; sum: number; count: number }
  >();
  for (const { labels, value, metricName } of samples) {
    const { le, ...own } = labels as Record<string, string | number>;
    const key = JSON.stringify(own);
    const one = series.get(key) ?? { labels: own, bounds: [], sum: 0, count: 0 };
    series.set(key, one);
    if (metricName?.endsWith("_sum") === true) one.sum = value;
    else if (metricName?.endsWith("_count") === true) one.count = value;
    else if (le !== "+Inf") one.bounds.push([Number(le), value]);
  }
  return [...series.values()].map(({ labels, bounds, sum, count }) => {
    bounds.sort(([one], [other]) => one - other);
    const below = bounds.map(([, upTo], index) => upTo - (bounds[index - 1]?.[1] ?? 0));
    const counts = [...below, count - (bounds.at(-1)?.[1] ?? 0)];
    const buckets = { boundaries: bounds.map(([bound]) => bound), counts };
    return pointOf(labels, { buckets, sum, count }, frame);
  });
}

function hrTime(ms: number): [number, number] {
  return [Math.trunc(ms / 1_000), Math.round((ms % 1_000) * 1_000_000)];
}
