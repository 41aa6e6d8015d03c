/** The messages of a session as bars over time. */
import { element, svg } from "./dom.js";
import { stepsOf, toolsOf } from "./flow.js";
import { durationOf } from "./format.js";

/** @typedef {import("./flow.js").SessionEvent} SessionEvent */

/**
 * One message of the session from its beginning to its end; milliseconds.
 *
 * @typedef {object} Span
 * @property {string} title
 * @property {string} kind
 * @property {number} from
 * @property {number} to
 */

const width = 720;
const rowHeight = 16;
const maxSpans = 120;
const maxTitle = 70;

/**
 * The newest messages, oldest first.
 *
 * @param {readonly SessionEvent[]} events
 */
export function sessionTimeline(events) {
  const shown = spansOf(events)
    .sort((one, other) => one.from - other.from)
    .slice(-maxSpans);
  const [first] = shown;
  if (first === undefined) return element("p", {}, "Nothing is kept of it.");
  const whole = Math.max(1, Math.max(...shown.map(({ to }) => to)) - first.from);
  const root = svg("svg", {
    class: "spans",
    viewBox: `0 0 ${width} ${shown.length * rowHeight}`,
    role: "img",
    "aria-label": `${shown.length} messages in ${durationOf(whole)}`,
  });
  for (const [row, span] of shown.entries())
    root.append(...barOf(span, row * rowHeight, (at) => ((at - first.from) / whole) * (width - 4)));
  return root;
}

/**
 * @param {Span} span
 * @param {number} y
 * @param {(at: number) => number} place
 */
function barOf({ title, kind, from, to }, y, place) {
  const x = place(from);
  const long = Math.max(3, place(to) - x);
  const isLate = x > width / 2;
  const label = {
    class: isLate ? "name end" : "name",
    x: isLate ? x - 4 : x + long + 4,
    y: y + rowHeight - 4,
  };
  return [
    svg(
      "rect",
      { class: `span ${kind}`, x, y: y + 3, width: long, height: rowHeight - 6, rx: 2 },
      svg("title", {}, `${title}: ${durationOf(to - from)}`),
    ),
    svg("text", label, title.slice(0, maxTitle)),
  ];
}

/** @param {readonly SessionEvent[]} events */
function spansOf(events) {
  /** @type {Map<string, Span>} */
  const spans = new Map();
  for (const event of events) {
    const end = Date.parse(event.at);
    const begin = event.phase === "request" ? end : end - (event.durationMs ?? 0);
    const known = spans.get(event.requestId);
    spans.set(event.requestId, {
      title: known?.title ?? titleOf(event),
      kind: isRefused(event) ? "refused" : (known?.kind ?? event.direction),
      from: Math.min(begin, known?.from ?? begin),
      to: Math.max(end, known?.to ?? end),
    });
  }
  return [...spans.values()];
}

/** @param {SessionEvent} event */
function isRefused(event) {
  const denied = stepsOf(event).some(({ action, shadow }) => action === "deny" && shadow !== true);
  return event.phase === "denied" || denied;
}

/** @param {SessionEvent} event */
function titleOf(event) {
  const { direction, httpMethod, host, httpPath = "" } = event;
  const [tool] = toolsOf(event);
  return [direction === "inbound" ? "to the agent" : "", httpMethod, `${host}${httpPath}`, tool]
    .filter(Boolean)
    .join(" ");
}
