/** Whether a message is still wanted; an AbortSignal is created only on demand. */
import type { AbortSource } from "../net/abort-source.ts";

/** Shared: an error created at each close would capture a stack each time. */
const reason = new Error("the client went away");

/** An AbortController costs more than the rest of a request's bookkeeping, and most requests never need one. */
export class Cancellation implements AbortSource {
  #aborted = false;
  #controller: AbortController | undefined;
  #listeners: (() => void)[] | undefined;

  get aborted(): boolean {
    return this.#aborted;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted) this.#controller.abort(reason);
    }
    return this.#controller.signal;
  }

  /** Calls the listener once, when it is aborted from now on. */
  addEventListener(_type: "abort", listener: () => void): void {
    this.#listeners ??= [];
    this.#listeners.push(listener);
  }

  removeEventListener(_type: "abort", listener: () => void): void {
    const at = this.#listeners?.indexOf(listener) ?? -1;
    if (at !== -1) this.#listeners?.splice(at, 1);
  }

  abort(): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#controller?.abort(reason);
    const listeners = this.#listeners;
    this.#listeners = undefined;
    for (const listener of listeners ?? []) listener();
  }
}
