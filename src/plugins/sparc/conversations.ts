/** The conversations that the agent has with its language models, as far as calls of tools can follow from them. */
import { callerOf } from "../../pipeline/flow.ts";
import type { RequestContext, SessionReader } from "../../pipeline/plugin.ts";
import type { InferenceView } from "../../protocols/inference-view.ts";

interface Known {
  /** Who called: nothing is judged in the conversation of another caller. */
  readonly caller: string;
  readonly turn: string | undefined;
  readonly session: string | undefined;
  readonly view: InferenceView;
  readonly bytes: number;
}

const maxKnown = 256;
const maxBytes = 32 * 1_024 * 1_024;

/** The last request to a language model of each conversation, bounded by number and bytes. */
export class Conversations {
  readonly #sessions: SessionReader | undefined;
  /** In the order in which they came. */
  #known: Known[] = [];
  #bytes = 0;

  constructor(sessions: SessionReader | undefined) {
    this.#sessions = sessions;
  }

  remember(context: RequestContext, view: InferenceView): void {
    if (this.#sessions === undefined || view.messages === undefined) return;
    const bytes = context.clearBody?.kind === "body" ? context.clearBody.bytes.length : 0;
    const { turn, session } = this.#sessions.scopeOf(context);
    const caller = callerOf(context.flow.client);
    this.#forget(
      (known) => known.caller === caller && known.turn === turn && known.session === session,
    );
    this.#known.push({ caller, turn, session, view, bytes });
    this.#bytes += bytes;
    while (this.#known.length > maxKnown || (this.#bytes > maxBytes && this.#known.length > 1)) {
      const [oldest] = this.#known;
      this.#forget((known) => known === oldest);
    }
  }

  /**
   * The conversation that a call of a tool follows from: of the message to the agent that is being served, else of the
   * session, else the only one that there is. Undefined where nobody can tell.
   */
  find(context: RequestContext): InferenceView | undefined {
    const sessions = this.#sessions;
    if (sessions === undefined) return undefined;
    const caller = callerOf(context.flow.client);
    const own = this.#known.filter((known) => known.caller === caller);
    const { turn, session } = sessions.scopeOf(context);
    const ofTurn = turn === undefined ? undefined : own.findLast((known) => known.turn === turn);
    const found =
      ofTurn ??
      (session === undefined ? undefined : own.findLast((known) => known.session === session));
    if (found !== undefined) return found.view;
    if (turn !== undefined || own.length !== 1 || sessions.isInDoubt(context)) return undefined;
    return own[0]?.view;
  }

  #forget(isMeant: (known: Known) => boolean): void {
    this.#known = this.#known.filter((known) => {
      if (!isMeant(known)) return true;
      this.#bytes -= known.bytes;
      return false;
    });
  }
}
