/** A directory that is gone when the process is, also where a signal ends it. */
import { rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { ProxyError } from "../errors.ts";
import { whyUnusable } from "../files/given-file.ts";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** From `make` to `close`, a signal removes the directory and ends the process with 128 and its number. */
export class TemporaryDirectory {
  /** It may hold the key of an authority: nobody would remove it later. */
  readonly path: string;
  #isSuspended = false;

  static async make(prefix: string): Promise<TemporaryDirectory> {
    const place = tmpdir();
    try {
      return new TemporaryDirectory(await mkdtemp(join(place, prefix)));
    } catch (error) {
      const message = `no temporary directory can be made in ${place}: ${whyUnusable(error)}; TMPDIR names another place`;
      throw new ProxyError("internal.fault", message, { cause: error });
    }
  }

  private constructor(path: string) {
    this.path = path;
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

  async close(): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
    for (const signal of signals) process.off(signal, this.#leave);
  }

  readonly #leave = (signal: NodeJS.Signals): void => {
    if (this.#isSuspended) return;
    rmSync(this.path, { recursive: true, force: true });
    process.exit(128 + constants.signals[signal]);
  };
}
