/**
 * A chain of configured plugins and the Permit that only it can issue.
 *
 * Permit lives in this file because that is what makes it unforgeable: its constructor is closed by a key that
 * never leaves the module, so "default deny before any dial" is checked by the compiler and by the runtime.
 */
import type { Destination } from "../net/destination.ts";
import { messageOf } from "../errors.ts";
import type { AddressSet } from "../net/address.ts";
import type { Logger } from "../telemetry/log.ts";
import type { RequestContext, Stage } from "./context.ts";
import {
  consents,
  type Decision,
  type Denial,
  type Invocation,
  type Phase,
  type Reply,
} from "./decision.ts";
import type { Direction, Flow } from "./flow.ts";
import { answerNeedsOf, type AnswerNeeds, bodyNeedOf } from "./message-needs.ts";
import type { Answer, Frame, Outcome } from "./plugin.ts";
import type { ReplacedFrame, ResponseVerdict } from "./response-verdict.ts";
import { cancelledDecision, faultDecision, silent, type Step } from "./step.ts";
import { type Hook, tracedStep } from "./step-trace.ts";

const issuing = Symbol("issuing");

/** Proof that a pipeline let this flow speak to this destination. Without one, nothing is dialled. */
export class Permit {
  readonly #destination: Destination;
  readonly #direction: Direction;
  readonly #flowId: string;
  readonly #addressLimits: readonly AddressSet[];

  constructor(key: typeof issuing, flow: Flow, addressLimits: readonly AddressSet[] = []) {
    if (key !== issuing) throw new TypeError("a Permit is issued by a Pipeline only");
    this.#destination = flow.destination;
    this.#direction = flow.direction;
    this.#flowId = flow.id;
    this.#addressLimits = addressLimits;
  }

  get destination(): Destination {
    return this.#destination;
  }

  /** Inbound permits are for the one backend that the file names; outbound ones are vetted by address. */
  get direction(): Direction {
    return this.#direction;
  }

  get flowId(): string {
    return this.#flowId;
  }

  /** The ranges that the address dialled must be in, all of them; empty: whatever the address guard lets through. */
  get addressLimits(): readonly AddressSet[] {
    return this.#addressLimits;
  }
}

/** What a pipeline says of a request. */
export type Verdict =
  | {
      readonly permit: Permit;
      /** Nobody consented; the caller judges every request before anything is dialled. */
      readonly isDeferred?: true;
    }
  | { readonly denial: Denial }
  | { readonly reply: Reply };

/** What a chain is made with, besides its steps. */
export interface PipelineOptions {
  readonly direction: Direction;
  /** What a message is that no step allowed or changed. */
  readonly otherwise: "allow" | "deny";
  readonly log: Logger;
  /** Hears of every step's record, for counters. */
  readonly onInvocation?: (direction: Direction, invocation: Invocation) => void;
}

const finishDeadlineMs = 2_000;
const passed: ResponseVerdict = Object.freeze({ pass: true });
/** An immutable chain for one direction of one generation. */
export class Pipeline {
  readonly direction: Direction;
  readonly steps: readonly Step[];
  /** Whether the request's body must be in memory before the chain is asked. */
  readonly needsBody: (context: RequestContext) => boolean;
  /** What the chain needs of the answer to a message that it let pass. */
  readonly answerNeeds: (context: RequestContext) => AnswerNeeds;
  /** What a message is that no step allowed or changed. */
  readonly otherwise: "allow" | "deny";
  readonly #log: Logger;
  readonly #onInvocation: PipelineOptions["onInvocation"];
  readonly #requestSteps: readonly Step[];
  readonly #connectSteps: readonly Step[];
  readonly #credentialSteps: readonly Step[];
  readonly #responseSteps: readonly Step[];
  readonly #frameSteps: readonly Step[];
  readonly #finishSteps: readonly Step[];
  readonly #asked = new WeakMap<RequestContext, Set<Step>>();

  constructor(steps: readonly Step[], options: PipelineOptions) {
    this.direction = options.direction;
    this.steps = Object.freeze([...steps]);
    this.otherwise = options.otherwise;
    this.#log = options.log;
    this.#onInvocation = options.onInvocation;
    const reversed = [...steps].reverse();
    const asking = (stage: Stage): Step[] =>
      steps.filter((step) => step.plugin.onRequest !== undefined && step.stages.includes(stage));
    this.#requestSteps = asking("request");
    this.#connectSteps = asking("connect");
    this.#credentialSteps = steps.filter((step) => step.plugin.onCredential !== undefined);
    this.#responseSteps = reversed.filter((step) => step.plugin.onResponse !== undefined);
    this.#frameSteps = reversed.filter((step) => step.plugin.onFrame !== undefined);
    this.#finishSteps = reversed.filter((step) => step.plugin.onFinish !== undefined);
    this.needsBody = bodyNeedOf(steps);
    this.answerNeeds = answerNeedsOf(steps);
  }

