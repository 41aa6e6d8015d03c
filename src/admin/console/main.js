/** The console: views over one store that the live feed fills. */
import { Api } from "./api.js";
import { ApprovalsView } from "./approvals-view.js";
import { byId, element } from "./dom.js";
import { DenialsView } from "./denials-view.js";
import { Feed } from "./feed.js";
import { FlowStore } from "./flow-store.js";
import { FlowsView } from "./flows-view.js";
import { KillsView } from "./kills-view.js";
import { OverviewView } from "./overview-view.js";
import { CatalogueView, PipelineView } from "./pipeline-view.js";
import { SessionsView } from "./sessions-view.js";
import { ConfigurationView, HealthView } from "./status-view.js";
import { startTheme } from "./theme.js";

/**
 * @typedef {object} View
 * @property {string} title
 * @property {HTMLElement} root
 * @property {() => void} [refresh] called after events came
 * @property {() => Promise<void>} [open] called when the view is chosen
 * @property {() => void} [close] called when another one is
 * @property {URLSearchParams} [query] what of it the address of the page keeps
 */

const statusEveryMs = 5_000;
const api = new Api(askSecret);
const store = new FlowStore();
const flows = new FlowsView(store, api, () => keepAddress());
const showFlows = (/** @type {string} */ query) => {
  show(flows);
  flows.filter(query);
};
/** @type {readonly View[]} */
const views = [
  new OverviewView(store, api, showFlows),
  flows,
  new SessionsView(api, (id) => {
    show(flows);
    void flows.session(id);
  }),
  new DenialsView(store, api, showFlows),
  new PipelineView(api),
  new CatalogueView(api),
  new ConfigurationView(api),
  new HealthView(api),
  new ApprovalsView(api),
  new KillsView(api),
];
/** @type {View} */
let current = flows;
let isRefreshing = false;

/** @param {View} view */
function show(view) {
  if (current !== view) current.close?.();
  current = view;
  for (const [index, tab] of [...byId("tabs").children].entries()) {
    tab.setAttribute("aria-selected", String(views[index] === view));
  }
  byId("view").replaceChildren(view.root);
  keepAddress();
  view.refresh?.();
  void view.open?.().catch((error) => view.root.replaceChildren(element("p", {}, String(error))));
}

/** The address names the view and what it shows; it is replaced, so that typing fills no history. */
function keepAddress() {
  const query = queryOf(current);
  const address = `#${current.title.toLowerCase()}${query === "" ? "" : `?${query}`}`;
  if (location.hash !== address) history.replaceState(null, "", address);
}

/** @param {View} view */
function queryOf({ query }) {
  return String(query ?? "");
}

/** Shows what the address names. */
function followAddress() {
  const [name = "", query = ""] = location.hash.slice(1).split("?");
  /** @type {View} */
  const view = views.find(({ title }) => title.toLowerCase() === name) ?? views[0] ?? flows;
  if (view.query !== undefined) view.query = new URLSearchParams(query);
  show(view);
}

/** One look at the store per frame, however many events came. */
function refreshSoon() {
  if (isRefreshing) return;
  isRefreshing = true;
  requestAnimationFrame(() => {
    isRefreshing = false;
    current.refresh?.();
  });
}

/** @returns {Promise<string>} */
function askSecret() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("secret"));
  const input = /** @type {HTMLInputElement} */ (dialog.querySelector("input"));
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(input.value), { once: true });
  });
}

/** Everything that is kept already. The feed is open before, so that nothing falls between the two. */
async function loadKept() {
  const { sessions = [] } = (await api.get("v1/sessions")) ?? {};
  for (const { id } of sessions) {
    const found = await api.get(`v1/sessions/${encodeURIComponent(id)}?view=summary`);
    store.addAll(found?.events ?? []);
    refreshSoon();
  }
}

async function watchStatus() {
  const pill = byId("ready");
  for (;;) {
    const status = await api.get("v1/status").catch(() => undefined);
    const isReady = status?.ready === true;
    pill.dataset["state"] = status === undefined ? "unknown" : isReady ? "ready" : "not-ready";
    pill.textContent = status === undefined ? "…" : isReady ? "ready" : "not ready";
    pill.title = status?.reason ?? "";
    await new Promise((resolve) => setTimeout(resolve, statusEveryMs));
  }
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const isTyping = event.target instanceof HTMLInputElement;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTyping && event.key !== "Escape" && event.key !== "Enter") return;
  if (document.querySelector("dialog[open]") !== null) return;
  if (event.target instanceof HTMLInputElement) {
    event.target.blur();
    if (event.key === "Enter") flows.key("j");
    return;
  }
  // The tenth has the key of 0.
  const view = views[(Number.parseInt(event.key, 10) + 9) % 10];
  if (view !== undefined) show(view);
  else if (event.key === "?") /** @type {HTMLDialogElement} */ (byId("keys")).showModal();
  else if (event.key === "/") {
    show(flows);
    flows.focusFilter();
  } else if (event.target instanceof HTMLButtonElement && event.key === "Enter") return;
  else if (current !== flows || !flows.key(event.key)) return;
  event.preventDefault();
}

for (const view of views) {
  byId("tabs").append(
    element("button", { type: "button", role: "tab", onclick: () => show(view) }, view.title),
  );
}
document.addEventListener("keydown", onKey);
byId("help").addEventListener("click", () =>
  /** @type {HTMLDialogElement} */ (byId("keys")).showModal(),
);
startTheme(byId("theme"));
addEventListener("hashchange", followAddress);
followAddress();
const feed = new Feed(
  api,
  (event) => {
    store.add(event);
    refreshSoon();
  },
  (state) => {
    byId("feed").dataset["state"] = state;
    byId("feed").textContent = state === "closed" ? "reconnecting" : state;
  },
);
void feed.run();
void loadKept().catch((error) => console.warn("the kept sessions cannot be read", error));
void watchStatus();
