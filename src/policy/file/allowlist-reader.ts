/** Reads the two lists of an allowlist as they stand in a configuration. */
import { type Glob, GlobTable } from "../../pattern/glob.ts";
import { Allowlist, type AllowlistItem } from "../allowlist.ts";
import { parseHostSyntax } from "../host-syntax.ts";
import { websocketText } from "../rule.ts";
import { readCallers } from "./endpoint-reader.ts";
import { judge, type Node } from "./node.ts";
import { type Locate, type Problem, Problems } from "./problem.ts";
import { allowlistSchema, type ItemSource } from "./schema.ts";
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
  const root = judge(allowlistSchema, { allow: source.allow, deny: source.deny }, problems);
  const read = (key: "allow" | "deny"): readonly AllowlistItem[] => {
    const items = root.at(key)?.items() ?? [];
    return items.flatMap((item, index) => readItem(item, `${key}[${index}]`, globs) ?? []);
  };
  const [allow, deny] = [read("allow"), read("deny")];
  root.tellFaults();
  const { headMatchesGet = true } = source;
  const allowlist = problems.hasErrors ? undefined : new Allowlist(allow, deny, headMatchesGet);
  return { allowlist, problems: problems.list };
}

function readItem(
  node: Node<ItemSource>,
  label: string,
  globs: GlobTable,
): AllowlistItem | undefined {
  node.tellFaults();
  if (typeof node.value === "string") {
    const place = readPlace(node as Node<string>, label);
    return place && { label, ...place, methods: [], paths: [], callers: undefined };
  }
  const fields = node as Node<Exclude<ItemSource, string>>;
  const place = readPlace(fields.at("host"), label);
  const methods = (fields.at("methods")?.items() ?? []).flatMap((one) => readMethod(one) ?? []);
  const paths = (fields.at("paths")?.items() ?? []).flatMap((one) => readPath(one, globs) ?? []);
  if (place === undefined) return undefined;
  const many = fields.at("ports")?.values() ?? [];
  const ports = [...new Set([...place.ports, ...many, ...[fields.get("port") ?? []].flat()])];
  return { label, host: place.host, ports, methods, paths, callers: readCallers(fields) };
}

/** `host`, `host:port` or `[v6]:port`. */
function readPlace(
  node: Node<string> | undefined,
  label: string,
): Pick<AllowlistItem, "host" | "ports"> | undefined {
  const written = node?.value;
  if (node === undefined || written === undefined) return undefined;
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

function readMethod(node: Node<string>): string | undefined {
  const method = node.value;
  if (method === undefined) return undefined;
  if (method.toUpperCase() === websocketText) {
    return node.error("messages of WebSocket connections are judged by network_policies only");
  }
  return /^[\w!#$%&'*+.^`|~-]+$/.test(method)
    ? method.toUpperCase()
    : node.error("is no method name");
}

function readPath(node: Node<string>, globs: GlobTable): Glob | undefined {
  const written = node.value;
  if (written === undefined) return undefined;
  if (!written.startsWith("/") && written !== "**")
    return node.error("path must start with '/' or be '**'");
  return readGlob(node, ["/"], globs);
}
