/**
 * Rules between keys: what one key demands of another, and what deserves a warning although it is lawful.
 */
import { resolve } from "node:path";
import { activeRoles, type Config } from "./presets.ts";
import type { KeyPath } from "../yaml/problem.ts";
import type { Remark } from "../yaml/schema-remarks.ts";
import type { FileConfig } from "./schema.ts";
import { sizeBytes } from "./size.ts";
import { listenerSurfaces, type Role } from "./surfaces.ts";
import { workerProblems } from "./worker-relations.ts";

/** A broken rule between keys. */
export interface Relation extends Remark {
  /** The keys whose values make the rule apply. */
  readonly because: readonly KeyPath[];
}

const rolesKey: KeyPath = ["listener", "roles"];
const bridgeModeKey: KeyPath = ["tls_bridge", "mode"];

/** Combinations that cannot work. */
export function relationProblems(file: FileConfig): Relation[] {
  const { listener, tls_bridge: bridge } = file;
  const roles = activeRoles(listener);
  const problems: Relation[] = [];
  problems.push(...interceptionProblems(listener, roles));
  const { reverse_proxy_backend: backend, reverse_proxy_addr: reverse } = listener;
  const isCaptured = listener.inbound_interception === "transparent" && !reverse;
  if (roles.includes("reverse") && !backend && !isCaptured) {
    problems.push({
      path: ["listener", "reverse_proxy_backend"],
      message:
        "is required when the role reverse is active (listener.roles: [forward] turns it off)",
      because: [rolesKey],
    });
  }
  if (bridge.mode === "enabled") {
    if (!roles.includes("forward")) {
      problems.push({
        path: bridgeModeKey,
        message: "enabled needs the role forward in listener.roles",
        because: [rolesKey],
      });
    }
    if (bridge.ca === "file" && !bridge.ca_dir) {
      problems.push({
        path: ["tls_bridge", "ca_dir"],
        message: "is required when the bridge is enabled with ca: file",
        because: [bridgeModeKey, ["tls_bridge", "ca"]],
      });
    }
  }
  const { limits } = file;
  if (sizeBytes(limits.max_buffered_heads) < sizeBytes(limits.max_header_bytes)) {
    problems.push({
      path: ["limits", "max_buffered_heads"],
      message: "is less than limits.max_header_bytes: a head of that size could not arrive",
      because: [["limits", "max_header_bytes"]],
    });
  }
  problems.push(...stateProblems(file.state));
  problems.push(...fileProblems(file));
  if (file.workers !== 1) problems.push(...workerProblems(file));
  if (file.callers !== undefined) problems.push(...callerProblems(file));
  if (file.egress_enforcement === "enforce-redirect" && listener.transparent_proxy_addr === "off") {
    problems.push({
      path: ["egress_enforcement"],
      message: "enforce-redirect needs the transparent listener",
      because: [["listener", "transparent_proxy_addr"]],
    });
  }
  if (file.spiffe === undefined) problems.push(...identityProblems(file));
  return problems;
}

/** What shows the identity of a block that is not there. */
function identityProblems({ mtls, tls_bridge: bridge }: FileConfig): Relation[] {
  const because: readonly KeyPath[] = [["spiffe"]];
  const problems: Relation[] =
    mtls === undefined
      ? []
      : [{ path: ["mtls"], message: "mtls requires the spiffe block to be configured", because }];
  for (const [index, { svid }] of bridge.client_certificates.entries()) {
    if (!svid) continue;
    const path = ["tls_bridge", "client_certificates", index, "svid"];
    problems.push({ path, message: "needs the spiffe block to be configured", because });
  }
  return problems;
}

const interceptionKey: KeyPath = ["listener", "inbound_interception"];

function interceptionProblems(
  listener: FileConfig["listener"],
  roles: readonly Role[],
): Relation[] {
  const isTransparent = listener.inbound_interception === "transparent";
  if (isTransparent && !roles.includes("reverse")) {
    const message = "transparent needs the role reverse in listener.roles";
    return [{ path: interceptionKey, message, because: [rolesKey] }];
  }
  if (isTransparent) return [];
  const { transparent_inbound_addr: address, inbound_passthrough_ports: ports } = listener;
  const unused = [
    ...(address ? ["transparent_inbound_addr"] : []),
    ...(ports.length > 0 ? ["inbound_passthrough_ports"] : []),
  ];
  return unused.map((key) => ({
    path: ["listener", key],
    message: "needs inbound_interception: transparent",
    because: [interceptionKey],
  }));
}

