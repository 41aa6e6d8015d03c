/** What a desk is made of, and what it tells. */
import type { ApprovalQuestion } from "../pipeline/approval-gate.ts";
import type { RequestContext } from "../pipeline/context.ts";
import type { StateFeed, StateStore } from "../state/store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { CanonicalRequest } from "./canonical.ts";
import type { Gate } from "./rules-served.ts";
import type { Ask, OwnPlace, Told } from "./told.ts";

/** What of the block `approval` the desk needs, in milliseconds. */
export interface DeskSettings {
  readonly isPolling: boolean;
  readonly holdMs: number;
  readonly expiresMs: number;
  readonly keepAliveMs: number;
  readonly retryAfterMs: number;
  readonly maxPending: number;
  readonly maxPendingPerCaller: number;
  readonly maxHeld: number;
  readonly maxHeldPerCaller: number;
}

/** Options of a desk. */
export interface DeskOptions {
  readonly settings: DeskSettings;
  /** False where nobody could answer. */
  readonly isAnswered: boolean;
  readonly store: StateStore;
  readonly feed: StateFeed;
  /** Absent where this thread does not ask. */
  readonly asker?: OwnPlace | undefined;
  readonly log: Logger;
  count(
    this: void,
    event: "joined" | "passed" | "refused" | "too_many" | "nobody" | "cancelled",
  ): void;
  sessionOf(this: void, context: RequestContext): string | undefined;
}

/** What is heard of questions besides what is told: the time of one is over. */
export type Heard = Told | { readonly kind: "expired"; readonly ask: Ask };

/** Called with everything that happens, here or elsewhere, from now on. */
export type HeardListener = (heard: Heard, ask: Ask | undefined) => void;

/** A message that depends on a person. */
export interface Question extends ApprovalQuestion {
  readonly plugin: string;
  readonly context: RequestContext;
  readonly gate: Gate;
  readonly request: CanonicalRequest;
  readonly digest: string;
  readonly session: string | undefined;
}
