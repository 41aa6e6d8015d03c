/** What besides the configuration file makes a reload: the files that a chain depends on, and endpoints that come back. */
import { durationMs } from "../../duration.ts";
import type { Config } from "../../config/presets.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { ChainAcceptance } from "./acceptance.ts";
import { digestOf, InputFiles } from "./input-files.ts";
import { chainFiles } from "./plan.ts";

/** What is needed of the process. */
interface ReloadServices {
  readonly acceptance: Pick<ChainAcceptance, "isWaiting">;
  readonly log: Logger;
}

/** Changes with what the files hold that a configuration names. */
export function inputsDigest(config: Config): string {
  return digestOf(chainFiles(config));
}

/** Follows the files of the accepted configuration, and of a candidate while there is one. */
export class ChainReload {
  readonly #acceptance: ReloadServices["acceptance"];
  readonly #files: InputFiles;
  #accepted: Config;
  #retryMs = 0;

  constructor(config: Config, { acceptance, log }: ReloadServices, reload: () => void) {
    this.#acceptance = acceptance;
    this.#accepted = config;
    this.#files = new InputFiles(durationMs(config.reload.debounce), reload, (error) =>
      log.error({ error: error.message }, "a file is no longer watched"),
    );
    this.#files.follow(chainFiles(config));
  }

  /** A candidate is about to be built: what it lacks may yet be put there. */
  trying(candidate: Config): void {
    const after = candidate.upstream_proxy?.readiness_retry;
    this.#retryMs = after === undefined ? 0 : durationMs(after);
    const files = [...chainFiles(this.#accepted), ...chainFiles(candidate)];
    this.#files.follow([...new Set(files)]);
  }

  /** A generation made of this file serves. */
  accepted(config: Config): void {
    this.#accepted = config;
    this.#files.follow(chainFiles(config));
  }

  /** Endpoints that do not respond now may do so later; nothing else in a refused file changes by itself. */
  retryAfterMs(): number | undefined {
    return this.#acceptance.isWaiting && this.#retryMs > 0 ? this.#retryMs : undefined;
  }

  close(): void {
    this.#files.close();
  }
}
