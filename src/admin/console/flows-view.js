/** The live list with its filter and the details of what is selected. */
import { byId, element } from "./dom.js";
import { fieldNames, filterOf } from "./filter.js";
import { flowDetail, timeline } from "./flow-detail.js";
import { FlowList } from "./flow-list.js";

/** @typedef {import("./flow.js").Flow} Flow */
/** @typedef {import("./flow.js").SessionEvent} SessionEvent */

const presets = /** @type {const} */ ([
  ["All", ""],
  ["Refused", "decision:denied"],
  ["Would refuse", "decision:observed"],
  ["Failed", "decision:failed"],
  ["Inbound", "direction:in"],
  ["Outbound", "direction:out"],
]);

const nothingYet =
  "No flows yet. An agent that has HTTP_PROXY and HTTPS_PROXY set to this proxy appears here with its first request; authbridge-proxy env prints what it needs.";
const nothingLike = "No flow is like that. Esc clears the filter.";

/** The view and its state, which outlives a change of the view. */
export class FlowsView {
  title = "Flows";
  root;
  #store;
  #api;
  #list;
  #box;
  #count;
  #side;
  #hold;
  #connections;
  #isHeld = false;
  #areConnectionsShown = false;
  #onQuery;
  /** @type {() => Promise<string>} */
  #proxy;

