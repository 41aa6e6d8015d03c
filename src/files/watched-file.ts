/** A small file whose content is read again when it changes: credentials, audiences, routes. */
import { readFileSync, statSync } from "node:fs";
import { messageOf } from "../errors.ts";

/** What a {@link WatchedFile} is made with. */
export interface WatchedFileOptions<T> {
  readonly path: string;
  /** Tells the time in milliseconds. */
  readonly clock: { now(): number };
  /** A larger file is a problem; 1 MiB when absent. */
  readonly maxBytes?: number;
  /** Makes the value of the text; throws an Error that says what is wrong with it, without quoting a secret. */
  parse(text: string): T;
  /** Hears of every new problem once; the last good value stays. `isMissing`: there is no such file. */
  onProblem?(message: string, isMissing: boolean, error: unknown): void;
}

/** How long a look at the file is good for. A look is one stat call, a few microseconds. */
const checkEveryMs = 1_000;
/** Secrets, tokens and routes are small; an endless file must not fill memory. */
const defaultMaxBytes = 1024 * 1024;

/**
 * The value of a file as of at most a second ago.
 *
 * It looks when it is asked and has no timer: an idle process does nothing, and the first request after a rotation gets
 * the new value. A Kubernetes volume swaps a symbolic link, which shows as another inode.
 */
export class WatchedFile<T> {
  readonly #options: WatchedFileOptions<T>;
  #value: T | undefined;
  #stamp = "";
  #checkedAt = Number.NEGATIVE_INFINITY;
  #problem: string | undefined;

  constructor(options: WatchedFileOptions<T>) {
    this.#options = options;
  }

  /** Why the newest content is not in use, or undefined. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** The last good value; undefined when there has never been one. */
  current(): T | undefined {
    const now = this.#options.clock.now();
    // A clock that was set back must not freeze the value.
    if (now - this.#checkedAt >= checkEveryMs || now < this.#checkedAt) {
      this.#checkedAt = now;
      this.#look();
    }
    return this.#value;
  }

  #look(): void {
    const { path, maxBytes = defaultMaxBytes } = this.#options;
    try {
      const stat = statSync(path);
      const stamp = `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeMs}:${stat.ctimeMs}`;
      if (stamp === this.#stamp) return;
      // A pipe or a device would block the process.
      if (!stat.isFile()) throw new Error("it is not a regular file");
      if (stat.size > maxBytes) throw new Error(`it is larger than ${maxBytes} bytes`);
      const text = readFileSync(path, "utf8");
      this.#stamp = stamp;
      this.#value = this.#options.parse(text);
      this.#problem = undefined;
    } catch (error) {
      const missing = isMissing(error);
      const problem = `${path}: ${missing ? "the file does not exist" : messageOf(error)}`;
      if (problem === this.#problem) return;
      this.#problem = problem;
      this.#options.onProblem?.(problem, missing, error);
    }
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

/** The text of a credential file, without the line end that editors add; an empty file is an Error (contract 1.2). */
export function credentialText(text: string): string {
  const trimmed = text.trim();
  if (trimmed === "") throw new Error("the file is empty");
  return trimmed;
}
