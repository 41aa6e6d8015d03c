/** Somebody who is at hand while the process runs, as at the terminal of `run`. */
import type { Decided, Order } from "../../approval/deciding.ts";
import type { HeardListener } from "../../approval/desk-options.ts";
import type { Config } from "../../config/presets.ts";
import { durationMs } from "../../duration.ts";

/** What an attendant hears, and by which way the decision comes. */
export interface Attended {
  onHeard(this: void, listener: HeardListener): void;
  decide(this: void, order: Order): Promise<Decided>;
  /** How long one question is worth asking: whoever is held for it waits no longer. */
  readonly holdMs: number;
  /** The file of the secret by which others may decide as well. */
  readonly secretFile: string | undefined;
}

/** Who is asked besides those whom the file names. */
export interface Attendant {
  /** What requests belong to that belong to no session: the life of the process. */
  readonly session: string;
  attend(attended: Attended): void;
}

/** Whether whoever is at hand may decide: not where operators have secrets of their own. */
export function mayAttend({ approval }: Config): boolean {
  return approval.operators.length === 0;
}

/** What somebody at hand needs, of the desk and the file. */
export function attendedFrom(
  { approval, session }: Config,
  desk: { onHeard(listener: HeardListener): void },
  decide: Attended["decide"],
): Attended {
  return {
    onHeard: (listener) => desk.onHeard(listener),
    decide,
    holdMs: approval.on_pending === "hold" ? durationMs(approval.hold) : Number.POSITIVE_INFINITY,
    secretFile: session.api_secret_file,
  };
}
