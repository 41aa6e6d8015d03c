/** One inbound message of a conversation, and the bounded index by which what follows from it is found again. */
import { BoundedMap, ownText } from "../bounded-map.ts";
import type { RequestContext } from "../pipeline/context.ts";
import { defaultSessionId } from "./event.ts";
import { sessionIdOf } from "./session-id.ts";

const maxFlows = 1_024;

/** A conversation's message to the agent, as the replica saw it that has it. */
export interface SharedTie {
  /** Of the message: each replica has ids of its own. */
  readonly id: string;
  readonly sessionId?: string | undefined;
  /** Who asked, as an authentication plugin verified. */
  readonly subject?: string | undefined;
  /** What the user asked. */
  readonly intent?: string | undefined;
  readonly startedAt: number;
  /** The response is not there yet. */
  readonly isOpen: boolean;
}

/** What a turn begins with. */
export interface TurnFacts extends Omit<SharedTie, "isOpen"> {
  /** Values by which what follows from it is found. */
  readonly keys: readonly string[];
  /** The agent acts for somebody while the message is being served. */
  readonly isServed: boolean;
  readonly taskId?: string | undefined;
}

/** One message to the agent, from its arrival to its response, and the conversation that it belongs to. */
export class Turn {
  readonly id: string;
  /** Undefined until the message or its response names the conversation. */
  sessionId: string | undefined;
  /** What the user asked; given up when the response is there, because the session keeps it. */
  intent: string | undefined;
  /** Who asked, as an authentication plugin verified. */
  readonly subject: string | undefined;
  readonly startedAt: number;
  readonly keys: readonly string[];
  readonly isServed: boolean;
  taskId: string | undefined;
  /** When something of this turn was last seen. */
  usedAt: number;
  /** The response is not there yet. */
  isOpen = true;
  /** Values beside {@link keys} under which replicas were told of it. */
  readonly sharedKeys: string[] = [];
  /** Flows that were recorded before the conversation had a name. */
  readonly #flows = new Set<string>();
  /** As somebody told of it who has the message. */
  readonly of: SharedTie | undefined;
  /** The message itself, here where it is served: its parser may learn the conversation's name meanwhile. */
  #message: RequestContext | undefined;

  constructor(
    facts: TurnFacts,
    { message, of }: { readonly message?: RequestContext; readonly of?: SharedTie } = {},
  ) {
    this.id = facts.id;
    this.sessionId = facts.sessionId;
    this.intent = facts.intent;
    this.subject = facts.subject;
    this.startedAt = facts.startedAt;
    this.usedAt = facts.startedAt;
    this.keys = facts.keys;
    this.isServed = facts.isServed;
    this.taskId = facts.taskId;
    this.#message = message;
    this.of = of;
    // Of a conversation without a name, events of the message itself follow as well.
    if (of === undefined) this.add(facts.id);
    else this.isOpen = of.isOpen;
  }

  /** A turn that is somebody else's. */
  static told(of: SharedTie): Turn {
    return new Turn({ ...of, keys: [], isServed: false }, { of });
  }

