/** A connection to an upstream that was made or failed, for the record. */
import type { Direction } from "../pipeline/flow.ts";

/** `connect` is a TCP connection to a vetted address, `tls` the handshake on it. */
export interface Dial {
  readonly direction: Direction;
  /** The flow that needed the connection; later ones may share it. */
  readonly flowId: string;
  readonly phase: "connect" | "tls";
  /** As performance.now() gave it. */
  readonly startedAt: number;
  readonly host: string;
  /** Why it failed. */
  readonly error?: string;
}
