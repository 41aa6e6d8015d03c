/** Go duration strings ("1h30m", "250ms"), as the file writes every length of time. */

/** What a duration looks like, for schemas. Units: ns, us, ms, s, m, h. */
export const durationPattern = /^(?:0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)$/;

/** A timer of Node holds 2^31-1 ms; a longer one fires at once. 24 days is the last whole day below it. */
export const longestTimerMs = 24 * 24 * 3_600_000;

const millisecondsPerUnit: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  // Go takes the micro sign (U+00B5) and the Greek letter (U+03BC) alike.
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** Milliseconds of a Go duration string, or undefined for a text that is not one. Negative durations are not taken. */
export function parseDuration(text: string): number | undefined {
  if (text.length > 64 || !durationPattern.test(text)) return undefined;
  let total = 0;
  for (const [, number, unit] of text.matchAll(/([\d.]+)(ns|us|µs|μs|ms|s|m|h)/g)) {
    total += Number(number) * (millisecondsPerUnit[unit ?? ""] ?? Number.NaN);
  }
  // Fractions of binary numbers: 1.07m would be a little more than 64200 ms. Go counts whole nanoseconds.
  return Number.isFinite(total) ? Number(total.toFixed(6)) : undefined;
}

/** Whole milliseconds of a duration that a schema has already accepted: some limits take no others. A part of one is one. */
export function durationMs(text: string): number {
  const milliseconds = parseDuration(text);
  if (milliseconds === undefined) throw new TypeError("not a duration");
  return Math.ceil(milliseconds);
}

const units = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1 } as const;

/** A length of time as the file writes it: 1m30s. */
export function durationText(milliseconds: number): string {
  let rest = milliseconds;
  let text = "";
  for (const [unit, length] of Object.entries(units)) {
    const count = Math.floor(rest / length);
    if (count > 0) text += `${count}${unit}`;
    rest -= count * length;
  }
  return text === "" ? "0s" : text;
}

/** Where the time is read, so that tests can set it. Milliseconds since the epoch. */
export interface Clock {
  now(): number;
}

/**
 * For ages and waits, which are no dates: goes as the wall clock does, and on where that is set back, so that nothing waits for
 * the hour that comes again. It counts the time of a machine that was asleep, which a monotonic clock alone does not.
 */
export function passingClock(wall: Clock, steady: () => number = () => performance.now()): Clock {
  let lastWall = wall.now();
  let lastSteady = steady();
  let passed = lastWall;
  return {
    now() {
      const [nowWall, nowSteady] = [wall.now(), steady()];
      passed += nowWall < lastWall ? Math.round(nowSteady - lastSteady) : nowWall - lastWall;
      [lastWall, lastSteady] = [nowWall, nowSteady];
      return passed;
    },
  };
}
