/** Bounds of the histograms, in seconds. They are part of what dashboards rely on. */

export const requestBounds = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
];
/** What the semantic conventions of OpenTelemetry want for HTTP. */
export const semanticBounds = [
  0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
];
export const phaseBounds = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
  30,
];
export const tunnelBounds = [0.1, 1, 10, 60, 300, 1_800, 3_600, 14_400, 86_400];
