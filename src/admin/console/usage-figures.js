/** What `/v1/usage` says, as figures and charts. */
import { line, stackedBars } from "./chart.js";
import { element } from "./dom.js";
import { costOf, countOf, durationOf, shareOf } from "./format.js";

/**
 * Sums over a stretch of time; what is zero is absent.
 *
 * @typedef {object} Counts
 * @property {string} at
 * @property {number} requests
 * @property {number} [errors]
 * @property {number} [denied]
 * @property {number} [tokens]
 * @property {number} [costMicros]
 * @property {number} [latMeanMs]
 * @property {Record<string, { requests: number }>} [series]
 */

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  hour12: false,
});

/**
 * @param {Partial<Counts>} totals
 * @param {boolean} isPriced
 */
export function tilesOf(
  { requests = 0, errors = 0, denied = 0, tokens, costMicros = 0 },
  isPriced,
) {
  const failed = errors - denied;
  const tiles = [
    ["Requests", countOf(requests), ""],
    ["Refused", countOf(denied), shareOf(denied, requests)],
    ["Failed", countOf(failed), shareOf(failed, requests)],
    ["Tokens", countOf(tokens), ""],
    ["Cost", isPriced ? costOf(costMicros) : "–", isPriced ? "" : "no price is known"],
  ];
  return element(
    "div",
    { class: "tiles" },
    ...tiles.map(([name, value, note]) =>
      element(
        "div",
        { class: "tile" },
        element("span", {}, name),
        element("b", {}, value),
        element("small", {}, note),
      ),
    ),
  );
}

/**
 * @param {readonly Counts[]} buckets
 * @param {boolean} isPriced
 */
export function chartsOf(buckets, isPriced) {
  const places = buckets.map(({ at }) => clock.format(Date.parse(at)));
  const bands = [
    {
      name: "passed",
      kind: "passed",
      values: buckets.map((one) => one.requests - (one.errors ?? 0)),
    },
    { name: "refused", kind: "refused", values: buckets.map(({ denied = 0 }) => denied) },
    {
      name: "failed",
      kind: "failed",
      values: buckets.map(({ errors = 0, denied = 0 }) => errors - denied),
    },
  ];
  const latencies = buckets.map(({ latMeanMs }) => latMeanMs);
  const tokens = { name: "tokens", kind: "tokens", values: buckets.map((one) => one.tokens ?? 0) };
  const cost = { name: "cost", kind: "cost", values: buckets.map((one) => one.costMicros ?? 0) };
  return element(
    "div",
    { class: "charts" },
    figure(
      "Requests",
      stackedBars("Requests", bands, places),
      legend(bands.map(({ name }) => name)),
    ),
    figure("Mean time", line("Mean time", latencies, places, durationOf)),
    figure("Tokens", stackedBars("Tokens", [tokens], places, countOf)),
    isPriced ? figure("Cost", stackedBars("Cost", [cost], places, costOf)) : undefined,
  );
}

/**
 * Requests by label over all buckets.
 *
 * @param {readonly Counts[]} buckets
 */
export function seriesOf(buckets) {
  /** @type {Map<string, number>} */
  const sums = new Map();
  for (const { series = {} } of buckets)
    for (const [label, { requests }] of Object.entries(series))
      sums.set(label, (sums.get(label) ?? 0) + requests);
  return sums;
}

/** @param {readonly string[]} names */
export function legend(names) {
  return element(
    "span",
    { class: "legend" },
    ...names.map((name) => element("span", { "data-kind": name }, name)),
  );
}

/**
 * @param {string} title
 * @param {Element} chart
 * @param {Element} [below]
 */
function figure(title, chart, below) {
  return element("figure", { class: "card" }, element("figcaption", {}, title), chart, below);
}
