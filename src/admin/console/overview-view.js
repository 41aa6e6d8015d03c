/** What agents do, at a glance: how much, what for, who refuses, how the services are that checks depend on. */
import { element, facts } from "./dom.js";
import { egressMap, linksOf } from "./egress-map.js";
import { countOf, durationOf, timeOf } from "./format.js";
import { chartsOf, legend, seriesOf, tilesOf } from "./usage-figures.js";

/** @typedef {import("./flow.js").Flow} Flow */

const windows = /** @type {const} */ ([
  ["15 min", "15m", "1m"],
  ["1 h", "1h", "2m"],
  ["6 h", "6h", "10m"],
]);
const everyMs = 5_000;
const tallyEveryMs = 1_000;
const listed = 8;

/** The first view. */
export class OverviewView {
  title = "Overview";
  root = element("div", { class: "page overview" });
  #store;
  #api;
  #onFlows;
  #chosen = 0;
  #isOpen = false;
  #figures = element("div");
  #tallies = element("div");
  #services = element("div");
  /** @type {HTMLElement[]} */
  #buttons;
  #talliedAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #tallySoon;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {import("./flow-store.js").FlowStore} store
   * @param {import("./api.js").Api} api
   * @param {(query: string) => void} onFlows
   */
  constructor(store, api, onFlows) {
    this.#store = store;
    this.#api = api;
    this.#onFlows = onFlows;
    this.#buttons = windows.map(([name], at) =>
      element(
        "button",
        { type: "button", "aria-pressed": String(at === 0), onclick: () => this.#choose(at) },
        name,
      ),
    );
    this.root.append(
      element(
        "div",
        { class: "heading" },
        element("h2", {}, "Overview"),
        element("div", { class: "choice", role: "group", "aria-label": "Time" }, ...this.#buttons),
      ),
      this.#figures,
      this.#tallies,
      this.#services,
    );
  }

  async open() {
    this.#isOpen = true;
    this.#tally();
    await this.#load();
  }

  close() {
    this.#isOpen = false;
    clearTimeout(this.#timer);
  }

  /** Lists are made from the flows of this page, at most once a second however many come. */
  refresh() {
    if (!this.#isOpen || this.#tallySoon !== undefined) return;
    const waitMs = Math.max(0, this.#talliedAt + tallyEveryMs - performance.now());
    this.#tallySoon = setTimeout(() => {
      this.#tallySoon = undefined;
      if (this.#isOpen) this.#tally();
    }, waitMs);
  }

  /** @param {number} at */
  #choose(at) {
    this.#chosen = at;
    for (const [index, button] of this.#buttons.entries())
      button.setAttribute("aria-pressed", String(index === at));
    void this.#load();
  }

  async #load() {
    clearTimeout(this.#timer);
    const [, window, resolution] = windows[this.#chosen] ?? windows[0];
    const ask = (/** @type {string} */ group) =>
      this.#api.get(`v1/usage?window=${window}&resolution=${resolution}&group=${group}`);
    const [hosts, models, status] = await Promise.all([
      ask("host"),
      ask("method"),
      this.#api.get("v1/status"),
    ]);
    if (!this.#isOpen) return;
    this.#showFigures(hosts, models);
    this.#showServices(status ?? {});
    this.#timer = setTimeout(() => void this.#load().catch(() => undefined), everyMs);
  }

  /**
   * @param {any} usage
   * @param {any} models
   */
  #showFigures(usage, models) {
    const { buckets = [], totals = {}, priced = false } = usage ?? {};
    this.#figures.replaceChildren(
      tilesOf(totals, priced),
      chartsOf(buckets, priced),
      element(
        "div",
        { class: "columns" },
        this.#ranking("Hosts", seriesOf(buckets), (host) => `host:"${host}"`),
        this.#ranking("Models", seriesOf(models?.buckets ?? []), (model) => `"${model}"`),
      ),
    );
  }

  /** What only the events tell. */
  #tally() {
    this.#talliedAt = performance.now();
    const flows = this.#store.all;
    /** @type {Map<string, number>} */ const tools = new Map();
    /** @type {Map<string, number>} */ const callers = new Map();
    /** @type {Map<string, number>} */ const rules = new Map();
    const add = (/** @type {Map<string, number>} */ to, /** @type {string} */ name) => {
      if (name !== "") to.set(name, (to.get(name) ?? 0) + 1);
    };
    for (const flow of flows) {
      for (const tool of flow.tools) add(tools, tool);
      add(callers, flow.user || flow.caller);
      if (flow.verdict === "denied")
        add(rules, [flow.plugin, flow.rule].filter(Boolean).join(" · "));
    }
    const links = linksOf(flows);
    this.#tallies.replaceChildren(
      element(
        "div",
        { class: "columns" },
        this.#ranking("Rules that refuse", rules, (name) => {
          const [plugin = "", rule = ""] = name.split(" · ");
          return `decision:denied plugin:"${plugin}"${rule === "" ? "" : ` rule:"${rule}"`}`;
        }),
        this.#ranking("Tools", tools, (tool) => `tool:"${tool}"`),
        this.#ranking("Callers", callers, (caller) => `"${caller}"`),
      ),
      element(
        "section",
        { class: "card" },
        element("h3", {}, "Egress map", legend(["passed", "refused"])),
        links.length === 0
          ? element(
              "p",
              {},
              "Nothing has left yet. An agent reaches this proxy through HTTP_PROXY and HTTPS_PROXY; authbridge-proxy env prints what it needs.",
            )
          : egressMap(links, (host) => this.#onFlows(`direction:out host:"${host}"`)),
      ),
    );
  }

