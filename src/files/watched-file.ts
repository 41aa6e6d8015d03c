/** Files that change while the process runs: checked when a value is read, or watched by the system. */
import type { Clock } from "../duration.ts";
import { type FSWatcher, readFileSync, type Stats, statSync, watch } from "node:fs";
import { basename, dirname } from "node:path";
import { messageOf } from "../errors.ts";

/** Options of a {@link WatchedFile}. */
export interface WatchedFileOptions<T> {
  readonly path: string;
  /** Tells the time in milliseconds. */
  readonly clock: Clock;
  /** A larger file is a problem; 1 MiB when absent. */
  readonly maxBytes?: number;
  /** Makes the value of the text; throws an Error that says what is wrong with it, without quoting a secret. */
  parse(text: string): T;
  /** Called once for every new problem; the last good value stays. `isMissing`: there is no such file. */
  onProblem?(message: string, isMissing: boolean, error: unknown): void;
}

/** How long a look at files is good for. A look is one stat call a file, a few microseconds. */
const lookEveryMs = 1_000;
/** Kubernetes replaces this link when a mounted ConfigMap or Secret changes. */
const kubernetesDataLink = "..data";
/** Secrets, tokens and routes are small; an endless file must not fill memory. */
const defaultMaxBytes = 1024 * 1024;

/** Says when it is time to look again. */
export class Looks {
  readonly #now: () => number;
  #lookedAt = Number.NEGATIVE_INFINITY;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** True at most once a second; a clock that was set back must not freeze what is looked at. */
  isDue(): boolean {
    const now = this.#now();
    if (now >= this.#lookedAt && now - this.#lookedAt < lookEveryMs) return false;
    this.#lookedAt = now;
    return true;
  }
}

/** Changes with the content of a file: a Kubernetes volume swaps a symbolic link, which shows as another inode. */
export function stampOf({ dev, ino, size, mtimeMs, ctimeMs }: Stats): string {
  return `${dev}:${ino}:${size}:${mtimeMs}:${ctimeMs}`;
}

/**
 * The value of a file as of at most a second ago.
 *
 * It looks when it is asked and has no timer: an idle process does nothing, and the first request after a rotation gets
 * the new value.
 */
export class WatchedFile<T> {
  readonly #options: WatchedFileOptions<T>;
  readonly #looks: Looks;
  #value: T | undefined;
  #stamp = "";
  #problem: string | undefined;

  constructor(options: WatchedFileOptions<T>) {
    this.#options = options;
    this.#looks = new Looks(() => options.clock.now());
  }

  /** Why the newest content is not in use, or undefined. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** The last good value; undefined when there has never been one. */
  current(): T | undefined {
    if (this.#looks.isDue()) this.#look();
    return this.#value;
  }

  #look(): void {
    const { path, maxBytes = defaultMaxBytes } = this.#options;
    const before = this.#stamp;
    // A file that is away may come back as the very same: it is read again then.
    this.#stamp = "";
    try {
      const stat = statSync(path);
      const stamp = stampOf(stat);
      const text = stamp === before ? undefined : readSmallFile(path, maxBytes, stat);
      this.#stamp = stamp;
      if (text === undefined) return;
      this.#value = this.#options.parse(text);
      this.#problem = undefined;
    } catch (error) {
      const problem = fileProblem(path, error);
      if (problem === this.#problem) return;
      this.#problem = problem;
      this.#options.onProblem?.(problem, isMissing(error), error);
    }
  }
}

/** The text of a file; throws an Error where it is none, or larger than `maxBytes` (1 MiB when absent). */
export function readSmallFile(
  path: string,
  maxBytes = defaultMaxBytes,
  stat: Stats = statSync(path),
): string {
  // A pipe or a device would block the process.
  if (!stat.isFile()) throw new Error("it is not a regular file");
  if (stat.size > maxBytes) throw new Error(`it is larger than ${maxBytes} bytes`);
  return readFileSync(path, "utf8");
}

/** Why a file cannot be used, in words that begin with its path. */
export function fileProblem(path: string, error: unknown): string {
  return `${path}: ${isMissing(error) ? "the file does not exist" : messageOf(error)}`;
}

/** Whether there is no such file. */
export function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

/** The text of a credential file, without the line end that editors add; an empty file is an Error. */
export function credentialText(text: string): string {
  const trimmed = text.trim();
  if (trimmed === "") throw new Error("the file is empty");
  return trimmed;
}

/** Calls back once a file, or the files of a directory, have been quiet for the debounce time after a change. */
export class FileWatch {
  readonly #watcher: FSWatcher;
  readonly #debounceMs: number;
  readonly #onChange: () => void;
  #timer: NodeJS.Timeout | undefined;

  /** Throws where the directory of the file cannot be watched; `onError` is called when it no longer can. */
  constructor(
    path: string,
    debounceMs: number,
    onChange: () => void,
    onError: (error: Error) => void,
  ) {
    this.#debounceMs = debounceMs;
    this.#onChange = onChange;
    const isWhole = isDirectory(path);
    const name = basename(path);
    // The directory, not the file: editors and Kubernetes put another file in its place.
    const directory = isWhole ? path : dirname(path);
    this.#watcher = watch(directory, { persistent: false }, (_event, changed) => {
      if (isWhole || changed === null || changed === name || changed === kubernetesDataLink)
        this.#restart();
    });
    this.#watcher.on("error", onError);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#watcher.close();
  }

  #restart(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#onChange, this.#debounceMs).unref();
  }
}

/** Whether there is a directory at the path. */
export function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
