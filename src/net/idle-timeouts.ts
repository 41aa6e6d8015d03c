/** One timer for the idle limits of all tunnels: a timer per socket and direction costs more than the copying. */

/** One thing that must not stay idle; call touch() whenever it shows life. */
export interface IdleWatch {
  touch(): void;
  stop(): void;
}

interface Watched {
  readonly limitMs: number;
  readonly onIdle: () => void;
  /** -1: touched since the last check, so a limit is never cut short by one interval. */
  idleMs: number;
}

/** Watches many connections with one timer, which runs only while there is something to watch. */
export class IdleTimeouts {
  readonly #intervalMs: number;
  readonly #watched = new Set<Watched>();
  #timer: NodeJS.Timeout | undefined;
  #checkedAt = 0;

  /** A limit is kept to within one interval, late rather than early. */
  constructor(options: { readonly intervalMs?: number } = {}) {
    this.#intervalMs = options.intervalMs ?? 1000;
  }

  /** Calls `onIdle` once when nothing was touched for `limitMs`; a limit of 0 is none. */
  watch(limitMs: number, onIdle: () => void): IdleWatch {
    const entry: Watched = { limitMs, onIdle, idleMs: -1 };
    if (limitMs > 0) {
      this.#watched.add(entry);
      this.#start();
    }
    return {
      touch: () => {
        entry.idleMs = -1;
      },
      stop: () => {
        this.#watched.delete(entry);
        if (this.#watched.size === 0) {
          this.close();
        }
      },
    };
  }

  /** Stops the timer and forgets everything that was watched. */
  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#watched.clear();
  }

  #start(): void {
    if (this.#timer === undefined) {
      this.#checkedAt = performance.now();
      this.#timer = setInterval(() => this.#check(), this.#intervalMs);
      this.#timer.unref();
    }
  }

  #check(): void {
    const now = performance.now();
    const elapsedMs = now - this.#checkedAt;
    this.#checkedAt = now;
    for (const entry of this.#watched) {
      entry.idleMs = entry.idleMs < 0 ? 0 : entry.idleMs + elapsedMs;
      if (entry.idleMs >= entry.limitMs) {
        this.#watched.delete(entry);
        entry.onIdle();
      }
    }
    if (this.#watched.size === 0) {
      this.close();
    }
  }
}
