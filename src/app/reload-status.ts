/** What became of the attempts to reload, in the shape of `/reload/status` (contract 1.5). */
import type { ReloadStatus as ReloadStatusView } from "../admin/stats.ts";

/** Go's zero time, which its clients read as never. */
const never = "0001-01-01T00:00:00Z";

/** Counts reloads. The start of the process counts as the first success. */
export class ReloadStatus {
  #lastAttempt = never;
  #lastSuccess = new Date().toISOString();
  #lastError = "";
  #ok = 0;
  #failed = 0;
  #sha256: string;
  #inputs: string;

  /** Digests of the file that is being served, and of what the files that it names held when they were read. */
  constructor(sha256: string, inputs: string) {
    this.#sha256 = sha256;
    this.#inputs = inputs;
  }

  /** Whether this is what is being served. */
  isServed(sha256: string, inputs: string): boolean {
    return sha256 === this.#sha256 && inputs === this.#inputs;
  }

  succeeded(sha256: string, inputs: string): void {
    this.#lastAttempt = new Date().toISOString();
    this.#lastSuccess = this.#lastAttempt;
    this.#lastError = "";
    this.#ok += 1;
    this.#sha256 = sha256;
    this.#inputs = inputs;
  }

  /** Whether the file, as it was last read, is the one that is being served. */
  get isInSync(): boolean {
    return this.#lastError === "";
  }

  /** The file is again what is being served: no reload, and no error any more. */
  returned(): void {
    if (this.isInSync) return;
    this.#lastAttempt = new Date().toISOString();
    this.#lastError = "";
  }

  failed(error: string): void {
    this.#lastAttempt = new Date().toISOString();
    this.#lastError = error;
    this.#failed += 1;
  }

  view(): ReloadStatusView {
    return {
      last_attempt: this.#lastAttempt,
      last_success: this.#lastSuccess,
      last_error: this.#lastError,
      reloads_ok: this.#ok,
      reloads_failed: this.#failed,
      active_config_sha256: this.#sha256,
    };
  }
}
