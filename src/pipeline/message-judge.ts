/** Asks the plugins of a pipeline about the messages of an upgraded connection. */
import type { RequestContext } from "./context.ts";
import type { Decision, Denial } from "./decision.ts";
import type { HeardMessage, Message } from "./plugin.ts";
import type { Step, StepRunner, HookCall } from "./step-runner.ts";

/** Records that one connection leaves: it may have any number of messages. */
const maxRecorded = 64;

/** Passes a message to those that hear it. Never throws. */
export type Hear = (message: HeardMessage) => void;

/** The steps that judge messages, in the order of the file. */
export class MessageJudge {
  readonly #calls: readonly HookCall[];
  readonly #hearing: readonly Step[];
  readonly #runner: StepRunner;

  constructor(steps: readonly Step[], runner: StepRunner) {
    this.#hearing = steps.filter(({ plugin }) => plugin.hearsMessages !== undefined);
    this.#calls = steps.flatMap((step) => (step.plugin.onMessage === undefined ? [] : [{ step }]));
    this.#runner = runner;
  }

  /** Whether some plugin has to see what the client sends on this connection once it was upgraded. */
  areNeeded(context: RequestContext): boolean {
    return this.#calls.some(({ step }) => isAsked(step, context));
  }

  /** Who hears what both sides say on this connection; undefined where nobody does. */
  hearers(context: RequestContext): Hear | undefined {
    const steps = new Set(
      this.#hearing.filter(({ plugin }) => plugin.hearsMessages?.(context) === true),
    );
    if (steps.size === 0) return undefined;
    return (message) => {
      for (const step of steps) {
        try {
          step.plugin.onHeard?.(step.onError === "observe" ? context.shadow() : context, message);
        } catch {
          // It decides nothing: the connection goes on without it.
          steps.delete(step);
        }
      }
    };
  }

  /** The refusal of one message, or undefined; a promise only where a step has to be waited for. */
  judge(
    context: RequestContext,
    message: Message,
  ): Denial | undefined | Promise<Denial | undefined> {
    return this.#runner.run<Denial | undefined>({
      calls: this.#calls,
      context,
      phase: "request",
      ask: ({ step }, view) =>
        isAsked(step, view) ? step.plugin.onMessage?.(view, message) : undefined,
      take: (decision) => denialOf(decision, context),
      end: () => undefined,
    });
  }
}

function isAsked({ plugin }: Step, context: RequestContext): boolean {
  return plugin.needsMessages?.(context) ?? true;
}

function denialOf(decision: Decision, { invocations }: RequestContext): Denial | undefined {
  // The first ones say how the connection came about, the last one how it ended.
  const surplus = invocations.length - maxRecorded;
  if (surplus > 0) invocations.splice(maxRecorded - 1, surplus);
  if (decision.action === "deny") return decision.denial;
  if (decision.action !== "respond") return undefined;
  return { code: "plugin.fault", message: "a message cannot be answered in place of the origin" };
}
