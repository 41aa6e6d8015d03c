/** Follows the configuration file: quiet time, digest, load, apply; the last good generation stays on failure. */
import { statSync } from "node:fs";
import { formatProblem } from "../yaml/problem.ts";
import type { RejectedConfig } from "../config/load.ts";
import { messageOf } from "../errors.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { FileWatch } from "../files/watched-file.ts";
import { rejectedProblems, withUnusedKeys } from "./build-problems.ts";
import { inputsDigest } from "./chaining/reload.ts";
import type { Refused } from "./data-plane.ts";
import type { Loaded } from "./definitions.ts";
import type { ReloadStatus } from "./reload-status.ts";

/** What the reloader needs of the process. */
export interface ReloaderOptions {
  /** Absent where nothing but a call brings something new. */
  readonly file: string | undefined;
  readonly debounceMs: number;
  readonly status: ReloadStatus;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly load: () => Promise<Loaded | RejectedConfig>;
  /** Builds, starts and swaps; resolves with problems when the old generation stays. */
  apply(loaded: Loaded): Promise<Refused | undefined>;
  readonly chain: {
    /** After a refusal: when to try the same file again, or undefined to wait for a change. */
    retryAfterMs(): number | undefined;
  };
}

/** Applies changes of the file one after another. */
export class Reloader {
  readonly #options: ReloaderOptions;
  readonly #watch: FileWatch | undefined;
  #running: Promise<unknown> = Promise.resolve();
  #closed = false;
  #retry: NodeJS.Timeout | undefined;

  constructor(options: ReloaderOptions) {
    this.#options = options;
    const { file, log, debounceMs } = options;
    if (file === undefined) return;
    const onError = (error: Error): void => {
      log.error({ file, error: error.message }, "configuration is no longer watched");
    };
    this.#watch = new FileWatch(file, debounceMs, () => void this.reload(), onError);
    // What was written while the process started, nobody has seen. A pipe cannot be read twice.
    if (statSync(file, { throwIfNoEntry: false })?.isFile() === true) void this.reload();
  }

  /** Loads now; resolves when that is applied (undefined) or refused. Attempts never overlap. */
  reload(load: ReloaderOptions["load"] = this.#options.load): Promise<Refused | undefined> {
    const attempt = this.#running.then(() => this.#attempt(load));
    this.#running = attempt;
    return attempt;
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#watch?.close();
    await this.#running;
  }

  async #attempt(load: ReloaderOptions["load"]): Promise<Refused | undefined> {
    if (this.#closed) return "the proxy is closed";
    clearTimeout(this.#retry);
    const { status, log, metrics } = this.#options;
    try {
      const loaded = await withUnusedKeys(load());
      if (loaded.kind === "rejected") return this.#refuse(await rejectedProblems(loaded));
      // As of before they are read: what is written meanwhile is seen afterwards.
      const inputs = inputsDigest(loaded.config);
      // A touched file, or the same bytes written again, is not a change.
      if (status.isServed(loaded.sha256, inputs)) {
        // A candidate that was refused in between is discarded.
        if (!status.isInSync)
          log.info({ sha256: loaded.sha256 }, "configuration is as served again");
        status.returned();
        metrics.configInSync(true);
        return undefined;
      }
      const problems = await this.#options.apply(loaded);
      if (problems !== undefined) return this.#refuse(problems);
      for (const warning of loaded.warnings)
        log.warn({ problem: formatProblem(warning) }, "configuration warning");
      status.succeeded(loaded.sha256, inputs);
      metrics.reload(true);
      log.info({ sha256: loaded.sha256 }, "configuration reloaded");
      if (inputsDigest(loaded.config) !== inputs) void this.reload();
      return undefined;
    } catch (error) {
      return this.#refuse(messageOf(error));
    }
  }

  #refuse(problems: Refused): Refused {
    const { status, log, metrics } = this.#options;
    const text = typeof problems === "string" ? problems : problems.map(formatProblem).join("\n");
    status.failed(text);
    metrics.reload(false);
    log.error({ error: text }, "configuration refused, the last good one stays");
    // Whoever called has been told, and calls again.
    const afterMs = this.#watch === undefined ? undefined : this.#options.chain.retryAfterMs();
    if (afterMs === undefined || this.#closed) return problems;
    this.#retry = setTimeout(() => void this.reload(), afterMs);
    this.#retry.unref();
    return problems;
  }
}