  /** The verdict of a chain that has no step to ask; undefined where {@link runRequest} must be awaited. */
  immediate(context: RequestContext): Verdict | undefined {
    const isEmpty = this.#requestSteps.length === 0 && this.#credentialSteps.length === 0;
    return isEmpty && this.otherwise === "allow" && context.stage === "request"
      ? { permit: this.#permit(context) }
      : undefined;
  }

  /**
   * Asks the chain about a request (or, at the connect stage, about a host) and issues the Permit.
   *
   * `deferDefault` is for connections that the bridge opens: a default of deny then falls on each of their requests,
   * which are judged before anything is dialled, and not on the CONNECT, at which credential plugins have no say.
   */
  async runRequest(
    context: RequestContext,
    { deferDefault = false }: { readonly deferDefault?: boolean } = {},
  ): Promise<Verdict> {
    const judging = context.stage === "connect" ? this.#connectSteps : this.#requestSteps;
    const attaching = context.stage === "connect" ? [] : this.#credentialSteps;
    let consented = false;
    for (const step of judging) {
      const decision = await this.#ask(step, context, "onRequest", "request");
      if (decision.action === "deny") return { denial: decision.denial };
      if (decision.action === "respond") return { reply: decision.reply };
      consented ||= consents(decision);
    }
    for (const step of attaching) {
      const decision = await this.#ask(step, context, "onCredential", "request");
      if (decision.action === "deny") return { denial: decision.denial };
      if (decision.action === "respond") return { reply: decision.reply };
      consented ||= consents(decision);
    }
    if (consented || this.otherwise === "allow") return { permit: this.#permit(context) };
    if (deferDefault) return { permit: this.#permit(context), isDeferred: true };
    return { denial: this.defaultDenial(context) };
  }

  /** What a message is told that no plugin allowed, where the default is deny. */
  defaultDenial(context: RequestContext): Denial {
    const { direction } = this;
    return {
      code: "policy.forbidden",
      message: `no plugin of the ${direction} pipeline allowed ${context.destination.authority} (pipeline.${direction}.default is deny)`,
    };
  }

  /** The paths of every plugin that judges callers; undefined when none does, so that nobody is looked up. */
  callerLinks(): readonly string[] | undefined {
    const links = this.steps.flatMap(({ plugin }) => plugin.callerLinks?.() ?? []);
    const isAsked = this.steps.some(({ plugin }) => plugin.callerLinks?.() !== undefined);
    return isAsked ? [...new Set(links)] : undefined;
  }

  /** A Permit for a destination that the file exempts from the chain (`listener.skip_hosts`). */
  permitSkipped(flow: Flow): Permit {
    return new Permit(issuing, flow);
  }

  #permit({ flow, addressLimits }: RequestContext): Permit {
    return new Permit(issuing, flow, addressLimits);
  }

  /** Whether a step needs the body of this request in memory. */
  needsBodyOf(context: RequestContext): boolean {
    return this.steps.some(
      ({ body, plugin }) => body.request !== undefined && (plugin.needsBodyOf?.(context) ?? true),
    );
  }

  /** Asks the chain about an answer, last plugin first. */
  async runResponse(context: RequestContext): Promise<ResponseVerdict> {
    for (const step of this.#responseSteps) {
      const decision = await this.#ask(step, context, "onResponse", "response");
      if (decision.action === "deny") return { denial: decision.denial };
      if (decision.action === "respond") return { reply: decision.reply };
    }
    return passed;
  }

  /**
   * Asks the chain about one frame of a streamed answer before the frame is forwarded.
   *
   * Of most frames nobody says anything: the verdict is then there at once, because a promise per step and frame costs
   * more than the steps do.
   */
  runFrame(context: RequestContext, frame: Frame): ResponseVerdict | Promise<ResponseVerdict> {
    for (const [index, step] of this.#frameSteps.entries()) {
      if (step.onError === "observe" || context.cancellation.aborted) {
        return this.#judgeFrame(context, frame, index);
      }
      let said: Answer | Promise<Answer>;
      try {
        said = step.plugin.onFrame?.(context, frame);
      } catch (error) {
        said = Promise.reject(error);
      }
      if (said !== undefined) return this.#judgeFrame(context, frame, index, () => said);
      if (this.#finishSteps.length > 0) this.#markAsked(step, context);
    }
    return passed;
  }

  /** Asks the steps from `first` on; `said` is what that one answered already. */
  async #judgeFrame(
    context: RequestContext,
    frame: Frame,
    first: number,
    said?: () => Answer | Promise<Answer>,
  ): Promise<ResponseVerdict> {
    let replaced: ReplacedFrame | undefined;
    for (const [index, step] of this.#frameSteps.slice(first).entries()) {
      const answered = index === 0 ? said : undefined;
      const ask = answered ?? step.plugin.onFrame?.bind(step.plugin);
      if (ask === undefined) continue;
      const seen = replaced?.data === undefined ? frame : { ...frame, data: replaced.data };
      const decision = await this.#guard(step, context, "response", (view) => ask(view, seen));
      if (decision.action === "deny") return { denial: decision.denial };
      if (decision.action === "respond") return { reply: decision.reply };
      if (decision.action !== "modify" || decision.frame === undefined) continue;
      replaced = decision.frame;
      // The steps before this one are not shown what nobody gets.
      if (replaced.data === undefined) break;
    }
    return replaced === undefined ? passed : { pass: true, frame: replaced };
  }

  /** Whether any step was asked about this message, so that {@link finish} has somebody to tell. */
  hasAsked(context: RequestContext): boolean {
    return this.#finishSteps.length > 0 && this.#asked.has(context);
  }

  /** Tells every plugin that was asked about this message how it ended. Once; never throws. */
  async finish(context: RequestContext, outcome: Outcome): Promise<void> {
    const asked = this.#asked.get(context);
    if (asked === undefined) return;
    this.#asked.delete(context);
    for (const step of this.#finishSteps) {
      if (!asked.has(step)) continue;
      await this.#finishStep(step, context, outcome);
    }
  }

  /** What the plugins that observe have observed. */
  observations(): readonly { readonly plugin: string; readonly observed: unknown }[] {
    return this.steps.flatMap(({ name, plugin }) =>
      plugin.observations === undefined ? [] : [{ plugin: name, observed: plugin.observations() }],
    );
  }

  /** The first plugin that is not ready, with its reason. */
  notReady(): { readonly plugin: string; readonly reason: string } | undefined {
    for (const step of this.steps) {
      const state = step.plugin.ready?.() ?? true;
      if (state !== true) return { plugin: step.name, reason: state };
    }
    return undefined;
  }

  #ask(step: Step, context: RequestContext, hook: Hook, phase: Phase): Promise<Decision> {
    const ask = step.plugin[hook]?.bind(step.plugin);
    if (ask === undefined) throw new TypeError(`${step.name} has no ${hook}`);
    const { trace } = context;
    if (trace === undefined) return this.#guard(step, context, phase, ask);
    return tracedStep({ trace, name: step.name, hook }, () =>
      this.#guard(step, context, phase, ask),
    );
  }

  /** Runs one hook: refusal on a fault, muted under observe, recorded always. */
  async #guard(
    step: Step,
    context: RequestContext,
    phase: Phase,
    ask: (view: RequestContext) => Answer | Promise<Answer>,
  ): Promise<Decision> {
    if (context.cancellation.aborted) {
      return cancelledDecision;
    }
    if (this.#finishSteps.length > 0) this.#markAsked(step, context);
    const observed = step.onError === "observe";
    const view = observed ? context.shadow() : context;
    let decision: Answer;
    try {
      decision = await ask(view);
    } catch (error) {
      this.#log.error({ flow: context.flow.id, plugin: step.name, err: error }, "plugin fault");
      decision = faultDecision();
    }
    if (observed) {
      for (const [name, fact] of view.facts) context.facts.set(name, fact);
      context.sessionId ??= view.sessionId;
    }
    if (decision === undefined) return silent;
    this.#record(step, context, phase, decision, observed);
    if (decision.action === "deny") {
      if (observed) return { action: "observe", reason: decision.reason };
      return { ...decision, denial: { ...decision.denial, plugin: step.name } };
    }
    if (observed && decision.action !== "skip")
      return { action: "observe", reason: decision.reason };
    return decision;
  }

  #record(
    step: Step,
    context: RequestContext,
    phase: Phase,
    decision: Decision,
    observed: boolean,
  ): void {
    const refused = decision.action === "deny" || decision.action === "respond";
    const invocation: Invocation = {
      plugin: step.name,
      action: decision.action === "respond" ? "modify" : decision.action,
      phase,
      reason: decision.reason,
      ...(context.path === "" ? {} : { path: context.pathname }),
      ...(decision.details === undefined ? {} : { details: decision.details }),
      ...(observed && refused ? { shadow: true as const } : {}),
    };
    context.invocations.push(invocation);
    this.#onInvocation?.(this.direction, invocation);
  }

  #markAsked(step: Step, context: RequestContext): void {
    const asked = this.#asked.get(context);
    if (asked === undefined) this.#asked.set(context, new Set([step]));
    else asked.add(step);
  }

  async #finishStep(step: Step, context: RequestContext, outcome: Outcome): Promise<void> {
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(), finishDeadlineMs);
    try {
      const expired = new Promise<void>((resolve) => {
        deadline.signal.addEventListener("abort", () => resolve(), { once: true });
      });
      const view = step.onError === "observe" ? context.shadow() : context;
      await Promise.race([step.plugin.onFinish?.(view, outcome, deadline.signal), expired]);
    } catch (error) {
      this.#log.warn(
        { flow: context.flow.id, plugin: step.name, error: messageOf(error) },
        "plugin finish failed",
      );
    } finally {
      clearTimeout(timer);
    }
  }
}
