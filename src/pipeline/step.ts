/** One configured plugin in its place, and what counts where it says nothing or fails. */
import type { Stage } from "./context.ts";
import type { Decision } from "./decision.ts";
import type { BodyAccess, Plugin } from "./plugin.ts";

/** How a refusal or a fault of one step counts. `off` steps are never built. */
export type OnError = "enforce" | "observe";

/** One configured plugin in its place. */
export interface Step {
  readonly name: string;
  readonly plugin: Plugin;
  readonly onError: OnError;
  readonly stages: readonly Stage[];
  readonly body: BodyAccess;
}

/** What a step is taken to have said that said nothing; it is not recorded. */
export const silent: Decision = Object.freeze({ action: "skip", reason: "silent" });

/** A fault of a plugin, as its decision: a check that fails is a refusal. */
export function faultDecision(): Decision {
  return {
    action: "deny",
    reason: "plugin_fault",
    denial: { code: "plugin.fault", message: "the request could not be checked" },
  };
}

/** Nobody waits for an answer any more. */
export const cancelledDecision: Decision = Object.freeze({
  action: "deny",
  reason: "cancelled",
  denial: { code: "pipeline.cancelled", message: "the client went away" },
});
