/** The durations of src/duration.ts, under the name by which the rest of the configuration is imported. */
export { durationMs, durationPattern, parseDuration } from "../duration.ts";
