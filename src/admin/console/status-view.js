/** The configuration that is in force, what is wrong with the next one, and how the process is. */
import { element, facts, folded } from "./dom.js";

/** The file as it is in force, secrets hidden. */
export class ConfigurationView {
  title = "Configuration";
  root = element("div", { class: "page" });
  #api;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
  }

  async open() {
    const { config, warnings = [], reload = {} } = (await this.#api.get("v1/config")) ?? {};
    const problem = reload.last_error ?? "";
    this.root.replaceChildren(
      element("h2", {}, "Configuration"),
      problem === ""
        ? element("p", {}, "The file is in force.")
        : element(
            "p",
            { class: "verdict", "data-verdict": "denied" },
            "The last change was refused, the one before is in force.",
          ),
      problem === "" ? undefinedNode() : element("pre", {}, problem),
      ...warnings.map((/** @type {any} */ { keyPath, message }) =>
        element("p", { class: "verdict", "data-verdict": "observed" }, `${keyPath}: ${message}`),
      ),
      facts(
        Object.entries(reload)
          .filter(([name]) => name !== "last_error")
          .map(([name, value]) => [name, String(value)]),
      ),
      folded("Effective configuration", config ?? {}, true),
    );
  }
}

/** Readiness and the figures of the process. */
export class HealthView {
  title = "Health";
  root = element("div", { class: "page" });
  #api;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
  }

  async open() {
    const status = (await this.#api.get("v1/status")) ?? {};
    const {
      ready,
      reason,
      version,
      startedAt,
      generation,
      egressEnforcement,
      stats = {},
      addresses = {},
    } = status;
    this.root.replaceChildren(
      element("h2", {}, "Health"),
      element(
        "p",
        { class: "verdict", "data-verdict": ready ? "allowed" : "denied" },
        ready ? "ready" : `not ready: ${reason}`,
      ),
      facts([
        ["Version", version],
        ["Started", startedAt === undefined ? "" : new Date(startedAt).toLocaleString()],
        ["Generation", generation],
        ["Egress enforcement", egressEnforcement],
      ]),
      folded("Listeners", addresses, true),
      folded("Counters", stats, true),
    );
  }
}

function undefinedNode() {
  return document.createTextNode("");
}
