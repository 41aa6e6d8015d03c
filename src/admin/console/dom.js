/** Elements without markup: what agents send is text here, never HTML. */

/** @typedef {string | number | boolean | undefined | ((event: Event) => void)} Property */

/**
 * Makes an element with these attributes; a function under `onclick` and the like listens.
 *
 * @param {string} tag
 * @param {Record<string, Property>} [properties]
 * @param {...(Node | string | number | undefined | null | false)} children
 * @returns {HTMLElement}
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) {
    if (child === undefined || child === null || child === false) continue;
    made.append(typeof child === "number" ? String(child) : child);
  }
  return made;
}

/**
 * Makes an element of a drawing; a function under `onclick` and the like listens.
 *
 * @param {string} tag
 * @param {Record<string, Property>} [properties]
 * @param {...(Node | string)} children
 */
export function svg(tag, properties = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, String(value));
  }
  made.append(...children);
  return made;
}

/**
 * The element with this id, which the page is known to have.
 *
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * A table of facts; absent ones are left out.
 *
 * @param {readonly (readonly [string, Node | string | number | undefined])[]} rows
 */
export function facts(rows) {
  const list = element("dl", { class: "facts" });
  for (const [name, value] of rows) {
    if (value === undefined || value === "") continue;
    list.append(element("dt", {}, name), element("dd", {}, value));
  }
  return list;
}

/**
 * JSON as text that can be folded away.
 *
 * @param {string} title
 * @param {unknown} value
 * @param {boolean} [open]
 */
export function folded(title, value, open = false) {
  const text = typeof value === "string" ? value : JSON.stringify(value, undefined, 2);
  return element("details", { open }, element("summary", {}, title), element("pre", {}, text));
}
