/** A directory that goes with the process, also where a signal ends it. */
import { rmSync } from "node:fs";
import { constants } from "node:os";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** From its making to `close`, a signal removes the directory and ends the process with 128 and its number. */
export class Departure {
  readonly #directory: string;
  #isHeld = false;

  /** `directory` may hold the key of an authority: nobody would remove it later. */
  constructor(directory: string) {
    this.#directory = directory;
    for (const signal of signals) process.on(signal, this.#leave);
  }

  /** While this runs, somebody else answers signals. */
  async heldFor<T>(run: () => Promise<T>): Promise<T> {
    this.#isHeld = true;
    try {
      return await run();
    } finally {
      this.#isHeld = false;
    }
  }

  close(): void {
    for (const signal of signals) process.off(signal, this.#leave);
  }

  readonly #leave = (signal: NodeJS.Signals): void => {
    if (this.#isHeld) return;
    rmSync(this.#directory, { recursive: true, force: true });
    process.exit(128 + constants.signals[signal]);
  };
}
