/** How long a stage goes on: a number of cycles, or until its share of the run's time is over. */

/** The pace of one stage. */
export class Pace {
  readonly #least: number;
  readonly #seconds: number | undefined;
  readonly #startedAt = performance.now();
  #cycle = 0;

  /** Without `seconds`, the counts alone say when something is done. */
  constructor(least: number, seconds?: number) {
    this.#least = least;
    this.#seconds = seconds;
  }

  /** The numbers of the cycles: as many as asked for, and more while there is time. */
  *cycles(): Generator<number> {
    for (let cycle = 0; cycle < this.#least || this.#hasTime(1); cycle += 1) {
      this.#cycle = cycle;
      yield cycle;
    }
  }

  /** How many cycles there were. */
  get done(): number {
    return this.#cycle + 1;
  }

  /** Whether what one cycle does `count` times is done: where the run has a length, its time counts, and not the count. */
  isOver(done: number, count: number, least = 1): boolean {
    if (this.#seconds === undefined) return done >= count;
    return done >= least && !this.#hasTime((this.#cycle + 1) / this.#least);
  }

  /** Whether the time of the whole stage is over; never where it has none. */
  get isAllOver(): boolean {
    return this.#seconds !== undefined && !this.#hasTime(1);
  }

  #hasTime(share: number): boolean {
    const passed = (performance.now() - this.#startedAt) / 1_000;
    return this.#seconds !== undefined && passed < this.#seconds * share;
  }
}
