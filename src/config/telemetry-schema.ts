/**
 * `telemetry`: where traces and metrics are sent, besides the log and `/metrics`.
 */
import { z } from "zod";
import { duration, words } from "./value-schema.ts";
import { readWhere } from "../yaml/idle-keys.ts";

const endpoint = z
  .url({
    protocol: /^https?$/,
    error: 'must be an http or https URL such as "http://collector:4318"',
  })
  .refine((text) => !/[?#@]/.test(text), { error: "must have no query, fragment or user" });

const otlpSchema = z.strictObject({
  endpoint: endpoint.describe(
    "Base URL of an OTLP/HTTP receiver; /v1/traces and /v1/metrics are added to it. Protobuf is sent.",
  ),
  headers: z
    .record(z.string().regex(/^[\w-]+$/, { error: "must be a field name" }), z.string())
    .default({})
    .describe("Fields of every report, such as Authorization. Default {}."),
  service_name: words()
    .default("authbridge-proxy")
    .describe("service.name of this process. Default authbridge-proxy."),
  resource_attributes: z
    .record(words(), z.string())
    .default({})
    .describe("More attributes of the resource, such as k8s.pod.name. Default {}."),
  traces: z.boolean().default(true).describe("Send spans. Default true."),
  sample_ratio: readWhere(
    z
      .number()
      .min(0)
      .max(1)
      .default(1)
      .describe(
        "Share of the traces that begin here which is recorded; a traceparent that says so itself is obeyed. Default 1.",
      ),
    "with traces: false",
    ({ traces }) => traces === true,
  ),
  metrics: z.boolean().default(true).describe("Send the metrics of /metrics. Default true."),
  metrics_interval: readWhere(
    duration({ minMs: 100 })
      .default("60s")
      .describe("Time between two reports of metrics. Default 60s."),
    "with metrics: false",
    ({ metrics }) => metrics === true,
  ),
  timeout: duration().default("10s").describe("Time for one report. Default 10s."),
});

/** The `telemetry` block. */
export const telemetrySchema = z.strictObject({
  otlp: otlpSchema
    .optional()
    .describe("OpenTelemetry over OTLP/HTTP. The block turns it on. Restart to change."),
});
