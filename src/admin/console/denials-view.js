/** What was refused, grouped by why, with the smallest rule that would allow it. */
import { element, folded } from "./dom.js";
import { timeOf } from "./format.js";

/** @typedef {import("./flow.js").Flow} Flow */

/**
 * @typedef {object} Group
 * @property {Flow} latest
 * @property {number} count
 * @property {Set<string>} paths
 */

const maxPaths = 5;

/** The view; made anew when it is looked at. */
export class DenialsView {
  title = "Denials";
  root = element("div", { class: "page" });
  #store;
  #onFlows;
  #size = -1;

  /**
   * @param {import("./flow-store.js").FlowStore} store
   * @param {(query: string) => void} onFlows
   */
  constructor(store, onFlows) {
    this.#store = store;
    this.#onFlows = onFlows;
  }

  refresh() {
    const refused = this.#store.all.filter(
      ({ verdict }) => verdict === "denied" || verdict === "observed",
    );
    if (refused.length === this.#size) return;
    this.#size = refused.length;
    const groups = [...grouped(refused).values()].sort(
      (one, other) => other.latest.at - one.latest.at,
    );
    this.root.replaceChildren(
      element("h2", {}, "Refused, by reason"),
      ...(groups.length === 0
        ? [element("p", {}, "Nothing was refused.")]
        : groups.map((group) => this.#card(group))),
    );
  }

  /** @param {Group} group */
  #card({ latest, count, paths }) {
    const { plugin, rule, host, binary, error, verdict } = latest;
    const query = `decision:${verdict} host:"${host}" plugin:"${plugin}"`;
    const suggestion = suggestionFor(latest, paths);
    return element(
      "article",
      { class: "card", "data-verdict": verdict },
      element(
        "h3",
        {},
        host,
        element("span", { class: "count" }, `${count}×, last ${timeOf(latest.at)}`),
      ),
      element("p", {}, error || rule),
      element("p", { class: "by" }, [plugin, rule, binary].filter(Boolean).join(" · ")),
      suggestion === undefined ? undefined : folded("A rule that would allow it", suggestion, true),
      element("button", { type: "button", onclick: () => this.#onFlows(query) }, "Show the flows"),
    );
  }
}

/**
 * @param {readonly Flow[]} flows
 * @returns {Map<string, Group>}
 */
function grouped(flows) {
  /** @type {Map<string, Group>} */
  const groups = new Map();
  for (const flow of flows) {
    const key = [flow.verdict, flow.plugin, flow.rule, flow.host, flow.binary].join("\n");
    const group = groups.get(key) ?? { latest: flow, count: 0, paths: new Set() };
    group.latest = flow;
    group.count += 1;
    if (group.paths.size < maxPaths && flow.method !== "CONNECT")
      group.paths.add(`${flow.method} ${flow.path}`);
    groups.set(key, group);
  }
  return groups;
}

/**
 * An item for `allow` of egress-policy; other plugins' refusals are not about hosts.
 *
 * @param {Flow} flow
 * @param {ReadonlySet<string>} paths
 */
export function suggestionFor({ plugin, host, direction }, paths) {
  if (!plugin.startsWith("egress-policy") || direction !== "outbound") return undefined;
  const [, name = host, port] = /^(.*?)(?::(\d+))?$/.exec(host) ?? [];
  const lines = ["allow:", `  - host: ${JSON.stringify(name)}`];
  if (port !== undefined) lines.push(`    port: ${port}`);
  if (paths.size > 0) {
    const asked = [...paths].map((one) => one.split(" "));
    lines.push(`    methods: [${[...new Set(asked.map(([method]) => method))].join(", ")}]`);
    lines.push(
      `    paths: [${[...new Set(asked.map(([, path]) => JSON.stringify(path)))].join(", ")}]`,
    );
  }
  return lines.join("\n");
}
