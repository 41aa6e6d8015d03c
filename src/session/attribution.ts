/**
 * Which session a message belongs to, when many are under way at once.
 *
 * A message says so itself (an A2A context, an MCP session, the configured field), or it shares a value with a message to
 * the agent: the trace, the field, the caller's credential. What nothing ties follows from the one message that is
 * being served, where there is exactly one; else it goes to `default`. Nobody guesses by what happened last.
 */
import type { RequestContext, Tie } from "../pipeline/context.ts";
import type { Flow } from "../pipeline/flow.ts";
import type { Clock, Intent, SessionReader } from "../pipeline/plugin.ts";
import { defaultSessionId } from "./event.ts";
import { maxSessionIdLength, sessionIdOf } from "./session-id.ts";
import {
  assignedMcpSession,
  type Correlation,
  correlationOf,
  keysOf,
  mcpKey,
  ownNameOf,
  withTrace,
} from "./correlation.ts";
import { type Found, type Ledger, type LedgerOptions, TurnLedger } from "./ledger.ts";
import { isWork } from "./serving.ts";
import { intentText, textOf, Turn } from "./turn.ts";

/** Options of an {@link Attribution}. */
export interface AttributionOptions extends Partial<LedgerOptions> {
  /** Name of the field that carries a session id from inbound to outbound. */
  readonly field?: string | undefined;
  /** Whether a conversation's message without `traceparent` gets one on its way to the agent. */
  readonly addTraceparent?: boolean;
  /** What knows the turns; absent: one of its own, of the other options. */
  readonly ledger?: Ledger | undefined;
}

/** What is known of a flow's conversation. */
interface FlowState extends Found {
  readonly correlation: Correlation | undefined;
  /** It is not known yet. */
  readonly pending?: Promise<void> | undefined;
  /** A message to the agent that belongs to no conversation is being served. */
  isNoTurn?: boolean;
}

/** Ties messages to sessions. One per thread. */
export class Attribution implements SessionReader {
  readonly #field: string | undefined;
  readonly #addTraceparent: boolean;
  readonly #clock: Clock;
  readonly #ledger: Ledger;
  /** Only flows that have a correlation or a turn; shared by a context and its shadows. */
  readonly #flows = new WeakMap<Flow, FlowState>();

  constructor(options: AttributionOptions) {
    this.#field = options.field?.toLowerCase();
    this.#addTraceparent = options.addTraceparent ?? true;
    this.#clock = options.clock ?? Date;
    this.#ledger = options.ledger ?? new TurnLedger({ ...options, store: options.store ?? unkept });
  }

