/** The ledger of turns as a thread has it that does not hold it: what it tells is not waited for, what it asks is. */
import { ProxyError } from "../errors.ts";
import { defaultSessionId } from "../session/event.ts";
import type { Found, Ledger, Question, Surroundings } from "../session/ledger.ts";
import type { TieResult } from "../session/shared-ties.ts";
import { Turn, type TurnFacts } from "../session/turn.ts";
import type { Channel } from "../threads/channel.ts";
import type { Order } from "../threads/order.ts";
import type { ControlCalls, Moment, ThreadCalls, Told, Whose } from "./calls.ts";

/** Options of a {@link RemoteLedger}. */
export interface RemoteLedgerOptions {
  readonly channel: Channel<ControlCalls, ThreadCalls>;
  readonly order: Order;
  readonly thread: number;
  /** Longest that a question is waited for. */
  readonly limitMs: number;
  /** Whether replicas have to know of a message before the agent does. */
  readonly isReplicated: boolean;
  /** Takes what may cross later. */
  later(this: void, moment: Moment): void;
  onResult(this: void, result: TieResult): void;
}

/** More than the thread in control can be behind with at all times: it does not hear. */
const maxBacklog = 20_000;
const maxAsking = 10_000;

const unknown: Surroundings = {
  isSeveral: true,
  someIntents: () => [],
  intentOf: () => undefined,
};

/** Nobody could be asked: what nobody knows of is nobody's. */
const doubt: Found = { isInDoubt: true, around: unknown };

/** The ledger of the thread in control, as seen from another one. */
export class RemoteLedger implements Ledger {
  readonly isSeveral = true;
  readonly #options: RemoteLedgerOptions;
  readonly #open = new Map<string, Turn>();
  #asking = 0;

  constructor(options: RemoteLedgerOptions) {
    this.#options = options;
  }

  intentOf(): undefined {
    return undefined;
  }

  someIntents(): [] {
    return [];
  }

  open(turn: Turn): Promise<void> | undefined {
    this.#demandsHearing();
    const { id, sessionId, subject, intent, startedAt, keys, isServed, taskId } = turn;
    const facts = { id, sessionId, subject, intent, startedAt, keys, isServed, taskId };
    this.#open.set(id, turn);
    const isNamedByTask = sessionId === undefined && taskId !== undefined;
    if (!isNamedByTask && !this.#options.isReplicated) {
      this.#tell({ kind: "open", facts });
      return undefined;
    }
    return this.#ask(facts).then((name) => {
      turn.sessionId ??= name;
    });
  }

  named({ id, sessionId }: Turn): void {
    if (sessionId !== undefined) this.#tell({ kind: "named", id, sessionId });
  }

  /** What the conversation of an open message is called, as far as its parser knows by now. */
  nameOf(id: string): string | undefined {
    const turn = this.#open.get(id);
    if (turn?.learnName() === true) this.named(turn);
    return turn?.sessionId;
  }

  answered({ id }: Turn): void {
    this.#tell({ kind: "answered", id });
  }

  close(turn: Turn): void {
    const { id, taskId } = turn;
    this.#open.delete(id);
    turn.close(Date.now());
    turn.intent = undefined;
    this.#tell({ kind: "closed", id, taskId });
  }

  begin(id: string): void {
    this.#demandsHearing();
    this.#tell({ kind: "begun", id });
  }

  end(id: string): void {
    this.#tell({ kind: "ended", id });
  }

  async ask(question: Question): Promise<Found> {
    if (this.#asking >= maxAsking) return doubt;
    this.#asking += 1;
    const { channel, order, limitMs } = this.#options;
    try {
      return foundOf(await channel.ask("whose", { question, after: order.now }, limitMs));
    } catch {
      this.#options.onResult("away");
      return doubt;
    } finally {
      this.#asking -= 1;
    }
  }

  tie({ tie }: Turn, key: string, isShared: boolean): void {
    this.#tell({ kind: "tied", tie, key, isShared });
  }

  /** The thread in control knows, when the message is opened. */
  sessionOfTask(): undefined {
    return undefined;
  }

  move(flowId: string, to: string): void {
    const flows = new Set([flowId]);
    this.#options.later({ kind: "rekey", from: defaultSessionId, to, flows });
  }

  /** A moment that has to be known before anything else is asked. */
  record(moment: Moment): void {
    this.#tell({ kind: "moment", moment });
  }

  clear(): void {
    this.#open.clear();
  }

  /** Throws where the thread in control has not heard of so many messages that another one must not go. */
  #demandsHearing(): void {
    const { order, thread } = this.#options;
    if (order.backlog(thread) < maxBacklog) return;
    throw new ProxyError("proxy.overloaded", "the thread in control does not respond");
  }

  #tell(word: Told): void {
    const { channel, order, thread } = this.#options;
    order.told(thread);
    try {
      channel.tell("told", word);
    } catch (error) {
      order.heard(thread);
      throw error;
    }
  }

  /** Undefined as well where nobody responds in time: it is told all the same. */
  async #ask(facts: TurnFacts): Promise<string | undefined> {
    const { channel, order, thread, limitMs } = this.#options;
    order.told(thread);
    try {
      return await channel.ask("opened", facts, limitMs);
    } catch {
      this.#options.onResult("away");
      return undefined;
    }
  }
}

function foundOf({ found, turn, around }: Whose): Found {
  const { isSeveral, intents, intent } = around;
  return {
    ...found,
    ...(turn === undefined ? {} : { turn: Turn.told(turn) }),
    around: {
      isSeveral,
      someIntents: () => intents,
      intentOf: (sessionId) => (intent?.sessionId === sessionId ? intent : undefined),
    },
  };
}
