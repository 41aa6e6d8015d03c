/** Stretches of time that budgets are for, in UTC. */

/** The words of the file. */
export const windows = ["minute", "hour", "day", "week", "month", "lifetime"] as const;

/** One of {@link windows}. */
export type Window = (typeof windows)[number];

/** The stretch that a moment falls into. */
export interface Stretch {
  /** Names it in keys. */
  readonly name: string;
  readonly from: number;
  /** Infinite for a lifetime. */
  readonly until: number;
}

const minuteMs = 60_000;
const dayMs = 86_400_000;
/** 1970-01-01 was a Thursday; weeks begin on Monday. */
const firstMondayMs = 4 * dayMs;

const lifetime: Stretch = { name: "life", from: Number.NEGATIVE_INFINITY, until: Infinity };

/** Knows the current stretch of one kind of window. */
export class Calendar {
  readonly #window: Window;
  #current: Stretch = { name: "", from: Infinity, until: Number.NEGATIVE_INFINITY };

  constructor(window: Window) {
    this.#window = window;
  }

  at(now: number): Stretch {
    if (now >= this.#current.from && now < this.#current.until) return this.#current;
    this.#current = stretchOf(this.#window, now);
    return this.#current;
  }
}

function stretchOf(window: Window, now: number): Stretch {
  switch (window) {
    case "minute":
      return even(now, minuteMs, 0, 16);
    case "hour":
      return even(now, 60 * minuteMs, 0, 13);
    case "day":
      return even(now, dayMs, 0, 10);
    case "week": {
      const { from, until, name } = even(now, 7 * dayMs, firstMondayMs, 10);
      return { from, until, name: `W${name}` };
    }
    case "month": {
      const date = new Date(now);
      const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
      const from = Date.UTC(year, month);
      return { name: nameOf(from, 7), from, until: Date.UTC(year, month + 1) };
    }
    case "lifetime":
      return lifetime;
  }
}

function even(now: number, lengthMs: number, beginsAt: number, nameLength: number): Stretch {
  const from = Math.floor((now - beginsAt) / lengthMs) * lengthMs + beginsAt;
  return { name: nameOf(from, nameLength), from, until: from + lengthMs };
}

function nameOf(from: number, length: number): string {
  return new Date(from).toISOString().slice(0, length);
}
