/** Runs single plugins: a fault is a refusal, a plugin under `observe` has no effect, and every verdict is recorded. */
import { messageOf } from "../errors.ts";
import type { Logger } from "../telemetry/log.ts";
import type { RequestContext, Stage } from "./context.ts";
import { type Decision, holdFrame, type Invocation, modify, type Phase, skip } from "./decision.ts";
import type { Direction } from "./flow.ts";
import type { Answer, BodyAccess, JudgedPart, Outcome, Plugin } from "./plugin.ts";
import { type Hook, tracedStep } from "./step-trace.ts";

/** Options of a runner, besides its steps. */
export interface StepRunnerOptions {
  readonly direction: Direction;
  readonly log: Logger;
  /** Called with every step's record, for counters. */
  readonly onInvocation?: (direction: Direction, invocation: Invocation) => void;
}

const finishDeadlineMs = 2_000;
/** Records that one message keeps; counters count all. */
const maxRecorded = 500;
/** A step that ran, and its context: that of the message, or a shadow of it under `observe`. */
interface Asked {
  readonly step: Step;
  readonly context: RequestContext;
  readonly view: RequestContext;
  readonly phase: Phase;
}

/** A hook of a step that is waited for. */
interface Asking {
  readonly step: Step;
  readonly settled: Promise<Decision>;
}

/** One hook of one step, as part of a pass. */
export interface HookCall {
  readonly step: Step;
  /** Absent for frames and messages, which are too many to be traced. */
  readonly hook?: Hook;
}

/** One message on its way past some steps; `End` is what becomes of it. */
export interface Pass<End, Call extends HookCall = HookCall> {
  readonly context: RequestContext;
  readonly phase: Phase;
  readonly calls: readonly Call[];
  ask(this: void, call: Call, view: RequestContext): Answer | Promise<Answer>;
  /** Called with the effective decision of a step; a returned value ends the pass. */
  take(this: void, decision: Decision): End | undefined;
  /** No step has ended the pass. */
  end(this: void): End;
}

/** Calls the hook of the step. A connection that is open has its credentials: none are fetched to judge it again. */
export function askHook({ step, hook }: HookCall, view: RequestContext): Answer | Promise<Answer> {
  if (hook === undefined) return undefined;
  const { plugin } = step;
  if (hook !== "onCredential" || !view.isOpen || plugin.describeCredential === undefined)
    return plugin[hook]?.(view);
  const described = plugin.describeCredential(view);
  return described instanceof Promise ? described.then(wouldAttach) : wouldAttach(described);
}

/** The decision of a step that says what it would attach. */
export function wouldAttach(described: string | Answer): Answer {
  return typeof described === "string" ? modify("would_attach") : described;
}

/** The steps of one pipeline, asked one at a time. */
export class StepRunner {
  readonly #options: StepRunnerOptions;
  readonly #finishSteps: readonly Step[];
  readonly #asked = new WeakMap<RequestContext, Set<Step>>();
  /** Who found what, of the steps under `observe`. */
  readonly #ownFacts = new WeakMap<object, Map<string, Step>>();
  /** What steps that are told of the end are still asked about. */
  readonly #asking = new WeakMap<RequestContext, Set<Asking>>();

  constructor(steps: readonly Step[], options: StepRunnerOptions) {
    this.#options = options;
    this.#finishSteps = steps.filter((step) => step.plugin.onFinish !== undefined).reverse();
  }

  /** Whether any step has run for this message, so that {@link finish} has `onFinish` to call. */
  hasAsked(context: RequestContext): boolean {
    return this.#finishSteps.length > 0 && this.#asked.has(context);
  }

