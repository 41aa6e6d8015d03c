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
  #isHeld = false;

  /**
   * @param {import("./flow-store.js").FlowStore} store
   * @param {import("./api.js").Api} api
   */
  constructor(store, api) {
    this.#store = store;
    this.#api = api;
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
    const buttons = presets.map(([name, query]) =>
      element("button", { type: "button", onclick: () => this.filter(query) }, name),
    );
    this.#side = element("aside", { hidden: true });
    this.root = element(
      "div",
      { class: "flows" },
      element("div", { class: "bar" }, this.#box, ...buttons, this.#hold, this.#count),
      element("div", { class: "split" }, this.#list.root, this.#side),
    );
  }

  /** Brings the list up to date, unless the reader holds it. */
  refresh() {
    if (this.#isHeld) return;
    const added = this.#store.refresh();
    const { shown, size } = this.#store;
    this.#count.textContent = shown.length === size ? `${size}` : `${shown.length} of ${size}`;
    this.#list.show(shown, added);
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
    this.#side.hidden = false;
    this.#side.replaceChildren(panel);
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
