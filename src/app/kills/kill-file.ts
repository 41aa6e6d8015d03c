/** The file of the kill switch: one line for each thing that is stopped. */
import { isIP, isIPv6 } from "node:net";
import { ProxyError } from "../../errors.ts";
import { parseJsonObject } from "../../http/json-access.ts";
import { parseAuthority } from "../../net/destination.ts";
import { type Kill, type KillScope, killScopes } from "../../pipeline/kill-switch.ts";

/** More than an operator names by hand: each flow is compared with each of them. */
export const maxKills = 100;
const maxValueLength = 512;
const heading =
  "# authbridge-proxy: what is stopped, one a line: all, caller NAME, session ID, destination HOST[:PORT].";
/** Ends what the proxy writes, with the ids of the orders: what has the heading and no end was cut short. */
const ending = "# end of what is stopped ";

/** What a scope and a value name, or what is wrong with them. */
export function readKill(scope: string, value: string): Pick<Kill, "scope" | "value"> | string {
  const known = killScopes.find((one) => one === scope);
  if (known === undefined)
    return `${JSON.stringify(scope.slice(0, 32))} is none of ${killScopes.join(", ")}`;
  if (known === "all") return value === "" ? { scope: known, value } : "all takes no value";
  const problem = valueProblem(known, value);
  if (problem !== undefined) return problem;
  if (known === "caller") return { scope: known, value: addressOf(value) ?? value };
  if (known === "session") return { scope: known, value };
  const place = placeOf(value);
  return place === undefined
    ? "a destination is a host, *. and a domain, or host:port"
    : { scope: known, value: place };
}

/** Of a caller that is named by its address, however that is spelled. */
function addressOf(value: string): string | undefined {
  const bare = /^\[.*\]$/.test(value) ? value.slice(1, -1) : value;
  return isIP(bare) === 0 ? undefined : placeOf(bare);
}

/** In the one spelling that flows have: another would be taken, and stop nothing. */
function placeOf(value: string): string | undefined {
  const isBelow = value.startsWith("*.");
  const name = isBelow ? value.slice(2) : value;
  try {
    const none = 0;
    const { host, port, authority, isAddress } = parseAuthority(
      isIPv6(name) ? `[${name}]` : name,
      "tcp",
      none,
    );
    if (!isBelow) return port === none ? host : authority;
    return port === none && !isAddress ? `*.${host}` : undefined;
  } catch (error) {
    if (error instanceof ProxyError) return undefined;
    throw error;
  }
}

function valueProblem(scope: KillScope, value: string): string | undefined {
  if (value === "") return `${scope} needs a value`;
  if (value.length > maxValueLength)
    return `the ${scope} is longer than ${maxValueLength} characters`;
  // Agents name sessions as they like, and files are named as anything.
  if (scope === "caller" && !value.startsWith("/") && /^\s|\p{Cc}/u.test(value))
    return "the caller begins with a space, or has a control character in it";
  return undefined;
}

/** A scope, a value that may be a string of JSON, and a reason. */
const lineForm = /^\s*([^\s#]*)\s*("(?:[^"\\]|\\[^])*"(?=[\s#]|$)|[^\s#]*)\s*(?:#([^]*))?$/;

/** As it stands in a line. */
function wordOf(value: string): string {
  return /^[^\s#"\\\p{C}]*$/u.test(value) ? value : JSON.stringify(value);
}

/** Undefined where it begins as a string of JSON and is none. */
function valueOf(word: string): string | undefined {
  if (!word.startsWith('"')) return word;
  try {
    const value: unknown = JSON.parse(word);
    return typeof value === "string" ? value : undefined;
  } catch {
    return undefined;
  }
}

/**
 * What the text stops. An empty one stops all, as a file that an operator only touched does, and so does a line that is not
 * understood: a guess could leave something running.
 */
export function parseKillFile(text: string, at: number): KillFile {
  if (text.trim() === "") return { kills: [], problem: "the file is empty" };
  if (isCut(text)) return { kills: [], problem: "the file was cut short" };
  const kills: Kill[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const [, scope, word = "", note = ""] = lineForm.exec(line) ?? [];
    const reason = note.trim() || undefined;
    if (scope === "") continue;
    const value = valueOf(word);
    const read =
      scope === undefined
        ? "more than a scope and a value"
        : value === undefined
          ? "the value is no string of JSON"
          : kills.length === maxKills
            ? `more than ${maxKills} things to stop`
            : readKill(scope, value);
    if (typeof read === "string") {
      return { kills: [], problem: `line ${index + 1}: ${read}` };
    }
    kills.push({ ...read, at, ...(reason === undefined ? {} : { reason }) });
  }
  return { kills, ids: idsIn(text) };
}

/** What a file says. */
export interface KillFile {
  readonly kills: readonly Kill[];
  /** Of the orders that the proxy wrote. */
  readonly ids?: ReadonlyMap<string, unknown> | undefined;
  /** Why it cannot be followed, so that all is stopped. */
  readonly problem?: string;
}

function isCut(text: string): boolean {
  if (!text.startsWith(heading)) return heading.startsWith(text.trimEnd());
  // Whoever adds a line by hand may do so behind it.
  return idsIn(text) === undefined;
}

function idsIn(text: string): ReadonlyMap<string, unknown> | undefined {
  const line = text.split(/\r?\n/).findLast((one) => one.startsWith(ending));
  const ids = line === undefined ? undefined : parseJsonObject(line.slice(ending.length));
  return ids === undefined ? undefined : new Map(Object.entries(ids));
}

/** The text that stops these. */
export function formatKillFile(
  kills: readonly Kill[],
  ids: ReadonlyMap<string, readonly string[]>,
): string {
  const lines = kills.map(({ scope, value, reason }) => {
    const words = scope === "all" ? scope : `${scope} ${wordOf(value)}`;
    return reason === undefined ? words : `${words} # ${reason}`;
  });
  const end = `${ending}${JSON.stringify(Object.fromEntries(ids))}`;
  return `${[heading, ...lines, end].join("\n")}\n`;
}
