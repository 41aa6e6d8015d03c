/** Rate-limited log lines of what remote peers can cause: one a minute of each kind, with the number of the others. */
import type { Logger } from "./log.ts";

const quietMs = 60_000;

/** Kinds come from code: a closed set. */
export class RareLog {
  readonly #log: Logger;
  readonly #kinds = new Map<string, { until: number; unsaid: number }>();

  constructor(log: Logger) {
    this.#log = log;
  }

  warn(kind: string, facts: object, message: string): void {
    const now = performance.now();
    const known = this.#kinds.get(kind);
    if (known !== undefined && now < known.until) {
      known.unsaid += 1;
      return;
    }
    this.#kinds.set(kind, { until: now + quietMs, unsaid: 0 });
    this.#log.warn({ ...facts, unsaid: known?.unsaid ?? 0 }, message);
  }
}
