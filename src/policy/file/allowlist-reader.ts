/** Reads the two lists of an allowlist as they stand in a configuration. */
import { type Glob, GlobTable } from "../../pattern/glob.ts";
import { Allowlist, type AllowlistItem } from "../allowlist.ts";
import { parseHostSyntax } from "../host-syntax.ts";
import { websocketText } from "../rule.ts";
import { readCallers } from "./endpoint-reader.ts";
import { Node } from "./node.ts";
import { type Locate, type Problem, Problems } from "./problem.ts";
import { readGlob } from "./rule-reader.ts";

/** The two lists as they stand in a configuration; an absent list is an empty one. */
export interface AllowlistSource {
  readonly allow?: unknown;
  readonly deny?: unknown;
  /** Whoever names GET means HEAD too (RFC 9110 section 9.3.2); true when absent. */
  readonly headMatchesGet?: boolean;
  readonly locate?: Locate;
}

/** The list, or why there is none. */
export interface AllowlistResult {
  readonly allowlist: Allowlist | undefined;
  readonly problems: readonly Problem[];
}

/** Reads both lists; every problem at once, never throws. */
export function readAllowlist(source: AllowlistSource): AllowlistResult {
  const problems = new Problems(source.locate);
  const globs = new GlobTable();
  const read = (key: "allow" | "deny"): readonly AllowlistItem[] => {
    const value = source[key];
    if (value === undefined) return [];
    const items = new Node(value, [key], problems).items();
    return items.flatMap((item, index) => readItem(item, `${key}[${index}]`, globs) ?? []);
  };
  const [allow, deny] = [read("allow"), read("deny")];
  const { headMatchesGet = true } = source;
  const allowlist = problems.hasErrors ? undefined : new Allowlist(allow, deny, headMatchesGet);
  return { allowlist, problems: problems.list };
}

function readItem(node: Node, label: string, globs: GlobTable): AllowlistItem | undefined {
  if (typeof node.value === "string") {
    const place = readPlace(node, label);
    return place === undefined
      ? undefined
      : { label, ...place, methods: [], paths: [], callers: undefined };
  }
  const fields = node.fields({ known: ["host", "port", "ports", "methods", "paths", "callers"] });
  const hostNode = fields.get("host");
  if (hostNode === undefined) return node.error("an item needs host");
  const place = readPlace(hostNode, label);
  const listed = (key: string): readonly Node[] | undefined => {
    const list = fields.get(key);
    const items = list?.items();
    if (items?.length === 0)
      list?.error(`'${key}' must not be empty; leave it out to mean every one`);
    return items;
  };
  const one = fields.get("port")?.integer(1, 65_535);
  const many = listed("ports")?.flatMap((item) => item.integer(1, 65_535) ?? []) ?? [];
  const methods = listed("methods")?.flatMap((item) => readMethod(item) ?? []) ?? [];
  const paths = listed("paths")?.flatMap((item) => readPath(item, globs) ?? []) ?? [];
  const callers = readCallers(fields.get("callers"));
  if (place === undefined) return undefined;
  const ports = [...new Set([...place.ports, ...many, ...(one === undefined ? [] : [one])])];
  return { label, host: place.host, ports, methods, paths, callers };
}

/** `host`, `host:port` or `[v6]:port`. */
function readPlace(node: Node, label: string): Pick<AllowlistItem, "host" | "ports"> | undefined {
  const written = node.string();
  if (written === undefined) return undefined;
  const [, name = written, port] = /^(\[[^\]]*\]|[^:]*):(\d{1,5})$/.exec(written) ?? [];
  const ports = port === undefined ? [] : [Number(port)];
  if (ports.some((number) => number < 1 || number > 65_535)) {
    return node.error("port must be between 1 and 65535");
  }
  if (name === "*" || name === "**") {
    if (label.startsWith("allow")) node.warning("every host is allowed that deny does not name");
    return { host: "*", ports };
  }
  const syntax = parseHostSyntax(name);
  if (syntax.error !== undefined) return node.error(`host '${name.slice(0, 253)}' ${syntax.error}`);
  return { host: syntax.host, ports };
}

function readMethod(node: Node): string | undefined {
  const method = node.string();
  if (method === undefined) return undefined;
  if (method.toUpperCase() === websocketText) {
    return node.error("messages of WebSocket connections are judged by network_policies only");
  }
  return /^[\w!#$%&'*+.^`|~-]+$/.test(method)
    ? method.toUpperCase()
    : node.error("is no method name");
}

function readPath(node: Node, globs: GlobTable): Glob | undefined {
  const written = node.string();
  if (written === undefined) return undefined;
  if (!written.startsWith("/") && written !== "**")
    return node.error("path must start with '/' or be '**'");
  return readGlob(node, ["/"], globs);
}
