/** The conversations that the agent has with its language models, as far as calls of tools can follow from them. */
import type {
  InferenceMessage,
  InferenceTool,
  InferenceView,
} from "../../protocols/inference-view.ts";
import { toolResultsOf } from "../../protocols/inference-bounds.ts";

/** What calls are judged in. */
export interface Conversation {
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly tools: readonly InferenceTool[];
}

/** Whose a conversation is. */
export interface Owner {
  /** Who called: nothing is judged in the conversation of another caller. */
  readonly caller: string;
  readonly turn?: string | undefined;
  readonly session?: string | undefined;
}

interface Known extends Owner {
  readonly conversation: Conversation;
  readonly bytes: number;
}

const maxKnown = 256;
const maxBytes = 32 * 1_024 * 1_024;

/** The last request to a language model of each conversation, bounded by number and bytes. */
export class Conversations {
  /** In the order in which they came. */
  #known: Known[] = [];
  #bytes = 0;

  remember({ caller, turn, session }: Owner, conversation: Conversation, bytes: number): void {
    this.#forget(
      (known) => known.caller === caller && known.turn === turn && known.session === session,
    );
    this.#known.push({ caller, turn, session, conversation, bytes });
    this.#bytes += bytes;
    while (this.#known.length > maxKnown || (this.#bytes > maxBytes && this.#known.length > 1)) {
      const [oldest] = this.#known;
      this.#forget((known) => known === oldest);
    }
  }

  /**
   * The conversation that a call of a tool follows from: of the message to the agent that is being served, else of the
   * session, else the only one that there is, where nobody is in doubt. Undefined where nobody can tell.
   */
  find({ caller, turn, session }: Owner, isInDoubt: boolean): Conversation | undefined {
    const own = this.#known.filter((known) => known.caller === caller);
    const ofTurn = turn === undefined ? undefined : own.findLast((known) => known.turn === turn);
    const found =
      ofTurn ??
      (session === undefined ? undefined : own.findLast((known) => known.session === session));
    if (found !== undefined) return found.conversation;
    if (turn !== undefined || own.length !== 1 || isInDoubt) return undefined;
    return own[0]?.conversation;
  }

  #forget(isMeant: (known: Known) => boolean): void {
    this.#known = this.#known.filter((known) => {
      if (!isMeant(known)) return true;
      this.#bytes -= known.bytes;
      return false;
    });
  }
}

/** Undefined where the request has no messages that could be read. */
export function conversationOf({ messages, tools = [] }: InferenceView): Conversation | undefined {
  return messages && { messages: messages.flatMap(spelled), tools };
}

/** Results of tools are messages of their own, as OpenAI has them: arguments are often grounded in them alone. */
function spelled(message: InferenceMessage): readonly { role: string; content: string }[] {
  const { role, content } = message;
  const results = toolResultsOf(message).map((result) => ({ role: "tool", content: result }));
  return content === undefined && results.length > 0
    ? results
    : [...results, { role, content: content ?? "" }];
}
