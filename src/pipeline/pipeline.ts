/**
 * A pipeline of configured plugins and the Permit that only it can issue.
 *
 * Permit lives in this file because that is what makes it unforgeable: its constructor is closed by a key that
 * never leaves the module, so "default deny before any dial" is checked by the compiler and by the runtime.
 */
import type { AddressSet } from "../net/address.ts";
import type { Destination } from "../net/destination.ts";
import type { Logger } from "../telemetry/log.ts";
import type { RequestContext } from "./context.ts";
import {
  consents,
  type Decision,
  type Denial,
  type Invocation,
  passed,
  type Refusal,
  type ResponseVerdict,
} from "./decision.ts";
import { ProxyError } from "../errors.ts";
import { ByteCounting } from "./byte-meter.ts";
import { callerOf, type Direction, type Flow } from "./flow.ts";
import { FrameChanges } from "./frame-changes.ts";
import type { ApprovalArrivals } from "./approval-gate.ts";
import { killDenial, type KillSwitch } from "./kill-switch.ts";
import { MessageJudge } from "./message-judge.ts";
import {
  bodyJudgesOf,
  bodyNeedOf,
  type BodyNeed,
  type ResponseNeeds,
  responseNeedsOf,
  type StepJudge,
} from "./message-needs.ts";
import type { Frame, Outcome, PolicyAddition } from "./plugin.ts";
import { type Explanation, Rehearsal } from "./rehearsal.ts";
import {
  askHook,
  isGuard,
  type Pass,
  StepRunner,
  type Step,
  type HookCall,
} from "./step-runner.ts";
import type { Hook } from "./step-trace.ts";

const issuing = Symbol("issuing");

/** Proof that a pipeline let this flow speak to this destination. Without one, nothing is dialled. */
export class Permit {
  readonly #destination: Destination;
  readonly #direction: Direction;
  readonly #flowId: string;
  readonly #caller: string;
  readonly #addressLimits: readonly AddressSet[];

  constructor(key: typeof issuing, flow: Flow, addressLimits: readonly AddressSet[] = []) {
    if (key !== issuing) throw new TypeError("a Permit is issued by a Pipeline only");
    this.#destination = flow.destination;
    this.#direction = flow.direction;
    this.#flowId = flow.id;
    this.#caller = callerOf(flow.client);
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

  /** The caller whose share of connections and look-ups this uses. */
  get caller(): string {
    return this.#caller;
  }

  /** The ranges that the address dialled must be in, all of them; empty: whatever the address guard lets through. */
  get addressLimits(): readonly AddressSet[] {
    return this.#addressLimits;
  }
}

/** The verdict of a pipeline on a request. */
export type Verdict =
  | {
      readonly kind: "permit";
      readonly permit: Permit;
      /** No step consented; the caller judges every request before anything is dialled. */
      readonly isDeferred?: true;
    }
  | Refusal;

/** Options of judging a request. */
interface RequestTerms {
  readonly deferDefault?: boolean;
}

/** Options of a pipeline, besides its steps. */
export interface PipelineOptions {
  readonly direction: Direction;
  /** What a message is that no step allowed or changed. */
  readonly otherwise: "allow" | "deny";
  /** Whether messages wait until it is known whose they are; absent: they do. */
  readonly readsSessions?: boolean;
  readonly log: Logger;
  /** What operators have stopped; absent where nothing can be. */
  readonly kills?: KillSwitch | undefined;
  /** Absent where nothing is going to flow. */
  readonly approvals?: ApprovalArrivals | undefined;
  /** Called with every step's record, for counters. */
  readonly onInvocation?: (direction: Direction, invocation: Invocation) => void;
}

function hookCallsOf(steps: readonly Step[], hook: Hook): HookCall[] {
  return steps.flatMap((step) => (step.plugin[hook] === undefined ? [] : [{ step, hook }]));
}

function refusalOf(decision: Decision): Refusal | undefined {
  if (decision.action === "deny") return { kind: "denial", denial: decision.denial };
  return decision.action === "respond" ? { kind: "reply", reply: decision.reply } : undefined;
}

/** What one plugin has seen of its budgets. */
interface SeenBudgets {
  readonly plugin: string;
  readonly budgets: unknown;
}

/** An immutable pipeline for one direction of one generation. */
export class Pipeline {
  readonly direction: Direction;
  readonly steps: readonly Step[];
  /** Which steps need the request's body in memory before the pipeline runs. */
  readonly bodyNeed: (context: RequestContext) => BodyNeed;
  /** Who judges the request's body as it is streamed, where it is too large to be held; undefined where it has to be held. */
  readonly bodyJudges: (context: RequestContext) => readonly StepJudge[] | undefined;
  /** What the pipeline needs of the response to a message that it let pass. */
  readonly responseNeeds: (context: RequestContext) => ResponseNeeds;
  /** Judges the messages of upgraded connections. */
  readonly messages: MessageJudge;
  /** Counts what goes by. */
  readonly bytes: ByteCounting;
  /** What a message is that no step allowed or changed. */
  readonly otherwise: "allow" | "deny";
  /** Whether a step may ask whose a message is. */
  readonly #mayReadSessions: boolean;
  readonly #kills: KillSwitch | undefined;
  readonly #approvals: ApprovalArrivals | undefined;
  readonly #requestCalls: readonly HookCall[];
  readonly #connectCalls: readonly HookCall[];
  readonly #runner: StepRunner;
  /** Counts nothing. */
  readonly #rehearsing: StepRunner;
  readonly #responseCalls: readonly HookCall[];
  readonly #frameCalls: readonly HookCall[];

