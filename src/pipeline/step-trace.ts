/** One step of a pipeline as a span of the message's trace. */
import type { FlowTrace } from "../telemetry/flow-trace.ts";
import type { Decision } from "./decision.ts";

/** The hooks whose decisions are spans; frames of a stream are too many. */
export type Hook = "onRequest" | "onCredential" | "onResponse";

/** What a span is about. */
export interface StepSpan {
  readonly trace: FlowTrace;
  /** The plugin's name. */
  readonly name: string;
  readonly hook: Hook;
}

const spanNames = {
  onRequest: "decision",
  onCredential: "credential",
  onResponse: "answer",
} as const satisfies Record<Hook, string>;

/** Runs the step and adds its duration and verdict to the trace. */
export function tracedStep(
  { trace, name, hook }: StepSpan,
  ask: () => Decision | Promise<Decision>,
): Decision | Promise<Decision> {
  const startedAt = performance.now();
  const tell = (decision: Decision): Decision => {
    const { action, reason, cause } = decision;
    trace.part(`${spanNames[hook]} ${name}`, startedAt, {
      "authbridge.plugin": name,
      "authbridge.action": action,
      "authbridge.reason": reason,
      ...(cause === undefined ? {} : { "authbridge.cause": cause }),
    });
    return decision;
  };
  const said = ask();
  return said instanceof Promise ? said.then(tell) : tell(said);
}
