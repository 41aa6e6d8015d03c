/** A flow as a line for a terminal or for the policy. */
import { element } from "./dom.js";

/** @typedef {import("./flow.js").Flow} Flow */

/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;

/**
 * The host of an event has no port where it is the usual one of the scheme.
 *
 * @param {Flow} flow
 */
function placeOf({ host, isPlain }) {
  const [, name = host, port = isPlain ? "80" : "443"] = /^(.*?)(?::(\d+))?$/.exec(host) ?? [];
  return { name, port };
}

/** @param {Flow} flow */
function urlOf(flow) {
  const { name, port } = placeOf(flow);
  const isSecure = port === "443" || port === "8443";
  const place = port === "443" || port === "80" ? name : `${name}:${port}`;
  return `${isSecure ? "https" : "http"}://${place}${flow.isTunnel ? "/" : flow.path}`;
}

/**
 * The same request through this proxy; without what it carried.
 *
 * @param {Flow} flow
 * @param {string} proxy
 */
export function curlLine(flow, proxy) {
  const method = flow.isTunnel ? "GET" : flow.method;
  const verb = method === "GET" ? "" : ` -X ${quoted(method)}`;
  return `curl -x http://${proxy}${verb} ${quoted(urlOf(flow))}`;
}

/**
 * What the policy of a file would say of it.
 *
 * @param {Flow} flow
 */
export function explainLine(flow) {
  const { method, binary, caller, isTunnel } = flow;
  const { name, port } = placeOf(flow);
  const asked = isTunnel
    ? `--connect ${quoted(`${name}:${port}`)}`
    : `--url ${quoted(urlOf(flow))} --method ${quoted(method)}`;
  const who = [
    !binary.startsWith("/") ? "" : ` --binary ${quoted(binary)}`,
    caller === "" ? "" : ` --caller ${quoted(caller)}`,
  ].join("");
  return `authbridge-proxy explain --config FILE ${asked}${who}`;
}

/**
 * An item for `allow` of egress-policy that lets exactly this through.
 *
 * @param {Flow} flow
 */
export function policyLine(flow) {
  const { method, path, isTunnel } = flow;
  const { name, port } = placeOf(flow);
  const place = `host: ${JSON.stringify(name)}, port: ${port}`;
  if (isTunnel) return `- { ${place} }`;
  return `- { ${place}, methods: [${JSON.stringify(method)}], paths: [${JSON.stringify(path)}] }`;
}

/**
 * A button that puts a text on the clipboard, and says so.
 *
 * @param {string} title
 * @param {() => string | Promise<string>} textOf
 */
export function copyButton(title, textOf) {
  const button = element(
    "button",
    { type: "button", class: "small", onclick: () => void copy() },
    title,
  );
  const copy = async () => {
    const text = await textOf();
    const isCopied = await write(text);
    button.textContent = isCopied ? "Copied" : "Not allowed here";
    button.dataset["copied"] = text;
    setTimeout(() => (button.textContent = title), 1_500);
  };
  return button;
}

/**
 * The clipboard is for pages of a secure origin; elsewhere a selected text is copied.
 *
 * @param {string} text
 */
async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = /** @type {HTMLTextAreaElement} */ (
      element("textarea", { "aria-hidden": "true" })
    );
    area.value = text;
    document.body.append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    return isCopied;
  }
}

/**
 * Offers a text as a file.
 *
 * @param {string} name
 * @param {string} text
 */
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  const link = element("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1_000);
}
