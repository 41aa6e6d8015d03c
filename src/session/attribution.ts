/**
 * Which session a message belongs to, when many are under way at once.
 *
 * A message says so itself (an A2A context, an MCP session, the configured field), or it shares a value with a message to
 * the agent: the trace, the field, the caller's credential. What nothing ties follows from the one message that is
 * being served, where there is exactly one; else it goes to `default`. Nobody guesses by what happened last.
 */
import { startTrace } from "../http/trace-context.ts";
import type { RequestContext } from "../pipeline/context.ts";
import type { Flow } from "../pipeline/flow.ts";
import type { Clock, Intent, SessionReader } from "../pipeline/plugin.ts";
import { defaultSessionId, maxSessionIdLength } from "./event.ts";
import {
  assignedMcpSession,
  type Correlation,
  correlationOf,
  keysOf,
  mcpKey,
} from "./correlation.ts";
import { Serving } from "./serving.ts";
import type { SharedTies } from "./shared-ties.ts";
import { intentText, textOf, type Tie, Turn, TurnIndex } from "./turn.ts";

/** The part of the store that attribution needs. */
export interface AttributedStore {
  rekey(from: string, to: string, belongs: (flowId: string) => boolean): void;
  intentOf(sessionId: string): Intent | undefined;
  /** What users asked for last, of two sessions at most. */
  someIntents(): readonly Intent[];
}

/** Options of an {@link Attribution}. */
export interface AttributionOptions {
  readonly store: AttributedStore;
  /** Name of the field that carries a session id from inbound to outbound. */
  readonly field?: string | undefined;
  /** Whether a conversation's message without `traceparent` gets one on its way to the agent. */
  readonly addTraceparent?: boolean;
  /** How long a correlation value is valid after the last message that used it. */
  readonly ttlMs?: number;
  readonly clock?: Clock;
  /** What replicas know; absent where this process is the only one. */
  readonly ties?: SharedTies | undefined;
}

interface FlowState {
  readonly correlation: Correlation | undefined;
  turn: Turn | undefined;
  /** What was served alone when the message came. */
  readonly served?: Turn | undefined;
  /** A shared value ties the message to its turn, and not the moment alone: what else it shares with other messages ties those, too. */
  isCorrelated?: boolean;
  /** Replicas may know of a message that this one follows from, and could not be asked, or know of several. */
  isInDoubt?: boolean;
  /** A message to the agent that belongs to no conversation is being served. */
  isNoTurn?: boolean;
}

const defaultTtlMs = 1_800_000;
const maxSharedKeys = 64;

/** Ties messages to sessions. One per process. */
export class Attribution implements SessionReader {
  readonly #store: AttributedStore;
  readonly #field: string | undefined;
  readonly #addTraceparent: boolean;
  readonly #clock: Clock;
  readonly #index: TurnIndex;
  readonly #ties: SharedTies | undefined;
  /** Only flows that have a correlation or a turn; shared by a context and its shadows. */
  readonly #flows = new WeakMap<Flow, FlowState>();
  readonly #serving = new Serving();

  constructor(options: AttributionOptions) {
    this.#store = options.store;
    this.#field = options.field?.toLowerCase();
    this.#addTraceparent = options.addTraceparent ?? true;
    this.#clock = options.clock ?? Date;
    this.#index = new TurnIndex(options.ttlMs ?? defaultTtlMs);
    this.#ties = options.ties;
  }

