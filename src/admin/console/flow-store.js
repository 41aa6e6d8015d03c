/** The newest flows of the page, oldest first, and those of them that the filter lets through. */
import { Flow } from "./flow.js";

/** @typedef {import("./flow.js").SessionEvent} SessionEvent */

/** As many as a day of an agent has; a row costs nothing until it is seen. */
const maxFlows = 20_000;

/** Holds flows, bounded. */
export class FlowStore {
  /** @type {Flow[]} */
  #flows = [];
  /** @type {Map<string, Flow>} */
  #byId = new Map();
  /** @type {Flow[]} */
  shown = [];
  /** @type {(flow: Flow) => boolean} */
  #filter = () => true;
  #isStale = false;
  #areConnectionsShown = false;
  /** Flows that ended up in `shown` since somebody last asked. */
  #added = 0;

  get size() {
    return this.#flows.length;
  }

  get all() {
    return this.#flows;
  }

  /** @param {string} id */
  find(id) {
    return this.#byId.get(id);
  }

  /**
   * Takes one event in.
   *
   * @param {SessionEvent} event
   */
  add(event) {
    const known = this.#byId.get(event.requestId);
    if (known === undefined) {
      this.#append(new Flow(event));
      return;
    }
    const wasShown = this.#passes(known);
    if (known.take(event) && wasShown !== this.#passes(known)) this.#isStale = true;
  }

  /**
   * Takes many events in, whatever their order.
   *
   * @param {readonly SessionEvent[]} events
   */
  addAll(events) {
    for (const event of [...events].sort((one, other) => (one.at < other.at ? -1 : 1)))
      this.add(event);
    this.#flows.sort((one, other) => one.at - other.at);
    this.#isStale = true;
  }

  /** @param {(flow: Flow) => boolean} filter */
  setFilter(filter) {
    this.#filter = filter;
    this.#isStale = true;
  }

  /**
   * Connections that were opened are folded into their requests, unless the reader wants to see them.
   *
   * @param {boolean} areShown
   */
  showConnections(areShown) {
    this.#areConnectionsShown = areShown;
    this.#isStale = true;
  }

  /** @param {Flow} flow */
  #passes(flow) {
    if (
      flow.isOpened &&
      flow.verdict !== "denied" &&
      flow.verdict !== "failed" &&
      !this.#areConnectionsShown
    )
      return false;
    return this.#filter(flow);
  }

  /** Brings `shown` up to date and says how many rows came at its end; undefined when it was made anew. */
  refresh() {
    const added = this.#added;
    this.#added = 0;
    if (!this.#isStale) return added;
    this.#isStale = false;
    this.shown = this.#flows.filter((flow) => this.#passes(flow));
    return undefined;
  }

  /** @param {Flow} flow */
  #append(flow) {
    this.#flows.push(flow);
    this.#byId.set(flow.id, flow);
    if (this.#passes(flow)) {
      this.shown.push(flow);
      this.#added += 1;
    }
    // A tenth at once: moving 20,000 places for every event would be felt.
    if (this.#flows.length <= maxFlows) return;
    for (const old of this.#flows.splice(0, maxFlows / 10)) this.#byId.delete(old.id);
    this.#isStale = true;
  }
}