  /**
   * Reads the correlation of an outbound message, before its pipeline replaces the credential among them. A promise where
   * replicas or another thread have to be asked.
   */
  arrived(context: RequestContext): Promise<void> | undefined {
    const { flow, destination } = context;
    const { id: flowId, parentId } = flow;
    const correlation = correlationOf(context, this.#field);
    const { authority } = destination;
    const found = this.#ledger.ask({ flowId, parentId, authority, correlation });
    if (!(found instanceof Promise)) {
      if (found !== undefined || correlation !== undefined)
        this.#flows.set(flow, { ...found, correlation });
      return undefined;
    }
    const pending = found.then((answer) => void this.#flows.set(flow, { ...answer, correlation }));
    this.#flows.set(flow, { correlation, pending, isInDoubt: true });
    return pending;
  }

  /** Resolves when it is known whose the message is; undefined where it is, as far as it ever will be. */
  pending({ flow }: RequestContext): Promise<void> | undefined {
    return this.#flows.get(flow)?.pending;
  }

  /** The message goes on: what it says of its session is remembered for the messages that follow from it. */
  permitted(context: RequestContext): Promise<void> | undefined {
    if (context.flow.direction === "inbound") return this.#open(context);
    this.#attribute(context);
    return undefined;
  }

  /** The agent has answered: whoever is served from now on is not served beside this message. */
  ending({ flow }: RequestContext): void {
    const state = this.#flows.get(flow);
    if (state?.turn?.isServed === true) this.#ledger.answered(state.turn);
    this.#endOther(flow, state);
  }

  /** The message is over, or was refused: its session is settled, and its response may name the conversation. */
  finished(context: RequestContext): void {
    const state = this.#flows.get(context.flow);
    const turn = state?.turn;
    if (context.flow.direction === "inbound") {
      this.#endOther(context.flow, state);
      if (turn?.isOpen === true) this.#close(turn, context);
      else this.#nameInbound(context, correlationOf(context, this.#field));
      return;
    }
    if (context.shownIn === undefined || turn !== undefined) this.#attribute(context);
    // What went on untied stays so, or moves whole: its response belongs beside its request.
    else this.#move(context, ownNameOf(context, state?.correlation));
    this.#learnMcpSession(context);
  }

  /** What the user asked for, as far as this message can be tied to it. */
  intentOf(context: RequestContext): Intent | undefined {
    const state = this.#flows.get(context.flow);
    const { turn, tie = "own", isInDoubt } = state ?? {};
    const around = state?.around ?? this.#ledger;
    if (turn !== undefined) this.#refresh(turn);
    const sessionId = turn?.sessionId ?? context.sessionId;
    const text = turn?.intent ?? state?.intent;
    if (turn !== undefined && text !== undefined) {
      const at = new Date(turn.startedAt).toISOString();
      return { text, sessionId: sessionId ?? defaultSessionId, at, tie };
    }
    if (sessionId !== undefined) return withTie(around.intentOf(sessionId), tie);
    // A message without words, of a conversation without a name: the last words in `default` are anybody's.
    if (turn !== undefined || around.isSeveral || isInDoubt === true) return undefined;
    // What nothing ties can follow from no other than the one conversation that is known, if it is one.
    const known = around.someIntents();
    return known.length > 1 ? undefined : withTie(known[0], "only");
  }

  /** The session of a message whose pipeline is running: {@link permitted} settles it later. */
  sessionOf(context: RequestContext): string | undefined {
    if (context.flow.direction === "inbound") {
      this.#nameInbound(context, correlationOf(context, this.#field));
      return context.sessionId;
    }
    const { turn, correlation } = this.#flows.get(context.flow) ?? {};
    if (turn === undefined) return context.sessionId ?? ownNameOf(context, correlation);
    this.#refresh(turn);
    return turn.sessionId;
  }

  scopeOf(context: RequestContext): ReturnType<SessionReader["scopeOf"]> {
    const session = this.sessionOf(context);
    const turn = this.#flows.get(context.flow)?.turn?.id;
    return {
      ...(turn === undefined ? {} : { turn }),
      ...(session === undefined ? {} : { session }),
    };
  }

  /** The verified subject of the message to the agent that an outbound message follows from. */
  subjectOf(context: RequestContext): string | undefined {
    if (context.flow.direction === "inbound") return context.identity?.subject;
    return this.#flows.get(context.flow)?.turn?.subject;
  }

  /** Whether users asked for things and nobody can tell which of them this message follows from. */
  isInDoubt(context: RequestContext): boolean {
    if (this.intentOf(context) !== undefined) return false;
    const state = this.#flows.get(context.flow);
    if (state?.isInDoubt === true) return true;
    const isTied = state?.turn !== undefined || context.sessionId !== undefined;
    const around = state?.around ?? this.#ledger;
    return !isTied && (around.isSeveral || around.someIntents().length > 1);
  }

  close(): void {
    this.#ledger.clear();
  }

  #endOther({ id }: Flow, state: FlowState | undefined): void {
    if (state?.isNoTurn !== true) return;
    state.isNoTurn = false;
    this.#ledger.end(id);
  }

  #open(context: RequestContext): Promise<void> | undefined {
    const correlation = correlationOf(context, this.#field);
    this.#nameInbound(context, correlation);
    const a2a = context.facts.get("a2a");
    const { sessionId, flow, identity } = context;
    const isServed = isWork(context, a2a);
    if (sessionId === undefined && a2a === undefined) {
      if (!isServed) return undefined;
      this.#ledger.begin(flow.id);
      this.#flows.set(flow, { correlation, isNoTurn: true });
      return undefined;
    }
    const traced = this.#addTraceparent ? withTrace(context, correlation) : correlation;
    // What the agent does for the user meanwhile does not follow from a question about it.
    const marks = isServed ? traced : { ...traced, bearer: undefined };
    const facts = {
      id: flow.id,
      sessionId,
      subject: identity?.subject,
      intent: intentText(a2a),
      startedAt: this.#clock.now(),
      keys: keysOf(marks).map(([key]) => key),
      isServed,
      taskId: taskOf(context),
    };
    const turn = new Turn(facts, { message: context });
    const telling = this.#ledger.open(turn);
    const isNamedLater = telling !== undefined && sessionId === undefined;
    const pending = isNamedLater
      ? telling.then(() => {
          context.sessionId ??= turn.sessionId;
          this.#flows.set(flow, { correlation: traced, turn });
        })
      : undefined;
    this.#flows.set(flow, { correlation: traced, turn, pending });
    return pending ?? telling;
  }

  #close(turn: Turn, context: RequestContext): void {
    this.#refresh(turn);
    turn.taskId = taskOf(context) ?? turn.taskId;
    this.#ledger.close(turn);
    context.sessionId = turn.sessionId;
  }

