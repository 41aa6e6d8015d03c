/** Asks the plugins of a pipeline about the messages of an upgraded connection. */
import type { WebSocketLimits } from "../http/web-socket-reader.ts";
import type { RequestContext } from "./context.ts";
import type { Decision, Denial } from "./decision.ts";
import type { HeardMessage, Message, Plugin } from "./plugin.ts";
import { type HookCall, isGuard, type Step, type StepRunner } from "./step-runner.ts";

/** Records that one connection leaves: it may have any number of messages. */
const maxRecorded = 64;
const phaseOf = { client: "request", server: "response" } as const;
/** Messages of one connection that those who cannot refuse are still asked about. */
const maxWaiting = 16;

/** Passes a message to those that hear it. Never throws. */
export type Hear = (message: HeardMessage) => void;

type MessageHook = NonNullable<Plugin["onMessage"]>;
type MessageHookName = "onMessage" | "onMessageCredential" | "onServerMessage";

/** Who sends a message. */
export type MessageSource = HeardMessage["from"];

interface MessageCall extends HookCall {
  readonly ask: MessageHook;
}

/** A refusal, or what is forwarded in place of the message. */
export type MessageVerdict = { readonly denial: Denial } | { readonly instead: Buffer };

type Judged = MessageVerdict | undefined | Promise<MessageVerdict | undefined>;

/**
 * The steps that judge messages: those of the client in the order of the file, and behind them the steps that attach
 * credentials; those of the server in the reverse order.
 */
export class MessageJudge {
  readonly #calls: Readonly<Record<MessageSource, readonly MessageCall[]>>;
  readonly #hearing: readonly Step[];
  readonly #runner: StepRunner;

  constructor(steps: readonly Step[], runner: StepRunner) {
    this.#hearing = steps.filter(({ plugin }) => plugin.hearsMessages !== undefined);
    const callsOf = (hook: MessageHookName): MessageCall[] =>
      steps.flatMap((step) => {
        const ask = step.plugin[hook]?.bind(step.plugin);
        return ask === undefined ? [] : [{ step, ask }];
      });
    this.#calls = {
      client: [...callsOf("onMessage"), ...callsOf("onMessageCredential")],
      server: callsOf("onServerMessage").reverse(),
    };
    this.#runner = runner;
  }

  /** Whether some plugin that can refuse has to see what this side sends on the connection once it was upgraded. */
  areNeeded(context: RequestContext, from: MessageSource): boolean {
    return this.#calls[from].some(({ step }) => isGuard(step) && isAsked[from](step, context));
  }

  /**
   * Who hears what both sides say on this connection; undefined where nobody does. Those who judge and cannot refuse hear
   * it, too, unless they are asked together with those who can: nothing waits for them, or fails because of them.
   */
  hearers(
    context: RequestContext,
    isJudged: (from: MessageSource) => boolean,
    budget: WebSocketLimits["budget"],
  ): Hear | undefined {
    const steps = new Set(
      this.#hearing.filter(({ plugin }) => plugin.hearsMessages?.(context) === true),
    );
    const observed = (["client", "server"] as const).filter(
      (from) =>
        !isJudged(from) &&
        this.#calls[from].some(({ step }) => !isGuard(step) && isAsked[from](step, context)),
    );
    if (steps.size === 0 && observed.length === 0) return undefined;
    const observe = this.#observer(context, budget);
    return (message) => {
      if (observed.includes(message.from)) observe(message);
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

  /**
   * Asks those who cannot refuse, one message after the other; while too many wait, or there is no memory for more of them,
   * one is not shown, and counted so.
   */
  #observer(context: RequestContext, budget: WebSocketLimits["budget"]): Hear {
    let waiting = 0;
    let last: Promise<unknown> | undefined;
    return (message) => {
      const calls = this.#calls[message.from].filter(({ step }) => !isGuard(step));
      const { length } = message.data;
      if (waiting >= maxWaiting || !budget.acquire(length)) {
        const unshown = calls.filter(({ step }) => isAsked[message.from](step, context));
        for (const { step } of unshown) this.#runner.notAsked(step, context, phaseOf[message.from]);
        return;
      }
      const ask = () => this.#judge(context, message, calls);
      const said = last === undefined ? ask() : last.then(ask);
      if (!(said instanceof Promise)) {
        budget.release(length);
        return;
      }
      waiting += 1;
      const done = (): void => {
        budget.release(length);
        waiting -= 1;
        if (waiting === 0) last = undefined;
      };
      last = said.then(done, done);
    };
  }

  /** What becomes of a message that is not forwarded as it came; a promise only where a step has to be waited for. */
  judge(context: RequestContext, message: HeardMessage): Judged {
    return this.#judge(context, message, this.#calls[message.from]);
  }

  #judge(
    context: RequestContext,
    { from, ...message }: HeardMessage,
    calls: readonly MessageCall[],
  ): Judged {
    let seen: Message = message;
    return this.#runner.run<MessageVerdict | undefined, MessageCall>({
      calls,
      context,
      phase: phaseOf[from],
      ask: ({ step, ask }, view) => (isAsked[from](step, view) ? ask(view, seen) : undefined),
      take: (decision) => {
        if (decision.action === "modify" && decision.message !== undefined)
          seen = { ...seen, data: decision.message };
        const denial = denialOf(decision, context);
        return denial === undefined ? undefined : { denial };
      },
      end: () => (seen === message ? undefined : { instead: seen.data }),
    });
  }
}

const isAsked: Readonly<Record<MessageSource, (step: Step, context: RequestContext) => boolean>> = {
  client: ({ plugin }, context) => plugin.needsMessages?.(context) ?? true,
  server: ({ plugin }, context) => plugin.needsServerMessages?.(context) ?? false,
};

function denialOf(decision: Decision, { invocations }: RequestContext): Denial | undefined {
  // The first ones say how the connection came about, the last one how it ended.
  const surplus = invocations.length - maxRecorded;
  if (surplus > 0) invocations.splice(maxRecorded - 1, surplus);
  if (decision.action === "deny") return decision.denial;
  if (decision.action !== "respond") return undefined;
  return { code: "plugin.fault", message: "a message cannot be answered in place of the origin" };
}
