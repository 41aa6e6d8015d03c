/** Two files that belong together, such as a certificate and its key, and are not replaced in the same instant. */
import { messageOf } from "../errors.ts";
import type { WatchedFile } from "./watched-file.ts";

/** Options of a {@link FilePair}. */
export interface FilePairOptions<A, B, T> {
  /** The file that a problem is reported for. */
  readonly path: string;
  readonly first: WatchedFile<A>;
  readonly second: WatchedFile<B>;
  /** Asked once for each two; throws an Error that says why they do not fit each other. */
  readonly combine: (first: A, second: B) => T;
  /** Called for every two files that do not match. */
  readonly onProblem?: (message: string) => void;
}

/** The value of two files; while they do not fit each other, that of the last two that did. */
export class FilePair<A, B, T> {
  readonly #options: FilePairOptions<A, B, T>;
  #seen: readonly [A, B] | undefined;
  #value: T | undefined;
  #problem: string | undefined;

  constructor(options: FilePairOptions<A, B, T>) {
    this.#options = options;
  }

  /** Why the newest two are not in use, where that is not for one of them alone. */
  get problem(): string | undefined {
    return this.#problem;
  }

  current(): T | undefined {
    const { path, combine, onProblem } = this.#options;
    const first = this.#options.first.current();
    const second = this.#options.second.current();
    if (first === undefined || second === undefined) return this.#value;
    if (this.#seen?.[0] === first && this.#seen[1] === second) return this.#value;
    this.#seen = [first, second];
    try {
      this.#value = combine(first, second);
      this.#problem = undefined;
    } catch (error) {
      this.#problem = `${path}: ${messageOf(error)}`;
      onProblem?.(this.#problem);
    }
    return this.#value;
  }
}
