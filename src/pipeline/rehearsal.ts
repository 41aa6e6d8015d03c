/** Runs a hypothetical message through a pipeline: the verdict of each step, and what would be attached. */
import { messageOf } from "../errors.ts";
import type { RequestContext } from "./context.ts";
import {
  consents,
  type Decision,
  type DecisionDetails,
  type Denial,
  type Reply,
} from "./decision.ts";
import type { Answer } from "./plugin.ts";
import { askHook, type HookCall, type Pass, type Step, wouldAttach } from "./step-runner.ts";

/** The verdict of one step, or what it would do. */
export interface ExplainedStep {
  readonly plugin: string;
  readonly action: Decision["action"];
  readonly reason: string;
  readonly details?: DecisionDetails;
  /** True under `on_error: observe`: the verdict of the step has no effect. */
  readonly observed?: true;
  /** Why the step failed; never sent to clients. */
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
  /** The step that decided; absent where `pipeline.<direction>.default` did. */
  readonly by?: ExplainedStep;
  readonly denial?: Denial;
  /** No step consented to a connection whose requests are judged one by one. */
  readonly isDeferred?: true;
  readonly steps: readonly ExplainedStep[];
  readonly credentials: readonly ExplainedCredential[];
}

const silence: Decision = { action: "skip", reason: "nothing_to_say" };

/** A verdict of a pipeline, as far as it is explained. */
interface Outcome extends Pick<Explanation, "denial" | "isDeferred"> {
  readonly reply?: Reply;
}

/** What a step was asked and has done about it. */
interface Asked {
  readonly step: Step;
  said?: Answer;
  fault?: string;
  attaches?: string;
}

/** Only records: the pipeline decides how a step counts. */
export class Rehearsal {
  readonly #steps: ExplainedStep[] = [];
  readonly #credentials: ExplainedCredential[] = [];
  #consenting: ExplainedStep | undefined;
  #asked: Asked | undefined;

  /** The same pass, with the hooks of plugins for hypothetical messages. */
  follow<End>(pass: Pass<End>): Pass<End> {
    return {
      ...pass,
      ask: (call, view) => this.#ask(call, view),
      take: (counted) => {
        if (this.#asked !== undefined) this.#hear(this.#asked, counted);
        return pass.take(counted);
      },
    };
  }

  /** The whole course, once the pipeline has come to its verdict. */
  explanation({ denial, reply, isDeferred }: Outcome): Explanation {
    const steps = this.#steps;
    const isAllowed = denial === undefined && reply === undefined;
    const isByDefault = denial !== undefined && denial.plugin === undefined;
    const by = isAllowed ? this.#consenting : isByDefault ? undefined : steps.at(-1);
    return {
      verdict: isAllowed ? "allow" : denial === undefined ? "respond" : "deny",
      ...(by && { by }),
      ...(denial && { denial }),
      ...(isDeferred && { isDeferred }),
      steps,
      credentials: isAllowed ? this.#credentials : [],
    };
  }

  async #ask(call: HookCall, view: RequestContext): Promise<Answer> {
    const asked: Asked = (this.#asked = { step: call.step });
    try {
      return (asked.said = await rehearsed(call, view, asked));
    } catch (error) {
      asked.fault = messageOf(error);
      throw error;
    }
  }

  #hear({ step, said = silence, fault, attaches }: Asked, counted: Decision): void {
    const { action, reason, details } =
      fault === undefined ? said : { ...counted, action: "deny" as const };
    const explained: ExplainedStep = {
      plugin: step.name,
      action,
      reason,
      ...(details && { details }),
      ...(step.onError === "observe" && { observed: true }),
      ...(fault !== undefined && { fault }),
    };
    this.#steps.push(explained);
    if (!consents(counted)) return;
    this.#consenting ??= explained;
    if (attaches !== undefined) this.#credentials.push({ plugin: step.name, attaches });
  }
}

async function rehearsed(call: HookCall, view: RequestContext, asked: Asked): Promise<Answer> {
  const { plugin } = call.step;
  if (call.hook !== "onCredential")
    return plugin.rehearseRequest === undefined
      ? askHook(call, view)
      : plugin.rehearseRequest(view);
  const described =
    plugin.describeCredential === undefined
      ? "may attach a credential"
      : await plugin.describeCredential(view);
  if (typeof described === "string") asked.attaches = described;
  return wouldAttach(described);
}
