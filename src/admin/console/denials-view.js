/** What was refused, grouped by why, with the smallest rule that would allow it. */
import { element, folded } from "./dom.js";
import { timeOf } from "./format.js";

/** @typedef {import("./flow.js").Flow} Flow */

/**
 * @typedef {object} Denial
 * @property {string} host
 * @property {number} port
 * @property {string} binary
 * @property {string} suggestion
 */

/**
 * @typedef {object} Group
 * @property {Flow} latest
 * @property {number} count
 */

/** The view; made anew when it is looked at. */
export class DenialsView {
  title = "Denials";
  root = element("div", { class: "page" });
  #store;
  #api;
  #onFlows;
  #size = -1;
  /** @type {readonly Denial[]} */
  #denials = [];

  /**
   * @param {import("./flow-store.js").FlowStore} store
   * @param {import("./api.js").Api} api
   * @param {(query: string) => void} onFlows
   */
  constructor(store, api, onFlows) {
    this.#store = store;
    this.#api = api;
    this.#onFlows = onFlows;
  }

  refresh() {
    const refused = this.#store.all.filter(
      ({ verdict }) => verdict === "denied" || verdict === "observed",
    );
    if (refused.length === this.#size) return;
    this.#size = refused.length;
    this.#show(refused);
    void this.#learn(refused);
  }

  /**
   * @param {readonly Flow[]} refused
   */
  async #learn(refused) {
    const answer = await this.#api.get("v1/policy/denials").catch(() => undefined);
    /** @type {readonly { observed: { denials?: readonly Denial[] } }[]} */
    const instances = answer?.instances ?? [];
    this.#denials = instances.flatMap(({ observed }) => observed.denials ?? []);
    // More may have come meanwhile, and has asked again.
    if (refused.length === this.#size) this.#show(refused);
  }

  /** @param {readonly Flow[]} refused */
  #show(refused) {
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
  #card({ latest, count }) {
    const { plugin, rule, host, binary, error, verdict } = latest;
    const query = `decision:${verdict} host:"${host}" plugin:"${plugin}"`;
    const suggestion = suggestionFor(latest, this.#denials);
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
      suggestion === undefined ? undefined : folded(titleOf(suggestion), suggestion, true),
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
    const group = groups.get(key) ?? { latest: flow, count: 0 };
    group.latest = flow;
    group.count += 1;
    groups.set(key, group);
  }
  return groups;
}

/**
 * What the server says would allow it: the same words as those of `policy suggest`.
 *
 * @param {Flow} flow
 * @param {readonly Denial[]} denials
 */
function suggestionFor({ plugin, host, binary, direction }, denials) {
  if (!plugin.startsWith("egress-policy") || direction !== "outbound") return undefined;
  const known = denials.filter((one) => placeOf(one) === host || one.host === host);
  return (known.find((one) => one.binary === binary) ?? known[0])?.suggestion;
}

/** @param {Denial} denial */
function placeOf({ host, port }) {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** @param {string} suggestion */
function titleOf(suggestion) {
  return suggestion.startsWith("#") ? "No rule is suggested" : "A rule that would allow it";
}