  /** Asks the message what its conversation is called; true where that is new. */
  learnName(): boolean {
    if (this.sessionId !== undefined || this.#message === undefined) return false;
    const { sessionId, facts } = this.#message;
    const name = sessionId ?? textOf(facts.get("a2a"), "sessionId");
    this.sessionId = name === undefined ? undefined : sessionIdOf(name);
    return name !== undefined;
  }

  /** The response is over. */
  close(now: number): void {
    this.isOpen = false;
    this.usedAt = now;
    this.#message = undefined;
    this.#flows.clear();
  }

  /** Remembers a flow whose events have to follow the conversation once it has a name. */
  add(flowId: string): void {
    if (this.sessionId === undefined && this.#flows.size < maxFlows) this.#flows.add(flowId);
  }

  get flows(): ReadonlySet<string> {
    return this.#flows;
  }

  /** As others are told of it. */
  get tie(): SharedTie {
    const { id, sessionId, subject, intent, startedAt, isOpen } = this;
    return this.of ?? { id, sessionId, subject, intent, startedAt, isOpen };
  }
}

const maxKeys = 8_192;
const maxTurnsPerKey = 8;

/** The turns of one value. */
interface Holders {
  readonly turns: readonly Turn[];
  /** Open when there were too many: they count for as long as they are. */
  readonly spilled: Set<Turn> | undefined;
}

/** Turns by the correlation values of their messages. The value that was used longest ago is forgotten first. */
export class TurnIndex {
  readonly #ttlMs: number;
  readonly #byKey = new BoundedMap<string, Holders>(maxKeys);

  constructor(ttlMs: number) {
    this.#ttlMs = ttlMs;
  }

  get size(): number {
    return this.#byKey.size;
  }

  add(key: string, turn: Turn, now: number): void {
    const { turns = [], spilled } = this.#byKey.get(key) ?? {};
    const others = turns.filter((one) => one !== turn && !this.#isReplaced(one, turn, now));
    const lost = others.splice(0, Math.max(0, others.length + 1 - maxTurnsPerKey));
    const open = lost.filter(({ isOpen }) => isOpen);
    const beside = open.length > 0 ? (spilled ?? new Set<Turn>()) : spilled;
    if (beside !== undefined) for (const one of open) spill(one, beside);
    this.#byKey.renew(key, { turns: [...others, turn], spilled: beside });
  }

  /**
   * The turn that a value belongs to, when it is unambiguous: the one conversation whose response is pending, or, when
   * none is, the only one that ever had the value. Two at once share nothing: undefined.
   */
  find(key: string, now: number): Turn | undefined {
    const holders = this.#byKey.get(key);
    const turns = holders?.turns.filter((turn) => !this.#isStale(turn, now));
    if (turns === undefined || turns.length === 0) return undefined;
    const open = turns.filter((turn) => turn.isOpen);
    if (holders?.spilled !== undefined) open.unshift(...stillOpen(holders.spilled));
    const candidates = open.length > 0 ? open : turns;
    const found = candidates.at(-1);
    if (found === undefined || isShared(found, candidates)) return undefined;
    found.usedAt = now;
    return found;
  }

  clear(): void {
    this.#byKey.clear();
  }

  /** A closed turn tells nothing that a later one of the same conversation does not; a nameless one tells nothing. */
  #isReplaced(turn: Turn, by: Turn, now: number): boolean {
    if (turn.isOpen) return false;
    return this.#isStale(turn, now) || turn.sessionId === by.sessionId;
  }

  #isStale(turn: Turn, now: number): boolean {
    if (turn.isOpen) return false;
    const isNameless = turn.sessionId === undefined || turn.sessionId === defaultSessionId;
    return isNameless || now - turn.usedAt >= this.#ttlMs;
  }
}

/** Whether one of the turns is of another conversation. */
function isShared(found: Turn, turns: Iterable<Turn>): boolean {
  for (const turn of turns)
    if (turn !== found && (turn.sessionId ?? turn) !== (found.sessionId ?? found)) return true;
  return false;
}

/** At each power of two those that are closed are forgotten: there are never more than twice as many as are open. */
function spill(turn: Turn, into: Set<Turn>): void {
  into.add(turn);
  if ((into.size & (into.size - 1)) !== 0) return;
  for (const one of into) if (!one.isOpen) into.delete(one);
}

/** Forgets those that are not, and no more than it has to look at. */
function* stillOpen(spilled: Set<Turn>): Iterable<Turn> {
  for (const turn of spilled) {
    if (turn.isOpen) yield turn;
    else spilled.delete(turn);
  }
}

const maxIntentLength = 8_192;

/** Whether an A2A view is something that a user said, and not a question about a task. */
export function isUserMessage(a2a: unknown): boolean {
  const method = textOf(a2a, "method");
  return typeof a2a === "object" && a2a !== null && !/^(?:tasks|agent)\//.test(method ?? "");
}

/** The words of a user's message, at most 8,192 characters; undefined when it has none. */
export function intentText(a2a: unknown): string | undefined {
  if (!isUserMessage(a2a)) return undefined;
  const parts = (a2a as { readonly parts?: unknown }).parts;
  const texts = (Array.isArray(parts) ? parts : []).flatMap((part: unknown) => {
    const text = textOf(part, "content") ?? textOf(part, "text");
    return text === undefined || (textOf(part, "kind") ?? "text") !== "text" ? [] : [text];
  });
  const text = texts.length > 0 ? texts.join("\n") : textOf(a2a, "text");
  return text === undefined || text.trim() === ""
    ? undefined
    : ownText(text.slice(0, maxIntentLength));
}

/** A text property of a value that came from outside. */
export function textOf(value: unknown, key: string): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const found = (value as Readonly<Record<string, unknown>>)[key];
  return typeof found === "string" && found !== "" ? found : undefined;
}
