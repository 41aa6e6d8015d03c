/** What was refused, grouped by why; what is chosen becomes one addition to the policy. */
import { copyButton, download } from "./copy.js";
import { element } from "./dom.js";
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
 * @property {string} key
 * @property {Flow} latest
 * @property {number} count
 */

/** The view; made anew when it is looked at. It writes no file: what it makes is for people to read and to put in. */
export class DenialsView {
  title = "Denials";
  root = element("div", { class: "page" });
  #store;
  #api;
  #onFlows;
  #size = -1;
  /** @type {readonly Denial[]} */
  #denials = [];
  /** @type {Set<string>} */
  #chosen = new Set();
  #addition = element("section", { class: "card addition", "aria-live": "polite", hidden: true });
  #asked = 0;

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

  /** @param {readonly Flow[]} refused */
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
    const open = groups.filter((group) => this.#nameOf(group.latest) !== undefined);
    const all = /** @type {HTMLInputElement} */ (
      element("input", {
        type: "checkbox",
        id: "choose-all",
        onchange: () => this.#chooseAll(open, all.checked),
      })
    );
    all.checked = open.length > 0 && open.every(({ key }) => this.#chosen.has(key));
    this.root.replaceChildren(
      element("h2", {}, "Refused, by reason"),
      groups.length === 0
        ? element("p", {}, "Nothing was refused since this page's oldest flow.")
        : element(
            "p",
            {},
            open.length === 0
              ? "No rule of egress-policy would let any of it through."
              : element(
                  "label",
                  {},
                  all,
                  ` Choose all ${open.length} that a rule would let through`,
                ),
          ),
      this.#addition,
      ...groups.map((group) => this.#card(group)),
    );
  }

  /** @param {Group} group */
  #card({ key, latest, count }) {
    const { plugin, rule, host, binary, error, verdict } = latest;
    const query = `decision:${verdict} host:"${host}" plugin:"${plugin}"`;
    const denial = this.#denialOf(latest);
    const isOpen = this.#nameOf(latest) !== undefined;
    const box = /** @type {HTMLInputElement} */ (
      element("input", {
        type: "checkbox",
        "aria-label": `Choose ${host}`,
        onchange: () => this.#choose(key, box.checked),
      })
    );
    box.checked = this.#chosen.has(key);
    return element(
      "article",
      { class: "card", "data-verdict": verdict },
      element(
        "h3",
        {},
        element("label", {}, isOpen ? box : undefined, ` ${host}`),
        element("span", { class: "count" }, `${count}×, last ${timeOf(latest.at)}`),
      ),
      element("p", {}, error || rule),
      element("p", { class: "by" }, [plugin, rule, binary].filter(Boolean).join(" · ")),
      denial === undefined || isOpen ? undefined : element("pre", {}, denial.suggestion),
      element("button", { type: "button", onclick: () => this.#onFlows(query) }, "Show the flows"),
    );
  }

  /**
   * @param {string} key
   * @param {boolean} isChosen
   */
  #choose(key, isChosen) {
    if (isChosen) this.#chosen.add(key);
    else this.#chosen.delete(key);
    this.#size = -1;
    this.refresh();
    void this.#combine();
  }

  /**
   * @param {readonly Group[]} groups
   * @param {boolean} isChosen
   */
  #chooseAll(groups, isChosen) {
    this.#chosen = new Set(isChosen ? groups.map(({ key }) => key) : []);
    this.#size = -1;
    this.refresh();
    void this.#combine();
  }

  /** Asks the server for one addition: the same words as those of `policy suggest`. */
  async #combine() {
    this.#asked += 1;
    const asked = this.#asked;
    const names = [...grouped(this.#store.all).values()]
      .filter(({ key }) => this.#chosen.has(key))
      .flatMap(({ latest }) => this.#nameOf(latest) ?? []);
    this.#addition.hidden = names.length === 0;
    if (names.length === 0) return;
    const query = new URLSearchParams(names.map((name) => ["denial", name]));
    const answer = await this.#api.get(`v1/policy/suggestion?${query}`).catch(() => undefined);
    if (asked !== this.#asked) return;
    const { text = "# the proxy does not say\n", file } = answer ?? {};
    this.#addition.replaceChildren(
      element("h3", {}, `To add to ${file ?? "egress-policy in the proxy's file"}`),
      diffOf(text),
      copyButton("Copy", () => text),
      element(
        "button",
        { type: "button", class: "small", onclick: () => download("policy-addition.yaml", text) },
        "Download",
      ),
      element(
        "p",
        { class: "by" },
        "It names what was asked for, not what the agent should be allowed to do: read each line. Nothing is written by this page.",
      ),
    );
  }

  /** @param {Flow} flow */
  #denialOf({ plugin, host, binary, direction }) {
    if (!plugin.startsWith("egress-policy") || direction !== "outbound") return undefined;
    const known = this.#denials.filter((one) => placeOf(one) === host || one.host === host);
    return known.find((one) => one.binary === binary) ?? known[0];
  }

  /**
   * How the server knows the refusal; undefined where no rule would let it through.
   *
   * @param {Flow} flow
   */
  #nameOf(flow) {
    const denial = this.#denialOf(flow);
    if (denial === undefined || denial.suggestion.startsWith("#")) return undefined;
    return `${denial.host}:${denial.port} ${denial.binary}`;
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
    if (flow.verdict !== "denied" && flow.verdict !== "observed") continue;
    const key = [flow.verdict, flow.plugin, flow.rule, flow.host, flow.binary].join("\n");
    const group = groups.get(key) ?? { key, latest: flow, count: 0 };
    group.latest = flow;
    group.count += 1;
    groups.set(key, group);
  }
  return groups;
}

/** @param {Denial} denial */
function placeOf({ host, port }) {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** @param {string} text */
function diffOf(text) {
  const lines = text.trimEnd().split("\n");
  return element(
    "pre",
    { class: "diff", "aria-label": "The addition" },
    ...lines.map((line) => {
      const isRemark = line.trimStart().startsWith("#");
      return element("span", { class: isRemark ? "remark" : "added" }, `+ ${line}\n`);
    }),
  );
}
