/** Reads one endpoint of a policy entry and says everything that is wrong with it. */
import { AddressSet, type Cidr, parseCidr } from "../../net/address.ts";
import { GlobSyntaxError } from "../../pattern/glob-syntax.ts";
import { canonicalGlob, type GlobTable } from "../../pattern/glob.ts";
import type { Endpoint } from "../endpoint.ts";
import { parseHostSyntax } from "../host-syntax.ts";
import type { EndpointContext, EndpointFields, Support } from "./endpoint-context.ts";
import { readInspection } from "./inspection-reader.ts";
import type { Keys, Node } from "./node.ts";

const keys: Keys = {
  known: [
    "host",
    "port",
    "ports",
    "path",
    "protocol",
    "tls",
    "enforcement",
    "access",
    "rules",
    "deny_rules",
    "allowed_ips",
    "allow_encoded_slash",
    "allow_ambiguous_path",
    "persisted_queries",
    "graphql_persisted_queries",
    "graphql_max_body_bytes",
    "json_rpc",
    "mcp",
    "websocket_credential_rewrite",
    "request_body_credential_rewrite",
    "allow_uninspected_credentials",
  ],
  refused: {
    credential_signing: "requests are not re-signed",
    signing_service: "requests are not re-signed",
    signing_region: "requests are not re-signed",
    credential_binding: "credentials are bound by the plugin that attaches them",
    advisor_proposed: "it is not a key of policy files",
    provider_credentialed: "it is not a key of policy files",
  },
};

/** Switches whose `false` is what this proxy does anyway, and whose `true` it cannot do. */
const offSwitches: Readonly<Record<string, string>> = {
  websocket_credential_rewrite: "credentials in WebSocket messages are not rewritten",
  request_body_credential_rewrite:
    "credentials in bodies are rewritten by the plugin that owns them",
  allow_uninspected_credentials: "there is no such guard to switch off",
};

/** Reads an endpoint; undefined when something is wrong with it. */
export function readEndpoint(
  node: Node,
  label: string,
  context: EndpointContext,
): Endpoint | undefined {
  const fields = node.fields(keys);
  for (const [key, reason] of Object.entries(offSwitches)) {
    const field = fields.get(key);
    if (field?.boolean() === true) field.error(`'${key}: true' is not enforced: ${reason}`);
  }
  const allowedIps = readRanges(fields, context.support);
  const host = readHost(node, fields, allowedIps !== undefined);
  const ports = readPorts(node, fields);
  const path = readPath(fields, context.globs);
  const tls = readTls(fields, context.support);
  const protocol = fields.get("protocol");
  const isTcp = protocol?.value === "tcp";
  const isPlain = protocol === undefined || protocol.value === "" || isTcp;
  const inspection = isPlain ? undefined : readInspection(node, fields, label, context);
  if (isPlain) checkPlain(fields, isTcp);
  if (isTcp && host === "") protocol?.error("protocol tcp needs a host name");
  if (tls === "skip" && inspection !== undefined && ports.includes(443)) {
    fields
      .get("tls")
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
  };
}

function readRanges(fields: EndpointFields, support: Support): Endpoint["allowedIps"] {
  const node = fields.get("allowed_ips");
  if (node === undefined) return undefined;
  const ranges = readAllowedIps(node);
  if (ranges !== undefined && !support.allowedIps) {
    node.error("'allowed_ips' is not enforced here; open the ranges with egress.allow_ips instead");
  }
  return ranges;
}

function readHost(node: Node, fields: EndpointFields, isRanged: boolean): string | undefined {
  const hostNode = fields.get("host");
  const written = hostNode === undefined ? "" : hostNode.string();
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
function readPorts(node: Node, fields: EndpointFields): readonly number[] {
  const one = fields.get("port");
  const many = fields.get("ports");
  const isGiven = (value: unknown): boolean => !Array.isArray(value) || value.length > 0;
  if (many !== undefined && isGiven(many.value)) {
    one?.warning("'ports' is written as well and wins");
    return [...new Set(many.items().flatMap((item) => item.integer(1, 65_535) ?? []))];
  }
  const port = one?.integer(1, 65_535);
  if (one === undefined) node.error("an endpoint needs port or ports");
  return port === undefined ? [] : [port];
}

type PathFields = Pick<Endpoint, "path" | "selector" | "pathGlob" | "specificity">;

function readPath(fields: EndpointFields, globs: GlobTable): PathFields | undefined {
  const node = fields.get("path");
  const path = node === undefined ? "" : node.string();
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

function readTls(fields: EndpointFields, support: Support): Endpoint["tls"] {
  const node = fields.get("tls");
  const written = node?.oneOf(["", "skip", "terminate", "passthrough"] as const);
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
function checkPlain(fields: EndpointFields, isTcp: boolean): void {
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
  ]) {
    fields.get(key)?.error(`'${key}' ${needs}`);
  }
  fields.get("deny_rules")?.error("deny_rules require protocol");
  const access = fields.get("access");
  if (access?.string() === "full" && !isTcp) {
    access.warning("'access: full' without protocol is the same as no access key");
  } else access?.error(`'access' ${needs}`);
  const enforcement = fields.get("enforcement");
  if (enforcement?.oneOf(["enforce", "audit"] as const) === "audit") {
    enforcement.warning("audit applies to requests; hosts, ports and binaries are always enforced");
  }
}

/** Names of agents, an extension of the file format. */
export function readCallers(node: Node | undefined): ReadonlySet<string> | undefined {
  if (node === undefined) return undefined;
  const names = node.items().flatMap((item) => item.string() ?? []);
  if (names.length === 0) node.error("'callers' must not be empty; leave it out to mean every one");
  return new Set(names);
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
export function readAllowedIps(node: Node): AddressSet | undefined {
  const ranges: Cidr[] = [];
  for (const item of node.items()) {
    const text = item.string();
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
