/** Sessions of the process as its threads tell of them and ask for them, in the thread in control. */
import type { SessionParts } from "../app/session-parts.ts";
import { BoundedMap } from "../bounded-map.ts";
import { defaultSessionId, type SessionEvent } from "../session/event.ts";
import type { Ledger } from "../session/ledger.ts";
import { Turn, type TurnFacts } from "../session/turn.ts";
import type { Order } from "../threads/order.ts";
import type { Asked, Moment, Told, Whose } from "./calls.ts";

/** What is open, and in which thread. */
interface Open {
  readonly turn: Turn;
  readonly thread: number;
}

/** What the sessions need of the crew. */
export interface CrewSessionsOptions {
  readonly sessions: SessionParts | undefined;
  readonly order: Order;
  /** Asks a thread what the conversation of an open message is called by now. */
  nameOf(this: void, thread: number, id: string): Promise<string | undefined>;
  /** How long the agent may go on with what it was asked through a thread that has ended. */
  readonly orphanedMs?: number;
}

const defaultOrphanedMs = 30_000;
const maxClosed = 8_192;
const maxNameless = 16_384;

/** What threads have told. */
export class CrewSessions {
  readonly #options: CrewSessionsOptions;
  readonly #ledger: Ledger | undefined;
  readonly #open = new Map<string, Open>();
  /** Those that messages may still be tied to. */
  readonly #closed = new BoundedMap<string, Turn>(maxClosed);
  /** Messages that belong to no conversation, and their threads. */
  readonly #others = new Map<string, number>();
  /** Turns without a name by the flows that belong to them: their events may come when it has got one. */
  readonly #nameless = new BoundedMap<string, Turn>(maxNameless);
  readonly #orphans = new Set<NodeJS.Timeout>();

  constructor(options: CrewSessionsOptions) {
    this.#options = options;
    this.#ledger = options.sessions?.ledger;
  }

  record(moment: Moment): void {
    const { sessions } = this.#options;
    const { kept, audit } = sessions ?? {};
    switch (moment.kind) {
      case "event": {
        const event = this.#settled(moment.event);
        kept?.store.record(event, moment.shownIn);
        kept?.usage.record(event);
        return;
      }
      case "decision":
        audit?.append(moment.facts);
        return;
      case "rekey":
        kept?.store.rekey(moment.from, moment.to, moment.flows);
    }
  }

  told(thread: number, word: Told): void {
    try {
      this.#hear(thread, word);
    } finally {
      this.#options.order.heard(thread);
    }
  }

  /** As it is told of; gives the name that it has by its task. */
  async opened(thread: number, facts: TurnFacts): Promise<string | undefined> {
    let telling;
    try {
      telling = this.#opens(thread, facts);
    } finally {
      this.#options.order.heard(thread);
    }
    await telling;
    return this.#open.get(facts.id)?.turn.sessionId;
  }

  /** Whose a message is, with everything that was told before it came. */
  async whose({ question, after }: Asked): Promise<Whose> {
    const ledger = this.#ledger;
    if (ledger === undefined) return { around: { isSeveral: false, intents: [] } };
    await this.#options.order.after(after);
    const { turn, around: _around, ...found } = (await ledger.ask(question)) ?? {};
    if (turn === undefined) {
      const { isSeveral } = ledger;
      return { found, around: { isSeveral, intents: ledger.someIntents() } };
    }
    await this.#name(turn);
    const { sessionId } = turn;
    turn.add(question.flowId);
    if (sessionId === undefined) this.#nameless.renew(question.flowId, turn);
    const intent = sessionId === undefined ? undefined : ledger.intentOf(sessionId);
    return { found, turn: turn.tie, around: { isSeveral: false, intents: [], intent } };
  }

  /**
   * The thread is gone, and perhaps the agent goes on with what it was asked through it: until it has had the time, what
   * nothing ties may follow from that.
   */
  forget(thread: number): void {
    this.#options.order.forget(thread);
    const turns = [...this.#open].flatMap(([id, one]) => (one.thread === thread ? [id] : []));
    const others = [...this.#others].flatMap(([id, one]) => (one === thread ? [id] : []));
    if (turns.length + others.length === 0) return;
    const timer = setTimeout(() => {
      this.#orphans.delete(timer);
      for (const id of turns) this.#close(id);
      for (const id of others) this.#end(id);
    }, this.#options.orphanedMs ?? defaultOrphanedMs).unref();
    this.#orphans.add(timer);
  }

  close(): void {
    for (const timer of this.#orphans) clearTimeout(timer);
  }

  #hear(thread: number, word: Told): void {
    switch (word.kind) {
      case "open":
        void this.#opens(thread, word.facts);
        return;
      case "named":
        this.#named(word.id, word.sessionId);
        return;
      case "answered": {
        const turn = this.#open.get(word.id)?.turn;
        if (turn !== undefined) this.#ledger?.answered(turn);
        return;
      }
      case "closed":
        this.#close(word.id, word.taskId);
        return;
      case "begun":
        this.#others.set(word.id, thread);
        this.#ledger?.begin(word.id);
        return;
      case "ended":
        this.#end(word.id);
        return;
      case "tied": {
        const { id } = word.tie;
        const turn = this.#open.get(id)?.turn ?? this.#closed.get(id) ?? Turn.told(word.tie);
        this.#ledger?.tie(turn, word.key, word.isShared);
        return;
      }
      case "moment":
        this.record(word.moment);
    }
  }

  #opens(thread: number, facts: TurnFacts): Promise<void> | undefined {
    const { id, taskId, sessionId } = facts;
    const byTask = taskId === undefined ? undefined : this.#ledger?.sessionOfTask(taskId);
    const turn = new Turn({ ...facts, sessionId: sessionId ?? byTask });
    this.#open.set(id, { turn, thread });
    if (turn.sessionId === undefined) this.#nameless.renew(id, turn);
    return this.#ledger?.open(turn);
  }

  #named(id: string, sessionId: string): void {
    const turn = this.#open.get(id)?.turn;
    if (turn === undefined || turn.sessionId !== undefined) return;
    turn.sessionId = sessionId;
    this.#ledger?.named(turn);
  }

  #close(id: string, taskId?: string): void {
    const turn = this.#open.get(id)?.turn;
    if (turn === undefined) return;
    this.#open.delete(id);
    this.#closed.renew(id, turn);
    turn.taskId = taskId ?? turn.taskId;
    this.#ledger?.close(turn);
  }

  #end(id: string): void {
    this.#others.delete(id);
    this.#ledger?.end(id);
  }

  /** The parser of a message that is open may know by now what its conversation is called. */
  async #name({ id, sessionId }: Turn): Promise<void> {
    const open = this.#open.get(id);
    if (sessionId !== undefined || open === undefined) return;
    try {
      await this.#options.nameOf(open.thread, id);
    } catch {
      // It stays without a name for this message, and is the message that it is all the same.
    }
  }

  /** Events cross later than names. */
  #settled(event: SessionEvent): SessionEvent {
    if (event.sessionId !== defaultSessionId) return event;
    const sessionId = this.#nameless.get(event.requestId)?.sessionId;
    return sessionId === undefined ? event : { ...event, sessionId };
  }
}
