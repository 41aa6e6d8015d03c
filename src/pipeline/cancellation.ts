/** Whether somebody still waits for a message; an AbortSignal is made only for those who ask for one. */

/** One for all: an error made at each close would capture a stack each time. */
const reason = new Error("the client went away");

/** Making an AbortController costs more than the rest of a request's bookkeeping, and most requests never need it. */
export class Cancellation {
  #aborted = false;
  #controller: AbortController | undefined;

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

  abort(): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#controller?.abort(reason);
  }
}
