/** The logs of plugin instances. While a generation is built, one thread of several says what all of them would say. */
import type { Logger } from "./log.ts";

/** Those of one generation. */
export class PluginLogs {
  readonly #log: Logger;
  /** Another thread builds the same, and says it. */
  readonly #isEcho: boolean;
  readonly #made: Logger[] = [];

  constructor(log: Logger, isEcho: boolean) {
    this.#log = log;
    this.#isEcho = isEcho;
  }

  /** Of one instance: until it serves, an echo tells of errors alone. */
  of(instance: string): Logger {
    const log = this.#log.child({ plugin: instance });
    if (!this.#isEcho) return log;
    log.level = "error";
    this.#made.push(log);
    return log;
  }

  /** The generation is built. */
  serve(): void {
    for (const log of this.#made) log.level = this.#log.level;
  }
}
