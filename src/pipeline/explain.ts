/** What a chain would do with a message: every step asked in order, nothing attached, recorded or sent. */
import { messageOf } from "../errors.ts";
import type { RequestContext } from "./context.ts";
import { consents, type Decision, type DecisionDetails, type Denial } from "./decision.ts";
import type { Pipeline } from "./pipeline.ts";
import type { Step } from "./step-runner.ts";

/** What one step said, or would do. */
export interface ExplainedStep {
  readonly plugin: string;
  readonly action: Decision["action"];
  readonly reason: string;
  readonly details?: DecisionDetails;
  /** True under `on_error: observe`: what the step says changes nothing. */
  readonly observed?: true;
}

/** A credential that the chain would attach, in words. */
export interface ExplainedCredential {
  readonly plugin: string;
  readonly attaches: string;
}

/** The course of one message through a chain. */
export interface Explanation {
  readonly verdict: "allow" | "deny" | "respond";
  /** The plugin whose word counted; absent where `pipeline.<direction>.default` did. */
  readonly plugin?: string;
  readonly denial?: Denial;
  readonly steps: readonly ExplainedStep[];
  readonly credentials: readonly ExplainedCredential[];
}

/** Asks the chain about a message that nobody sends. Plugins that fault refuse, as they do in earnest. */
export async function explainRequest(
  pipeline: Pipeline,
  context: RequestContext,
  { deferDefault = false }: { readonly deferDefault?: boolean } = {},
): Promise<Explanation> {
  const steps: ExplainedStep[] = [];
  let consenting: string | undefined;
  for (const step of pipeline.steps) {
    if (step.plugin.onRequest === undefined || !step.stages.includes(context.stage)) continue;
    const decision = await ask(step, context);
    const observed = step.onError === "observe";
    steps.push(explained(step, decision, observed));
    if (observed) continue;
    if (decision.action === "deny") {
      const denial = { ...decision.denial, plugin: step.name };
      return { verdict: "deny", plugin: step.name, denial, steps, credentials: [] };
    }
    if (decision.action === "respond")
      return { verdict: "respond", plugin: step.name, steps, credentials: [] };
    if (consents(decision)) consenting ??= step.name;
  }
  const credentials = context.stage === "connect" ? [] : credentialsOf(pipeline, context);
  // A credential that is attached is a consent: the operator named the destination for it.
  consenting ??= credentials[0]?.plugin;
  if (consenting !== undefined) return { verdict: "allow", plugin: consenting, steps, credentials };
  if (pipeline.otherwise === "allow" || deferDefault)
    return { verdict: "allow", steps, credentials };
  return { verdict: "deny", denial: pipeline.defaultDenial(context), steps, credentials: [] };
}

function credentialsOf(pipeline: Pipeline, context: RequestContext): ExplainedCredential[] {
  return pipeline.steps.flatMap(({ name, plugin, onError }) => {
    if (plugin.onCredential === undefined || onError === "observe") return [];
    const attaches =
      plugin.describeCredential === undefined
        ? "may attach a credential"
        : plugin.describeCredential(context);
    return attaches === undefined ? [] : [{ plugin: name, attaches }];
  });
}

async function ask(step: Step, context: RequestContext): Promise<Decision> {
  try {
    const view = step.onError === "observe" ? context.shadow() : context;
    const decision = await step.plugin.onRequest?.(view);
    return decision ?? { action: "skip", reason: "nothing_to_say" };
  } catch (error) {
    const denial = { code: "plugin.fault", message: messageOf(error) };
    return { action: "deny", reason: "plugin_fault", denial };
  }
}

function explained(step: Step, decision: Decision, observed: boolean): ExplainedStep {
  const { action, reason, details } = decision;
  return {
    plugin: step.name,
    action,
    reason,
    ...(details === undefined ? {} : { details }),
    ...(observed ? { observed: true as const } : {}),
  };
}
