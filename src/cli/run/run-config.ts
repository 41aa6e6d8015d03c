/** The file of `run -- COMMAND`: a forward proxy on free loopback ports, with an authority of its own. */
import { join, resolve } from "node:path";
import type { LoadedConfig } from "../../config/load.ts";
import type { Config } from "../../config/presets.ts";
import type { AnyPluginDefinition } from "../../pipeline/plugin.ts";
import { free, freeAddresses, onFreePorts } from "../own-file.ts";

/** These record what is asked of models, tools and agents, and refuse nothing. */
const parsers = ["inference-parser", "mcp-parser", "a2a-parser"] as const;

/** What a proxy is to a command that finds it in its environment; the command line says so, no warning is needed. */
const cooperative = { egress_enforcement: "none", acknowledge_cooperative_mode: true } as const;

/** What one run may do besides what its file or policy says. */
export interface Exceptions {
  /** `HOST` or `HOST:PORT`. */
  readonly allow: readonly string[];
  /** Addresses and ranges that the guard lets through. */
  readonly allowIps: readonly string[];
}

/** What the command is held to when it is not an operator's own file. */
export interface RunTerms {
  /** The directory of the authority; it goes with the process. */
  readonly directory: string;
  /** A policy file, absolute; without one nothing is refused but what the address guard refuses. */
  readonly policyFile: string | undefined;
  /** Whether a policy is learned from what happens. */
  readonly learns: boolean;
  readonly exceptions: Exceptions;
  /** The plugins of this build. */
  readonly definitions: readonly AnyPluginDefinition[];
}

/** A configuration file, as YAML. */
export function runConfigText(terms: RunTerms): string {
  const { directory, policyFile, learns, definitions } = terms;
  const { allow, allowIps } = terms.exceptions;
  const isFenced = policyFile !== undefined || (allow.length > 0 && !learns);
  const rules = {
    ...(policyFile === undefined ? {} : { policy_file: resolve(policyFile) }),
    ...entriesFor(allow),
  };
  const fence = isFenced ? [{ name: "egress-policy", config: rules }] : [];
  const config = {
    listener: {
      roles: ["forward"],
      ...freeAddresses(["forward", "transparent", "sessions", "health"]),
    },
    ...cooperative,
    stats: { address: free },
    pipeline: {
      inbound: { default: "deny" },
      outbound: {
        default: isFenced ? "deny" : "allow",
        plugins: [...parsersHere(definitions), ...fence],
      },
    },
    ...(allowIps.length > 0 ? { egress: { allow_ips: allowIps } } : {}),
    ...(learns ? { session: recording(directory) } : {}),
    tls_bridge: {
      mode: "enabled",
      ca_dir: join(directory, "ca"),
      generate_ca: true,
      // Where nothing is fenced, a client with pinned certificates loses nothing by going on unseen.
      on_failure: isFenced ? "refuse" : "tunnel",
    },
    reload: { enabled: false },
    log: { level: "info" },
  };
  // JSON is YAML; an escaped dollar sign is none that the loader would expand.
  return JSON.stringify(config).replaceAll("$", "\\u0024");
}

/** One entry for all that is allowed besides; empty where there is nothing. */
function entriesFor(allow: readonly string[]): { readonly network_policies?: object } {
  if (allow.length === 0) return {};
  const endpoints = allow.flatMap((place) => {
    const [, host = "", port] = /^(.+?)(?::(\d+))?$/.exec(place) ?? [];
    const name = host.replace(/^\[|\]$/g, "");
    return (port === undefined ? [80, 443] : [Number(port)]).map((one) => {
      // As requests, so that it also holds for a host whose requests the policy judges.
      const terms = { protocol: "rest", enforcement: "enforce", access: "full" };
      return { host: name, port: one, ...terms };
    });
  });
  return { network_policies: { run_allow: { endpoints } } };
}

/** A file with what one run is allowed besides, or why it cannot be. */
export function withExceptions(config: Config, { allow, allowIps }: Exceptions): Config | string {
  const { outbound } = config.pipeline;
  const isFenced = outbound.plugins.some(({ name }) => name === "egress-policy");
  if (allow.length > 0 && !isFenced)
    return "--allow adds to the rules of egress-policy, and the outbound pipeline of the file has none";
  const added = entriesFor(allow).network_policies ?? {};
  const plugins = outbound.plugins.map((plugin) => {
    if (plugin.name !== "egress-policy") return plugin;
    const own = plugin.config?.["network_policies"] ?? {};
    const rules = { network_policies: { ...own, ...added } };
    return { ...plugin, config: { ...plugin.config, ...rules } };
  });
  return {
    ...config,
    egress: { ...config.egress, allow_ips: [...config.egress.allow_ips, ...allowIps] },
    pipeline: {
      ...config.pipeline,
      outbound: { ...outbound, plugins: allow.length > 0 ? plugins : outbound.plugins },
    },
  };
}

function parsersHere(definitions: readonly AnyPluginDefinition[]): readonly string[] {
  return parsers.filter((name) =>
    definitions.some((known) => known.name === name && known.unavailable === undefined),
  );
}

/** The file of events that a policy is learned from. */
export function eventFile(directory: string): string {
  return join(directory, "events.jsonl");
}

/** What learning needs to know of each message. */
function recording(directory: string) {
  const file = { path: eventFile(directory), max_file: "1GiB", max_files: 1 };
  return { enabled: true, executables: true, max_body: "256KiB", persist: file } as const;
}

/** These judge, and change nothing: while a policy is learned they only say what they would have done. */
const judges: ReadonlySet<string> = new Set([
  "egress-policy",
  "tool-policy",
  "ibac",
  "opa",
  "budgets",
]);

/** The same file, letting everything pass that the guard of addresses lets pass, and opening what it can. */
export function learningConfig(
  config: Config,
  directory: string,
  definitions: readonly AnyPluginDefinition[],
): Config {
  const { outbound } = config.pipeline;
  const missing = parsersHere(definitions).filter((name) =>
    outbound.plugins.every((plugin) => plugin.name !== name),
  );
  const plugins = outbound.plugins.map((plugin) =>
    judges.has(plugin.name) && plugin.on_error === "enforce"
      ? { ...plugin, on_error: "observe" as const }
      : plugin,
  );
  const parsing = missing.map((name) => {
    return { name, on_error: "enforce" as const, allow_weakened_auth: false };
  });
  const authority = { ca: "file", ca_dir: join(directory, "ca"), generate_ca: true } as const;
  return {
    ...config,
    session: { ...config.session, ...recording(directory) },
    tls_bridge: { ...config.tls_bridge, mode: "enabled", on_failure: "tunnel", ...authority },
    pipeline: {
      ...config.pipeline,
      outbound: { ...outbound, default: "allow", plugins: [...parsing, ...plugins] },
    },
  };
}

/** An operator's file, with its forward proxy only, on free ports and with an authority that goes with the process. */
export function runConfigOf(loaded: LoadedConfig, directory: string): Config {
  const config = onFreePorts(loaded);
  const {
    reverse_proxy_addr: _address,
    reverse_proxy_backend: _backend,
    forward_proxy_tls: _tls,
    ...listener
  } = config.listener;
  const bridge = config.tls_bridge;
  const authority = { ca: "file", ca_dir: join(directory, "ca"), generate_ca: true } as const;
  return {
    ...config,
    ...cooperative,
    listener: { ...listener, roles: ["forward"] },
    tls_bridge: bridge.mode === "enabled" ? { ...bridge, ...authority } : bridge,
  };
}
