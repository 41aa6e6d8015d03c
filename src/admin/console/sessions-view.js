/** The sessions that are kept, newest first; of one: its turns, what they called and cost, and when. */
import { element, facts } from "./dom.js";
import { toolsOf } from "./flow.js";
import { costOf, countOf, timeOf } from "./format.js";
import { sessionTimeline } from "./session-timeline.js";

/** @typedef {import("./flow.js").SessionEvent} SessionEvent */

/** The view; asked for anew when it is opened. */
export class SessionsView {
  title = "Sessions";
  root = element("div", { class: "page" });
  #api;
  #onSession;
  #list = element("div");
  #detail = element("div", { "aria-live": "polite" });

  /**
   * @param {import("./api.js").Api} api
   * @param {(id: string) => void} onSession
   */
  constructor(api, onSession) {
    this.#api = api;
    this.#onSession = onSession;
    this.root.append(element("h2", {}, "Sessions"), this.#list, this.#detail);
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
            { type: "button", class: "link", onclick: () => void this.#open(session.id) },
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
    this.#list.replaceChildren(
      rows.length === 0
        ? element("p", {}, "No session yet: one begins with the first message to or from an agent.")
        : element(
            "table",
            {},
            element("thead", {}, element("tr", {}, ...heads)),
            element("tbody", {}, ...rows),
          ),
    );
    const [first] = sessions;
    if (first !== undefined) await this.#open(first.id);
  }

  /** @param {string} id */
  async #open(id) {
    const found = await this.#api.get(`v1/sessions/${encodeURIComponent(id)}?view=summary`);
    /** @type {readonly SessionEvent[]} */
    const events = found?.events ?? [];
    const { turns, tools, tokens, costMicros, refused, users } = sumsOf(events);
    this.#detail.replaceChildren(
      element(
        "section",
        { class: "card", "aria-label": `Session ${id}` },
        element(
          "h3",
          {},
          id,
          element(
            "button",
            { type: "button", onclick: () => this.#onSession(id) },
            "Show the flows",
          ),
        ),
        facts([
          ["Turns", turns],
          ["User", [...users].join(", ")],
          ["Tools", [...tools].map(([name, count]) => `${name} ${count}×`).join(", ")],
          ["Tokens", tokens === 0 ? undefined : countOf(tokens)],
          ["Cost", costMicros === 0 ? undefined : costOf(costMicros)],
          ["Refused", refused === 0 ? undefined : refused],
        ]),
        sessionTimeline(events),
      ),
    );
  }
}

/** @param {readonly SessionEvent[]} events */
function sumsOf(events) {
  /** @type {Map<string, number>} */
  const tools = new Map();
  /** @type {Set<string>} */
  const users = new Set();
  let turns = 0;
  let tokens = 0;
  let costMicros = 0;
  let refused = 0;
  for (const event of events) {
    const { direction, phase, tunnel, identity, inference, plugins = {} } = event;
    // A turn is a message to the agent; without an inbound listener, a question to a model.
    if (direction === "inbound" && phase === "request") turns += 1;
    if (phase === "denied" && tunnel !== true) refused += 1;
    if (identity !== undefined) users.add(identity.subject);
    if (phase === "response") {
      tokens += inference?.["totalTokens"] ?? 0;
      for (const published of Object.values(plugins)) costMicros += published?.["costMicros"] ?? 0;
    }
    if (phase === "request" || inference !== undefined)
      for (const tool of toolsOf(event)) tools.set(tool, (tools.get(tool) ?? 0) + 1);
  }
  if (turns === 0)
    turns = events.filter(
      ({ phase, inference }) => phase === "request" && inference !== undefined,
    ).length;
  return { turns, tools, tokens, costMicros, refused, users };
}
