/** The words of the filter box as a question about flows. */

/** @typedef {import("./flow.js").Flow} Flow */

/** What `name:value` may ask for; a value that begins with `-` asks for the opposite. */
const fields = /** @type {const} */ ({
  host: "host",
  path: "path",
  method: "method",
  session: "session",
  plugin: "plugin",
  rule: "rule",
  tool: "tools",
  user: "user",
  binary: "binary",
  audience: "audience",
  caller: "caller",
  decision: "verdict",
  is: "verdict",
  status: "status",
  direction: "direction",
});

/** The names, for the hint of the box. */
export const fieldNames = Object.keys(fields);

/**
 * Every word must hold; quotes keep words together. A word without a field is looked for everywhere.
 *
 * @param {string} query
 * @returns {(flow: Flow) => boolean}
 */
export function filterOf(query) {
  const tests = [...query.matchAll(/(-?)(?:([a-z]+):)?(?:"([^"]*)"|(\S+))/gi)].map(
    ([, minus, name, quoted, bare]) =>
      testOf(name, (quoted ?? bare ?? "").toLowerCase(), minus === "-"),
  );
  return (flow) => tests.every((test) => test(flow));
}

/**
 * @param {string | undefined} name
 * @param {string} wanted
 * @param {boolean} isNot
 * @returns {(flow: Flow) => boolean}
 */
function testOf(name, wanted, isNot) {
  const field =
    name === undefined
      ? undefined
      : fields[/** @type {keyof typeof fields} */ (name.toLowerCase())];
  if (field === undefined) {
    const word = name === undefined ? wanted : `${name}:${wanted}`;
    return (flow) => flow.text.includes(word) !== isNot;
  }
  return (flow) => String(flow[field]).toLowerCase().includes(wanted) !== isNot;
}
