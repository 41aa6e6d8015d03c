/** What a thread has used of what it took: in memory that outlives it, so that the rest can be given back when it ends. */
import { hash } from "node:crypto";
import type { Addition } from "../../pipeline/plugin.ts";

const places = 4_096;
/** Its name and its amount. */
const cellsOfPlace = 2;

/** The counters that one thread uses. */
export class UsedHere {
  readonly memory = new SharedArrayBuffer(places * cellsOfPlace * Float64Array.BYTES_PER_ELEMENT);
  readonly #cells = new Float64Array(this.memory);
  readonly #places = new Map<string, number>();
  readonly #tell: (amounts: readonly Addition[]) => void;

  /** `tell` takes what is not counted here any more. */
  constructor(tell: (amounts: readonly Addition[]) => void) {
    this.#tell = tell;
  }

  /** So much of the counter is used from now on; a negative amount is settled. */
  use(key: string, by: number): void {
    let at = this.#places.get(key);
    if (at === undefined) {
      if (this.#places.size === places) this.#clear();
      at = cellsOfPlace * this.#places.size;
      this.#places.set(key, at);
      this.#cells[at] = nameOf(key);
    }
    this.#cells[at + 1] = (this.#cells[at + 1] ?? 0) + by;
  }

  /** In this order: a thread that ends between the two gives back too little, not too much. */
  #clear(): void {
    const amounts = [...this.#places].map(([key, at]) => ({ key, by: this.#cells[at + 1] ?? 0 }));
    this.#tell(amounts.filter(({ by }) => by !== 0));
    this.#cells.fill(0);
    this.#places.clear();
  }
}

/** Reads the {@link UsedHere.memory} of a thread, which may have ended. */
export function usedIn(memory: SharedArrayBuffer): (key: string) => number {
  const cells = new Float64Array(memory);
  let amounts: Map<number, number> | undefined;
  return (key) => {
    if (amounts === undefined) {
      amounts = new Map();
      for (let at = 0; at < cells.length; at += cellsOfPlace)
        amounts.set(cells[at] ?? 0, cells[at + 1] ?? 0);
    }
    return amounts.get(nameOf(key)) ?? 0;
  };
}

/** As much of a digest as a number holds, and never 0. */
function nameOf(key: string): number {
  return Number.parseInt(hash("sha256", key).slice(0, 13), 16) + 1;
}
