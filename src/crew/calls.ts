/** What the thread in control and the threads that serve ask of each other. */
import type { DirectedBudgets } from "../admin/budgets.ts";
import type { PluginObservations } from "../admin/denials.ts";
import type { Activity, Refused } from "../app/data-plane.ts";
import type { BoundAddresses } from "../app/listen-options.ts";
import type { BindAddress } from "../listener/bind.ts";
import type { Kill } from "../pipeline/kill-switch.ts";
import type { SessionEvent } from "../session/event.ts";
import type { StateCall } from "../state/remote-store.ts";
import type { DurationChanges } from "../telemetry/http-durations.ts";
import type { MetricChanges } from "../telemetry/metrics.ts";
import type { AuthorityPem } from "../tlsbridge/certificate-authority.ts";

/** A file as all threads load it. */
export interface SentFile {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly lenient: boolean;
  readonly generation: number;
}

/** What a thread begins with. */
export interface StartOrder {
  readonly file: SentFile;
  readonly version: string;
  readonly level: string;
  /** Number of this thread, from 0, and how many there are. */
  readonly thread: number;
  readonly threads: number;
  readonly counts: SharedArrayBuffer;
  readonly pseudonym: string;
  /** See `StateParts.seed`. */
  readonly seed: Uint8Array;
  readonly instanceId: string;
  /** What operators have stopped. */
  readonly kills: readonly Kill[];
}

/** How a thread is. */
export interface Report {
  readonly activity: Activity;
  readonly notReady: string | undefined;
  readonly note: string | undefined;
  readonly observations: readonly PluginObservations[];
  readonly budgets: DirectedBudgets | undefined;
}

/** What a thread that serves is asked. */
export interface ThreadCalls {
  /** Builds and starts the first generation. */
  start(order: StartOrder): Refused | undefined;
  /** Binds: where the first thread did, or as the file says. */
  open(bound: BoundAddresses | undefined): BoundAddresses;
  /** Builds and starts another generation, which {@link swap} serves and {@link drop} ends. */
  prepare(file: SentFile): Refused | undefined;
  swap(generation: number): void;
  drop(generation: number): void;
  recheck(nothing: undefined): number;
  kill(kills: readonly Kill[]): number;
  /** With `details` what plugins show to operators is in it. */
  report(details: boolean): Report;
  owns(bound: BindAddress): void;
  level(level: string): void;
  published(message: {
    readonly store: string;
    readonly channel: string;
    readonly message: string;
  }): void;
  close(drainMs: number): void;
}

/** One moment of a flow, as sessions are told of it. */
export type Moment =
  | { readonly kind: "event"; readonly event: SessionEvent; readonly shownIn: string }
  | { readonly kind: "decision"; readonly facts: object }
  | {
      readonly kind: "rekey";
      readonly from: string;
      readonly to: string;
      readonly flows: ReadonlySet<string>;
    };

/** What a thread has counted since it told last. */
export interface Counted {
  readonly metrics: MetricChanges;
  readonly durations: DurationChanges | undefined;
}

/** What the thread in control is asked. */
export interface ControlCalls {
  /** Lines of the log, whole. */
  lines(text: string): void;
  moments(moments: readonly Moment[]): void;
  counted(counted: Counted): void;
  state(question: { readonly store: string; readonly call: StateCall }): unknown;
  authority(nothing: undefined): AuthorityPem;
}
