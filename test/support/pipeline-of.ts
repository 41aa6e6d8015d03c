/** A pipeline of plugins that a test makes up. */
import { pino } from "pino";
import { Pipeline, type PipelineOptions } from "../../src/pipeline/pipeline.ts";
import type { Plugin } from "../../src/pipeline/plugin.ts";
import type { Step } from "../../src/pipeline/step-runner.ts";

/** A plugin, or a step that differs from an enforcing one at stage `request` without bodies. */
export type StepShape = Plugin | (Partial<Step> & { readonly plugin: Plugin });

/** The pipeline, outbound with a default of deny; its steps are `step-0`, `step-1`, … */
export function pipelineOf(
  shapes: readonly StepShape[],
  over: Partial<PipelineOptions> = {},
): Pipeline {
  const steps = shapes.map((shape, index): Step => {
    const given = "plugin" in shape ? shape : { plugin: shape };
    return { name: `step-${index}`, onError: "enforce", stages: ["request"], body: {}, ...given };
  });
  const log = pino({ level: "silent" });
  return new Pipeline(steps, { direction: "outbound", otherwise: "deny", log, ...over });
}
