/** What the engine keeps of a message until it is over. */
import type { Addition, Decision, Outcome, RequestContext } from "../../pipeline/plugin.ts";
import type { Entry } from "./entry.ts";
import { isFlow, type Limit, type LimitOptions } from "./limit.ts";
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
  /** The message goes: what it reserved is not to be had any more. */
  isGone?: true;
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

/** What comes back where the message does not go, but for what is counted while it goes by. */
export function reservedBy({ entries }: Reservation): Addition[] {
  return entries.flatMap(({ limit, amount, place: { key }, member }) =>
    amount > 0 && member === undefined && !isFlow(limit.options.unit) ? [{ key, by: amount }] : [],
  );
}

/** What is put right when the message is over, but for what was counted while it went by. */
interface Settlement {
  readonly held: Addition[];
  readonly corrections: Addition[];
  /** Whose corrections they are, in this order. */
  readonly corrected: Entry[];
}

/** `takenOf` says what a limit counts of the message. */
export function settlementOf(
  { entries, isMade }: Reservation,
  takenOf: (limit: Limit) => number,
): Settlement {
  const held: Addition[] = [];
  const corrections: Addition[] = [];
  const corrected: Entry[] = [];
  for (const entry of entries) {
    const { limit, amount, place, member } = entry;
    const { key, ttlMs } = place;
    if (amount === 0 || isFlow(limit.options.unit)) continue;
    if (member !== undefined) {
      // What has been counted stays counted: a name that was tried has been looked up.
      if (!isMade) corrections.push({ key, ttlMs, by: amount, member });
      if (!isMade) corrected.push(entry);
      continue;
    }
    const taken = takenOf(limit);
    if (isMade) held.push({ key, by: amount });
    const by = taken - (isMade ? amount : 0);
    if (by === 0) continue;
    corrections.push({ key, ttlMs, by });
    corrected.push(entry);
  }
  return { held, corrections, corrected };
}

/** The response says which soft limits were reached. */
export function markOver({ response }: RequestContext, { over }: Reservation): void {
  if (over.length === 0) return;
  response?.headers.set("x-budget-exceeded", over.map(({ name }) => name).join(", "));
}

/** Whether there is something to mark, or a gateway says in the head of the response what it charges. */
export function wantsHead({ over, entries, asked }: Reservation): boolean {
  if (over.length > 0) return true;
  return asked.isInference && entries.some(({ limit }) => limit.options.unit === "cost");
}