  /**
   * Reads the correlation of an outbound message, before its pipeline replaces the credential among them. A promise where
   * replicas have to be asked.
   */
  arrived(context: RequestContext): Promise<void> | undefined {
    const correlation = correlationOf(context, this.#field);
    const served = correlation?.field === undefined ? this.#serving.alone() : undefined;
    if (correlation === undefined && served === undefined) return undefined;
    const state: FlowState = { correlation, turn: undefined, served };
    this.#flows.set(context.flow, state);
    if (this.#ties === undefined || correlation === undefined) return undefined;
    return this.#askReplicas(this.#ties, context, { ...state, correlation });
  }

  /** The message goes on: what it says of its session is remembered for the messages that follow from it. */
  permitted(context: RequestContext): Promise<void> | undefined {
    if (context.flow.direction === "inbound") return this.#open(context);
    this.#attribute(context);
    return undefined;
  }

  /** The message is over, or was refused: its session is settled, and its response may name the conversation. */
  finished(context: RequestContext): void {
    const state = this.#flows.get(context.flow);
    const turn = state?.turn;
    if (context.flow.direction === "inbound") {
      if (state?.isNoTurn === true) {
        state.isNoTurn = false;
        this.#serving.others -= 1;
      }
      if (turn?.open === context) this.#close(turn, context);
      else this.#nameInbound(context, correlationOf(context, this.#field));
      return;
    }
    this.#attribute(context);
    this.#learnMcpSession(context);
  }

  /** What the user asked for, as far as this message can be tied to it. */
  intentOf(context: RequestContext): Intent | undefined {
    const isOutbound = context.flow.direction === "outbound";
    const turn = isOutbound ? this.#turnOf(context) : this.#flows.get(context.flow)?.turn;
    if (turn !== undefined) this.#refresh(turn);
    const sessionId = turn?.sessionId ?? context.sessionId;
    if (turn?.intent !== undefined) {
      return {
        text: turn.intent,
        sessionId: sessionId ?? defaultSessionId,
        at: new Date(turn.startedAt).toISOString(),
      };
    }
    if (sessionId !== undefined) return this.#store.intentOf(sessionId);
    if (turn !== undefined) return this.#store.intentOf(defaultSessionId);
    if (this.#serving.isSeveral || this.#flows.get(context.flow)?.isInDoubt === true)
      return undefined;
    // What nothing ties can follow from no other than the one conversation that is known, if it is one.
    const known = this.#store.someIntents();
    return known.length > 1 ? undefined : known[0];
  }

  /** The session of a message whose pipeline is running: {@link permitted} settles it later. */
  sessionOf(context: RequestContext): string | undefined {
    if (context.flow.direction === "inbound") {
      this.#nameInbound(context, correlationOf(context, this.#field));
      return context.sessionId;
    }
    const turn = this.#turnOf(context);
    if (turn === undefined) return context.sessionId ?? this.#ownName(context);
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
    return this.#turnOf(context)?.subject;
  }

  /** Whether users asked for things and nobody can tell which of them this message follows from. */
  isInDoubt(context: RequestContext): boolean {
    if (this.intentOf(context) !== undefined) return false;
    if (this.#flows.get(context.flow)?.isInDoubt === true) return true;
    const isTied = this.#turnOf(context) !== undefined || context.sessionId !== undefined;
    return !isTied && (this.#serving.isSeveral || this.#store.someIntents().length > 1);
  }

  close(): void {
    this.#index.clear();
    this.#serving.clear();
  }

  #open(context: RequestContext): Promise<void> | undefined {
    const correlation = correlationOf(context, this.#field);
    this.#nameInbound(context, correlation);
    const a2a = context.facts.get("a2a");
    const { sessionId } = context;
    if (sessionId === undefined && a2a === undefined) {
      // Probes and pages have no body; they ask the agent for nothing.
      if (!context.hasBody) return undefined;
      this.#serving.others += 1;
      this.#flows.set(context.flow, { correlation, turn: undefined, isNoTurn: true });
      return undefined;
    }
    const now = this.#clock.now();
    const turn = new Turn(context, sessionId, now);
    turn.intent = intentText(a2a);
    turn.add(context.flow.id);
    this.#serving.add(turn);
    const traced = this.#traced(context, correlation);
    this.#flows.set(context.flow, { correlation: traced, turn });
    const keys = keysOf(traced);
    for (const key of keys) this.#index.add(key, turn, now);
    this.#learnTask(context, turn, now);
    return this.#ties?.tell(keys, turn);
  }

  /** The correlation, with a trace that begins here where the message has none. */
  #traced(context: RequestContext, correlation: Correlation | undefined): Correlation | undefined {
    if (!this.#addTraceparent || correlation?.trace !== undefined) return correlation;
    const { traceId, traceparent } = startTrace();
    context.headers.set("traceparent", traceparent);
    return { ...correlation, trace: traceId };
  }

  #close(turn: Turn, context: RequestContext): void {
    const now = this.#clock.now();
    this.#refresh(turn);
    this.#serving.delete(turn);
    this.#learnTask(context, turn, now);
    turn.open = undefined;
    const keys = keysOf(this.#flows.get(context.flow)?.correlation);
    void this.#ties?.tell([...keys, ...turn.sharedKeys], turn);
    turn.intent = undefined;
    turn.usedAt = now;
    context.sessionId = turn.sessionId;
    turn.forgetFlows();
  }

  /** Gives the conversation its name as soon as the message or its response says it; its events so far follow. */
  #refresh(turn: Turn): void {
    if (turn.sessionId !== undefined || turn.open === undefined) return;
    const name = turn.open.sessionId ?? textOf(turn.open.facts.get("a2a"), "sessionId");
    if (name === undefined) return;
    turn.sessionId = name.slice(0, maxSessionIdLength);
    this.#store.rekey(defaultSessionId, turn.sessionId, (flowId) => turn.has(flowId));
  }

  #nameInbound(context: RequestContext, correlation: Correlation | undefined): void {
    if (context.sessionId !== undefined) return;
    const a2a = context.hasFacts ? context.facts.get("a2a") : undefined;
    const name = correlation?.field ?? textOf(a2a, "sessionId");
    context.sessionId = (name ?? this.#taskSession(a2a) ?? correlation?.mcp)?.slice(
      0,
      maxSessionIdLength,
    );
  }

  /** `tasks/get` and the like name the task alone. */
  #taskSession(a2a: unknown): string | undefined {
    const taskId = textOf(a2a, "taskId");
    if (taskId === undefined) return undefined;
    return this.#index.find(`task ${taskId}`, this.#clock.now())?.sessionId;
  }

  #learnTask(context: RequestContext, turn: Turn, now: number): void {
    if (!context.hasFacts) return;
    const taskId = textOf(context.facts.get("a2a"), "taskId");
    if (taskId !== undefined && taskId.length <= maxSessionIdLength) {
      this.#index.add(`task ${taskId}`, turn, now);
    }
  }

  #attribute(context: RequestContext): void {
    const turn = this.#turnOf(context);
    if (turn === undefined) {
      context.sessionId ??= this.#ownName(context);
      return;
    }
    this.#refresh(turn);
    context.sessionId = turn.sessionId;
    turn.add(context.flow.id);
    const { correlation, isCorrelated = false } = this.#flows.get(context.flow) ?? {};
    // The next conversation may use the same MCP session or tunnel.
    if (!isCorrelated) return;
    const now = this.#clock.now();
    const mcp = correlation?.mcp;
    if (mcp !== undefined) this.#tieMcp(mcpKey(context, mcp), turn, now);
    if (context.stage === "connect") this.#index.add(`flow ${context.flow.id}`, turn, now);
  }

