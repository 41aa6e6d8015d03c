/** Notices that one file of a directory changed, also when Kubernetes swaps the whole directory behind a symlink. */
import { type FSWatcher, watch } from "node:fs";
import { basename, dirname } from "node:path";

/** Kubernetes replaces this link when a mounted ConfigMap or Secret changes. */
const kubernetesDataLink = "..data";

/** Calls back once things have been quiet for the debounce time after a change. */
export class FileWatch {
  readonly #watcher: FSWatcher;
  readonly #debounceMs: number;
  readonly #onChange: () => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    file: string,
    debounceMs: number,
    onChange: () => void,
    onError: (error: Error) => void,
  ) {
    this.#debounceMs = debounceMs;
    this.#onChange = onChange;
    const name = basename(file);
    this.#watcher = watch(dirname(file), { persistent: false }, (_event, changed) => {
      if (changed === null || changed === name || changed === kubernetesDataLink) this.#restart();
    });
    this.#watcher.on("error", onError);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#watcher.close();
  }

  #restart(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#onChange, this.#debounceMs);
  }
}
