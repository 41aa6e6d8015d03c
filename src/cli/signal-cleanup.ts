/** Removes a directory where a signal ends the process. */
import { rmSync } from "node:fs";
import { constants } from "node:os";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** From construction to `close`, a signal removes the directory and ends the process with 128 and its number. */
export class SignalCleanup {
  readonly #directory: string;
  #isSuspended = false;

  /** `directory` may hold the key of an authority: nobody would remove it later. */
  constructor(directory: string) {
    this.#directory = directory;
    for (const signal of signals) process.on(signal, this.#leave);
  }

  /** While this runs, signals are handled elsewhere. */
  async suspendedDuring<T>(run: () => Promise<T>): Promise<T> {
    this.#isSuspended = true;
    try {
      return await run();
    } finally {
      this.#isSuspended = false;
    }
  }

  close(): void {
    for (const signal of signals) process.off(signal, this.#leave);
  }

  readonly #leave = (signal: NodeJS.Signals): void => {
    if (this.#isSuspended) return;
    rmSync(this.#directory, { recursive: true, force: true });
    process.exit(128 + constants.signals[signal]);
  };
}
