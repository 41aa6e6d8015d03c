/** The file of `run -- COMMAND`: a forward proxy on free loopback ports, with an authority of its own. */
import { join, resolve } from "node:path";
import type { LoadedConfig } from "../config/load.ts";
import type { Config } from "../config/presets.ts";
import type { AnyPluginDefinition } from "../pipeline/plugin.ts";
import { free, freeAddresses, onFreePorts } from "./own-file.ts";

/** These record what is asked of models, tools and agents, and refuse nothing. */
const parsers = ["inference-parser", "mcp-parser", "a2a-parser"] as const;

/** What a proxy is to a command that finds it in its environment; the command line says so, no warning is needed. */
const cooperative = { egress_enforcement: "none", acknowledge_cooperative_mode: true } as const;

/** What the command is held to when it is not an operator's own file. */
export interface RunTerms {
  /** The directory of the authority; it goes with the process. */
  readonly directory: string;
  /** A policy file, absolute; without one nothing is refused but what the address guard refuses. */
  readonly policyFile: string | undefined;
  /** The plugins of this build. */
  readonly definitions: readonly AnyPluginDefinition[];
}

/** A configuration file, as YAML. */
export function runConfigText({ directory, policyFile, definitions }: RunTerms): string {
  const isHere = (name: string): boolean =>
    definitions.some((known) => known.name === name && known.unavailable === undefined);
  const fence =
    policyFile === undefined
      ? []
      : [{ name: "egress-policy", config: { policy_file: resolve(policyFile) } }];
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
        default: policyFile === undefined ? "allow" : "deny",
        plugins: [...parsers.filter(isHere), ...fence],
      },
    },
    tls_bridge: {
      mode: "enabled",
      ca_dir: join(directory, "ca"),
      generate_ca: true,
      // Where nothing is fenced, a client with pinned certificates loses nothing by going on unseen.
      on_failure: policyFile === undefined ? "tunnel" : "refuse",
    },
    reload: { enabled: false },
    log: { level: "info" },
  };
  // JSON is YAML; an escaped dollar sign is none that the loader would expand.
  return JSON.stringify(config).replaceAll("$", "\\u0024");
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
