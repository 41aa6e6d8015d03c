/** What operators have stopped, stopping and releasing. */
import { element } from "./dom.js";
import { timeOf } from "./format.js";
import { LiveList } from "./live-list.js";

/**
 * @typedef {object} Kill
 * @property {string} scope
 * @property {string} [value]
 * @property {string} [reason]
 * @property {string} since
 */

const scopes = ["destination", "session", "caller", "all"];

/** The view. */
export class KillsView {
  title = "Kill";
  root = element("div", { class: "page" });
  #api;
  #scope = /** @type {HTMLSelectElement} */ (
    element(
      "select",
      { "aria-label": "What" },
      ...scopes.map((scope) => element("option", { value: scope }, scope)),
    )
  );
  #value = input("Name", 512);
  #reason = input("Reason", 200);
  #list = new LiveList({
    read: async () =>
      /** @type {readonly Kill[]} */ ((await this.#api.get("v1/kills"))?.kills ?? []),
    keyOf: (kill) => kill,
    card: (kill) => this.#card(kill),
    empty: "Nothing is stopped.",
  });
  #said = element("p", { role: "status", "aria-live": "polite" });

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
    this.root.append(
      element("h2", {}, "Kill switch"),
      element(
        "p",
        {},
        element("label", {}, "What ", this.#scope),
        element("label", {}, " Name ", this.#value),
        element("label", {}, " Reason ", this.#reason),
        element("button", { type: "button", onclick: () => void this.#stop() }, "Stop"),
      ),
      this.#said,
      this.#list.root,
    );
  }

  open() {
    return this.#list.open();
  }

  close() {
    this.#list.close();
  }

  /** @param {Kill} kill */
  #card({ scope, value = "", reason, since }) {
    const release = () => void this.#order("v1/kill/release", { scope, value }, "Released.");
    return element(
      "article",
      { class: "card", "data-kill": `${scope} ${value}`.trim() },
      element(
        "h3",
        {},
        `${scope} ${value}`,
        element("span", { class: "count" }, `since ${timeOf(Date.parse(since))}`),
      ),
      reason === undefined ? undefined : element("p", {}, reason),
      element("button", { type: "button", onclick: release }, "Release"),
    );
  }

  async #stop() {
    const scope = this.#scope.value;
    const value = this.#value.value.trim();
    if (scope === "all" && !confirm("Stop all traffic of every agent?")) return;
    const reason = this.#reason.value;
    await this.#order("v1/kill", { scope, value: scope === "all" ? "" : value, reason });
  }

  /**
   * @param {string} path
   * @param {Record<string, string>} form
   * @param {string} [done]
   */
  async #order(path, form, done) {
    const answer = await this.#api.post(path, form);
    const { message, cut, tookMs, survivesRestart } = answer ?? {};
    const kept = survivesRestart ? "" : " A restart of the proxy forgets it.";
    this.#said.textContent =
      message ?? done ?? `Stopped: ${cut} connections and requests ended in ${tookMs} ms.${kept}`;
    await this.#list.renew();
  }
}

/**
 * @param {string} label
 * @param {number} maxlength
 */
function input(label, maxlength) {
  return /** @type {HTMLInputElement} */ (
    element("input", { type: "text", maxlength, "aria-label": label })
  );
}
