/** The list of flows: newest first, and only the rows that can be seen are elements. */
import { element } from "./dom.js";
import { baseName, bytesOf, durationOf, timeOf } from "./format.js";

/** @typedef {import("./flow.js").Flow} Flow */

/** The height that style.css gives to a row. */
const rowHeight = 28;
const rowsAround = 8;

/** @type {readonly (readonly [title: string, text: (flow: Flow) => string, hint?: (flow: Flow) => string])[]} */
const columns = [
  ["Time", ({ at }) => timeOf(at)],
  ["Decision", ({ verdict }) => verdict],
  ["", ({ direction }) => (direction === "inbound" ? "in" : "out")],
  ["Method", ({ method }) => method],
  ["Destination", ({ host, path }) => host + path, ({ what }) => what],
  ["Seen", ({ what }) => what],
  ["Plugin", ({ plugin }) => plugin],
  ["Rule", ({ rule }) => rule],
  ["Binary", ({ binary }) => baseName(binary), ({ binary }) => binary],
  ["User", ({ user, caller }) => user || caller],
  ["Audience", ({ audience }) => audience],
  ["Status", ({ status }) => (status === 0 ? "" : String(status))],
  ["Took", ({ durationMs }) => durationOf(durationMs)],
  ["Bytes", ({ bytes }) => bytesOf(bytes)],
];

/** A list box over an array that grows at its end. */
export class FlowList {
  root;
  #head;
  #body;
  #spacer;
  /** @type {readonly Flow[]} */
  #flows = [];
  /** @type {string | undefined} */
  #selected;
  /** @type {(flow: Flow) => void} */
  #onSelect;
  #isDrawing = false;

  /** @param {(flow: Flow) => void} onSelect */
  constructor(onSelect) {
    this.#onSelect = onSelect;
    this.#head = element("div", { class: "row head", "aria-hidden": "true" });
    for (const [title] of columns) this.#head.append(element("span", {}, title));
    this.#spacer = element("div", { class: "rows" });
    this.#body = element(
      "div",
      { class: "scroll", role: "listbox", tabindex: 0, "aria-label": "Flows, newest first" },
      this.#spacer,
    );
    this.#body.addEventListener("scroll", () => this.draw(), { passive: true });
    this.#body.addEventListener("click", (event) => this.#clicked(event));
    new ResizeObserver(() => this.draw()).observe(this.#body);
    this.root = element("div", { class: "list" }, this.#head, this.#body);
  }

  /** @returns {Flow | undefined} */
  get selected() {
    return this.#flows.find(({ id }) => id === this.#selected);
  }

  /**
   * Shows these flows. `added` is how many are new at the end; the rows under the reader's eyes stay where they are.
   *
   * @param {readonly Flow[]} flows
   * @param {number | undefined} added
   */
  show(flows, added) {
    this.#flows = flows;
    this.#spacer.style.height = `${flows.length * rowHeight}px`;
    const isReading = this.#body.scrollTop > rowHeight;
    if (isReading && added !== undefined && added > 0) this.#body.scrollTop += added * rowHeight;
    this.draw();
  }

  /** Puts the visible rows in place, once per frame. */
  draw() {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    requestAnimationFrame(() => {
      this.#isDrawing = false;
      this.#drawNow();
    });
  }

  focus() {
    this.#body.focus();
  }

  /**
   * Moves the selection towards older (1) or newer (-1) flows.
   *
   * @param {number} step
   */
  move(step) {
    const { length } = this.#flows;
    if (length === 0) return;
    const at = this.#rowOf(this.#selected);
    const row = at === undefined ? 0 : Math.min(length - 1, Math.max(0, at + step));
    const flow = this.#flows[length - 1 - row];
    if (flow === undefined) return;
    this.select(flow.id);
    const top = row * rowHeight;
    const { scrollTop, clientHeight } = this.#body;
    if (top < scrollTop) this.#body.scrollTop = top;
    else if (top + rowHeight > scrollTop + clientHeight)
      this.#body.scrollTop = top + rowHeight - clientHeight;
  }

  /** @param {string | undefined} id */
  select(id) {
    this.#selected = id;
    this.draw();
    const { selected } = this;
    if (selected !== undefined) this.#onSelect(selected);
  }

  /** @param {string | undefined} id */
  #rowOf(id) {
    const index = id === undefined ? -1 : this.#flows.findIndex((flow) => flow.id === id);
    return index === -1 ? undefined : this.#flows.length - 1 - index;
  }

  #drawNow() {
    const { scrollTop, clientHeight } = this.#body;
    const { length } = this.#flows;
    const first = Math.max(0, Math.floor(scrollTop / rowHeight) - rowsAround);
    const last = Math.min(length, Math.ceil((scrollTop + clientHeight) / rowHeight) + rowsAround);
    const rows = [];
    for (let row = first; row < last; row += 1) {
      const flow = this.#flows[length - 1 - row];
      if (flow !== undefined) rows.push(this.#rowElement(flow, row));
    }
    this.#spacer.replaceChildren(...rows);
    if (this.#selected === undefined) this.#body.removeAttribute("aria-activedescendant");
    else this.#body.setAttribute("aria-activedescendant", `flow-${this.#selected}`);
  }

  /**
   * @param {Flow} flow
   * @param {number} row
   */
  #rowElement(flow, row) {
    const isSelected = flow.id === this.#selected;
    const made = element("div", {
      class: "row",
      id: `flow-${flow.id}`,
      role: "option",
      "aria-selected": String(isSelected),
      "aria-posinset": row + 1,
      "aria-setsize": this.#flows.length,
      "data-verdict": flow.verdict,
      "data-id": flow.id,
    });
    made.style.top = `${row * rowHeight}px`;
    for (const [, text, hint] of columns) {
      const shown = text(flow);
      made.append(element("span", { title: hint?.(flow) || shown || undefined }, shown));
    }
    return made;
  }

  /** @param {Event} event */
  #clicked(event) {
    const row = event.target instanceof Element ? event.target.closest("[data-id]") : null;
    if (row instanceof HTMLElement) this.select(row.dataset["id"]);
  }
}
