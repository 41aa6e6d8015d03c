/**
 * What is known of messages to the agent: which are being served, what their users asked, and the values by which
 * messages that follow from them are found. One for all threads of a process.
 */
import type { Tie } from "../pipeline/context.ts";
import type { Clock, Intent } from "../pipeline/plugin.ts";
import { type Correlation, keysOf, type MarkedKey, mcpKey } from "./correlation.ts";
import { defaultSessionId } from "./event.ts";
import { Serving } from "./serving.ts";
import type { FoundTie, SharedTies } from "./shared-ties.ts";
import { Turn, TurnIndex } from "./turn.ts";

/** The part of the store that attribution needs. */
export interface AttributedStore {
  rekey(from: string, to: string, flows: ReadonlySet<string>): void;
  intentOf(sessionId: string): Intent | undefined;
  /** What users asked for last, of two sessions at most. */
  someIntents(): readonly Intent[];
}

/** What is known beside the message that another one follows from. */
export interface Surroundings extends Omit<AttributedStore, "rekey"> {
  /** Whether messages are being served of which nobody can tell which one something untied follows from. */
  readonly isSeveral: boolean;
}

/** What a message to somewhere else tells of itself when it comes. */
export interface Question {
  readonly flowId: string;
  /** The tunnel that carries it. */
  readonly parentId: string | undefined;
  readonly authority: string;
  readonly correlation: Correlation | undefined;
}

/** A turn and how a message is known to follow from it. */
export interface Tied {
  readonly turn: Turn;
  readonly tie: Tie | undefined;
}

/** What a message follows from, as far as that is known. */
export interface Found extends Partial<Tied> {
  /** What the user of the turn had said when the message came. */
  readonly intent?: string | undefined;
  /** A shared value ties the message to its turn, and not the moment alone: what else it shares with other messages ties those, too. */
  readonly isCorrelated?: boolean;
  /** There may be a message that this one follows from, and nobody could be asked, or several are known. */
  readonly isInDoubt?: boolean;
  /** As it was when the message came; absent: as it is now. */
  readonly around?: Surroundings;
}

/** What attribution asks and tells. A promise only where somebody else has to be asked or told. */
export interface Ledger extends Surroundings {
  /** The turn goes to the agent when the promise resolves. */
  open(turn: Turn): Promise<void> | undefined;
  /** Its conversation has got its name. */
  named(turn: Turn): void;
  /** The agent has answered. */
  answered(turn: Turn): void;
  /** The response is over, and everything is known of it that will be. */
  close(turn: Turn): void;
  /** A message that belongs to no conversation is being served. */
  begin(flowId: string): void;
  end(flowId: string): void;
  ask(question: Question): Found | undefined | Promise<Found | undefined>;
  /** What carries this value follows from the turn, in this process and, with `isShared`, in its replicas. */
  tie(turn: Turn, key: string, isShared: boolean): void;
  sessionOfTask(taskId: string): string | undefined;
  /** An untied message turned out to belong to a session. */
  move(flowId: string, to: string): void;
  clear(): void;
}

/** Options of a {@link TurnLedger}. */
export interface LedgerOptions {
  readonly store: AttributedStore;
  /** How long a correlation value is valid after the last message that used it. */
  readonly ttlMs?: number | undefined;
  readonly clock?: Clock | undefined;
  /** What replicas know; absent where this process is the only one. */
  readonly ties?: SharedTies | undefined;
}

const defaultTtlMs = 1_800_000;
const maxSharedKeys = 64;
/** A trace, a field and a tunnel are of one conversation; what can be of several may be of another replica's by now. */
const ofOneConversation: ReadonlySet<Tie> = new Set(["header", "trace", "tunnel"]);

/** The ledger of the thread that has it. */
export class TurnLedger implements Ledger {
  readonly #store: AttributedStore;
  readonly #clock: Clock;
  readonly #index: TurnIndex;
  readonly #ties: SharedTies | undefined;
  /** Messages to the agent that are being served. */
  readonly #serving = new Serving();

  constructor({ store, ttlMs = defaultTtlMs, clock = Date, ties }: LedgerOptions) {
    this.#store = store;
    this.#clock = clock;
    this.#index = new TurnIndex(ttlMs);
    this.#ties = ties;
  }

  get isSeveral(): boolean {
    return this.#serving.isSeveral;
  }

  intentOf(sessionId: string): Intent | undefined {
    return this.#store.intentOf(sessionId);
  }

  someIntents(): readonly Intent[] {
    return this.#store.someIntents();
  }

