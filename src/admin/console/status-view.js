/** The configuration that is in force, what is wrong with the next one, and how the process is. */
import { element, facts, folded } from "./dom.js";
import { bytesOf, countOf } from "./format.js";

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

/** Figures with a name of their own, in this order. */
const figureNames = /** @type {const} */ ([
  ["authbridge_client_connections", "Connections of clients", countOf],
  ["authbridge_upstream_connections", "Connections to upstreams", countOf],
  ["authbridge_active_flows", "Messages in progress", countOf],
  ["authbridge_active_tunnels", "Open tunnels", countOf],
  ["process_resident_memory_bytes", "Memory", bytesOf],
  ["nodejs_heap_size_used_bytes", "Heap in use", bytesOf],
]);

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
    const { ready, reason, version, startedAt, generation, egressEnforcement } = status;
    const { stats = {}, addresses = {}, figures = {} } = status;
    const tiles = figureNames.flatMap(([name, title, format]) =>
      figures[name] === undefined ? [] : [tile(title, format(figures[name]))],
    );
    const expiry = figures["authbridge_bridge_ca_expiry_timestamp_seconds"] ?? 0;
    this.root.replaceChildren(
      element("h2", {}, "Health"),
      element(
        "p",
        { class: "verdict", "data-verdict": ready ? "allowed" : "denied" },
        ready ? "ready" : `not ready: ${reason}`,
      ),
      element("div", { class: "tiles" }, ...tiles),
      facts([
        ["Version", version],
        ["Started", startedAt === undefined ? "" : new Date(startedAt).toLocaleString()],
        ["Configurations that served", generation],
        ["Egress enforcement", egressEnforcement],
        [
          "The bridge's authority ends",
          expiry > 0 ? new Date(expiry * 1_000).toLocaleDateString() : "",
        ],
        ...Object.entries(addresses).map(
          ([name, address]) => /** @type {const} */ ([`Listens (${name})`, String(address)]),
        ),
      ]),
      element(
        "div",
        { class: "columns" },
        ...Object.entries(stats).map(([name, counts]) => countsCard(name, counts)),
      ),
    );
  }
}

/**
 * @param {string} name
 * @param {string} value
 */
function tile(name, value) {
  return element("div", { class: "tile" }, element("span", {}, name), element("b", {}, value));
}

/**
 * @param {string} name
 * @param {Record<string, number>} counts
 */
function countsCard(name, counts) {
  const rows = Object.entries(counts).sort(([, one], [, other]) => other - one);
  const title = name.replaceAll("_", " ");
  return element(
    "section",
    { class: "card" },
    element("h3", {}, title),
    rows.length === 0
      ? element("p", { class: "by" }, "None.")
      : element(
          "table",
          {},
          element(
            "tbody",
            {},
            ...rows.map(([what, count]) =>
              element(
                "tr",
                {},
                element("td", {}, what),
                element("td", { class: "number" }, countOf(count)),
              ),
            ),
          ),
        ),
  );
}

function undefinedNode() {
  return document.createTextNode("");
}
