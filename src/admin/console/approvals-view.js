/** What waits for a person, and deciding: everything that the decision is bound to is shown before. */
import { element } from "./dom.js";
import { timeOf } from "./format.js";
import { LiveList } from "./live-list.js";

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

/** The view. */
export class ApprovalsView {
  title = "Approvals";
  root = element("div", { class: "page" });
  #api;
  #list = new LiveList({
    read: async () =>
      /** @type {readonly Ask[]} */ ((await this.#api.get("v1/approvals"))?.approvals ?? []),
    keyOf: ({ id, votes }) => [id, votes],
    card: (ask) => this.#card(ask),
    empty: "Nothing waits.",
  });
  #said = element("p", { role: "status", "aria-live": "polite" });

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
    this.root.append(element("h2", {}, "Waiting for an approval"), this.#said, this.#list.root);
  }

  open() {
    return this.#list.open();
  }

  close() {
    this.#list.close();
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
          request["upgrade"] && `changes to ${request["upgrade"]}`,
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
    await this.#list.renew();
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
