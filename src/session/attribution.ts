/**
 * Which session a message belongs to, when many are under way at once.
 *
 * A message says so itself (an A2A context, an MCP session, the configured field), or it shares a value with a message to
 * the agent: the trace, the field, the caller's credential. What nothing ties follows from the one message that is
 * being served, where there is exactly one; else it goes to `default`. Nobody guesses by what happened last.
 */
import type { RequestContext } from "../pipeline/context.ts";
import type { Flow } from "../pipeline/flow.ts";
import type { Clock, Intent, SessionReader } from "../pipeline/plugin.ts";
import { defaultSessionId, maxSessionIdLength } from "./event.ts";
import {
  assignedMcpSession,
  type Correlation,
  correlationOf,
  keysOf,
  type MarkedKey,
  mcpKey,
  ownNameOf,
  withTrace,
} from "./correlation.ts";
import { isWork, Serving } from "./serving.ts";
import {
  type AttributedStore,
  type AttributionOptions,
  type FlowState,
  type Tied,
  withTie,
} from "./tied-flow.ts";
import type { FoundTie, SharedTies } from "./shared-ties.ts";
import { intentText, textOf, Turn, TurnIndex } from "./turn.ts";

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
  /** Messages to the agent that are being served. */
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
    const served = correlation?.field === undefined ? this.#serving.alone : undefined;
    if (correlation === undefined && served === undefined) return undefined;
    const state: FlowState = { correlation, turn: undefined, served, intent: served?.intent };
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
    if (context.shownIn === undefined || turn !== undefined) this.#attribute(context);
    // What went on untied stays so, or moves whole: its response belongs beside its request.
    else this.#move(context, ownNameOf(context, state?.correlation));
    this.#learnMcpSession(context);
  }

  /** What the user asked for, as far as this message can be tied to it. */
  intentOf(context: RequestContext): Intent | undefined {
    const isOutbound = context.flow.direction === "outbound";
    const turn = isOutbound ? this.#turnOf(context) : this.#flows.get(context.flow)?.turn;
    if (turn !== undefined) this.#refresh(turn);
    const { tie = "own", intent, isInDoubt } = this.#flows.get(context.flow) ?? {};
    const sessionId = turn?.sessionId ?? context.sessionId;
    const text = turn?.intent ?? intent;
    if (turn !== undefined && text !== undefined) {
      const at = new Date(turn.startedAt).toISOString();
      return { text, sessionId: sessionId ?? defaultSessionId, at, tie };
    }
    if (sessionId !== undefined) return withTie(this.#store.intentOf(sessionId), tie);
    // A message without words, of a conversation without a name: the last words in `default` are anybody's.
    if (turn !== undefined || this.#serving.isSeveral || isInDoubt === true) return undefined;
    // What nothing ties can follow from no other than the one conversation that is known, if it is one.
    const known = this.#store.someIntents();
    return known.length > 1 ? undefined : withTie(known[0], "only");
  }

  /** The session of a message whose pipeline is running: {@link permitted} settles it later. */
  sessionOf(context: RequestContext): string | undefined {
    if (context.flow.direction === "inbound") {
      this.#nameInbound(context, correlationOf(context, this.#field));
      return context.sessionId;
    }
    const turn = this.#turnOf(context);
    if (turn === undefined)
      return context.sessionId ?? ownNameOf(context, this.#flows.get(context.flow)?.correlation);
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
      if (!isWork(context, a2a)) return undefined;
      this.#serving.others += 1;
      this.#flows.set(context.flow, { correlation, turn: undefined, isNoTurn: true });
      return undefined;
    }
    const now = this.#clock.now();
    const turn = new Turn(context, sessionId, now);
    turn.intent = intentText(a2a);
    turn.add(context.flow.id);
    const isServed = isWork(context, a2a);
    if (isServed) this.#serving.add(turn);
    const traced = this.#addTraceparent ? withTrace(context, correlation) : correlation;
    this.#flows.set(context.flow, { correlation: traced, turn });
    // What the agent does for the user meanwhile does not follow from a question about it.
    const marks = isServed ? traced : { ...traced, bearer: undefined };
    const keys = keysOf(marks).map(([key]) => key);
    for (const key of keys) this.#index.add(key, turn, now);
    this.#learnTask(context, turn, now);
    return this.#ties?.tell(keys, turn);
  }

  #close(turn: Turn, context: RequestContext): void {
    const now = this.#clock.now();
    this.#refresh(turn);
    this.#serving.delete(turn);
    this.#learnTask(context, turn, now);
    turn.open = undefined;
    const keys = keysOf(this.#flows.get(context.flow)?.correlation).map(([key]) => key);
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
    this.#serving.named(turn);
    this.#store.rekey(defaultSessionId, turn.sessionId, turn.flows);
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
      context.sessionId ??= ownNameOf(context, this.#flows.get(context.flow)?.correlation);
      if (context.sessionId !== undefined) context.tiedBy ??= "own";
      return;
    }
    this.#refresh(turn);
    context.sessionId = turn.sessionId;
    turn.add(context.flow.id);
    const { correlation, isCorrelated = false, tie } = this.#flows.get(context.flow) ?? {};
    context.tiedBy = tie;
    // The next conversation may use the same MCP session or tunnel.
    if (!isCorrelated) return;
    const now = this.#clock.now();
    const mcp = correlation?.mcp;
    if (mcp !== undefined) this.#tieMcp(mcpKey(context, mcp), turn, now);
    if (context.stage === "connect") this.#index.add(`flow ${context.flow.id}`, turn, now);
  }

  /** The turn that an outbound message follows from; the most specific value decides. */
  #turnOf(context: RequestContext): Turn | undefined {
    const { flow } = context;
    const state = this.#flows.get(flow);
    if (state?.turn !== undefined) return state.turn;
    if (context.sessionId !== undefined || state?.isInDoubt === true) return undefined;
    const correlation = state?.correlation;
    const correlated = this.#turnOfCorrelation(context, correlation);
    const turn = correlated?.turn ?? state?.served;
    if (turn === undefined) return undefined;
    const { tie } = correlated ?? { tie: "served" };
    const intent = correlated === undefined ? state?.intent : undefined;
    const isCorrelated = correlated !== undefined;
    this.#flows.set(flow, { correlation, turn, isCorrelated, tie, intent });
    return turn;
  }

  #turnOfCorrelation(
    context: RequestContext,
    correlation: Correlation | undefined,
  ): Tied | undefined {
    if (this.#index.size === 0) return undefined;
    const keys = keysOf(correlation);
    if (correlation?.mcp !== undefined) keys.push([mcpKey(context, correlation.mcp), "mcp"]);
    const { parentId } = context.flow;
    if (parentId !== undefined) keys.push([`flow ${parentId}`, "tunnel"]);
    return this.#known(keys);
  }

  #known(keys: readonly MarkedKey[]): Tied | undefined {
    const now = this.#clock.now();
    for (const [key, tie] of keys) {
      const turn = this.#index.find(key, now);
      if (turn !== undefined) return { turn, tie };
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
    if (parentId !== undefined) own.push([`flow ${parentId}`, "tunnel"]);
    if (this.#index.size > 0 && this.#known(own) !== undefined) return undefined;
    const keys = keysOf(correlation);
    if (correlation.mcp !== undefined) keys.push([mcpKey(context, correlation.mcp), "mcp"]);
    if (keys.length === 0) return undefined;
    return ties
      .find(keys.map(([key]) => key))
      .then((found) => this.#heard(ties, context, found, keys));
  }

  #heard(
    ties: SharedTies,
    context: RequestContext,
    found: FoundTie | "none" | "several" | "away",
    keys: readonly MarkedKey[],
  ): void {
    const state = this.#flows.get(context.flow);
    if (state === undefined || found === "none") return;
    if (typeof found === "string") {
      state.isInDoubt = found === "several" || ties.refusesWhenAway;
      return;
    }
    const { shared } = found;
    const own = [...this.#serving].find((turn) => ties.idOf(turn) === shared.id);
    state.turn = own ?? new Turn(undefined, shared.sessionId, shared.startedAt, shared);
    state.isCorrelated = true;
    state.tie = keys.find(([key]) => key === found.key)?.[1];
  }

  /** A response to initialize names the MCP session in which the next messages come. */
  #learnMcpSession(context: RequestContext): void {
    if (context.response === undefined) return;
    const mcp = assignedMcpSession(context);
    if (mcp === undefined) return;
    const { turn, isCorrelated = false } = this.#flows.get(context.flow) ?? {};
    if (turn === undefined) this.#move(context, mcp);
    else if (isCorrelated) this.#tieMcp(mcpKey(context, mcp), turn, this.#clock.now());
  }

  /** An untied message whose response names its conversation. */
  #move(context: RequestContext, name: string | undefined): void {
    if (name === undefined || context.sessionId !== undefined) return;
    const { id } = context.flow;
    context.sessionId = name;
    context.tiedBy = "own";
    this.#store.rekey(defaultSessionId, name, new Set([id]));
  }
}
