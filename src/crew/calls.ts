/** What the thread in control and the threads that serve ask of each other. */
import type { DirectedBudgets } from "../admin/budgets.ts";
import type { PluginObservations } from "../admin/denials.ts";
import type { Activity, Refused } from "../app/data-plane.ts";
import type { BoundAddresses } from "../app/listen-options.ts";
import type { BindAddress } from "../listener/bind.ts";
import type { Kill } from "../pipeline/kill-switch.ts";
import type { Intent } from "../pipeline/plugin.ts";
import type { SessionEvent } from "../session/event.ts";
import type { Found, Question } from "../session/ledger.ts";
import type { SharedTie, TurnFacts } from "../session/turn.ts";
import type { StateCall } from "../state/remote-store.ts";
import type { DurationChanges } from "../telemetry/http-durations.ts";
import type { MetricChanges } from "../telemetry/metrics.ts";
import type { Heard } from "../threads/order.ts";
import type { HeldCall } from "./held-values.ts";
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
  readonly order: SharedArrayBuffer;
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
  /** Whether it runs. */
  alive(nothing: undefined): void;
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
  /** What the conversation of an open message is called by now. */
  nameOf(id: string): string | undefined;
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

/** What a thread tells of messages to the agent, in the order in which it happens. */
export type Told =
  | { readonly kind: "open"; readonly facts: TurnFacts }
  | { readonly kind: "named"; readonly id: string; readonly sessionId: string }
  | { readonly kind: "closed"; readonly id: string; readonly taskId: string | undefined }
  | { readonly kind: "answered" | "begun" | "ended"; readonly id: string }
  | {
      readonly kind: "tied";
      readonly tie: SharedTie;
      readonly key: string;
      readonly isShared: boolean;
    }
  | { readonly kind: "moment"; readonly moment: Moment };

/** A question whose a message is, after what had been told when it came. */
export interface Asked {
  readonly question: Question;
  readonly after: Heard;
}

/** Whose a message is, and what else was so when it came. */
export interface Whose {
  readonly found?: Omit<Found, "turn" | "around">;
  readonly turn?: SharedTie;
  readonly around: {
    readonly isSeveral: boolean;
    /** Of two conversations at most. */
    readonly intents: readonly Intent[];
    /** What the user of the turn's session asked last. */
    readonly intent?: Intent | undefined;
  };
}

/** What the thread in control is asked. */
export interface ControlCalls {
  /** Lines of the log, whole. */
  lines(text: string): void;
  moments(moments: readonly Moment[]): void;
  told(word: Told): void;
  opened(facts: TurnFacts): string | undefined;
  whose(asked: Asked): Whose;
  counted(counted: Counted): void;
  state(question: { readonly store: string; readonly call: StateCall }): unknown;
  held(call: HeldCall): unknown;
  authority(nothing: undefined): AuthorityPem;
}
