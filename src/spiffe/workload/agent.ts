/** The address of the Workload API, and who is notified of its updates. */
import type { BackOffTimes } from "./back-off.ts";

/** The things that come from an agent. */
export type AgentItem = "x509_svid" | "x509_bundle" | "jwt_svid" | "jwt_bundle";

/** Is notified of updates and faults. */
export interface AgentObserver {
  /** Something new is in use. */
  rotated(item: AgentItem, facts: Readonly<Record<string, unknown>>): void;
  /** Something could not be had or used; called for every failure, `isNew` for those in other words than the last. */
  failed(item: AgentItem, problem: string, isNew: boolean): void;
}

/** What a source of identities is made with. */
export interface AgentOptions {
  /** Path of the socket. */
  readonly socket: string;
  readonly clock: { now(): number };
  readonly observer: AgentObserver;
  /** For one response; 5,000 ms when absent. */
  readonly answerMs?: number;
  readonly backOff?: BackOffTimes;
}

/** For one response of an agent of this machine. */
export const usualAnswerMs = 5_000;