function stateProblems(state: FileConfig["state"]): Relation[] {
  const because: readonly KeyPath[] = [["state", "store"]];
  const problems: Relation[] = [];
  const needs = { memory: undefined, file: "path", redis: "url" } as const;
  const needed = needs[state.store];
  if (needed !== undefined && state[needed] === undefined) {
    const message = `is required with store: ${state.store}`;
    problems.push({ path: ["state", needed], message, because });
  }
  for (const key of ["path", "url"] as const) {
    if (key === needed || state[key] === undefined) continue;
    const message = `is not used with store: ${state.store}`;
    problems.push({ path: ["state", key], message, because });
  }
  problems.push(...unusedOfServers(state));
  if (state.cluster && state.sentinel_name !== undefined) {
    const message = "sentinels name one server, and not a cluster";
    const sentinel: readonly KeyPath[] = [["state", "cluster"]];
    problems.push({ path: ["state", "sentinel_name"], message, because: sentinel });
  }
  if ((state.cert_file === undefined) !== (state.key_file === undefined)) {
    const [given, missing] =
      state.cert_file === undefined ? ["key_file", "cert_file"] : ["cert_file", "key_file"];
    const message = `needs ${given === "key_file" ? "cert_file" : "key_file"}`;
    problems.push({ path: ["state", given ?? ""], message, because: [["state", missing ?? ""]] });
  }
  return problems;
}

/** What the process writes: two of them in one file, or in one that the other sets aside, would break both. */
function fileProblems(file: FileConfig): Relation[] {
  const { session, audit, state, kill_switch: kills, upstream_proxy: chain } = file;
  const files = [
    { path: ["session", "persist", "path"], name: session.persist?.path },
    { path: ["audit", "path"], name: audit?.path },
    { path: ["state", "path"], name: state.path },
    { path: ["kill_switch", "file"], name: kills.file },
    { path: ["upstream_proxy", "trust_bundle_file"], name: chain?.trust_bundle_file },
  ];
  return files.flatMap(({ path, name }, at) => {
    const other = files.slice(0, at).find((one) => isOneFile(one.name, name));
    if (other === undefined) return [];
    const message = `is a file of ${other.path.join(".")}: each needs one of its own`;
    return [{ path, message, because: [other.path] }];
  });
}

function isOneFile(one: string | undefined, other: string | undefined): boolean {
  if (one === undefined || other === undefined) return false;
  const [short = "", long = ""] = [resolve(one), resolve(other)].toSorted(
    (a, b) => a.length - b.length,
  );
  return long.startsWith(short) && /^(?:\.checkpoints)?(?:\.\d+)?$/.test(long.slice(short.length));
}

/** Keys about servers that nothing would be done with. */
function unusedOfServers(state: FileConfig["state"]): Relation[] {
  const { url = "", nodes, cluster, sentinel_name: sentinel } = state;
  const tls = ["ca_file", "cert_file", "key_file", "server_name"] as const;
  const given = (key: keyof typeof state): boolean =>
    key === "nodes" ? nodes.length > 0 : key === "cluster" ? cluster : state[key] !== undefined;
  const refused = (
    keys: readonly (keyof typeof state)[],
    message: string,
    by: string,
  ): Relation[] =>
    keys.filter(given).map((key) => ({ path: ["state", key], message, because: [["state", by]] }));
  if (state.store !== "redis") {
    const message = `is not used with store: ${state.store}`;
    return refused(
      ["nodes", "cluster", "sentinel_name", "password_file", ...tls],
      message,
      "store",
    );
  }
  const problems: Relation[] = [];
  if (!url.startsWith("rediss:")) {
    const message = "is only used over TLS, with a rediss:// address";
    problems.push(...refused(tls, message, "url"));
  }
  if (!cluster && sentinel === undefined) {
    problems.push(...refused(["nodes"], "needs cluster: true or sentinel_name", "url"));
  }
  if (cluster && URL.canParse(url) && Number(new URL(url).pathname.slice(1)) > 0) {
    const message = "names a database, and a cluster has only one";
    problems.push(...refused(["url"], message, "cluster"));
  }
  return problems;
}

