/** Files beside the configuration whose change is a change of the configuration: CAs, passwords, the cluster's Proxy. */
import { createHash } from "node:crypto";
import { type FSWatcher, readdirSync, readFileSync, statSync, watch } from "node:fs";
import { join } from "node:path";
import { FileWatch } from "../../files/file-watch.ts";

/** Follows the files that the accepted configuration names. */
export class InputFiles {
  readonly #debounceMs: number;
  readonly #onChange: () => void;
  readonly #onError: (error: Error) => void;
  #files: readonly string[] = [];
  #watches: { close(): void }[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(debounceMs: number, onChange: () => void, onError: (error: Error) => void) {
    this.#debounceMs = debounceMs;
    this.#onChange = onChange;
    this.#onError = onError;
  }

  /** Follows these files and no others. */
  follow(files: readonly string[]): void {
    this.close();
    this.#files = files;
    this.#watches = files.flatMap((file) => {
      try {
        return [this.#watch(file)];
      } catch (error) {
        this.#onError(error instanceof Error ? error : new Error(String(error)));
        return [];
      }
    });
  }

  /** Changes with what the files hold; a file that cannot be read counts as an empty one. */
  digest(): string {
    const hash = createHash("sha256");
    for (const file of this.#files.flatMap(membersOf)) {
      hash.update(file).update("\0").update(contentOf(file)).update("\0");
    }
    return hash.digest("hex");
  }

  close(): void {
    clearTimeout(this.#timer);
    for (const watched of this.#watches) watched.close();
    this.#watches = [];
  }

  #watch(file: string): { close(): void } {
    if (!isDirectory(file))
      return new FileWatch(file, this.#debounceMs, this.#onChange, this.#onError);
    const watcher: FSWatcher = watch(file, { persistent: false }, () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(this.#onChange, this.#debounceMs);
    });
    return watcher.on("error", this.#onError);
  }
}

function isDirectory(file: string): boolean {
  return statSync(file, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function membersOf(file: string): string[] {
  if (!isDirectory(file)) return [file];
  return readdirSync(file)
    .sort()
    .map((name) => join(file, name));
}

function contentOf(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch {
    return Buffer.alloc(0);
  }
}