  /** Asks a step outside of a pass, about a part of a body. */
  judgePart(context: RequestContext, step: Step, ask: () => JudgedPart): JudgedPart {
    const asked: Asked = { step, context, view: context, phase: "request" };
    try {
      const { passed, decision } = ask();
      return { passed, decision: decision && this.#settle(asked, decision) };
    } catch (error) {
      return { passed: [], decision: this.#fault(asked, error) };
    }
  }

  /** Calls `onFinish` of every plugin that ran for this message. Once; never throws. */
  async finish(context: RequestContext, outcome: Outcome): Promise<void> {
    const asked = this.#asked.get(context);
    if (asked === undefined) return;
    this.#asked.delete(context);
    for (const step of this.#finishSteps) {
      if (!asked.has(step)) continue;
      await this.#finishStep(step, context, outcome);
    }
  }

  /** Runs the steps of a pass one after the other; returns a promise only where a step does: most do not. */
  run<End, Call extends HookCall = HookCall>(pass: Pass<End, Call>, from = 0): End | Promise<End> {
    const { calls, context } = pass;
    for (let at = from; at < calls.length; at += 1) {
      const call = calls[at];
      if (call === undefined) break;
      const { trace } = context;
      const said =
        trace === undefined || call.hook === undefined
          ? this.#ask(pass, call)
          : tracedStep({ trace, name: call.step.name, hook: call.hook }, () =>
              this.#ask(pass, call),
            );
      if (said instanceof Promise)
        return said.then((decision) => pass.take(decision) ?? this.run(pass, at + 1));
      const end = pass.take(said);
      if (end !== undefined) return end;
    }
    return pass.end();
  }

  /** Runs one step: a fault is a refusal, `observe` mutes it, and it is always recorded. */
  #ask<End, Call extends HookCall>(
    pass: Pass<End, Call>,
    call: Call,
  ): Decision | Promise<Decision> {
    const { context, phase } = pass;
    if (context.cancellation.aborted) return cancelledDecision;
    const { step } = call;
    this.#markAsked(step, context);
    const view = step.onError === "observe" ? context.shadow() : context;
    const asked: Asked = { step, context, view, phase };
    let said: Answer | PromiseLike<Answer>;
    try {
      said = pass.ask(call, view);
    } catch (error) {
      return this.#fault(asked, error);
    }
    // Any thenable is awaited: an external plugin may use a Promise of another kind.
    if (said === undefined || !("then" in said)) return this.#settle(asked, said);
    const settled = Promise.resolve(said).then(
      (answer) => this.#settle(asked, answer),
      (error: unknown) => this.#fault(asked, error),
    );
    if (step.plugin.onFinish !== undefined) this.#markAsking(context, { step, settled });
    return settled;
  }

  #fault(asked: Asked, error: unknown): Decision {
    const { step, context } = asked;
    this.#options.log.error(
      { flow: context.flow.id, plugin: step.name, err: error },
      "plugin fault",
    );
    return this.#settle(asked, faultDecision());
  }

  /** The effective decision for a result, once it has resolved. */
  #settle(asked: Asked, decision: Answer): Decision {
    const { step, context, view } = asked;
    const observed = view !== context;
    if (observed) {
      if (view.hasFacts) this.#shareFacts(step, view, context);
      context.sessionId ??= view.sessionId;
    }
    if (decision === undefined) return silent;
    if (decision === holdFrame) return observed ? silent : decision;
    this.#record(asked, decision);
    const { action, reason } = decision;
    // Neither a refusal nor a consent.
    if (observed) return { action: action === "skip" ? action : "observe", reason };
    return action === "deny"
      ? { ...decision, denial: { ...decision.denial, plugin: step.name } }
      : decision;
  }

  /** What a step under `observe` reads is known to others; what it makes of their facts is not: they judge what is sent. */
  #shareFacts(step: Step, view: RequestContext, { facts }: RequestContext): void {
    const own = this.#ownFacts.get(facts) ?? new Map<string, Step>();
    for (const [name, fact] of view.facts) {
      if (facts.has(name) && own.get(name) !== step) continue;
      facts.set(name, fact);
      this.#ownFacts.set(facts, own.set(name, step));
    }
  }

  #record({ step, context, view, phase }: Asked, decision: Decision): void {
    const observed = view !== context;
    const refused = decision.action === "deny" || decision.action === "respond";
    const invocation: Invocation = {
      plugin: step.name,
      action: decision.action === "respond" ? "modify" : decision.action,
      phase,
      reason: decision.reason,
      cause: decision.cause,
      path: context.path === "" ? undefined : context.pathname,
      details: decision.details,
      shadow: observed && refused ? true : undefined,
    };
    // A stream may have any number of frames; the refusal that ends it is always recorded.
    if (refused || context.invocations.length < maxRecorded) context.invocations.push(invocation);
    this.#options.onInvocation?.(this.#options.direction, invocation);
  }

  /** Records that a step was not asked about something that it wanted to see. */
  notAsked(step: Step, context: RequestContext, phase: Phase): void {
    this.#record({ step, context, view: context, phase }, skip("not_shown"));
  }

  /** Remembers to call `onFinish` of this step. */
  #markAsked(step: Step, context: RequestContext): void {
    if (this.#finishSteps.length === 0) return;
    const asked = this.#asked.get(context);
    if (asked === undefined) this.#asked.set(context, new Set([step]));
    else asked.add(step);
  }

  #markAsking(context: RequestContext, asking: Asking): void {
    const all = this.#asking.get(context) ?? new Set();
    this.#asking.set(context, all.add(asking));
    const done = (): boolean => all.delete(asking);
    asking.settled.then(done, done);
  }

  /** What a step does in a hook that is still under way is undone as what it did before. */
  async #finishStep(step: Step, context: RequestContext, outcome: Outcome): Promise<void> {
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(), finishDeadlineMs);
    try {
      const expired = new Promise<void>((resolve) => {
        deadline.signal.addEventListener("abort", () => resolve(), { once: true });
      });
      const view = step.onError === "observe" ? context.shadow() : context;
      const finish = () => step.plugin.onFinish?.(view, outcome, deadline.signal);
      const asking = [...(this.#asking.get(context) ?? [])].filter((one) => one.step === step);
      const settled = asking.map((one) => one.settled);
      const finished = settled.length === 0 ? finish() : Promise.allSettled(settled).then(finish);
      await Promise.race([finished, expired]);
    } catch (error) {
      this.#options.log.warn(
        { flow: context.flow.id, plugin: step.name, error: messageOf(error) },
        "plugin finish failed",
      );
    } finally {
      clearTimeout(timer);
    }
  }
}

/** The effect of a refusal or a fault of one step. `off` steps are never built. */
export type OnError = "enforce" | "observe";

/** One configured plugin in its place. */
export interface Step {
  readonly name: string;
  readonly plugin: Plugin;
  readonly onError: OnError;
  readonly stages: readonly Stage[];
  readonly body: BodyAccess;
  /** Its plugin records and refuses nothing. */
  readonly observes?: boolean;
}

/** Whether the step can refuse, so that a body it cannot read must not pass. */
export function isGuard({ onError, observes }: Pick<Step, "onError" | "observes">): boolean {
  return onError === "enforce" && observes !== true;
}

/** The decision of a step that returned nothing; it is not recorded. */
const silent: Decision = Object.freeze({ action: "skip", reason: "silent" });

/** A fault of a plugin, as its decision: a check that fails is a refusal. */
function faultDecision(): Decision {
  return {
    action: "deny",
    reason: "plugin_fault",
    denial: { code: "plugin.fault", message: "the request could not be checked" },
  };
}

/** The decision where the client has disconnected; no response is sent. */
const cancelledDecision: Decision = Object.freeze({
  action: "deny",
  reason: "cancelled",
  denial: { code: "pipeline.cancelled", message: "the client went away" },
});
