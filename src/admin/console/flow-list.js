/** The list of flows: newest first, and only the rows that can be seen are elements. */
import { element } from "./dom.js";
import { baseName, bytesOf, durationOf, timeOf } from "./format.js";

/** @typedef {import("./flow.js").Flow} Flow */

/** The heights that style.css gives to a row: on a narrow screen a row has two lines. */
const wideRow = 28;
const narrowRow = 46;
const narrow = matchMedia("(max-width: 640px)");
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

/** What fills a bar. */
const fullMs = 10_000;
const fullBytes = 10_485_760;

/**
 * The share of a bar for a value between 1 and the full one, by orders of magnitude.
 *
 * @param {number | undefined} value
 * @param {number} full
 */
function shareOfBar(value, full) {
  if (value === undefined || value <= 0) return "0%";
  return `${Math.min(100, (Math.log10(1 + value) / Math.log10(1 + full)) * 100).toFixed(0)}%`;
}

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
  #rowHeight = narrow.matches ? narrowRow : wideRow;
  #empty = element("p", { class: "empty" });

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
    narrow.addEventListener("change", () => {
      this.#rowHeight = narrow.matches ? narrowRow : wideRow;
      this.show(this.#flows, undefined);
    });
    this.root = element("div", { class: "list" }, this.#head, this.#empty, this.#body);
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
   * @param {string} [empty] what stands there where there is none
   */
  show(flows, added, empty = "") {
    this.#flows = flows;
    this.#empty.hidden = flows.length > 0;
    this.#empty.textContent = empty;
    this.#spacer.style.height = `${flows.length * this.#rowHeight}px`;
    const isReading = this.#body.scrollTop > this.#rowHeight;
    if (isReading && added !== undefined && added > 0)
      this.#body.scrollTop += added * this.#rowHeight;
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
    const top = row * this.#rowHeight;
    const { scrollTop, clientHeight } = this.#body;
    if (top < scrollTop) this.#body.scrollTop = top;
    else if (top + this.#rowHeight > scrollTop + clientHeight)
      this.#body.scrollTop = top + this.#rowHeight - clientHeight;
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
    const first = Math.max(0, Math.floor(scrollTop / this.#rowHeight) - rowsAround);
    const last = Math.min(
      length,
      Math.ceil((scrollTop + clientHeight) / this.#rowHeight) + rowsAround,
    );
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
    made.style.top = `${row * this.#rowHeight}px`;
    for (const [title, text, hint] of columns) {
      const shown = text(flow);
      const cell = element("span", { title: hint?.(flow) || shown || undefined }, shown);
      if (title === "Took") cell.style.setProperty("--share", shareOfBar(flow.durationMs, fullMs));
      if (title === "Bytes") cell.style.setProperty("--share", shareOfBar(flow.bytes, fullBytes));
      made.append(cell);
    }
    return made;
  }

  /** @param {Event} event */
  #clicked(event) {
    const row = event.target instanceof Element ? event.target.closest("[data-id]") : null;
    if (row instanceof HTMLElement) this.select(row.dataset["id"]);
  }
}
