/** Reads one endpoint of a policy entry and says everything that is wrong with it. */
import { AddressSet, type Cidr, parseCidr } from "../../net/address.ts";
import { GlobSyntaxError } from "../../pattern/glob-syntax.ts";
import { canonicalGlob, type GlobTable } from "../../pattern/glob.ts";
import type { Endpoint } from "../endpoint.ts";
import { parseHostSyntax } from "../host-syntax.ts";
import type { EndpointContext, EndpointNode, Support } from "./endpoint-context.ts";
import { readInspection } from "./inspection-reader.ts";
import type { Node } from "./node.ts";

/** Reads an endpoint; undefined when something is wrong with it. */
export function readEndpoint(
  node: EndpointNode,
  label: string,
  context: EndpointContext,
): Endpoint | undefined {
  node.tellFaults();
  if (node.value === undefined) return undefined;
  const allowedIps = readRanges(node, context.support);
  const host = readHost(node, allowedIps !== undefined);
  const ports = readPorts(node);
  const path = readPath(node, context.globs);
  const tls = readTls(node, context.support);
  const protocol = node.at("protocol");
  const isTcp = protocol?.value === "tcp";
  const isPlain = protocol === undefined || protocol.value === "" || isTcp;
  const inspection = isPlain ? undefined : readInspection(node, label, context);
  const asksForHost = isPlain && node.get("enforcement") === "ask";
  if (isPlain) checkPlain(node, isTcp);
  if (isTcp && host === "") protocol?.error("protocol tcp needs a host name");
  if (tls === "skip" && inspection !== undefined && ports.includes(443)) {
    node
      .at("tls")
      ?.warning(
        "requests in an unopened TLS connection cannot be judged; such a connection is refused",
      );
  }
  if (host === undefined || ports.length === 0 || path === undefined) return undefined;
  return {
    label,
    host,
    ports,
    ...path,
    tls,
    isTcp,
    allowedIps,
    inspection,
    asksForHost,
  };
}

function readRanges(endpoint: EndpointNode, support: Support): Endpoint["allowedIps"] {
  const node = endpoint.at("allowed_ips");
  if (node === undefined) return undefined;
  const ranges = readAllowedIps(node);
  if (ranges !== undefined && !support.allowedIps) {
    node.error("'allowed_ips' is not enforced here; open the ranges with egress.allow_ips instead");
  }
  return ranges;
}

function readHost(node: EndpointNode, isRanged: boolean): string | undefined {
  const hostNode = node.at("host");
  const written = hostNode === undefined ? "" : hostNode.value;
  if (written === undefined) return undefined;
  if (written === "") {
    if (isRanged) return "";
    return (hostNode ?? node).error("an endpoint needs a host, or allowed_ips to be open to any");
  }
  const syntax = parseHostSyntax(written);
  if (syntax.error !== undefined)
    return hostNode?.error(`host '${written.slice(0, 253)}' ${syntax.error}`);
  return syntax.host;
}

/** `ports` wins over `port` when both are there. */
function readPorts(node: EndpointNode): readonly number[] {
  const one = node.at("port");
  const many = node.at("ports");
  if (many !== undefined && many.value?.length !== 0) {
    one?.warning("'ports' is written as well and wins");
    return [...new Set(many.values())];
  }
  if (one === undefined) node.error("an endpoint needs port or ports");
  return one?.value === undefined ? [] : [one.value];
}

type PathFields = Pick<Endpoint, "path" | "selector" | "pathGlob" | "specificity">;

function readPath(endpoint: EndpointNode, globs: GlobTable): PathFields | undefined {
  const node = endpoint.at("path");
  const path = node === undefined ? "" : node.value;
  if (path === undefined) return undefined;
  const specificity = path.replaceAll("*", "").length;
  if (node === undefined || path === "") {
    return { path: "", selector: undefined, pathGlob: undefined, specificity: 0 };
  }
  if (!path.startsWith("/") && path !== "**")
    return node.error("path must start with '/' or be '**'");
  try {
    const glob = canonicalGlob(path);
    const selector = globs.compile(glob, ["/"], { selector: true });
    return { path, selector, pathGlob: globs.compile(glob, ["/"]), specificity };
  } catch (error) {
    if (error instanceof GlobSyntaxError) return node.error(`bad pattern: ${error.message}`);
    throw error;
  }
}

function readTls(endpoint: EndpointNode, support: Support): Endpoint["tls"] {
  const node = endpoint.at("tls");
  const written = node?.value;
  if (node === undefined || written === undefined || written === "") return undefined;
  if (written !== "skip") {
    node.warning(`tls: ${written} is deprecated and means the same as no tls key`);
    return "auto";
  }
  if (!support.tlsSkip) {
    node.error("'tls: skip' is not enforced here; name the host in tls_bridge.passthrough_hosts");
  }
  return "skip";
}

/** An endpoint without a protocol opens the host whole, so that fields about requests would not be enforced. */
function checkPlain(node: EndpointNode, isTcp: boolean): void {
  const needs = isTcp
    ? "has no meaning with protocol tcp"
    : "requires protocol, else nothing judges requests";
  for (const key of [
    "path",
    "rules",
    "persisted_queries",
    "graphql_persisted_queries",
    "graphql_max_body_bytes",
    "json_rpc",
    "mcp",
    "allow_encoded_slash",
    "allow_ambiguous_path",
  ] as const) {
    node.at(key)?.error(`'${key}' ${needs}`);
  }
  node.at("deny_rules")?.error("deny_rules require protocol");
  const access = node.at("access");
  if (access?.value === "full" && !isTcp) {
    access.warning("'access: full' without protocol is the same as no access key");
  } else access?.error(`'access' ${needs}`);
  const enforcement = node.at("enforcement");
  if (enforcement?.value === "audit") {
    enforcement.warning("audit applies to requests; hosts, ports and binaries are always enforced");
  }
}

/** Names of agents, an extension of the file format. */
export function readCallers(
  node: Node<{ callers?: string[] | undefined }>,
): ReadonlySet<string> | undefined {
  const callers = node.at("callers");
  return callers === undefined ? undefined : new Set(callers.values());
}

/** No policy opens these: loopback, link-local with the metadata services, unspecified. */
const alwaysBlocked: readonly Cidr[] = [
  "127.0.0.0/8",
  "169.254.0.0/16",
  "0.0.0.0/32",
  "::/128",
  "::1/128",
  "fe80::/10",
].map((text) => parseCidr(text));

/** A prefix that lets in more than 65,536 addresses is rarely meant. */
const widePrefix = 16;

/** Why a range may not stand in `allowed_ips`, or undefined. */
export function rangeObjection(text: string): string | undefined {
  let range: Cidr;
  try {
    range = parseCidr(text);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  const blocked = alwaysBlocked.find(
    (other) => other.contains(range.network) || range.contains(other.network),
  );
  return blocked === undefined
    ? undefined
    : `'${text}' overlaps ${blocked.toString()}, which no policy can open`;
}

/** Reads the list; an empty one is the same as none. */
export function readAllowedIps(node: Node<string[]>): AddressSet | undefined {
  const ranges: Cidr[] = [];
  for (const item of node.items()) {
    const text = item.value;
    if (text === undefined) continue;
    const objection = rangeObjection(text);
    if (objection !== undefined) {
      item.error(objection);
      continue;
    }
    const range = parseCidr(text);
    if (range.prefix < widePrefix) item.warning(`'${text}' is a wide range`);
    ranges.push(range);
  }
  return ranges.length === 0 ? undefined : new AddressSet(ranges);
}