  /** @param {any} status */
  #showServices({ services = [], ready, reason, figures = {} }) {
    const rows = services.map(
      (/** @type {any} */ { origin, calls, failures, ok, lastAt, lastMs, meanMs, lastFailure }) =>
        element(
          "tr",
          { "data-verdict": ok ? "allowed" : "failed" },
          element("td", {}, origin),
          element(
            "td",
            { class: "verdict", "data-verdict": ok ? "allowed" : "failed" },
            ok ? "answers" : `fails: ${lastFailure ?? ""}`,
          ),
          element("td", { class: "number" }, countOf(calls)),
          element("td", { class: "number" }, failures === 0 ? "" : countOf(failures)),
          element("td", { class: "number" }, durationOf(lastMs)),
          element("td", { class: "number" }, durationOf(meanMs)),
          element("td", {}, timeOf(Date.parse(lastAt))),
        ),
    );
    const heads = ["Service", "", "Calls", "Failed", "Last", "Mean", "At"];
    const parent = figures["authbridge_upstream_proxy_accepted"];
    this.#services.replaceChildren(
      element(
        "section",
        { class: "card" },
        element("h3", {}, "What checks depend on"),
        facts([
          ["Ready", ready ? "yes" : `no: ${reason ?? ""}`],
          ["Upstream proxy", parent === 1 ? "serves" : undefined],
          ["State store", figures["authbridge_state_up"] === 0 ? "away" : undefined],
        ]),
        rows.length === 0
          ? element(
              "p",
              { class: "by" },
              "No identity provider, judge, OPA or bundle server was asked yet.",
            )
          : element(
              "table",
              {},
              element(
                "thead",
                {},
                element("tr", {}, ...heads.map((head) => element("th", {}, head))),
              ),
              element("tbody", {}, ...rows),
            ),
      ),
    );
  }

  /**
   * @param {string} title
   * @param {ReadonlyMap<string, number>} counts
   * @param {(name: string) => string} queryOf
   */
  #ranking(title, counts, queryOf) {
    const top = [...counts].sort(([, one], [, other]) => other - one).slice(0, listed);
    const most = Math.max(1, ...top.map(([, count]) => count));
    const rows = top.map(([name, count]) => {
      const bar = element("span", { class: "bar-of" });
      bar.style.width = `${(count / most) * 100}%`;
      return element(
        "li",
        {},
        bar,
        element(
          "button",
          { type: "button", class: "link", onclick: () => this.#onFlows(queryOf(name)) },
          name,
        ),
        element("span", { class: "count" }, countOf(count)),
      );
    });
    return element(
      "section",
      { class: "card" },
      element("h3", {}, title),
      rows.length === 0
        ? element("p", { class: "by" }, "None yet.")
        : element("ol", { class: "ranking" }, ...rows),
    );
  }
}
