/** What the engine keeps of a message until it is over. */
import type { Decision, Outcome, RequestContext } from "../../pipeline/plugin.ts";
import type { Entry } from "./entry.ts";
import type { LimitOptions } from "./limit.ts";
import type { Asked } from "./measures.ts";
import type { Sides } from "./metering.ts";

/** One message under its limits. */
export interface Reservation {
  readonly asked: Asked;
  entries: readonly Entry[];
  /** How old the session is, where that is bounded. */
  seconds?: number;
  /** Nothing was reserved: the store was away, or the message was refused and went all the same. */
  isMade: boolean;
  /** Soft limits that had been reached. */
  over: readonly LimitOptions[];
  /** A person has let it go beyond a limit. */
  approval?: Decision;
  /** What is counted while it goes by; undefined until the message goes. */
  sides?: Sides | undefined;
}

/** Whether something of the message, or of what is in the tunnel, has gone on, however it ended. */
export function hasLeft(
  { stage, onward }: RequestContext,
  { sides }: Reservation,
  { status }: Outcome,
): boolean {
  return stage === "connect" ? sides !== undefined || status === 200 : onward !== undefined;
}
