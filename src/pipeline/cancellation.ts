/** Whether somebody still waits for a message; an AbortSignal is made only for those who ask for one. */

const clientGone = "the client went away";

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
      if (this.#aborted) this.#controller.abort(new Error(clientGone));
    }
    return this.#controller.signal;
  }

  abort(): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#controller?.abort(new Error(clientGone));
  }
}
