/** What one message holds of the process-wide budget of bodies. */
import type { BodyBudget } from "../../http/body.ts";

/** Bytes that are taken while a message is judged, and given back however that ends. */
export class BudgetReservation {
  readonly #budget: BodyBudget;
  #bytes = 0;
  #isClosed = false;

  constructor(budget: BodyBudget) {
    this.#budget = budget;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** False when the budget has no more, and after {@link close}. */
  take(bytes: number): boolean {
    if (this.#isClosed || !this.#budget.acquire(bytes)) return false;
    this.#bytes += bytes;
    return true;
  }

  /** Gives back what is more than this. */
  shrinkTo(bytes: number): void {
    if (this.#bytes <= bytes) return;
    this.#budget.release(this.#bytes - bytes);
    this.#bytes = bytes;
  }

  close(): void {
    this.#isClosed = true;
    this.shrinkTo(0);
  }
}
