/** Who reaches what: callers on the left, hosts on the right, a line for what passed and one for what did not. */
import { svg } from "./dom.js";

/** @typedef {import("./flow.js").Flow} Flow */

/**
 * @typedef {object} Link
 * @property {string} caller
 * @property {string} host
 * @property {number} passed
 * @property {number} refused
 */

const maxCallers = 8;
const maxHosts = 14;
const width = 720;
const rowHeight = 24;
const leftEdge = 210;
const rightEdge = width - 270;
const longest = 34;

/**
 * The links of outbound flows, most used first; what is beyond the bounds of the picture is "other".
 *
 * @param {readonly Flow[]} flows
 * @returns {readonly Link[]}
 */
export function linksOf(flows) {
  /** @type {Map<string, number>} */
  const callers = new Map();
  /** @type {Map<string, number>} */
  const hosts = new Map();
  const outbound = flows.filter(({ direction }) => direction === "outbound");
  for (const flow of outbound) {
    count(callers, flow.who);
    count(hosts, flow.host);
  }
  const shownCallers = most(callers, maxCallers);
  const shownHosts = most(hosts, maxHosts);
  /** @type {Map<string, Link>} */
  const links = new Map();
  for (const flow of outbound) {
    const caller = shownCallers.has(flow.who) ? flow.who : "other";
    const host = shownHosts.has(flow.host) ? flow.host : "other";
    const key = `${caller}\n${host}`;
    const link = links.get(key) ?? { caller, host, passed: 0, refused: 0 };
    if (flow.verdict === "denied") link.refused += 1;
    else link.passed += 1;
    links.set(key, link);
  }
  return [...links.values()].sort(
    (one, other) => other.passed + other.refused - one.passed - one.refused,
  );
}

/**
 * The picture. `onHost` gets the host that was chosen.
 *
 * @param {readonly Link[]} links
 * @param {(host: string) => void} onHost
 */
export function egressMap(links, onHost) {
  const callers = [...new Set(links.map(({ caller }) => caller))];
  const hosts = [...new Set(links.map(({ host }) => host))];
  const rows = Math.max(callers.length, hosts.length, 1);
  const height = rows * rowHeight + 8;
  const yOf = (/** @type {readonly string[]} */ names, /** @type {string} */ name) =>
    (names.indexOf(name) + 0.5) * ((height - 8) / names.length) + 4;
  const root = svg("svg", {
    class: "map",
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `Egress map: ${callers.length} callers, ${hosts.length} hosts`,
  });
  for (const { caller, host, passed, refused } of links) {
    const from = yOf(callers, caller);
    const to = yOf(hosts, host);
    const title = `${caller} → ${host}`;
    if (passed > 0) root.append(curve("passed", [from, to], passed, title));
    if (refused > 0) root.append(curve("refused", [from + 3, to + 3], refused, title));
  }
  for (const caller of callers)
    root.append(
      svg(
        "text",
        { class: "name end", x: leftEdge - 8, y: yOf(callers, caller) + 4 },
        short(caller),
        svg("title", {}, caller),
      ),
    );
  for (const host of hosts)
    root.append(
      svg(
        "text",
        {
          class: "name link",
          x: rightEdge + 8,
          y: yOf(hosts, host) + 4,
          onclick: () => onHost(host),
        },
        short(host),
        svg("title", {}, host),
      ),
    );
  return root;
}

/**
 * @param {string} kind
 * @param {readonly [number, number]} heights
 * @param {number} flows
 * @param {string} title
 */
function curve(kind, [from, to], flows, title) {
  const middle = (leftEdge + rightEdge) / 2;
  return svg(
    "path",
    {
      class: `way ${kind}`,
      d: `M${leftEdge} ${from}C${middle} ${from} ${middle} ${to} ${rightEdge} ${to}`,
      "stroke-width": Math.min(9, 1 + Math.log2(flows)).toFixed(1),
    },
    svg("title", {}, `${title}: ${flows} ${kind}`),
  );
}

/**
 * @param {Map<string, number>} counts
 * @param {string} name
 */
function count(counts, name) {
  counts.set(name, (counts.get(name) ?? 0) + 1);
}

/**
 * @param {Map<string, number>} counts
 * @param {number} limit
 */
function most(counts, limit) {
  const sorted = [...counts].sort(([, one], [, other]) => other - one);
  return new Set(sorted.slice(0, limit).map(([name]) => name));
}

/** @param {string} name */
function short(name) {
  return name.length <= longest ? name : `${name.slice(0, longest - 1)}…`;
}