  /**
   * @param {import("./flow-store.js").FlowStore} store
   * @param {import("./api.js").Api} api
   * @param {() => void} onQuery told when what the list shows is another question
   */
  constructor(store, api, onQuery) {
    this.#store = store;
    this.#api = api;
    this.#onQuery = onQuery;
    this.#proxy = async () => {
      const status = await this.#api.get("v1/status").catch(() => undefined);
      return status?.addresses?.forward ?? "127.0.0.1:8081";
    };
    this.#list = new FlowList((flow) => void this.#open(flow));
    this.#box = /** @type {HTMLInputElement} */ (
      element("input", {
        id: "filter",
        type: "search",
        placeholder: "Filter: words, host:… plugin:… decision:denied -user:…",
        "aria-label": `Filter. Fields: ${fieldNames.join(", ")}`,
        autocomplete: "off",
        spellcheck: "false",
      })
    );
    this.#box.addEventListener("input", () => this.#refilter());
    this.#count = element("span", { class: "count", role: "status" });
    this.#hold = element(
      "button",
      { type: "button", "aria-pressed": "false", onclick: () => this.hold() },
      "Hold",
    );
    this.#connections = element(
      "button",
      {
        type: "button",
        "aria-pressed": "false",
        title: "CONNECTs whose TLS was opened, beside their requests",
        onclick: () => this.showConnections(!this.#areConnectionsShown),
      },
      "Connections",
    );
    const buttons = presets.map(([name, query]) =>
      element("button", { type: "button", onclick: () => this.filter(query) }, name),
    );
    this.#side = element("aside", { hidden: true });
    this.root = element(
      "div",
      { class: "flows" },
      element(
        "div",
        { class: "bar" },
        this.#box,
        ...buttons,
        this.#connections,
        this.#hold,
        this.#count,
      ),
      element("div", { class: "split" }, this.#list.root, this.#side),
    );
  }

  /** Brings the list up to date, unless the reader holds it. */
  refresh() {
    if (this.#isHeld) return;
    const added = this.#store.refresh();
    const { shown, size } = this.#store;
    this.#count.textContent = shown.length === size ? `${size}` : `${shown.length} of ${size}`;
    this.#list.show(shown, added, size === 0 ? nothingYet : nothingLike);
  }

  /** What the address of the page says, so that it can be kept and passed on. */
  get query() {
    const query = new URLSearchParams();
    if (this.#box.value !== "") query.set("filter", this.#box.value);
    if (this.#areConnectionsShown) query.set("connections", "shown");
    return query;
  }

  /** @param {URLSearchParams} query */
  set query(query) {
    this.showConnections(query.get("connections") === "shown");
    this.filter(query.get("filter") ?? "");
  }

  /** @param {boolean} areShown */
  showConnections(areShown) {
    this.#areConnectionsShown = areShown;
    this.#connections.setAttribute("aria-pressed", String(areShown));
    this.#store.showConnections(areShown);
    this.#onQuery();
    this.refresh();
  }

  /** @param {string} query */
  filter(query) {
    this.#box.value = query;
    this.#refilter();
  }

  hold() {
    this.#isHeld = !this.#isHeld;
    this.#hold.setAttribute("aria-pressed", String(this.#isHeld));
    this.refresh();
  }

  focusFilter() {
    this.#box.focus();
    this.#box.select();
  }

  /**
   * Keys of the list; true when the key was one.
   *
   * @param {string} key
   */
  key(key) {
    if (key === "j" || key === "ArrowDown") this.#list.move(1);
    else if (key === "k" || key === "ArrowUp") this.#list.move(-1);
    else if (key === "PageDown") this.#list.move(20);
    else if (key === "PageUp") this.#list.move(-20);
    else if (key === "p") this.hold();
    else if (key === "d") this.filter("decision:denied");
    else if (key === "Enter") this.#openSelected();
    else if (key === "s") this.#openSession(this.#list.selected?.session);
    else if (key === "Escape") this.#close();
    else return false;
    return true;
  }

  /** Shows every flow of a session, and the session's timeline beside it. */
  async session(/** @type {string} */ id) {
    this.filter(`session:"${id}"`);
    const found = await this.#api.get(`v1/sessions/${encodeURIComponent(id)}`);
    const events = /** @type {SessionEvent[]} */ (found?.events ?? []);
    const close = element(
      "button",
      { type: "button", class: "close", onclick: () => this.#close() },
      "×",
    );
    this.#show(
      element(
        "section",
        { class: "detail", "aria-label": "Session", tabindex: -1 },
        element("header", {}, element("h2", {}, `Session ${id}`), close),
        element("p", {}, `${events.length} events`),
        timeline(events),
      ),
    );
  }

  #refilter() {
    this.#store.setFilter(filterOf(this.#box.value));
    this.#onQuery();
    this.refresh();
  }

  #openSelected() {
    const { selected } = this.#list;
    if (selected === undefined) this.#list.move(0);
    else this.#side.querySelector("section")?.focus();
  }

  /** @param {string | undefined} id */
  #openSession(id) {
    if (id !== undefined) void this.session(id);
  }

  /** @param {Flow} flow */
  async #open(flow) {
    const actions = {
      onClose: () => this.#close(),
      onSession: (/** @type {string} */ id) => this.#openSession(id),
      proxy: this.#proxy,
    };
    this.#show(flowDetail(flow, undefined, actions));
    // The list holds summaries: arguments and messages are asked for when somebody wants to see them.
    const found = await this.#api
      .get(`v1/sessions/${encodeURIComponent(flow.session)}`)
      .catch(() => undefined);
    const events = /** @type {SessionEvent[]} */ (found?.events ?? []);
    const full = events.filter(({ requestId }) => requestId === flow.id);
    if (full.length > 0 && this.#list.selected?.id === flow.id)
      this.#show(flowDetail(flow, full, actions));
  }

  /** @param {HTMLElement} panel */
  #show(panel) {
    const { scrollTop } = this.#side;
    const isSame =
      this.#side.firstElementChild?.getAttribute("data-of") === panel.getAttribute("data-of");
    const hadFocus = isSame && this.#side.contains(document.activeElement);
    this.#side.hidden = false;
    this.#side.replaceChildren(panel);
    // The whole version of a flow takes the place of its summary under the reader's eyes.
    if (isSame) this.#side.scrollTop = scrollTop;
    if (hadFocus) panel.focus();
    this.#list.draw();
  }

  #close() {
    if (!this.#side.hidden) {
      this.#side.hidden = true;
      this.#side.replaceChildren();
      this.#list.select(undefined);
    } else if (this.#box.value !== "") this.filter("");
    if (document.activeElement === document.body || byId("view").contains(document.activeElement)) {
      this.#list.focus();
    }
  }
}
