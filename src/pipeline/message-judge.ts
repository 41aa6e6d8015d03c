/** Asks the plugins of a chain about the messages of an upgraded connection. */
import type { RequestContext } from "./context.ts";
import type { Decision, Denial } from "./decision.ts";
import type { Message } from "./plugin.ts";
import type { Step, StepRunner } from "./step-runner.ts";

/** Records that one connection leaves: it may have any number of messages. */
const maxRecorded = 64;

/** The steps that judge messages, in the order of the file. */
export class MessageJudge {
  readonly #steps: readonly Step[];
  readonly #runner: StepRunner;

  constructor(steps: readonly Step[], runner: StepRunner) {
    this.#steps = steps.filter(({ plugin }) => plugin.onMessage !== undefined);
    this.#runner = runner;
  }

  /** Some plugin might read messages. */
  get isPossible(): boolean {
    return this.#steps.length > 0;
  }

  /** Whether some plugin has to see what the client sends on this connection once it was upgraded. */
  areNeeded(context: RequestContext): boolean {
    return this.#steps.some((step) => this.#isAsked(step, context));
  }

  /** The refusal of one message, or undefined; a promise only where a step has to be waited for. */
  judge(
    context: RequestContext,
    message: Message,
  ): Denial | undefined | Promise<Denial | undefined> {
    return this.#from(0, context, message);
  }

  #isAsked({ plugin }: Step, context: RequestContext): boolean {
    return plugin.needsMessages?.(context) ?? true;
  }

  #from(
    first: number,
    context: RequestContext,
    message: Message,
  ): Denial | undefined | Promise<Denial | undefined> {
    for (let at = first; at < this.#steps.length; at += 1) {
      const step = this.#steps[at];
      if (step === undefined) break;
      const said = this.#runner.guard(step, context, "request", (view) =>
        this.#isAsked(step, view) ? step.plugin.onMessage?.(view, message) : undefined,
      );
      if (said instanceof Promise) {
        return said.then((decision) => {
          const denial = this.#denialOf(decision, context);
          return denial ?? this.#from(at + 1, context, message);
        });
      }
      const denial = this.#denialOf(said, context);
      if (denial !== undefined) return denial;
    }
    return undefined;
  }

  #denialOf(decision: Decision, { invocations }: RequestContext): Denial | undefined {
    // The first ones say how the connection came about, the last one how it ended.
    const surplus = invocations.length - maxRecorded;
    if (surplus > 0) invocations.splice(maxRecorded - 1, surplus);
    if (decision.action === "deny") return decision.denial;
    if (decision.action !== "respond") return undefined;
    return { code: "plugin.fault", message: "a message cannot be answered in place of the origin" };
  }
}
