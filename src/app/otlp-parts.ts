/** OpenTelemetry of the process, from the `telemetry` block; its packages are loaded only where the file asks for it. */
import { randomUUID } from "node:crypto";
import { durationMs } from "../duration.ts";
import type { Config } from "../config/presets.ts";
import { ProxyError } from "../errors.ts";
import type { OperatorFetch } from "../pipeline/plugin.ts";
import type { Tracing } from "../telemetry/flow-trace.ts";
import { HttpDurations } from "../telemetry/http-durations.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";

/** The way to the collector, which every generation renews: reports go where its rules for dialling say. */
export interface OtlpGate {
  readonly origin: string;
  use(fetch: OperatorFetch): void;
}

/** What the process holds. */
export interface OtlpParts extends OtlpGate {
  readonly instanceId: string;
  readonly tracing: Tracing | undefined;
  /** What is counted for the collector only. */
  readonly durations: HttpDurations | undefined;
  close(deadlineMs: number): Promise<void>;
}

/** Options of the OTLP parts of an App. */
export interface OtlpServices {
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly version: string;
  /** In a thread beside others: what it says of itself. Metrics are sent by the thread that has those of all. */
  readonly thread?: { readonly instanceId: string } | undefined;
}

/** Undefined where the file has no `telemetry.otlp`. */
export async function makeOtlpParts(
  config: Config,
  { metrics, log, version, thread }: OtlpServices,
): Promise<OtlpParts | undefined> {
  const { otlp } = config.telemetry;
  if (otlp === undefined) return undefined;
  const { Otlp } = await import("../telemetry/otlp.ts");
  const instanceId = randomUUID();
  const durations = otlp.metrics ? new HttpDurations() : undefined;
  const base = otlp.endpoint.replace(/\/+$/, "");
  const timeoutMs = durationMs(otlp.timeout);
  let fetch: OperatorFetch | undefined;
  let lastProblem: string | undefined;
  const made = new Otlp({
    version,
    resource: resourceOf(otlp, version, thread?.instanceId ?? instanceId),
    sampleRatio: otlp.sample_ratio,
    isTracing: otlp.traces,
    timeoutMs,
    metricsIntervalMs:
      otlp.metrics && thread === undefined ? durationMs(otlp.metrics_interval) : undefined,
    metrics: async () => [...(await metrics.values()), ...((await durations?.values()) ?? [])],
    send: async (signal, body) => {
      if (fetch === undefined) throw new ProxyError("upstream.unreachable", "not started yet");
      const { status } = await fetch(`${base}/v1/${signal}`, {
        method: "POST",
        headers: { ...otlp.headers, "Content-Type": "application/x-protobuf" },
        body,
        timeoutMs,
      });
      if (status < 200 || status > 299) {
        throw new ProxyError("upstream.bad-response", `the collector answered ${status}`);
      }
    },
    onSent: (signal, problem) => {
      const result = problem === undefined ? "ok" : "failed";
      metrics.counters.otlp_reports_total.of(signal, result).value += 1;
      // An unreachable collector is logged once, and once more when it can be reached again.
      if (problem !== undefined && problem !== lastProblem) {
        log.warn({ signal, problem, endpoint: base }, "telemetry.otlp: report not sent");
      } else if (problem === undefined && lastProblem !== undefined) {
        log.info({ endpoint: base }, "telemetry.otlp: reports are sent again");
      }
      lastProblem = problem;
    },
  });
  return {
    instanceId,
    origin: new URL(otlp.endpoint).origin,
    use: (next) => {
      fetch = next;
    },
    tracing: made.tracing,
    durations,
    close: (deadlineMs) => made.close(deadlineMs),
  };
}

/** What tells this process from others; the file has the last word. */
function resourceOf(
  otlp: NonNullable<Config["telemetry"]["otlp"]>,
  version: string,
  instanceId: string,
): Readonly<Record<string, string>> {
  return {
    "service.name": otlp.service_name,
    "service.version": version,
    "service.instance.id": instanceId,
    ...otlp.resource_attributes,
  };
}
