/** Faults that nobody caught. */
import { messageOf } from "../errors.ts";
import type { Logger } from "../telemetry/log.ts";

/**
 * A fault that nobody caught ends one flow, not all of them: it is logged as an error and the thread goes on.
 * A sidecar that exits stops its agent's traffic, and a remote peer who finds one such fault could repeat it at will.
 */
export function keepServing(log: Logger): void {
  process.on("uncaughtException", (error) => log.error({ err: error }, "uncaught exception"));
  process.on("unhandledRejection", (reason) => {
    log.error(
      { err: reason instanceof Error ? reason : new Error(messageOf(reason)) },
      "unhandled rejection",
    );
  });
}
