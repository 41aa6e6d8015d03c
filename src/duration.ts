/** Go duration strings ("1h30m", "250ms"), as the file writes every length of time. */

/** What a duration looks like, for schemas. Units: ns, us, ms, s, m, h. */
export const durationPattern = /^(?:0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)$/;

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
  return Number.isFinite(total) ? total : undefined;
}

/** Milliseconds of a duration that a schema has already accepted. */
export function durationMs(text: string): number {
  const milliseconds = parseDuration(text);
  if (milliseconds === undefined) throw new TypeError("not a duration");
  return milliseconds;
}

/** The durations of src/duration.ts, under the name by which the rest of the configuration is imported. */

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
