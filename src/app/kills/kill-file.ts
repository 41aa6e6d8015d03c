/** The file of the kill switch: one line for each thing that is stopped. */
import { type Kill, type KillScope, killScopes } from "../../pipeline/kill-switch.ts";

const maxValueLength = 512;
const heading =
  "# What is stopped, one a line: all, caller NAME, session ID, destination HOST[:PORT]. An empty file stops all.";

/** What a scope and a value name, or what is wrong with them. */
export function readKill(scope: string, value: string): Pick<Kill, "scope" | "value"> | string {
  const known = killScopes.find((one) => one === scope);
  if (known === undefined)
    return `${JSON.stringify(scope.slice(0, 32))} is none of ${killScopes.join(", ")}`;
  if (known === "all") return value === "" ? { scope: known, value } : "all takes no value";
  const problem = valueProblem(known, value);
  return problem ?? { scope: known, value: known === "destination" ? value.toLowerCase() : value };
}

function valueProblem(scope: KillScope, value: string): string | undefined {
  if (value === "") return `${scope} needs a value`;
  if (value.length > maxValueLength)
    return `the ${scope} is longer than ${maxValueLength} characters`;
  // eslint-disable-next-line no-control-regex
  if (/[\x00-\x20\x7f#]/.test(value))
    return `the ${scope} has a space, a control character or a # in it`;
  if (scope === "destination" && (value.includes("/") || /\*(?!\.)|.\*/.test(value)))
    return "a destination is a host, *. and a domain, or host:port";
  return undefined;
}

/**
 * What the text stops. An empty one stops all, as a file that an operator only touched does, and so does a line that is not
 * understood: a guess could leave something running.
 */
export function parseKillFile(
  text: string,
  at: number,
): { readonly kills: readonly Kill[]; readonly problem?: string } {
  if (text.trim() === "")
    return { kills: [{ scope: "all", value: "", reason: "the file is empty", at }] };
  const kills: Kill[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const [, words = "", reason] = /^([^#]*)(?:#\s*(.*\S)?\s*)?$/.exec(line) ?? [];
    if (words.trim() === "") continue;
    const [scope = "", value = "", ...more] = words.trim().split(/\s+/);
    const read = more.length > 0 ? "more than a scope and a value" : readKill(scope, value);
    if (typeof read === "string") {
      const problem = `line ${index + 1}: ${read}`;
      return { kills: [{ scope: "all", value: "", reason: problem, at }], problem };
    }
    kills.push({ ...read, at, ...(reason === undefined ? {} : { reason }) });
  }
  return { kills };
}

/** The text that stops these. */
export function formatKillFile(kills: readonly Kill[]): string {
  const lines = kills.map(({ scope, value, reason }) => {
    const words = scope === "all" ? scope : `${scope} ${value}`;
    return reason === undefined ? words : `${words} # ${reason}`;
  });
  return `${[heading, ...lines].join("\n")}\n`;
}
