/** Requests that are held, by the question that they depend on. Each costs a timer and a promise. */
import type { Cancellation } from "../pipeline/cancellation.ts";
import type { Decision } from "../pipeline/decision.ts";
import { leave } from "./ledger.ts";
import type { Verdict } from "./told.ts";

/** How one wait can end. */
export interface WaitEnds<T> {
  readonly caller: string;
  readonly limitMs: number;
  /** The limit has passed. */
  late(this: void): T;
  readonly cancellation: Cancellation;
  /** Nobody waits for the response any more. */
  gone(this: void): T;
  decided(this: void, verdict: Verdict): Promise<T>;
}

interface Wait {
  decide(verdict: Verdict): void;
  settle(decision: Decision): void;
}

/** The waits of one thread. */
export class Waits {
  readonly #max: number;
  readonly #maxPerCaller: number;
  readonly #perCaller = new Map<string, number>();
  readonly #waits = new Map<string, Set<Wait>>();
  #size = 0;

  constructor(max: number, maxPerCaller: number) {
    this.#max = max;
    this.#maxPerCaller = maxPerCaller;
  }

  get size(): number {
    return this.#size;
  }

  /** The key of the bound by which another one finds no place. */
  full(caller: string): string | undefined {
    if (this.#size >= this.#max) return "approval.max_held";
    const isFull = (this.#perCaller.get(caller) ?? 0) >= this.#maxPerCaller;
    return isFull ? "approval.max_held_per_caller" : undefined;
  }

  hold<T extends Decision>(
    id: string,
    { caller, limitMs, late, cancellation, gone, decided }: WaitEnds<T>,
  ): Promise<Decision> {
    return new Promise<Decision>((resolve) => {
      const waits = this.#waits.get(id) ?? new Set<Wait>();
      const end = (): void => {
        if (!waits.delete(wait)) return;
        this.#size -= 1;
        leave(this.#perCaller, caller);
        if (waits.size === 0 && this.#waits.get(id) === waits) this.#waits.delete(id);
        clearTimeout(timer);
        cancellation.removeEventListener("abort", onGone);
      };
      const settle = (decision: Decision | Promise<Decision>): void => {
        end();
        resolve(decision);
      };
      const wait: Wait = { decide: (verdict) => settle(decided(verdict)), settle };
      const timer = setTimeout(() => settle(late()), limitMs);
      const onGone = (): void => settle(gone());
      this.#waits.set(id, waits.add(wait));
      this.#size += 1;
      this.#perCaller.set(caller, (this.#perCaller.get(caller) ?? 0) + 1);
      if (cancellation.aborted) onGone();
      else cancellation.addEventListener("abort", onGone);
    });
  }

  /** Those that wait for this question go on with what was decided, in the order in which they came. */
  decide(id: string, verdict: Verdict): void {
    for (const wait of this.#of(id)) wait.decide(verdict);
  }

  settle(id: string, decision: () => Decision): void {
    for (const wait of this.#of(id)) wait.settle(decision());
  }

  settleAll(decision: () => Decision): void {
    for (const id of this.#waits.keys()) this.settle(id, decision);
  }

  #of(id: string): readonly Wait[] {
    return [...(this.#waits.get(id) ?? [])];
  }
}
