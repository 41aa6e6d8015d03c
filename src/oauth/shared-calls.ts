/** Calls that whoever asks for the same meanwhile waits for as well: one at a time for each key. */

interface Call<T> {
  readonly response: Promise<T>;
  readonly abort: AbortController;
  waiting: number;
}

/** The calls that are under way, by key. */
export class SharedCalls<T> {
  readonly #calls = new Map<string, Call<T>>();
  readonly #cancelled: T;

  /** `cancelled` is what a caller gets that disconnects. */
  constructor(cancelled: T) {
    this.#cancelled = cancelled;
  }

  /** Whether a call for this key is under way. */
  has(key: string): boolean {
    return this.#calls.has(key);
  }

  /**
   * What the call for this key gives; `load` begins one where none is under way.
   *
   * A caller that disconnects does not end it for the others: the signal of `load` aborts when all of them have.
   */
  async join(
    key: string,
    signal: AbortSignal,
    load: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    if (signal.aborted) return this.#cancelled;
    const call = this.#calls.get(key) ?? this.#begin(key, load);
    call.waiting += 1;
    const gone = Promise.withResolvers<T>();
    const leave = (): void => gone.resolve(this.#cancelled);
    signal.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([call.response, gone.promise]);
    } finally {
      signal.removeEventListener("abort", leave);
      call.waiting -= 1;
      if (call.waiting === 0) {
        call.abort.abort();
        this.#end(key, call);
      }
    }
  }

  #begin(key: string, load: (signal: AbortSignal) => Promise<T>): Call<T> {
    const abort = new AbortController();
    const response = load(abort.signal).finally(() => this.#end(key, call));
    // Waiters see the rejection through their race; without waiters nobody else would.
    response.catch(() => undefined);
    const call: Call<T> = { response, abort, waiting: 0 };
    this.#calls.set(key, call);
    return call;
  }

  /** Ends a call's place, unless a later one has taken it. */
  #end(key: string, call: Call<T>): void {
    if (this.#calls.get(key) === call) this.#calls.delete(key);
  }
}
