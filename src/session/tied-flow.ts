/** What is known of the conversation that a flow belongs to, and what that is learnt from. */
import type { Tie } from "../pipeline/context.ts";
import type { Clock, Intent } from "../pipeline/plugin.ts";
import type { Correlation } from "./correlation.ts";
import type { SharedTies } from "./shared-ties.ts";
import type { Turn } from "./turn.ts";

/** The part of the store that attribution needs. */
export interface AttributedStore {
  rekey(from: string, to: string, flows: ReadonlySet<string>): void;
  intentOf(sessionId: string): Intent | undefined;
  /** What users asked for last, of two sessions at most. */
  someIntents(): readonly Intent[];
}

/** Options of an {@link Attribution}. */
export interface AttributionOptions {
  readonly store: AttributedStore;
  /** Name of the field that carries a session id from inbound to outbound. */
  readonly field?: string | undefined;
  /** Whether a conversation's message without `traceparent` gets one on its way to the agent. */
  readonly addTraceparent?: boolean;
  /** How long a correlation value is valid after the last message that used it. */
  readonly ttlMs?: number;
  readonly clock?: Clock;
  /** What replicas know; absent where this process is the only one. */
  readonly ties?: SharedTies | undefined;
}

/** A turn and how a message is known to follow from it. */
export interface Tied {
  readonly turn: Turn;
  readonly tie: Tie;
}

/** What is known of a flow's conversation. */
export interface FlowState {
  readonly correlation: Correlation | undefined;
  turn: Turn | undefined;
  /** What was served alone when the message came, and what its user had said. */
  readonly served?: Turn | undefined;
  readonly intent?: string | undefined;
  /** What ties the message to its turn. */
  tie?: Tie | undefined;
  /** A shared value ties the message to its turn, and not the moment alone: what else it shares with other messages ties those, too. */
  isCorrelated?: boolean;
  /** Replicas may know of a message that this one follows from, and could not be asked, or know of several. */
  isInDoubt?: boolean;
  /** A message to the agent that belongs to no conversation is being served. */
  isNoTurn?: boolean;
}

/** The intent, with how it was found. */
export function withTie(intent: Intent | undefined, tie: Tie): Intent | undefined {
  return intent === undefined ? undefined : { ...intent, tie };
}