  open(turn: Turn): Promise<void> | undefined {
    const now = this.#clock.now();
    if (turn.isServed) this.#serving.add(turn);
    for (const key of turn.keys) this.#index.add(key, turn, now);
    this.#learnTask(turn, now);
    return this.#ties?.tell(turn.keys, turn);
  }

  named(turn: Turn): void {
    const { sessionId } = turn;
    if (sessionId === undefined) return;
    this.#serving.named(turn);
    this.#store.rekey(defaultSessionId, sessionId, turn.flows);
  }

  answered(turn: Turn): void {
    this.#serving.delete(turn);
  }

  close(turn: Turn): void {
    const now = this.#clock.now();
    this.#serving.delete(turn);
    this.#learnTask(turn, now);
    turn.close(now);
    void this.#ties?.tell([...turn.keys, ...turn.sharedKeys], turn);
    turn.intent = undefined;
  }

  begin(flowId: string): void {
    this.#serving.others.add(flowId);
  }

  end(flowId: string): void {
    this.#serving.others.delete(flowId);
  }

  ask(question: Question): Found | undefined | Promise<Found | undefined> {
    const { correlation, parentId } = question;
    const served = correlation?.field === undefined ? this.#serving.alone : undefined;
    const isAsked = this.#ties !== undefined && correlation !== undefined;
    if (
      !isAsked &&
      (this.#index.size === 0 || (correlation === undefined && parentId === undefined))
    )
      return served && asServed(served);
    const keys = markedKeys(question);
    const own = this.#known(keys);
    if (this.#ties === undefined || !isAsked || keys.length === 0) return own ?? asServed(served);
    if (own?.tie !== undefined && ofOneConversation.has(own.tie)) return own;
    return this.#askReplicas(this.#ties, keys).then((found) => found ?? own ?? asServed(served));
  }

  tie(turn: Turn, key: string, isShared: boolean): void {
    if (turn.of === undefined) this.#index.add(key, turn, this.#clock.now());
    if (!isShared || this.#ties?.isNews(key, turn) !== true) return;
    if (turn.isOpen && turn.sharedKeys.length < maxSharedKeys) turn.sharedKeys.push(key);
    const { intent, sessionId = "" } = turn;
    void this.#ties.tell([key], turn, intent ?? this.#store.intentOf(sessionId)?.text);
  }

  sessionOfTask(taskId: string): string | undefined {
    return this.#index.find(`task ${taskId}`, this.#clock.now())?.sessionId;
  }

  move(flowId: string, to: string): void {
    this.#store.rekey(defaultSessionId, to, new Set([flowId]));
  }

  clear(): void {
    this.#index.clear();
    this.#serving.clear();
  }

  #learnTask(turn: Turn, now: number): void {
    if (turn.taskId !== undefined) this.#index.add(`task ${turn.taskId}`, turn, now);
  }

  /** The most specific value decides. */
  #known(keys: readonly MarkedKey[]): Found | undefined {
    const now = this.#clock.now();
    for (const [key, tie] of keys) {
      const turn = this.#index.find(key, now);
      if (turn !== undefined) return { turn, tie, intent: turn.intent, isCorrelated: true };
    }
    return undefined;
  }

  /** Undefined where replicas know nothing of it. */
  async #askReplicas(ties: SharedTies, keys: readonly MarkedKey[]): Promise<Found | undefined> {
    const found = await ties.find(keys.map(([key]) => key));
    if (found === "none" || (found === "away" && !ties.refusesWhenAway)) return undefined;
    return typeof found === "string" ? { isInDoubt: true } : this.#heard(ties, found, keys);
  }

  #heard(ties: SharedTies, { shared, key }: FoundTie, keys: readonly MarkedKey[]): Found {
    const own = [...this.#serving].find((turn) => ties.idOf(turn) === shared.id);
    const turn = own ?? Turn.told(shared);
    const tie = keys.find(([one]) => one === key)?.[1];
    return { turn, tie, intent: turn.intent, isCorrelated: true };
  }
}

function asServed(turn: Turn | undefined): Found | undefined {
  return turn && { turn, tie: "served", intent: turn.intent };
}

function markedKeys({ correlation, authority, parentId }: Question): MarkedKey[] {
  const keys = keysOf(correlation);
  if (correlation?.mcp !== undefined) keys.push([mcpKey(authority, correlation.mcp), "mcp"]);
  if (parentId !== undefined) keys.push([`flow ${parentId}`, "tunnel"]);
  return keys;
}