  /** Gives the conversation its name as soon as the message or its response says it; its events so far follow. */
  #refresh(turn: Turn): void {
    if (turn.learnName()) this.#ledger.named(turn);
  }

  #nameInbound(context: RequestContext, correlation: Correlation | undefined): void {
    if (context.sessionId !== undefined) return;
    const a2a = context.hasFacts ? context.facts.get("a2a") : undefined;
    const own = correlation?.field ?? textOf(a2a, "sessionId");
    const name = own ?? this.#taskSession(a2a) ?? correlation?.mcp;
    context.sessionId = name === undefined ? undefined : sessionIdOf(name);
  }

  /** `tasks/get` and the like name the task alone. */
  #taskSession(a2a: unknown): string | undefined {
    const taskId = textOf(a2a, "taskId");
    return taskId === undefined ? undefined : this.#ledger.sessionOfTask(taskId);
  }

  #attribute(context: RequestContext): void {
    const state = this.#flows.get(context.flow);
    const { turn, correlation, isCorrelated = false, tie } = state ?? {};
    if (turn === undefined) {
      context.sessionId ??= ownNameOf(context, correlation);
      if (context.sessionId !== undefined) context.tiedBy ??= "own";
      return;
    }
    this.#refresh(turn);
    context.sessionId = turn.sessionId;
    turn.add(context.flow.id);
    context.tiedBy = tie;
    // The next conversation may use the same MCP session or tunnel.
    if (!isCorrelated) return;
    if (correlation?.mcp !== undefined) this.#tieMcp(context, turn, correlation.mcp);
    if (context.stage === "connect") this.#ledger.tie(turn, `flow ${context.flow.id}`, false);
  }

  /** A session of MCP belongs to a conversation: whatever replica its next message comes to. */
  #tieMcp({ destination }: RequestContext, turn: Turn, session: string): void {
    this.#ledger.tie(turn, mcpKey(destination.authority, session), true);
  }

  /** A response to initialize names the MCP session in which the next messages come. */
  #learnMcpSession(context: RequestContext): void {
    if (context.response === undefined) return;
    const mcp = assignedMcpSession(context);
    if (mcp === undefined) return;
    const { turn, isCorrelated = false } = this.#flows.get(context.flow) ?? {};
    if (turn === undefined) this.#move(context, mcp);
    else if (isCorrelated) this.#tieMcp(context, turn, mcp);
  }

  /** An untied message whose response names its conversation. */
  #move(context: RequestContext, name: string | undefined): void {
    if (name === undefined || context.sessionId !== undefined) return;
    context.sessionId = name;
    context.tiedBy = "own";
    this.#ledger.move(context.flow.id, name);
  }
}

/** The store of a process that keeps no events. */
const unkept = {
  rekey: (): void => undefined,
  intentOf: (): undefined => undefined,
  someIntents: (): [] => [],
};

/** The intent, with how it was found. */
function withTie(intent: Intent | undefined, tie: Tie): Intent | undefined {
  return intent === undefined ? undefined : { ...intent, tie };
}

function taskOf(context: RequestContext): string | undefined {
  const taskId = context.hasFacts ? textOf(context.facts.get("a2a"), "taskId") : undefined;
  return taskId !== undefined && taskId.length <= maxSessionIdLength ? taskId : undefined;
}
