/** Follows a message that nobody sends through a pipeline: what each step says, whose word counts, what would be attached. */
import { messageOf } from "../errors.ts";
import type { RequestContext } from "./context.ts";
import {
  consents,
  type Decision,
  type DecisionDetails,
  type Denial,
  modify,
  type Reply,
} from "./decision.ts";
import type { Answer } from "./plugin.ts";
import { askHook, type Pass, type Step, type Turn } from "./step-runner.ts";

/** What one step said, or would do. */
export interface ExplainedStep {
  readonly plugin: string;
  readonly action: Decision["action"];
  readonly reason: string;
  readonly details?: DecisionDetails;
  /** True under `on_error: observe`: what the step says changes nothing. */
  readonly observed?: true;
  /** Why the step could not answer; clients are not told. */
  readonly fault?: string;
}

/** A credential that the pipeline would attach, in words. */
export interface ExplainedCredential {
  readonly plugin: string;
  readonly attaches: string;
}

/** The course of one message through a pipeline. */
export interface Explanation {
  readonly verdict: "allow" | "deny" | "respond";
  /** The step whose word counted; absent where `pipeline.<direction>.default` did. */
  readonly by?: ExplainedStep;
  readonly denial?: Denial;
  /** Nobody consented to a connection whose requests are judged one by one. */
  readonly isDeferred?: true;
  readonly steps: readonly ExplainedStep[];
  readonly credentials: readonly ExplainedCredential[];
}

/** A verdict of a pipeline, as far as it is explained. */
interface Outcome {
  readonly denial?: Denial;
  readonly reply?: Reply;
  readonly isDeferred?: true;
}

const silence: Decision = { action: "skip", reason: "nothing_to_say" };

/** Only listens: what a step counts for is the pipeline's business. */
export class Rehearsal {
  readonly #steps: ExplainedStep[] = [];
  readonly #credentials: ExplainedCredential[] = [];
  #consenting: ExplainedStep | undefined;
  /** The step that was asked last. */
  #step: Step | undefined;
  #said: Answer;
  #fault: string | undefined;
  #attaches: string | undefined;

  /** The same pass, whose plugins are asked as they want to be when nothing is sent. */
  follow<End>(pass: Pass<End>): Pass<End> {
    return {
      ...pass,
      ask: (turn, view) => this.#ask(turn, view),
      take: (counted) => {
        this.#hear(counted);
        return pass.take(counted);
      },
    };
  }

  /** The whole course, once the pipeline has come to its verdict. */
  explanation({ denial, reply, isDeferred }: Outcome): Explanation {
    const steps = this.#steps;
    const last = steps.at(-1);
    if (denial !== undefined) {
      const by = denial.plugin === undefined ? undefined : last;
      return { verdict: "deny", ...(by && { by }), denial, steps, credentials: [] };
    }
    if (reply !== undefined)
      return { verdict: "respond", ...(last && { by: last }), steps, credentials: [] };
    return {
      verdict: "allow",
      ...(this.#consenting && { by: this.#consenting }),
      ...(isDeferred && { isDeferred }),
      steps,
      credentials: this.#credentials,
    };
  }

  async #ask(turn: Turn, view: RequestContext): Promise<Answer> {
    this.#step = turn.step;
    this.#said = this.#fault = this.#attaches = undefined;
    try {
      this.#said = await this.#rehearsed(turn, view);
    } catch (error) {
      this.#fault = messageOf(error);
      throw error;
    }
    return this.#said;
  }

  async #rehearsed(turn: Turn, view: RequestContext): Promise<Answer> {
    const { plugin } = turn.step;
    if (turn.hook !== "onCredential")
      return plugin.rehearseRequest === undefined
        ? askHook(turn, view)
        : plugin.rehearseRequest(view);
    const described =
      plugin.describeCredential === undefined
        ? "may attach a credential"
        : await plugin.describeCredential(view);
    if (typeof described !== "string") return described;
    this.#attaches = described;
    return modify("would_attach");
  }

  #hear(counted: Decision): void {
    const step = this.#step;
    if (step === undefined) return;
    const said = this.#fault === undefined ? (this.#said ?? silence) : undefined;
    const { action, reason, details } = said ?? { action: "deny", reason: counted.reason };
    const explained: ExplainedStep = {
      plugin: step.name,
      action,
      reason,
      ...(details === undefined ? {} : { details }),
      ...(step.onError === "observe" ? { observed: true as const } : {}),
      ...(this.#fault === undefined ? {} : { fault: this.#fault }),
    };
    this.#steps.push(explained);
    if (!consents(counted)) return;
    this.#consenting ??= explained;
    if (this.#attaches !== undefined)
      this.#credentials.push({ plugin: step.name, attaches: this.#attaches });
  }
}
