/**
 * `pipeline`: the plugins of each direction, in order.
 */
import { z } from "zod";
import { listOf, words } from "./value-schema.ts";
import { guarded } from "../yaml/empty-values.ts";

const onError = z
  .enum(["enforce", "observe", "off"])
  .default("enforce")
  .describe(
    "What a denial or fault of the plugin does: enforce refuses, observe records and passes, off leaves the plugin out. Default enforce.",
  );

const pluginName = words().describe("Name of the plugin.");

/** One entry with every key; a bare name is the same as `{ name }`. */
export const pluginEntrySchema = z.strictObject({
  name: pluginName,
  id: z
    .union([z.string(), z.number().transform(String)], { error: "must be a text" })
    .optional()
    .describe("A label that tells two entries of one plugin apart. Optional."),
  on_error: onError,
  config: z
    .record(z.string(), z.unknown())
    .optional()
    .describe(
      "Settings of the plugin, checked by the plugin itself. null is the same as leaving it out.",
    ),
  allow_weakened_auth: z
    .boolean()
    .default(false)
    .describe("Accept settings that the plugin marks as weakening authentication. Default false."),
});

/** One entry of a pipeline after parsing. */
export type PluginEntry = z.output<typeof pluginEntrySchema>;

const bareEntry = pluginName.transform((name): PluginEntry => ({
  name,
  on_error: "enforce",
  allow_weakened_auth: false,
}));

const pipelineSchema = z.strictObject({
  plugins: listOf(
    z.union([bareEntry, pluginEntrySchema], {
      error: "must be the name of a plugin or a mapping with a name",
    }),
    100,
  ).describe(
    "Plugins in the order in which a request meets them. Default [], which passes everything.",
  ),
  default: guarded(
    z
      .enum(["allow", "deny"])
      .default("allow")
      .describe("Verdict when no plugin said anything but skip. Default allow."),
  ),
});

/** The `pipeline` block. */
export const pipelinesSchema = z.strictObject({
  inbound: pipelineSchema
    .prefault({})
    .describe("Requests to the agent, through the reverse proxy."),
  outbound: pipelineSchema
    .prefault({})
    .describe("Requests of the agent, through the forward and transparent listeners."),
});