  constructor(steps: readonly Step[], options: PipelineOptions) {
    this.direction = options.direction;
    this.steps = Object.freeze([...steps]);
    this.otherwise = options.otherwise;
    this.#mayReadSessions = options.readsSessions ?? true;
    this.#kills = options.kills;
    this.#approvals = options.approvals;
    const reversed = [...steps].reverse();
    const asking = hookCallsOf(steps, "onRequest");
    this.#connectCalls = asking.filter(({ step }) => step.stages.includes("connect"));
    this.#requestCalls = [
      ...asking.filter(({ step }) => step.stages.includes("request")),
      ...hookCallsOf(steps, "onCredential"),
    ];
    this.#runner = new StepRunner(steps, options);
    this.#rehearsing = new StepRunner([], { direction: options.direction, log: options.log });
    this.messages = new MessageJudge(steps, this.#runner);
    this.bytes = new ByteCounting(steps, this.#runner);
    this.#responseCalls = hookCallsOf(reversed, "onResponse");
    this.#frameCalls = reversed.flatMap((step) =>
      step.plugin.onFrame === undefined ? [] : [{ step }],
    );
    this.bodyNeed = bodyNeedOf(steps);
    this.bodyJudges = bodyJudgesOf(steps);
    this.responseNeeds = responseNeedsOf(steps);
  }

  /**
   * Judges a request (or, at the connect stage, a host) and issues the Permit; a promise only where a
   * step has to be waited for.
   *
   * `deferDefault` is for connections that the bridge opens: a default of deny then falls on each of their requests,
   * which are judged before anything is dialled, and not on the CONNECT, at which credential plugins have no say.
   */
  runRequest(context: RequestContext, terms: RequestTerms = {}): Verdict | Promise<Verdict> {
    const kill = this.#kills?.findFor(context);
    if (kill !== undefined) return { kind: "denial", denial: killDenial(kill) };
    const reply = this.#approvals?.arrive(context);
    if (reply !== undefined) return { kind: "reply", reply };
    return this.#runner.run(this.#requestPass(context, terms));
  }

  /**
   * Judges a hypothetical message in the same way. No Permit is issued, no credential is fetched,
   * nothing is counted, and no `onFinish` is called.
   */
  async rehearse(context: RequestContext, terms: RequestTerms = {}): Promise<Explanation> {
    context.isHypothetical = true;
    const rehearsal = new Rehearsal();
    const pass = rehearsal.follow(this.#requestPass(context, terms));
    return rehearsal.explanation(await this.#rehearsing.run(pass));
  }

  #requestPass(context: RequestContext, { deferDefault = false }: RequestTerms): Pass<Verdict> {
    let isConsented = false;
    return {
      calls: context.stage === "connect" ? this.#connectCalls : this.#requestCalls,
      context,
      phase: "request",
      ask: askHook,
      take: (decision) => {
        isConsented ||= consents(decision);
        return refusalOf(decision);
      },
      end: () => {
        const isAllowed = isConsented || this.otherwise === "allow";
        if (!isAllowed && !deferDefault)
          return { kind: "denial", denial: this.defaultDenial(context) };
        const permit = new Permit(issuing, context.flow, context.addressLimits);
        return { kind: "permit", permit, ...(!isAllowed && { isDeferred: true }) };
      },
    };
  }

  /** The denial for a message that no plugin allowed, where the default is deny. */
  defaultDenial(context: RequestContext): Denial {
    const { direction } = this;
    const { authority } = context.destination;
    const remedy = `a rule of egress-policy would allow it (allow: ["${authority}"] opens the host)`;
    return {
      code: "policy.forbidden",
      message: `no plugin of the ${direction} pipeline allowed ${authority} (pipeline.${direction}.default is deny)`,
      ...(direction === "outbound" ? { description: remedy } : {}),
    };
  }

  /** Whether it matters, before a message is judged, whose it is. */
  get readsSessions(): boolean {
    return this.#mayReadSessions || this.#kills?.hasSessions === true;
  }

  /** Whether any step has to do with a request or its response: what nobody reads need not be parsed. */
  get readsRequests(): boolean {
    return [this.#requestCalls, this.#responseCalls, this.#frameCalls].some(
      (calls) => calls.length > 0,
    );
  }

  /** The paths of every plugin that judges callers; undefined when nobody does, so that no caller is looked up. */
  callerLinks(): readonly string[] | undefined {
    let links: readonly string[] | undefined =
      this.#kills?.hasExecutables === true ? [] : undefined;
    for (const { plugin } of this.steps) {
      const own = plugin.callerLinks?.();
      if (own === undefined || own === links) continue;
      links = links === undefined || links.length === 0 ? own : [...new Set([...links, ...own])];
    }
    return links;
  }

  /**
   * A Permit for a destination that the file exempts from the pipeline (`listener.skip_hosts`). Throws a ProxyError where an
   * operator has stopped it.
   */
  permitSkipped(flow: Flow): Permit {
    const kill = this.#kills?.find({ flow, sessionId: undefined });
    if (kill !== undefined) throw new ProxyError("policy.killed", killDenial(kill).message);
    return new Permit(issuing, flow);
  }

  /** Judges a response, last plugin first: with all steps, or only those that can refuse, or only the others. */
  async runResponse(
    context: RequestContext,
    who: "all" | "guards" | "observers" = "all",
  ): Promise<ResponseVerdict> {
    return this.#runner.run<ResponseVerdict>({
      calls:
        who === "all"
          ? this.#responseCalls
          : this.#responseCalls.filter(({ step }) => isGuard(step) === (who === "guards")),
      context,
      phase: "response",
      ask: askHook,
      take: refusalOf,
      end: () => passed,
    });
  }