function callerProblems(file: FileConfig): Relation[] {
  const { listener, callers } = file;
  const because: readonly KeyPath[] = [["callers"]];
  const problems: Relation[] = [];
  if (!activeRoles(listener).includes("forward")) {
    const message = "needs the role forward in listener.roles";
    problems.push({ path: ["callers"], message, because: [rolesKey] });
  }
  if (listener.transparent_proxy_addr && listener.transparent_proxy_addr !== "off") {
    const message =
      "cannot be used with callers: a redirected connection carries no credentials of its agent";
    problems.push({ path: ["listener", "transparent_proxy_addr"], message, because });
  }
  for (const [index, { certificate }] of (callers?.clients ?? []).entries()) {
    if (certificate === undefined || listener.forward_proxy_tls?.client_ca_file) continue;
    const message = "needs listener.forward_proxy_tls.client_ca_file";
    problems.push({ path: ["callers", "clients", index, "certificate"], message, because });
  }
  return problems;
}

/** Lawful settings that an operator should know about. */
export function relationWarnings(
  file: FileConfig,
  config: Config,
  isWritten: (path: KeyPath) => boolean,
): Remark[] {
  const warnings: Remark[] = [];
  for (const direction of ["inbound", "outbound"] as const) {
    if (file.pipeline[direction].plugins.length === 0) {
      warnings.push({
        path: ["pipeline", direction, "plugins"],
        message: `${direction} pipeline has no plugins: its default (${file.pipeline[direction].default}) decides everything`,
      });
    }
  }
  const outboundDefault: KeyPath = ["pipeline", "outbound", "default"];
  if (file.pipeline.outbound.plugins.length > 0 && !isWritten(outboundDefault)) {
    warnings.push({
      path: outboundDefault,
      message:
        "is not set: what no plugin decides is allowed to leave; write default: deny, or default: allow",
    });
  }
  const { roles } = config.listener;
  for (const { key, role } of listenerSurfaces) {
    const written = file.listener[key];
    if (role !== undefined && written && written !== "off" && !roles.includes(role)) {
      warnings.push({
        path: ["listener", key],
        message: `is not used: the role ${role} is not in listener.roles`,
      });
    }
  }
  if (!file.session.enabled && file.listener.session_api_addr) {
    const message = "is not used with session.enabled: false";
    warnings.push({ path: ["listener", "session_api_addr"], message });
  }
  warnings.push(...socksWarnings(file, config));
  warnings.push(...enforcementWarnings(file, roles));
  if (file.allow_weakened_auth) {
    warnings.push({
      path: ["allow_weakened_auth"],
      message: "true: on_error may switch authentication off in both pipelines",
    });
  }
  if (isOpenToStrangers(config)) {
    warnings.push({
      path: ["listener", "session_api_addr"],
      message:
        "shows what agents send to whoever reaches it: bind it to loopback, or set session.api_secret_file",
    });
  }
  const { tls_bridge: bridge } = file;
  if (bridge.ca === "ephemeral" && (bridge.ca_dir || bridge.generate_ca)) {
    warnings.push({
      path: ["tls_bridge", bridge.ca_dir ? "ca_dir" : "generate_ca"],
      message: "is not used with ca: ephemeral",
    });
  }
  return warnings;
}

function socksWarnings({ listener, callers }: FileConfig, config: Config): Remark[] {
  const isClear = config.listener.socks_proxy_addr !== undefined && callers !== undefined;
  if (!isClear || listener.forward_proxy_tls === undefined) return [];
  const message =
    "takes the passwords of callers in the clear: it has no TLS, while forward_proxy_addr speaks SOCKS inside its own";
  return [{ path: ["listener", "socks_proxy_addr"], message }];
}

/** What the cooperative mode gives up, said where it is chosen. */
function enforcementWarnings(file: FileConfig, roles: readonly string[]): Remark[] {
  const { egress_enforcement: enforcement, acknowledge_cooperative_mode: isKnown } = file;
  if (enforcement === "none" && !isKnown && roles.includes("forward")) {
    return [
      {
        path: ["egress_enforcement"],
        message:
          "none: nothing keeps an agent from leaving around the proxy unless a network policy does, and in one pod none can (docs/security.md); acknowledge_cooperative_mode: true silences this line",
      },
    ];
  }
  if (isKnown && enforcement !== "none") {
    return [
      {
        path: ["acknowledge_cooperative_mode"],
        message: "is not used without egress_enforcement: none",
      },
    ];
  }
  return [];
}

/** The session API of the Go program was on every interface, and asked nobody for anything. */
function isOpenToStrangers({ listener, session }: Config): boolean {
  const address = listener.session_api_addr;
  if (address === undefined || session.api_secret_file !== undefined) return false;
  return !/^(?:127\.|localhost:|\[::1\]:)/.test(address);
}
