/** The messages to the agent that are being served. */
import type { Turn } from "./turn.ts";

/** What is under way: what nothing ties follows from the one message that is being served, where there is exactly one. */
export class Serving {
  readonly #turns = new Set<Turn>();
  /** Messages that belong to no conversation: an agent may act for them as well. */
  others = 0;

  add(turn: Turn): void {
    this.#turns.add(turn);
  }

  delete(turn: Turn): void {
    this.#turns.delete(turn);
  }

  clear(): void {
    this.#turns.clear();
  }

  find(isMeant: (turn: Turn) => boolean): Turn | undefined {
    return [...this.#turns].find(isMeant);
  }

  /** Whether messages are being served of which nobody can tell which one something untied follows from. */
  get isSeveral(): boolean {
    return this.#turns.size > 0 && this.alone() === undefined;
  }

  /** The message that is being served, or the last of several in one conversation; undefined where there are others. */
  alone(): Turn | undefined {
    if (this.others > 0) return undefined;
    let found: Turn | undefined;
    for (const turn of this.#turns) {
      const isOther = found?.sessionId === undefined || found.sessionId !== turn.sessionId;
      if (found !== undefined && isOther) return undefined;
      found = turn;
    }
    return found;
  }
}