  /** Asks a step about a part of a body that is streamed: what goes on of it, or the refusal. Never throws. */
  judgePart(
    context: RequestContext,
    { step, judge }: StepJudge,
    { piece, isLast }: { readonly piece: Buffer; readonly isLast: boolean },
  ): readonly Buffer[] | Denial {
    const { passed, decision } = this.#runner.judgePart(context, step, () =>
      judge.push(piece, isLast),
    );
    return decision?.action === "deny" ? decision.denial : passed;
  }

  /**
   * Judges one frame of a streamed response before the frame is forwarded.
   *
   * For most frames no step has a verdict: the result is then synchronous, because a promise per step and frame costs
   * more than the steps do.
   */
  runFrame(context: RequestContext, frame: Frame): ResponseVerdict | Promise<ResponseVerdict> {
    const changes = new FrameChanges(frame);
    return this.#runner.run<ResponseVerdict>({
      calls: this.#frameCalls,
      context,
      phase: "response",
      ask: ({ step }, view) => step.plugin.onFrame?.(view, changes.seen),
      take: (decision) => refusalOf(decision) ?? changes.take(decision),
      end: () => changes.verdict,
    });
  }

  /** Whether any step has run for this message, so that {@link finish} has `onFinish` to call. */
  hasAsked(context: RequestContext): boolean {
    return this.#runner.hasAsked(context);
  }

  /** Calls `onFinish` of every plugin that ran for this message. Once; never throws. */
  finish(context: RequestContext, outcome: Outcome): Promise<void> {
    return this.#runner.finish(context, outcome);
  }

  /** The observations of all plugins that have some. */
  observations(): readonly { readonly plugin: string; readonly observed: unknown }[] {
    return this.steps.flatMap(({ name, plugin }) =>
      plugin.observations === undefined ? [] : [{ plugin: name, observed: plugin.observations() }],
    );
  }

  /** What each policy lacks to let through what was chosen among the observations of each thread. */
  additions(
    chosen: ReadonlySet<string>,
    threads: readonly ReturnType<Pipeline["observations"]>[],
  ): readonly { readonly plugin: string; readonly addition: PolicyAddition }[] {
    const observing = this.steps.filter(({ plugin }) => plugin.observations !== undefined);
    return observing.flatMap(({ name, plugin }, at) => {
      const addition = plugin.addition?.(
        chosen,
        threads
          .flatMap((observations) => observations.slice(at, at + 1))
          .map(({ observed }) => observed),
      );
      return addition === undefined ? [] : [{ plugin: name, addition }];
    });
  }

  /** What all plugins that have budgets have seen of them. */
  budgets(): readonly SeenBudgets[] {
    return this.steps.flatMap(({ name, plugin }) =>
      plugin.budgets === undefined ? [] : [{ plugin: name, budgets: plugin.budgets() }],
    );
  }

  /** What is used of them, from what each thread has seen. */
  async budgetsOf(threads: readonly (readonly SeenBudgets[])[]): Promise<SeenBudgets[]> {
    const counting = this.steps.filter(({ plugin }) => plugin.budgets !== undefined);
    const shown = counting.map(async ({ name, plugin }, at): Promise<SeenBudgets[]> => {
      const seen = threads.flatMap((budgets) => budgets.slice(at, at + 1));
      if (plugin.budgetsOf === undefined) return seen;
      const budgets = await plugin.budgetsOf(seen.map((one) => one.budgets));
      return [{ plugin: name, budgets }];
    });
    return (await Promise.all(shown)).flat();
  }

  /** The first plugin that is not ready, with its reason. */
  notReady(): { readonly plugin: string; readonly reason: string } | undefined {
    for (const step of this.steps) {
      const state = step.plugin.ready?.() ?? true;
      if (state !== true) return { plugin: step.name, reason: state };
    }
    return undefined;
  }
}
