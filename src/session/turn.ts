/** One inbound message of a conversation, and the bounded index by which what follows from it is found again. */
import { BoundedMap } from "../bounded-map.ts";
import type { RequestContext } from "../pipeline/context.ts";
import { defaultSessionId } from "./event.ts";

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

/** One message to the agent, from its arrival to its response, and the conversation that it belongs to. */
export class Turn {
  static #count = 0;
  /** Tells turns apart in this process. */
  readonly id = `turn-${(Turn.#count += 1)}`;
  /** Undefined until the message or its response names the conversation. */
  sessionId: string | undefined;
  /** What the user asked; given up when the response is there, because the session keeps it. */
  intent: string | undefined;
  /** Who asked, as an authentication plugin verified. */
  readonly subject: string | undefined;
  readonly startedAt: number;
  /** When something of this turn was last seen. */
  usedAt: number;
  /** The message itself until its response ends: its parser may learn the conversation's name meanwhile. */
  open: RequestContext | undefined;
  /** Values beside those of the message itself under which replicas were told of it. */
  readonly sharedKeys: string[] = [];
  /** Flows that were recorded before the conversation had a name. */
  readonly #flows = new Set<string>();

  /** Of the message; empty where it is another replica's. */
  readonly flowId: string;
  /** As the replica told of it that has the message. */
  readonly of: SharedTie | undefined;

  constructor(
    context: RequestContext | undefined,
    sessionId: string | undefined,
    now: number,
    of?: SharedTie,
  ) {
    this.open = context;
    this.sessionId = sessionId;
    this.subject = context?.identity?.subject ?? of?.subject;
    this.startedAt = now;
    this.usedAt = now;
    this.flowId = context?.flow.id ?? "";
    this.of = of;
    this.intent = of?.intent;
  }

  /** Remembers a flow whose events have to follow the conversation once it has a name. */
  add(flowId: string): void {
    if (this.sessionId === undefined && this.#flows.size < maxFlows) this.#flows.add(flowId);
  }

  get flows(): ReadonlySet<string> {
    return this.#flows;
  }

  forgetFlows(): void {
    this.#flows.clear();
  }
}

const maxKeys = 8_192;
const maxTurnsPerKey = 8;

/** Turns by the correlation values of their messages. The value that was used longest ago is forgotten first. */
export class TurnIndex {
  readonly #ttlMs: number;
  readonly #byKey = new BoundedMap<string, Turn[]>(maxKeys);

  constructor(ttlMs: number) {
    this.#ttlMs = ttlMs;
  }

  get size(): number {
    return this.#byKey.size;
  }

  add(key: string, turn: Turn, now: number): void {
    const known = this.#byKey.get(key) ?? [];
    const others = known.filter((one) => one !== turn && !this.#isReplaced(one, turn, now));
    this.#byKey.renew(key, [...others.slice(1 - maxTurnsPerKey), turn]);
  }

  /**
   * The turn that a value belongs to, when it is unambiguous: the one conversation whose response is pending, or, when
   * none is, the only one that ever had the value. Two at once share nothing: undefined.
   */
  find(key: string, now: number): Turn | undefined {
    const turns = this.#byKey.get(key)?.filter((turn) => !this.#isStale(turn, now));
    if (turns === undefined || turns.length === 0) return undefined;
    const open = turns.filter((turn) => turn.open !== undefined);
    const candidates = open.length > 0 ? open : turns;
    if (new Set(candidates.map((turn) => turn.sessionId ?? turn)).size > 1) return undefined;
    const found = candidates.at(-1);
    if (found !== undefined) found.usedAt = now;
    return found;
  }

  clear(): void {
    this.#byKey.clear();
  }

  /** A closed turn tells nothing that a later one of the same conversation does not; a nameless one tells nothing. */
  #isReplaced(turn: Turn, by: Turn, now: number): boolean {
    if (turn.open !== undefined) return false;
    return this.#isStale(turn, now) || turn.sessionId === by.sessionId;
  }

  #isStale(turn: Turn, now: number): boolean {
    if (turn.open !== undefined) return false;
    const isNameless = turn.sessionId === undefined || turn.sessionId === defaultSessionId;
    return isNameless || now - turn.usedAt >= this.#ttlMs;
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
  return text === undefined || text.trim() === "" ? undefined : text.slice(0, maxIntentLength);
}

/** A text property of a value that came from outside. */
export function textOf(value: unknown, key: string): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const found = (value as Readonly<Record<string, unknown>>)[key];
  return typeof found === "string" && found !== "" ? found : undefined;
}
