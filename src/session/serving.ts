/** Messages to the agent that are being served: which conversation they are of, where they are of one. */
import type { RequestContext } from "../pipeline/context.ts";
import { textOf, type Turn } from "./turn.ts";

interface Group {
  readonly turns: Set<Turn>;
  latest: Turn;
}

/** The conversation of a turn and its user; a turn without a name is one of its own. */
type GroupKey = string | Turn;

/** The open turns, by conversation: a look takes the same time however many there are. */
export class Serving {
  readonly #keys = new Map<Turn, GroupKey>();
  readonly #groups = new Map<GroupKey, Group>();

  /** Messages that belong to no conversation: an agent may act for them as well. */
  readonly others = new Set<string>();

  /** Whether messages are being served of which nobody can tell which one something untied follows from. */
  get isSeveral(): boolean {
    return this.#keys.size > 0 && this.alone === undefined;
  }

  /** The message that is being served, or the last of several in one conversation; undefined where there are others. */
  get alone(): Turn | undefined {
    if (this.others.size > 0 || this.#groups.size !== 1) return undefined;
    const [group] = this.#groups.values();
    return group?.latest;
  }

  *[Symbol.iterator](): IterableIterator<Turn> {
    yield* this.#keys.keys();
  }

  add(turn: Turn): void {
    const key = keyOf(turn);
    this.#keys.set(turn, key);
    const group = this.#groups.get(key);
    if (group === undefined) {
      this.#groups.set(key, { turns: new Set([turn]), latest: turn });
      return;
    }
    group.turns.add(turn);
    if (turn.startedAt >= group.latest.startedAt) group.latest = turn;
  }

  /** The turn has got its conversation's name. */
  named(turn: Turn): void {
    if (this.delete(turn)) this.add(turn);
  }

  delete(turn: Turn): boolean {
    const key = this.#keys.get(turn);
    if (key === undefined) return false;
    this.#keys.delete(turn);
    const group = this.#groups.get(key);
    group?.turns.delete(turn);
    const last = group?.latest === turn ? [...group.turns].at(-1) : group?.latest;
    if (group === undefined || last === undefined) this.#groups.delete(key);
    else group.latest = last;
    return true;
  }

  clear(): void {
    this.#keys.clear();
    this.#groups.clear();
    this.others.clear();
  }
}

/** Two users in one conversation are two: whoever knows its name could put words into the other's mouth. */
function keyOf(turn: Turn): GroupKey {
  const { sessionId, subject } = turn;
  return sessionId === undefined ? turn : JSON.stringify([sessionId, subject]);
}

/** Methods that ask about something and have nothing done. */
const questions = /^(?:tasks\/(?:get|list|pushNotificationConfig\/.*)|agent\/.*)$/;

/**
 * Whether the agent acts for somebody while it serves the message. Probes, pages and streams that a client only listens
 * to have no body; what comes over an upgraded connection can be anything.
 */
export function isWork({ hasBody, upgrade }: RequestContext, a2a: unknown): boolean {
  if (a2a !== undefined) return !questions.test(textOf(a2a, "method") ?? "");
  return hasBody || upgrade !== undefined;
}