  /** What the message calls its conversation, where no message to the agent is known that it follows from. */
  #ownName(context: RequestContext): string | undefined {
    const correlation = this.#flows.get(context.flow)?.correlation;
    const a2a = context.hasFacts ? textOf(context.facts.get("a2a"), "sessionId") : undefined;
    return (correlation?.field ?? a2a ?? correlation?.mcp)?.slice(0, maxSessionIdLength);
  }

  /** The turn that an outbound message follows from; the most specific value decides. */
  #turnOf(context: RequestContext): Turn | undefined {
    const { flow } = context;
    const state = this.#flows.get(flow);
    if (state?.turn !== undefined) return state.turn;
    if (context.sessionId !== undefined || state?.isInDoubt === true) return undefined;
    const correlation = state?.correlation;
    const correlated = this.#turnOfCorrelation(context, correlation);
    const turn = correlated ?? state?.served;
    if (turn === undefined) return undefined;
    this.#flows.set(flow, { correlation, turn, isCorrelated: correlated !== undefined });
    return turn;
  }

  #turnOfCorrelation(
    context: RequestContext,
    correlation: Correlation | undefined,
  ): Turn | undefined {
    if (this.#index.size === 0) return undefined;
    const keys = keysOf(correlation);
    if (correlation?.mcp !== undefined) keys.push(mcpKey(context, correlation.mcp));
    const { parentId } = context.flow;
    if (parentId !== undefined) keys.push(`flow ${parentId}`);
    return this.#known(keys);
  }

  #known(keys: readonly string[]): Turn | undefined {
    const now = this.#clock.now();
    for (const key of keys) {
      const turn = this.#index.find(key, now);
      if (turn !== undefined) return turn;
    }
    return undefined;
  }

  /** A session of MCP belongs to a conversation: whatever replica its next message comes to. */
  #tieMcp(key: string, turn: Turn, now: number): void {
    if (turn.of === undefined) this.#index.add(key, turn, now);
    if (this.#ties?.isNews(key, turn) !== true) return;
    if (turn.open !== undefined && turn.sharedKeys.length < maxSharedKeys)
      turn.sharedKeys.push(key);
    const { intent, sessionId = "" } = turn;
    void this.#ties.tell([key], turn, intent ?? this.#store.intentOf(sessionId)?.text);
  }

  /** A trace, a field and a tunnel are of one conversation; what can be of several may be of another replica's by now. */
  #askReplicas(
    ties: SharedTies,
    context: RequestContext,
    { correlation }: FlowState & { readonly correlation: Correlation },
  ): Promise<void> | undefined {
    const { parentId } = context.flow;
    const own = keysOf({ ...correlation, bearer: undefined });
    if (parentId !== undefined) own.push(`flow ${parentId}`);
    if (this.#index.size > 0 && this.#known(own) !== undefined) return undefined;
    const keys = keysOf(correlation);
    if (correlation.mcp !== undefined) keys.push(mcpKey(context, correlation.mcp));
    if (keys.length === 0) return undefined;
    return ties.find(keys).then((found) => this.#heard(ties, context, found));
  }

  #heard(
    ties: SharedTies,
    context: RequestContext,
    found: Tie | "none" | "several" | "away",
  ): void {
    const state = this.#flows.get(context.flow);
    if (state === undefined || found === "none") return;
    if (typeof found === "string") {
      state.isInDoubt = found === "several" || ties.refusesWhenAway;
      return;
    }
    const own = this.#serving.find((turn) => ties.idOf(turn) === found.id);
    state.turn = own ?? new Turn(undefined, found.sessionId, found.startedAt, found);
    state.isCorrelated = true;
  }

  /** A response to initialize names the MCP session in which the next messages come. */
  #learnMcpSession(context: RequestContext): void {
    if (context.response === undefined) return;
    const mcp = assignedMcpSession(context);
    if (mcp === undefined) return;
    const { turn, isCorrelated = false } = this.#flows.get(context.flow) ?? {};
    if (turn !== undefined) {
      if (isCorrelated) this.#tieMcp(mcpKey(context, mcp), turn, this.#clock.now());
    } else if (context.sessionId === undefined) {
      const { id } = context.flow;
      context.sessionId = mcp;
      this.#store.rekey(defaultSessionId, mcp, (flowId) => flowId === id);
    }
  }
}
