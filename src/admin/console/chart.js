/** Small charts as SVG of this page's own: no library, nothing from elsewhere. */
import { svg } from "./dom.js";

/**
 * @typedef {object} Band
 * @property {string} name
 * @property {string} kind names the colour, as style.css has it
 * @property {readonly number[]} values one for each place of the axis
 */

const width = 480;
const height = 96;
const foot = 16;

/**
 * Bars, stacked from the first band up.
 *
 * @param {string} label what it shows, for readers who do not see it
 * @param {readonly Band[]} bands
 * @param {readonly string[]} places
 * @param {(value: number) => string} [format]
 */
export function stackedBars(label, bands, places, format = String) {
  const sums = places.map((_, at) => bands.reduce((sum, { values }) => sum + (values[at] ?? 0), 0));
  const most = Math.max(1, ...sums);
  const step = width / Math.max(1, places.length);
  const total = sums.reduce((sum, one) => sum + one, 0);
  const root = svg("svg", {
    class: "chart",
    viewBox: `0 0 ${width} ${height + foot}`,
    role: "img",
    "aria-label": `${label}: ${format(total)} in all, ${format(most)} at most`,
  });
  for (const [at, place] of places.entries()) {
    let top = height;
    const parts = bands.map(({ name, values }) => `${name} ${format(values[at] ?? 0)}`).join(", ");
    const column = svg("g", {}, svg("title", {}, `${place}: ${parts}`));
    // The whole column answers to the pointer, so that an idle minute can be read as well.
    column.append(svg("rect", { class: "reach", x: at * step, y: 0, width: step, height }));
    for (const { kind, values } of bands) {
      const tall = ((values[at] ?? 0) / most) * (height - 4);
      if (tall <= 0) continue;
      top -= tall;
      column.append(
        svg("rect", {
          class: `band ${kind}`,
          x: at * step + step * 0.1,
          y: top,
          width: step * 0.8,
          height: tall,
        }),
      );
    }
    root.append(column);
  }
  root.append(...axis(places, format(most)));
  return root;
}

/**
 * A line; places without a value are gaps.
 *
 * @param {string} label
 * @param {readonly (number | undefined)[]} values
 * @param {readonly string[]} places
 * @param {(value: number) => string} format
 */
export function line(label, values, places, format) {
  const known = values.filter((value) => value !== undefined);
  const most = Math.max(1, ...known);
  const step = width / Math.max(1, places.length);
  const root = svg("svg", {
    class: "chart",
    viewBox: `0 0 ${width} ${height + foot}`,
    role: "img",
    "aria-label": `${label}: ${known.length === 0 ? "nothing yet" : `${format(most)} at most`}`,
  });
  let path = "";
  let isDown = false;
  for (const [at, value] of values.entries()) {
    if (value === undefined) {
      isDown = false;
      continue;
    }
    const x = at * step + step / 2;
    const y = height - (value / most) * (height - 4);
    path += `${isDown ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    isDown = true;
    root.append(
      svg(
        "circle",
        { class: "dot", cx: x, cy: y, r: 2 },
        svg("title", {}, `${places[at]}: ${format(value)}`),
      ),
    );
  }
  if (path !== "") root.prepend(svg("path", { class: "line", d: path }));
  root.append(...axis(places, format(most)));
  return root;
}

/**
 * @param {readonly string[]} places
 * @param {string} most
 */
function axis(places, most) {
  const y = height + foot - 3;
  return [
    svg("line", { class: "axis", x1: 0, y1: height, x2: width, y2: height }),
    svg("text", { class: "tick", x: 0, y }, places[0] ?? ""),
    svg("text", { class: "tick end", x: width, y }, places.at(-1) ?? ""),
    svg("text", { class: "tick", x: 0, y: 9 }, most),
  ];
}
