/** The two pipelines as they are configured, and every plugin that could be. */
import { element, folded } from "./dom.js";

/** The pipelines in order. */
export class PipelineView {
  title = "Pipeline";
  root = element("div", { class: "page" });
  #api;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
  }

  async open() {
    const chains = (await this.#api.get("v1/pipeline")) ?? {};
    const columns = ["inbound", "outbound"].map((direction) =>
      element(
        "section",
        {},
        element(
          "h2",
          {},
          direction === "inbound" ? "Inbound, to the agent" : "Outbound, from the agent",
        ),
        ...stepsOf(chains[direction] ?? []),
      ),
    );
    this.root.replaceChildren(element("div", { class: "columns" }, ...columns));
  }
}

/** @param {readonly any[]} steps */
function stepsOf(steps) {
  if (steps.length === 0) return [element("p", {}, "No plugins: the default decides.")];
  return steps.map(({ position, name, description, onError, readsBody, requires, config }) =>
    element(
      "article",
      { class: "card" },
      element("h3", {}, `${position}. ${name}`, element("span", { class: "count" }, onError ?? "")),
      element("p", {}, description),
      element(
        "p",
        { class: "by" },
        [
          readsBody ? "reads bodies" : "",
          ...(requires ?? []).map((/** @type {string} */ one) => `after ${one}`),
        ]
          .filter(Boolean)
          .join(" · "),
      ),
      config === undefined ? undefined : folded("Configuration", config),
    ),
  );
}

/** Every plugin with its keys. */
export class CatalogueView {
  title = "Plugins";
  root = element("div", { class: "page" });
  #api;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
  }

  async open() {
    const { plugins = [] } = (await this.#api.get("v1/plugins")) ?? {};
    this.root.replaceChildren(
      element("h2", {}, "Plugins of this version"),
      ...plugins.map((/** @type {any} */ { name, description, fields }) =>
        element(
          "article",
          { class: "card" },
          element("h3", {}, name),
          element("p", {}, description),
          (fields ?? []).length === 0 ? undefined : keysOf(fields),
        ),
      ),
    );
  }
}

/** @param {readonly any[]} fields */
function keysOf(fields) {
  const rows = fields.map(({ name, type, required, description, default: fallback }) =>
    element(
      "tr",
      {},
      element("td", {}, element("code", {}, name), required ? " (required)" : ""),
      element("td", {}, type ?? ""),
      element("td", {}, fallback === undefined ? "" : JSON.stringify(fallback)),
      element("td", {}, description ?? ""),
    ),
  );
  const heads = ["Key", "Type", "Default", "Meaning"].map((title) => element("th", {}, title));
  const table = element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...rows),
  );
  return element("details", {}, element("summary", {}, `${fields.length} keys`), table);
}
