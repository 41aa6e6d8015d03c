/** Typed conditions on one argument: url, path, cidr, enum, pattern, max_length, max_items. */
import { AddressSet, type Cidr, parseCidr } from "../../net/address.ts";
import { compileHostGlob, type HostGlob } from "../../pattern/host-pattern.ts";
import { compileLinearPattern, maxPatternText } from "./linear-pattern.ts";
import { type PrivateExceptions, privateHost, readPlainUrl } from "./url-argument.ts";

/** What a condition says of a value; `unreadable` is a wrong type, or a text that two readers read differently. */
export type Match = "match" | "no" | "unreadable";

/** One condition. */
export interface Condition {
  /** Completes "must …". */
  readonly wants: string;
  test(value: unknown, exceptions: PrivateExceptions): Match;
}

/** The conditions of one argument as the file writes them. */
export interface ArgumentConditions {
  readonly url?: UrlCondition | undefined;
  readonly path?: { readonly root: string } | undefined;
  readonly cidr?: readonly string[] | undefined;
  readonly enum?: readonly (string | number | boolean | null)[] | undefined;
  readonly pattern?: string | undefined;
  readonly max_length?: number | undefined;
  readonly max_items?: number | undefined;
}

/** What a URL must be. */
export interface UrlCondition {
  readonly schemes: readonly string[];
  readonly hosts: readonly string[];
  readonly ports?: readonly number[] | undefined;
  readonly path_prefix?: string | undefined;
}

/** Compiles the conditions; throws an Error that says what is wrong with one. */
export function compileConditions(conditions: ArgumentConditions): readonly Condition[] {
  const { url, path, cidr, pattern } = conditions;
  const compiled: Condition[] = [];
  if (url !== undefined) compiled.push(urlCondition(url));
  if (path !== undefined) compiled.push(pathCondition(path.root));
  if (cidr !== undefined) compiled.push(cidrCondition(cidr));
  if (conditions.enum !== undefined) compiled.push(enumCondition(conditions.enum));
  if (pattern !== undefined) compiled.push(patternCondition(pattern));
  if (conditions.max_length !== undefined) compiled.push(lengthCondition(conditions.max_length));
  if (conditions.max_items !== undefined) compiled.push(itemsCondition(conditions.max_items));
  return compiled;
}

function urlCondition({ schemes, hosts, ports, path_prefix: prefix }: UrlCondition): Condition {
  const globs: readonly HostGlob[] = hosts.map((host) => compileHostGlob(host));
  const where = prefix === undefined ? "" : ` and a path below ${prefix}`;
  const at = ports === undefined ? "" : ` and port ${ports.join(" or ")}`;
  return {
    wants: `be a URL with scheme ${schemes.join(" or ")} and host ${hosts.join(" or ")}${at}${where}, spelled plainly`,
    test(value, exceptions) {
      const read = typeof value === "string" ? readPlainUrl(value) : undefined;
      if (read === undefined) return "unreadable";
      const { scheme, host, port, pathname } = read;
      if (!schemes.includes(scheme)) return "no";
      if (!globs.some((glob) => glob.matches(host))) return "no";
      const isPortGranted = ports === undefined ? port === wellKnown[scheme] : ports.includes(port);
      if (!isPortGranted || privateHost(host, exceptions) !== undefined) return "no";
      return prefix === undefined ? "match" : prefixMatch(pathname, prefix);
    },
  };
}

const wellKnown: Readonly<Record<string, number>> = {
  http: 80,
  https: 443,
  ws: 80,
  wss: 443,
  ftp: 21,
};

function prefixMatch(pathname: string, prefix: string): Match {
  // What servers decode, merge or cut off is read in two ways.
  if (/%(?:2e|2f|5c|00|25)|\/\/|;/i.test(pathname)) return "unreadable";
  const root = prefix.replace(/\/+$/, "");
  return pathname === root || pathname.startsWith(`${root}/`) ? "match" : "no";
}

function pathCondition(root: string): Condition {
  const parts = partsOf(root);
  return {
    wants: `be an absolute path inside ${root}`,
    test(value) {
      if (typeof value !== "string" || isOddPath(value)) return "unreadable";
      if (!value.startsWith("/")) return "no";
      const inside: string[] = [];
      for (const part of value.split("/")) {
        if (part === "" || part === ".") continue;
        if (part !== "..") inside.push(part);
        else if (inside.pop() === undefined) return "no";
        // A way that leaves the root on its way may come back through a link to somewhere else.
        if (part === ".." && inside.length < parts.length) return "no";
      }
      return parts.every((part, at) => inside[at] === part) ? "match" : "no";
    },
  };
}

function partsOf(path: string): readonly string[] {
  return path.split("/").filter((part) => part !== "");
}

/** Schemes, backslashes, control characters and percent-encoded dots and slashes mean other paths to some servers. */
function isOddPath(path: string): boolean {
  return (
    path.length > 4096 ||
    /[\p{Cc}\\]|%(?:2e|2f|5c|00|25)|^[a-z][a-z0-9+.-]*:|^\/\//iu.test(path) ||
    !path.isWellFormed()
  );
}

function cidrCondition(ranges: readonly string[]): Condition {
  const set = AddressSet.parse(ranges);
  return {
    wants: `be an address or range inside ${ranges.join(" or ")}`,
    test(value) {
      const asked = typeof value === "string" ? rangeOf(value) : undefined;
      if (asked === undefined) return "unreadable";
      const isInside = set.ranges.some(
        (range) => range.contains(asked.network) && asked.prefix >= range.prefix,
      );
      return isInside ? "match" : "no";
    },
  };
}

function rangeOf(text: string): Cidr | undefined {
  try {
    return text.length > 64 ? undefined : parseCidr(text);
  } catch {
    // parseCidr throws only for text that is no range.
    return undefined;
  }
}

function enumCondition(values: readonly (string | number | boolean | null)[]): Condition {
  const set: ReadonlySet<unknown> = new Set(values);
  const types: ReadonlySet<string> = new Set(values.map((value) => typeof value));
  return {
    wants: `be one of ${values
      .map((value) => JSON.stringify(value))
      .join(", ")
      .slice(0, 200)}`,
    test(value) {
      if (set.has(value)) return "match";
      return types.has(typeof value) && !Array.isArray(value) ? "no" : "unreadable";
    },
  };
}

function patternCondition(source: string): Condition {
  const pattern = compileLinearPattern(source);
  return {
    wants: `be a text that matches ${source.slice(0, 80)} as a whole`,
    test(value) {
      if (typeof value !== "string" || value.length > maxPatternText) return "unreadable";
      if (!value.isWellFormed()) return "unreadable";
      return pattern.matchesWhole(value) ? "match" : "no";
    },
  };
}

function lengthCondition(most: number): Condition {
  return {
    wants: `be a text of at most ${most} characters`,
    test(value) {
      if (typeof value !== "string") return "unreadable";
      if (value.length <= most) return "match";
      // A character outside the basic plane is two units: a text twice as long cannot be short enough.
      return value.length <= most * 2 && Array.from(value).length <= most ? "match" : "no";
    },
  };
}

function itemsCondition(most: number): Condition {
  return {
    wants: `be a list of at most ${most} items`,
    test(value) {
      if (!Array.isArray(value)) return "unreadable";
      return value.length <= most ? "match" : "no";
    },
  };
}
