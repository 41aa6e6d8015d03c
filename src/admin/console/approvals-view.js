/** What waits for a person, and deciding: everything that the decision is bound to is shown before. */
import { element } from "./dom.js";
import { timeOf } from "./format.js";

/**
 * @typedef {object} Ask
 * @property {string} id
 * @property {string} plugin
 * @property {string} [rule]
 * @property {string} why
 * @property {string} [session]
 * @property {string} [suggestion]
 * @property {readonly string[]} votes
 * @property {string} asked
 * @property {string} expires
 * @property {Record<string, string | number | undefined>} request
 */

const lookEveryMs = 2_000;

/** The view; it looks again and again for as long as it is shown. */
export class ApprovalsView {
  title = "Approvals";
  root = element("div", { class: "page" });
  #api;
  #list = element("div", { class: "approvals" });
  #said = element("p", { role: "status", "aria-live": "polite" });
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  #shown = "";

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
    this.root.append(element("h2", {}, "Waiting for an approval"), this.#said, this.#list);
  }

  async open() {
    this.close();
    this.#timer = setInterval(() => void this.#look().catch(() => undefined), lookEveryMs);
    await this.#look();
  }

  close() {
    clearInterval(this.#timer);
  }

  async #look() {
    const answer = await this.#api.get("v1/approvals");
    /** @type {readonly Ask[]} */
    const asks = answer?.approvals ?? [];
    const shown = JSON.stringify(asks.map(({ id, votes }) => [id, votes]));
    // What somebody is about to press must not move.
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#list.replaceChildren(
      ...(asks.length === 0
        ? [element("p", {}, "Nothing waits.")]
        : asks.map((ask) => this.#card(ask))),
    );
  }

  /** @param {Ask} ask */
  #card(ask) {
    const { id, request, why, rule, plugin, votes } = ask;
    const reason = /** @type {HTMLInputElement} */ (
      element("input", { type: "text", maxlength: 200, "aria-label": "Reason" })
    );
    const scope = scopesOf(ask);
    const decide = (/** @type {string} */ decision) => () => {
      const isTime = /^\d/.test(scope.value);
      void this.#decide(id, {
        decision,
        scope: isTime ? "duration" : scope.value,
        ...(isTime ? { duration: scope.value } : {}),
        reason: reason.value,
      });
    };
    const place = `${request["scheme"]}://${request["host"]}:${request["port"]}${request["path"]}`;
    return element(
      "article",
      { class: "card", "data-approval": id },
      element(
        "h3",
        {},
        `${request["method"]} ${place}`,
        element("span", { class: "count" }, `since ${timeOf(Date.parse(ask.asked))}`),
      ),
      element("p", {}, why),
      request["tool"] === undefined
        ? undefined
        : element("pre", {}, `${request["tool"]} ${request["arguments"]}`),
      element(
        "p",
        { class: "by" },
        [
          `caller ${request["caller"]}`,
          request["subject"] && `subject ${request["subject"]}`,
          request["bodySha256"] &&
            `${request["bodyBytes"]} bytes, SHA-256 ${request["bodySha256"]}`,
          plugin,
          rule,
          votes.length > 0 && `allowed by ${votes.join(", ")}`,
          `until ${timeOf(Date.parse(ask.expires))}`,
        ]
          .filter(Boolean)
          .join(" · "),
      ),
      element("label", {}, "Holds ", scope),
      element("label", {}, " Reason ", reason),
      element("button", { type: "button", onclick: decide("allow") }, "Approve"),
      element("button", { type: "button", onclick: decide("deny") }, "Deny"),
    );
  }

  /**
   * @param {string} id
   * @param {Record<string, string>} form
   */
  async #decide(id, form) {
    const answer = await this.#api.post(`v1/approvals/${encodeURIComponent(id)}`, form);
    const { message, needs, decision, policy } = answer ?? {};
    const done = decision === "allow" ? "Approved." : "Denied.";
    this.#said.replaceChildren(message ?? (needs ? `It needs ${needs}.` : done));
    if (policy) this.#said.append(element("pre", {}, policy));
    this.#shown = "";
    await this.#look();
  }
}

/**
 * For what a decision can hold.
 *
 * @param {Ask} ask
 */
function scopesOf({ session }) {
  const scopes = element(
    "select",
    { "aria-label": "Holds" },
    element("option", { value: "once" }, "once"),
    session === undefined ? undefined : element("option", { value: "session" }, "session"),
    element("option", { value: "15m" }, "15 minutes"),
    element("option", { value: "1h" }, "1 hour"),
    element("option", { value: "policy" }, "once, and show the policy line"),
  );
  return /** @type {HTMLSelectElement} */ (scopes);
}
