/** The sessions that are kept, newest first. */
import { element } from "./dom.js";
import { timeOf } from "./format.js";

/** The view; asked for anew when it is opened. */
export class SessionsView {
  title = "Sessions";
  root = element("div", { class: "page" });
  #api;
  #onSession;

  /**
   * @param {import("./api.js").Api} api
   * @param {(id: string) => void} onSession
   */
  constructor(api, onSession) {
    this.#api = api;
    this.#onSession = onSession;
  }

  async open() {
    const { sessions = [] } = (await this.#api.get("v1/sessions")) ?? {};
    const rows = sessions.map((/** @type {any} */ session) =>
      element(
        "tr",
        {},
        element(
          "td",
          {},
          element(
            "button",
            { type: "button", class: "link", onclick: () => this.#onSession(session.id) },
            session.id,
          ),
        ),
        element("td", {}, timeOf(Date.parse(session.createdAt))),
        element("td", {}, timeOf(Date.parse(session.updatedAt))),
        element("td", { class: "number" }, session.eventCount),
        element("td", { class: "number" }, session.totalTokens ?? ""),
      ),
    );
    const heads = ["Session", "Began", "Last event", "Events", "Tokens"].map((title) =>
      element("th", {}, title),
    );
    this.root.replaceChildren(
      element("h2", {}, "Sessions"),
      element(
        "table",
        {},
        element("thead", {}, element("tr", {}, ...heads)),
        element("tbody", {}, ...rows),
      ),
    );
  }
}
