/**
 * The order of what threads tell one of them: a question is answered when everything has been heard that any of them
 * had told before it was asked.
 *
 * Nobody waits for what is told: it is counted in memory that all of them see before its consequences can be seen.
 */

/** How much each thread had told when something was asked. */
export type Heard = readonly number[];

interface Waiting {
  readonly until: Heard;
  resolve(this: void): void;
}

/** The counts: for each thread what it has told, then what of it was heard. */
export class Order {
  readonly memory: SharedArrayBuffer;
  readonly #cells: BigInt64Array;
  readonly #threads: number;
  #waiting: Waiting[] = [];

  /** Memory for so many threads, or that which another thread made for them. */
  constructor(threads: number, memory?: SharedArrayBuffer) {
    this.#threads = threads;
    this.memory = memory ?? new SharedArrayBuffer(threads * 2 * BigInt64Array.BYTES_PER_ELEMENT);
    this.#cells = new BigInt64Array(this.memory);
  }

  /** This thread tells something: called before it is sent. */
  told(thread: number): void {
    Atomics.add(this.#cells, thread, 1n);
  }

  /** What has been told up to now. */
  get now(): Heard {
    return Array.from({ length: this.#threads }, (_, thread) => this.#toldBy(thread));
  }

  /** How much of what this thread told has not been heard yet. */
  backlog(thread: number): number {
    return this.#toldBy(thread) - this.#heardOf(thread);
  }

  /** The one that hears has heard one more. */
  heard(thread: number): void {
    Atomics.add(this.#cells, this.#threads + thread, 1n);
    this.#release();
  }

  /** Undefined where everything has been heard already. */
  after(until: Heard): Promise<void> | undefined {
    if (this.#isHeard(until)) return undefined;
    return new Promise((resolve) => this.#waiting.push({ until, resolve }));
  }

  /** The thread is gone: what it has not sent never comes. Another one in its place goes on counting. */
  forget(thread: number): void {
    Atomics.store(this.#cells, this.#threads + thread, Atomics.load(this.#cells, thread));
    this.#release();
  }

  #toldBy(thread: number): number {
    return Number(Atomics.load(this.#cells, thread));
  }

  #heardOf(thread: number): number {
    return Number(Atomics.load(this.#cells, this.#threads + thread));
  }

  #isHeard(until: Heard): boolean {
    return until.every((told, thread) => told <= this.#heardOf(thread));
  }

  #release(): void {
    if (this.#waiting.length === 0) return;
    const before = this.#waiting;
    this.#waiting = [];
    for (const one of before) {
      if (this.#isHeard(one.until)) one.resolve();
      else this.#waiting.push(one);
    }
  }
}
