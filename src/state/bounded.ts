/** The time limit of every call of a store, and whether the store responds. */
import { messageOf } from "../errors.ts";
import { type StateWatch, stateUnavailable } from "./store.ts";

/** Options of a {@link Bounded}. */
export interface BoundedOptions extends StateWatch {
  readonly timeoutMs: number;
}

/** Runs the calls of one store. A call that fails or takes too long fails with `state.unavailable`. */
export class Bounded {
  readonly #options: BoundedOptions;
  #problem: string | undefined;

  constructor(options: BoundedOptions) {
    this.#options = options;
  }

  /** Why the store is away, or undefined. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Waits for the call; `onLate` gets a result that came when nobody waited any more. */
  async run<T>(call: Promise<T>, onLate?: (result: T) => void): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    let isOver = false;
    const { timeoutMs } = this.#options;
    const expired = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        isOver = true;
        reject(new Error(`no answer within ${timeoutMs} ms (state.timeout)`));
      }, timeoutMs);
    });
    call.then(
      (result) => {
        if (!isOver) return;
        // It responds again, whatever the response is.
        this.is(undefined);
        onLate?.(result);
      },
      () => undefined,
    );
    try {
      const result = await Promise.race([call, expired]);
      this.#options.onOperation?.("ok");
      this.is(undefined);
      return result;
    } catch (error) {
      this.#options.onOperation?.("failed");
      this.is(messageOf(error));
      throw stateUnavailable(messageOf(error), error);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Records whether the store responds; a change is reported once. */
  is(problem: string | undefined): void {
    const changes = (problem === undefined) !== (this.#problem === undefined);
    this.#problem = problem;
    if (changes) this.#options.onState?.(problem);
  }
}
