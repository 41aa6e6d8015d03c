/** One flow from its request to its end: each step, what parsers saw, and why it ended as it did. */
import { copyButton, curlLine, explainLine, policyLine } from "./copy.js";
import { element, facts, folded } from "./dom.js";
import { stepsOf } from "./flow.js";
import { bytesOf, durationOf, timeOf } from "./format.js";

/** @typedef {import("./flow.js").Flow} Flow */
/** @typedef {import("./flow.js").SessionEvent} SessionEvent */

const titles = { request: "Sent on", response: "Answered", denied: "Refused" };

/**
 * The panel of a flow; `full` has the events with what summaries leave out, once they are there.
 *
 * @param {Flow} flow
 * @param {readonly SessionEvent[] | undefined} full
 * @param {{ onClose: () => void, onSession: (id: string) => void, proxy: () => Promise<string> }} actions
 */
export function flowDetail(flow, full, { onClose, onSession, proxy }) {
  const { method, host, path, verdict, error } = flow;
  const events = full ?? flow.events;
  return element(
    "section",
    { class: "detail", "aria-label": "Flow", tabindex: -1, "data-of": flow.id },
    element(
      "header",
      {},
      element("h2", {}, `${method} ${host}${path}`),
      element(
        "button",
        { type: "button", class: "close", onclick: onClose, title: "Close (Esc)" },
        "×",
      ),
    ),
    element(
      "p",
      { class: "verdict", "data-verdict": verdict },
      verdict,
      error === "" ? "" : `: ${error}`,
    ),
    facts([
      ["Flow", flow.id],
      ["Session", sessionLink(flow.session, onSession)],
      ["Decided by", [flow.plugin, flow.rule].filter(Boolean).join(" · ")],
      ["Seen", flow.what],
      ["Tools", flow.tools.join(", ")],
      ["Binary", flow.binary],
      ["Agent", flow.caller],
      ["User", flow.user],
      ["Token audience", flow.audience],
      ["Status", flow.status === 0 ? undefined : flow.status],
      ["Time taken", durationOf(flow.durationMs)],
      ["Bytes", bytesOf(flow.bytes)],
    ]),
    element(
      "p",
      { class: "copies" },
      flow.direction === "outbound"
        ? copyButton("Copy as curl", async () => curlLine(flow, await proxy()))
        : undefined,
      flow.direction === "outbound"
        ? copyButton("Copy as explain", () => explainLine(flow))
        : undefined,
      flow.direction === "outbound"
        ? copyButton("Copy as policy line", () => policyLine(flow))
        : undefined,
    ),
    timeline(events),
  );
}

/**
 * Steps in the order in which they happened.
 *
 * @param {readonly SessionEvent[]} events
 */
export function timeline(events) {
  const list = element("ol", { class: "timeline" });
  for (const event of [...events].sort((one, other) => (one.at < other.at ? -1 : 1))) {
    for (const step of stepsOf(event)) {
      const { plugin, action, reason, cause = reason, details, shadow } = step;
      list.append(
        element(
          "li",
          { "data-action": shadow === true ? "shadow" : action },
          element("b", {}, plugin),
          ` ${shadow === true ? "would refuse" : action} `,
          element("i", {}, cause),
          details === undefined ? undefined : facts(Object.entries(details)),
        ),
      );
    }
    list.append(moment(event));
  }
  return list;
}

/** @param {SessionEvent} event */
function moment(event) {
  const { phase, at, statusCode, durationMs, error, mcp, a2a, inference } = event;
  return element(
    "li",
    { class: "moment", "data-phase": phase },
    element("time", { datetime: at }, timeOf(Date.parse(at))),
    ` ${titles[phase]} `,
    element("b", {}, [statusCode, durationOf(durationMs)].filter(Boolean).join(" · ")),
    error === undefined ? undefined : element("p", {}, `${error.code}: ${error.message}`),
    inference === undefined ? undefined : usage(inference),
    mcp === undefined ? undefined : folded(`MCP ${mcp["method"] ?? ""}`, mcp),
    a2a === undefined ? undefined : folded(`A2A ${a2a["method"] ?? ""}`, a2a),
    inference === undefined ? undefined : folded(`Model ${inference["model"] ?? ""}`, inference),
  );
}

/** @param {Record<string, any>} inference */
function usage(inference) {
  return facts([
    ["Model", inference["model"]],
    ["Prompt tokens", inference["promptTokens"]],
    ["Completion tokens", inference["completionTokens"]],
    ["Tokens", inference["totalTokens"]],
    ["Tool calls", toolNames(inference)],
  ]);
}

/** @param {Record<string, any>} inference */
function toolNames(inference) {
  const calls = inference["toolCalls"];
  if (!Array.isArray(calls)) return undefined;
  return calls.map((call) => call?.name ?? call?.function?.name ?? "?").join(", ");
}

/**
 * @param {string} id
 * @param {(id: string) => void} onSession
 */
function sessionLink(id, onSession) {
  return element("button", { type: "button", class: "link", onclick: () => onSession(id) }, id);
}
