/** Follows the configuration file: quiet time, digest, load, apply; the last good generation stays on failure. */
import { formatProblem, type Problem } from "../yaml/problem.ts";
import type { LoadedConfig, RejectedConfig } from "../config/load.ts";
import { messageOf } from "../errors.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { FileWatch } from "../files/watched-file.ts";
import { rejectedProblems } from "./build-problems.ts";
import type { ReloadStatus } from "./reload-status.ts";

/** What the reloader needs of the process. */
export interface ReloaderOptions {
  readonly file: string;
  readonly debounceMs: number;
  readonly status: ReloadStatus;
  readonly log: Logger;
  readonly metrics: Metrics;
  load(): Promise<LoadedConfig | RejectedConfig>;
  /** Builds, starts and swaps; resolves with problems when the old generation stays. */
  apply(loaded: LoadedConfig): Promise<readonly Problem[] | string | undefined>;
  readonly chain: {
    /** Changes with what the files hold that the accepted configuration names. */
    inputsDigest(): string;
    /** After a refusal: when to try the same file again, or undefined to wait for a change. */
    retryAfterMs(): number | undefined;
  };
}

/** Applies changes of the file one after another. */
export class Reloader {
  readonly #options: ReloaderOptions;
  readonly #watch: FileWatch;
  #running: Promise<void> = Promise.resolve();
  #closed = false;
  #inputs: string;
  #retry: NodeJS.Timeout | undefined;

  constructor(options: ReloaderOptions) {
    this.#options = options;
    this.#inputs = options.chain.inputsDigest();
    const onError = (error: Error): void => {
      options.log.error(
        { file: options.file, error: error.message },
        "configuration is no longer watched",
      );
    };
    this.#watch = new FileWatch(
      options.file,
      options.debounceMs,
      () => void this.reload(),
      onError,
    );
  }

  /** Reads the file now; resolves when it is applied or refused. Attempts never overlap. */
  reload(): Promise<void> {
    this.#running = this.#running.then(() => this.#attempt());
    return this.#running;
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#watch.close();
    await this.#running;
  }

  async #attempt(): Promise<void> {
    if (this.#closed) return;
    clearTimeout(this.#retry);
    const { status, log, metrics } = this.#options;
    try {
      const loaded = await this.#options.load();
      if (loaded.kind === "rejected") {
        this.#refuse(await rejectedProblems(loaded));
        return;
      }
      // A touched file, or the same bytes written again, is not a change.
      const isSame = this.#options.chain.inputsDigest() === this.#inputs;
      if (loaded.sha256 === status.activeSha256 && isSame) {
        // A candidate that was refused in between is discarded.
        if (!status.isInSync)
          log.info({ sha256: loaded.sha256 }, "configuration is as served again");
        status.returned();
        metrics.configInSync(true);
        return;
      }
      const problems = await this.#options.apply(loaded);
      if (problems !== undefined) {
        this.#refuse(problems);
        return;
      }
      for (const warning of loaded.warnings)
        log.warn({ problem: formatProblem(warning) }, "configuration warning");
      this.#inputs = this.#options.chain.inputsDigest();
      status.succeeded(loaded.sha256);
      metrics.reload(true);
      log.info({ sha256: loaded.sha256 }, "configuration reloaded");
    } catch (error) {
      this.#refuse(messageOf(error));
    }
  }

  #refuse(problems: readonly Problem[] | string): void {
    const { status, log, metrics } = this.#options;
    const text = typeof problems === "string" ? problems : problems.map(formatProblem).join("\n");
    status.failed(text);
    metrics.reload(false);
    log.error({ error: text }, "configuration refused, the last good one stays");
    const afterMs = this.#options.chain.retryAfterMs();
    if (afterMs === undefined || this.#closed) return;
    this.#retry = setTimeout(() => void this.reload(), afterMs);
    this.#retry.unref();
  }
}
