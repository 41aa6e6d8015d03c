/**
 * Counts that threads have in common: what one of them takes, none of the others can take as well.
 *
 * Beside the sum stands what each thread has taken of it, so that what a thread had is given back when it is gone.
 */

/** The names of the counts of a process, in the order of their places in memory. */
const names = [
  "tunnels",
  "forward connections",
  "socks connections",
  "reverse connections",
  "transparent connections",
  "transparent_inbound connections",
  "buffered bytes",
] as const;

/** One of the counts. */
export type CountName = (typeof names)[number];

/** A count that is bounded. */
export interface Places {
  readonly taken: number;
  /** Takes so many where that leaves the sum at `limit` at most, and says whether it has. */
  take(limit: number, many?: number): boolean;
  /** Takes them whether there is room or not; a negative number gives back. */
  book(many: number): void;
  leave(many?: number): void;
}

/** The counts as one thread sees them. */
export class SharedCounts {
  readonly memory: SharedArrayBuffer;
  readonly #cells: BigInt64Array;
  readonly #threads: number;

  /** Memory for so many threads, or that which another thread made for them. */
  constructor(threads: number, memory?: SharedArrayBuffer) {
    this.#threads = threads;
    this.memory =
      memory ??
      new SharedArrayBuffer(names.length * (threads + 1) * BigInt64Array.BYTES_PER_ELEMENT);
    this.#cells = new BigInt64Array(this.memory);
  }

  /** One count, for the thread with this number; the first is 0. */
  of(name: CountName, thread: number): Places {
    const sum = this.#placeOf(name);
    return new SharedPlaces(this.#cells, sum, sum + 1 + thread);
  }

  /** Gives back what a thread had that is gone. */
  forget(thread: number): void {
    for (const name of names) {
      const sum = this.#placeOf(name);
      const had = Atomics.exchange(this.#cells, sum + 1 + thread, 0n);
      Atomics.sub(this.#cells, sum, had);
    }
  }

  #placeOf(name: CountName): number {
    return names.indexOf(name) * (this.#threads + 1);
  }
}

class SharedPlaces implements Places {
  readonly #cells: BigInt64Array;
  readonly #sum: number;
  readonly #own: number;

  constructor(cells: BigInt64Array, sum: number, own: number) {
    this.#cells = cells;
    this.#sum = sum;
    this.#own = own;
  }

  get taken(): number {
    return Number(Atomics.load(this.#cells, this.#sum));
  }

  take(limit: number, many = 1): boolean {
    const wanted = BigInt(many);
    const before = Atomics.add(this.#cells, this.#sum, wanted);
    if (Number(before) + many > limit) {
      Atomics.sub(this.#cells, this.#sum, wanted);
      return false;
    }
    Atomics.add(this.#cells, this.#own, wanted);
    return true;
  }

  book(many: number): void {
    // What is given back twice would make room for others that is not there.
    const own = Number(Atomics.load(this.#cells, this.#own));
    const change = BigInt(Math.max(many, -own));
    Atomics.add(this.#cells, this.#own, change);
    Atomics.add(this.#cells, this.#sum, change);
  }

  leave(many = 1): void {
    this.book(-many);
  }
}
